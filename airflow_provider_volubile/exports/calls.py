"""Calls as a table with one file per day, each whole up to a moment that its manifest tells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.days import days_between, iso, midnight, partition, read_moment
from airflow_provider_volubile.exports.export_report import VolubileIncompleteExport
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.formats import FileFormat
from airflow_provider_volubile.exports.rows import FlatColumns, call_row
from airflow_provider_volubile.exports.schemas import CALLS
from airflow_provider_volubile.exports.spool import Spool
from airflow_provider_volubile.waiting.find_calls import CallRef, time_of

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)

# A call that never ends must not have the whole table written anew every night.
LONGEST_CALL = timedelta(days=31)


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
    """What an export of calls wrote.

    :param counts: ``calls`` in the files, and ``missing`` ones that the manifests name with the reason.
    :param open_since: the earliest moment of a call that has not ended: the table has a gap there.
    """

    files: list[str]
    manifests: list[str]
    counts: dict[str, int]
    open_since: datetime | None = None


def export_calls(client: VolubileClient, table: CallsTable, begin: datetime, end: datetime) -> CallsWritten:
    """Write the days that have a part in ``[begin, end)`` anew, each with all its calls before ``end``.

    A day never shrinks: if an earlier run already wrote calls after ``end``, the day is written up to where that run
    came; if another run comes further meanwhile, its file stays. Only calls that ended are rows, so that a row does not
    change from one day to the next; others are named in the manifest, and a later run that goes over the day again has
    them.

    :raises VolubileIncompleteExport: none of a day's calls are listed any more. The other days are written.
    :raises VolubileError: the calls could not be listed, or the store refused. Days are written one by one.
    """
    result = CallsWritten([], [], {"calls": 0, "missing": 0})
    open_since: datetime | None = None
    vanished: list[str] = []
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
            if moment is None or not CallRef.of(call).has_ended:
                if moment:
                    open_since = min(moment, open_since or moment)
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
            counts = {"calls": spool.count(part), "missing": len(export.missing)}
            if day.is_overtaken(counts["calls"]):
                log.warning("%s: another run has come further meanwhile; its file stays", export.folder)
                export.keep()
                counts = export.earlier["counts"]
            else:
                if day.earlier_calls > counts["calls"]:
                    log.warning(
                        "%s: %d calls, and %d in an earlier run", export.folder, counts["calls"], day.earlier_calls
                    )
                    if not counts["calls"]:
                        vanished.append(str(export.manifest))
                        continue
                export.write_rows("calls", spool.lines(part), schema, table.file_format)
                export.finish(counts, until=iso(day.until))
                log.info("%s: %d calls; %d that have not ended", export.folder, counts["calls"], counts["missing"])
            result.manifests.append(str(export.manifest))
            result.files.extend(export.files)
            for name in result.counts:
                result.counts[name] += counts[name]
    if vanished:
        raise VolubileIncompleteExport(
            "The service lists none of the calls any more that an earlier run wrote for the days of "
            f"{', '.join(vanished)}; their files are left as they are. If these calls are to go from the table too, "
            "remove these manifests: then the next run writes the days anew."
        )
    return replace(result, open_since=open_since)


class _Day:
    """One day's file in the making.

    :param end: calls before it are to be there.
    """

    def __init__(self, table: CallsTable, day: date, end: datetime) -> None:
        self.begin = midnight(day, table.zone)
        self.export = Export(table.folder / partition(self.begin, table.zone), "calls", table.selection)
        self.until = min(max(end, self._reached or end), midnight(day + timedelta(days=1), table.zone))

    @property
    def _reached(self) -> datetime | None:
        """How far the file goes that another run wrote."""
        until = self.export.earlier.get("until")
        return datetime.fromisoformat(until) if until else None

    @property
    def earlier_calls(self) -> int:
        """How many calls the file has that another run wrote."""
        return int(self.export.earlier.get("counts", {}).get("calls", 0))

    def is_overtaken(self, calls: int) -> bool:
        """Look whether a run that came meanwhile has the day further than this one, which has so many calls."""
        before = self.export.earlier
        self.export.look()
        if self._reached is None or self.export.earlier == before:
            return False
        return (self._reached, self.earlier_calls) > (self.until, calls)

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


class Watermark:
    """What a table of calls is of, and how far it is without a gap; kept beside it.

    :param selection: what the table is of.
    :raises VolubileInputError: the table in this folder is of something else.
    """

    def __init__(self, folder: ObjectStoragePath, selection: Mapping[str, Any]) -> None:
        self._path = folder / "_calls.watermark.json"
        self._selection = dict(selection)
        self.reached: datetime | None = None
        self._known = self._read()

    def advance(self, end: datetime | None, open_since: datetime | None = None) -> None:
        """Note that the table reaches ``end``, but for what comes after ``open_since``; never back.

        :param end: None leaves the watermark where it is, and notes the selection alone.
        :param open_since: the earliest moment of a call that has not ended.
        """
        self._known = self._read()  # another run may have come further meanwhile
        reached = self.reached
        if end:
            end = max(min(end, open_since or end), end - LONGEST_CALL)
            reached = max(end, reached or end)
        if not self._known or reached != self.reached:
            self.reached = reached
            store.write_json({"watermark": iso(reached) if reached else None, "selection": self._selection}, self._path)

    def _read(self) -> bool:
        known = store.read_json(self._path)
        if not isinstance(known, Mapping) or "selection" not in known:
            return False
        if known["selection"] != self._selection:
            raise VolubileInputError(
                f"{self._path} belongs to another table, of {known['selection']}; this one is of "
                f"{self._selection}. Give each its own output_path, or remove the old one whole."
            )
        self.reached = read_moment(str(self._path), known["watermark"]) if known.get("watermark") else None
        return True
