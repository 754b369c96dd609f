"""Calls as a table with one file per day, each whole up to a moment that its manifest tells."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import VolubileIncompleteExport, VolubileInputError
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.columns import CALLS, Table
from airflow_provider_volubile.exports.days import Day, days_between, folder_of, iso, next_watermark, read_moment
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.formats import FileFormat
from airflow_provider_volubile.exports.spool import Spool
from airflow_provider_volubile.waiting.find_calls import CallRef

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallsTable:
    """A table of calls in a folder: ``date=YYYY-MM-DD/calls.<suffix>``.

    :param folder: where it is.
    :param agent_id: only calls of this agent.
    :param campaign: only calls of the campaign of this name.
    :param zone: whose days the files are of.
    :param columns: its columns, those of extracted data included.
    """

    folder: ObjectStoragePath
    agent_id: str | None
    campaign: str | None
    zone: ZoneInfo
    file_format: FileFormat
    columns: Table = CALLS

    @property
    def selection(self) -> dict[str, Any]:
        """What the table is of; another selection needs another folder."""
        return {"agent_id": self.agent_id, "campaign": self.campaign, "timezone": self.zone.key}


@dataclass(slots=True)
class CallsWritten:
    """What an export of calls wrote.

    :param counts: ``calls`` in the files, and ``missing`` ones that the manifests name with the reason.
    :param open_since: the earliest moment of a call that has not ended: the table has a gap there.
    """

    files: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"calls": 0, "missing": 0})
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
    written = CallsWritten()
    days = {day.folder: _DayFile(table, day, end) for day in days_between(begin, end, table.zone)}
    if not days:
        return written
    vanished: list[str] = []
    with Spool() as spool:
        written.open_since = _collect(client, table, days, spool)
        for name, day in days.items():
            counts = day.write(table, spool, name)
            if counts is None:
                vanished.append(str(day.export.manifest))
                continue
            written.manifests.append(str(day.export.manifest))
            written.files.extend(day.export.files)
            for what in written.counts:
                written.counts[what] += counts[what]
    if vanished:
        raise VolubileIncompleteExport(
            "The service lists none of the calls any more that an earlier run wrote for the days of "
            f"{', '.join(vanished)}; their files are left as they are. If these calls are to go from the table too, "
            "remove these manifests: then the next run writes the days anew."
        )
    return written


def _collect(client: VolubileClient, table: CallsTable, days: dict[str, _DayFile], spool: Spool) -> datetime | None:
    """List the calls of the days. Those that ended become rows.

    :return: the earliest moment of a call that has not ended.
    """
    first, latest = next(iter(days.values())), next(reversed(days.values()))
    from_date, to_date = wire.days_around(first.begin, latest.until)
    open_since: datetime | None = None
    for call in client.iter_calls(
        agent_id=table.agent_id, campaign=table.campaign, from_date=from_date, to_date=to_date
    ):
        moment = call.time
        name = folder_of(moment, table.zone)
        day = days.get(name) if moment else latest
        if day is None or (moment and moment >= day.until):
            continue
        missing = day.export.missing
        if moment is None:
            missing[call.id] = f"{call.status or 'no status'}: has no time"
        elif not CallRef.of(call).has_ended:
            open_since = min(moment, open_since or moment)
            missing[call.id] = f"{call.status or 'no status'}: has not ended"
        else:
            try:
                spool.put(name, moment.isoformat(), call.id, [table.columns.row(call)])
            except ValueError as error:
                missing[call.id] = f"cannot be a row: {error}"
    return open_since


class _DayFile:
    """One day's file in the making.

    :param end: calls before it are to be there.
    """

    def __init__(self, table: CallsTable, day: Day, end: datetime) -> None:
        self.begin = day.begin
        self.export = Export(table.folder / day.folder, "calls", table.selection)
        reached, _ = self._earlier()
        self.until = min(max(end, reached or end), day.end)

    def _earlier(self) -> tuple[datetime | None, int]:
        """How far the file goes that another run wrote, and how many calls it has."""
        until = self.export.earlier.get("until")
        calls = self.export.earlier.get("counts", {}).get("calls", 0)
        return datetime.fromisoformat(until) if until else None, int(calls)

    def write(self, table: CallsTable, spool: Spool, name: str) -> Mapping[str, int] | None:
        """Write the file, unless another run has come further meanwhile.

        :return: the counts of the file; None when the calls of an earlier run are no longer listed, and its file stays.
        """
        export, calls = self.export, spool.counts[name]
        before = export.earlier
        export.read_earlier()
        reached, earlier_calls = self._earlier()
        if reached and export.earlier != before and (reached, earlier_calls) > (self.until, calls):
            log.warning("%s: another run has come further meanwhile; its file stays", export.folder)
            export.keep()
            counts: Mapping[str, int] = export.earlier["counts"]
            return counts
        if earlier_calls > calls:
            log.warning("%s: %d calls, and %d in an earlier run", export.folder, calls, earlier_calls)
            if not calls:
                return None
        counts = {"calls": calls, "missing": len(export.missing)}
        export.write_rows("calls", spool.rows(name), table.columns, table.file_format)
        export.finish(counts, until=iso(self.until))
        log.info("%s: %d calls; %d that have not ended", export.folder, calls, counts["missing"])
        return counts


def read_watermark(table: CallsTable) -> datetime | None:
    """How far a table reaches without a gap (:func:`~.days.next_watermark`); kept beside it, with its selection.

    :raises VolubileInputError: the table in this folder is of something else.
    """
    path = _watermark_path(table)
    known = store.read_json(path)
    if not isinstance(known, Mapping) or "selection" not in known:
        return None
    if known["selection"] != table.selection:
        raise VolubileInputError(
            f"{path} belongs to another table, of {known['selection']}; this one is of "
            f"{table.selection}. Give each its own output_path, or remove the old one whole."
        )
    return read_moment(str(path), known["watermark"]) if known.get("watermark") else None


def advance_watermark(table: CallsTable, end: datetime | None, open_since: datetime | None = None) -> None:
    """Note how far a table reaches after a run, and what it is of.

    :param end: where the interval of a run on schedule ended; None leaves the watermark where it is.
    :param open_since: the earliest moment of a call that has not ended.
    """
    reached = read_watermark(table)  # another run may have come further meanwhile
    if end:
        reached = next_watermark(end, open_since, reached)
    content = {"watermark": iso(reached) if reached else None, "selection": table.selection}
    if store.read_json(path := _watermark_path(table)) != content:
        store.write_json(content, path)


def _watermark_path(table: CallsTable) -> ObjectStoragePath:
    return table.folder / "_calls.watermark.json"
