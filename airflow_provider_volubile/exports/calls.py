"""Calls as a table with one file per day, each whole up to a moment that its manifest tells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.days import days_between, iso, midnight, partition, read_moment
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.formats import FileFormat
from airflow_provider_volubile.exports.rows import FlatColumns, call_row
from airflow_provider_volubile.exports.schemas import CALLS
from airflow_provider_volubile.exports.spool import Spool
from airflow_provider_volubile.lookup import time_of

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallsTable:
    """A table of calls in a folder: ``date=YYYY-MM-DD/calls.<suffix>``.

    :param folder: where it is.
    :param agent_id: only calls of this agent.
    :param campaign: only calls of the campaign of this name.
    :param zone: whose days the files are of.
    :param flat: columns made of extracted data.
    """

    folder: ObjectStoragePath
    agent_id: str | None
    campaign: str | None
    zone: ZoneInfo
    file_format: FileFormat
    flat: FlatColumns

    @property
    def selection(self) -> dict[str, Any]:
        """What the table is of; another selection needs another folder."""
        return {"agent_id": self.agent_id, "campaign": self.campaign, "timezone": self.zone.key}


@dataclass(frozen=True, slots=True)
class CallsWritten:
    """:param counts: ``calls`` in the files, and ``missing`` ones that the manifests name with the reason."""

    files: list[str]
    manifests: list[str]
    counts: dict[str, int]


def export_calls(client: VolubileClient, table: CallsTable, begin: datetime, end: datetime) -> CallsWritten:
    """Write the days that have a part in ``[begin, end)`` anew, each with all its calls before ``end``.

    A day never shrinks: if an earlier run already wrote calls after ``end``, the day is written up to where that run
    came. Only calls that ended are rows, so that a row does not change from one day to the next; others are named in
    the manifest, and a later run that goes over the day again has them.

    :raises VolubileError: the calls could not be listed, or the store refused. Days are written one by one.
    """
    result = CallsWritten([], [], {"calls": 0, "missing": 0})
    schema = CALLS.with_columns(table.flat.columns())
    with ExitStack() as stack:
        days = {
            partition(midnight(day, table.zone), table.zone): stack.enter_context(_Day(table, day, end))
            for day in days_between(begin, end, table.zone)
        }
        if not days:
            return result
        spool = stack.enter_context(Spool())
        *_, latest = days.values()
        for call in _listed(client, table, next(iter(days.values())).begin, latest.until):
            moment = time_of(call)
            day = latest if moment is None else days.get(partition(moment, table.zone))
            if day is None or (moment and moment >= day.until):
                continue
            if moment is None or not _has_ended(call):
                day.export.miss(call.id, f"{call.status or 'no status'}: has {'not ended' if moment else 'no time'}")
                continue
            try:
                line = schema.encode({**call_row(call), **table.flat.values(call)})
            except ValueError as error:
                day.export.miss(call.id, f"cannot be a row: {error}")
            else:
                spool.put(call.id, partition(moment, table.zone), moment.isoformat(), [line])
        for part, day in days.items():
            export = day.export
            rows = export.write_rows("calls", spool.lines(part), schema, table.file_format)
            counts = {"calls": rows, "missing": len(export.missing)}
            result.manifests.append(export.finish(counts, until=iso(day.until)))
            result.files.extend(export.files)
            for name, count in counts.items():
                result.counts[name] += count
            log.info("%s: %d calls; %d that have not ended", export.folder, rows, len(export.missing))
    return result


class _Day:
    """One day's file in the making.

    :param end: calls before it are to be there.
    """

    def __init__(self, table: CallsTable, day: date, end: datetime) -> None:
        self.begin = midnight(day, table.zone)
        self.export = Export(table.folder / partition(self.begin, table.zone), "calls", table.selection)
        earlier = self.export.earlier.get("until")
        reached = datetime.fromisoformat(earlier) if earlier else end
        self.until = min(max(end, reached), midnight(day + timedelta(days=1), table.zone))

    def __enter__(self) -> _Day:
        return self

    def __exit__(self, *error: object) -> None:
        self.export.close()


def _listed(client: VolubileClient, table: CallsTable, begin: datetime, end: datetime) -> Iterator[Call]:
    from_date, to_date = wire.days_around(begin, end)
    return client.iter_calls(
        agent_id=table.agent_id,
        campaign=table.campaign,
        from_date=from_date,
        to_date=to_date,
    )


def _has_ended(call: Call) -> bool:
    """Whether a call is over. A status that came later than this package is, when the call has an end."""
    return call.is_final or (call.status not in wire.CALL_STATUSES and call.end_time is not None)


class Watermark:
    """How far a table of calls is without a gap; kept beside it.

    :param selection: what the table is of.
    """

    def __init__(self, folder: ObjectStoragePath, selection: Mapping[str, Any]) -> None:
        self._path = folder / "_calls.watermark.json"
        self._selection = dict(selection)
        known = store.read_json(self._path) or {}
        self.reached: datetime | None = None
        if known.get("selection") == self._selection:
            self.reached = read_moment(str(self._path), known.get("watermark"))

    def advance(self, end: datetime) -> None:
        """Note that the table reaches ``end``; never back."""
        if self.reached is None or end > self.reached:
            store.write_json({"watermark": iso(end), "selection": self._selection}, self._path)
