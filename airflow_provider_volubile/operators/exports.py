"""Results as files: calls, transcripts and recordings, in any store Airflow knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict

from airflow.sdk import Context, XComArg

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.tasks import check_number, fail_without_retry

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Agent
    from airflow_provider_volubile.exports.export_report import ExportReport
    from airflow_provider_volubile.exports.formats import FileFormat

Calls: TypeAlias = SubmissionHandle | Sequence[SubmissionHandle] | Sequence[str] | str | XComArg

MOST_LOOKBACK = 10 * 365 * 24  # hours


class CallsExport(TypedDict):
    """What :class:`VolubileExportCallsOperator` returns.

    :ivar output_path: the folder of the table.
    :ivar files: the days' files that were written.
    :ivar manifests: one for each.
    :ivar counts: ``calls`` written, and those ``missing`` because they have not ended.
    :ivar interval: from when to when calls were asked for, ISO 8601.
    """

    output_path: str
    files: list[str]
    manifests: list[str]
    counts: dict[str, int]
    interval: list[str]


class PerCallExport(TypedDict):
    """What the exports of transcripts and recordings return.

    :ivar output_path: the folder.
    :ivar files: the files that were written.
    :ivar manifest: what is there, what is missing and why.
    :ivar counts: ``calls`` asked for; of these ``written``, those that have ``none``, ``missing`` and ``failed``.
    """

    output_path: str
    files: list[str]
    manifest: str
    counts: dict[str, int]


class VolubileExportCallsOperator(VolubileOperator):
    """Export calls to a table with one file per day, ``date=YYYY-MM-DD/calls.<suffix>``.

    A run writes every day that has a part in the interval, or in the ``lookback`` before it, anew: each with all its
    calls that ended, up to the interval's end. So files never overlap, a call is in one of them once, late changes
    are caught up with, and a second run makes the same files. See :doc:`/howto/exports`.

    A call belongs to the day of its ``created``; where that is missing, of its ``startTime``, else of its ``endTime``.
    Numbers are written in clear: they are the data. Returns a :class:`CallsExport`.

    API facts: `List calls <https://docs.volubile.ai/api-reference/calls/list>`__.

    :param output_path: the folder of the table; one for each selection of calls.
    :param agent_id: only calls of this agent, which must exist.
    :param campaign: only calls of the campaign of this name.
    :param interval_start: a moment, aware, or its ISO text. By default the run's data interval, begun earlier where
        days would be left out (a Dag that was paused, a call that takes days).
    :param interval_end: likewise; not in the future.
    :param lookback: how far before the interval to go over calls again: a timedelta, or hours.
    :param timezone: IANA zone whose days the files are of.
    :param file_format: ``jsonl`` (gzip), ``parquet`` or ``csv``.
    :param flatten: make columns of extracted data: True for those that the configuration of ``agent_id`` names, or
        ``{"extracted": ["visit.day"], "classification": ["outcome"]}``. Text of either is taken too, as a template
        renders it. Never made up from the data.
    """

    template_fields = (
        "output_path",
        "agent_id",
        "campaign",
        "interval_start",
        "interval_end",
        "timezone",
        "file_format",
        "flatten",
        "volubile_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"flatten": "json"}

    def __init__(
        self,
        *,
        output_path: str | ObjectStoragePath,
        agent_id: str | None = None,
        campaign: str | None = None,
        interval_start: datetime | str | None = None,
        interval_end: datetime | str | None = None,
        lookback: timedelta | float = timedelta(days=1),
        timezone: str = "UTC",
        file_format: FileFormat = "jsonl",
        flatten: bool | Mapping[str, Collection[str]] | str | None = None,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(volubile_conn_id=volubile_conn_id, **kwargs)
        self.output_path = output_path
        self.agent_id = agent_id
        self.campaign = campaign
        self.interval_start = interval_start
        self.interval_end = interval_end
        self.lookback = lookback
        self.timezone = timezone
        self.file_format = file_format
        self.flatten = flatten

    @fail_without_retry()
    def execute(self, context: Context) -> CallsExport:
        from airflow_provider_volubile.exports.calls import (
            CallsTable,
            advance_watermark,
            export_calls,
            read_watermark,
        )
        from airflow_provider_volubile.exports.columns import CALLS
        from airflow_provider_volubile.exports.days import begin_of_run, iso, read_zone
        from airflow_provider_volubile.exports.flatten import flat_columns
        from airflow_provider_volubile.exports.formats import check_format
        from airflow_provider_volubile.exports.store import open_path

        check_format(self.file_format)
        folder, zone, lookback = open_path(self.output_path), read_zone(self.timezone), self._lookback()
        begin, end = self._interval(context)
        client = self.hook.client()
        columns = CALLS.with_columns(flat_columns(self.flatten, self._agent(client)))
        table = CallsTable(folder, self.agent_id, self.campaign, zone, self.file_format, columns)
        by_schedule = self.interval_start is None
        watermark = read_watermark(table)
        begin = begin_of_run(begin, lookback, watermark if by_schedule else None)
        self.log.info("Exporting the days from %s to %s to %s", iso(begin), iso(end), folder)
        written = export_calls(client, table, begin, end)
        advance_watermark(table, end if by_schedule else None, written.open_since)
        _announce(folder)
        return CallsExport(
            output_path=str(folder),
            files=written.files,
            manifests=written.manifests,
            counts=written.counts,
            interval=[iso(begin), iso(end)],
        )

    def _interval(self, context: Context) -> tuple[datetime, datetime]:
        from airflow_provider_volubile.exports.days import check_interval, read_moment

        if (self.interval_start is None) != (self.interval_end is None):
            raise VolubileInputError("interval_start and interval_end must be given together.")
        if self.interval_start is not None:
            begin = read_moment("interval_start", self.interval_start)
            end = read_moment("interval_end", self.interval_end)
        else:
            # A run that was not scheduled by time has no data interval.
            now = context["dag_run"].run_after
            begin = context.get("data_interval_start") or now
            end = context.get("data_interval_end") or now
        check_interval(begin, end, datetime.now(UTC))
        return begin, end

    def _lookback(self) -> timedelta:
        hours = self.lookback / timedelta(hours=1) if isinstance(self.lookback, timedelta) else self.lookback
        check_number("lookback in hours", hours, MOST_LOOKBACK)
        return timedelta(hours=hours)

    def _agent(self, client: VolubileClient) -> Agent | None:
        """Look the agent up: the service lists no calls of an agent it does not know, and says nothing."""
        if self.agent_id is None:
            return None
        try:
            return client.get_agent(self.agent_id)
        except VolubileNotFound as error:
            raise VolubileInputError(
                f"agent_id is {self.agent_id!r}, and there is no such agent in the account of {self.volubile_conn_id}."
            ) from error


class _PerCallExportOperator(VolubileOperator):
    """Export of something that each call has or has not. Parameters are those of its subclasses."""

    #: What is exported, as messages and manifests call it.
    what: ClassVar[str]
    template_fields: Sequence[str] = ("calls", "output_path", "timezone", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"calls": "json"}

    def __init__(
        self,
        *,
        calls: Calls,
        output_path: str | ObjectStoragePath,
        timezone: str = "UTC",
        max_missing: int | None = None,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(volubile_conn_id=volubile_conn_id, **kwargs)
        self.calls = calls
        self.output_path = output_path
        self.timezone = timezone
        self.max_missing = max_missing

    def export(self, context: Context, export_files: Callable[..., ExportReport]) -> PerCallExport:
        """Find the calls and export what they have.

        :param export_files: takes the client, the export, the calls, and ``zone``.
        """
        from airflow_provider_volubile.calling.journal import reference
        from airflow_provider_volubile.exports.days import read_zone
        from airflow_provider_volubile.exports.files import Export
        from airflow_provider_volubile.exports.store import open_path
        from airflow_provider_volubile.waiting.find_calls import find_calls

        if self.max_missing is not None:
            check_number("max_missing", self.max_missing)
        folder, zone = open_path(self.output_path), read_zone(self.timezone)
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        task = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": map_index}
        key = reference(ti.dag_id, ti.run_id, ti.task_id, map_index)
        client = self.hook.client()
        refs = find_calls(client, self.calls, now=datetime.now(UTC))
        export = Export(folder, self.what, task | {"timezone": zone.key}, key=key)
        report = export_files(client, export, refs, zone=zone)
        manifest = export.finish(report.counts)
        level = logging.WARNING if report.missing or report.failed else logging.INFO
        self.log.log(level, "%s: %s. %s tells which calls are missing, and why.", self.what, report, manifest)
        _announce(folder)
        report.check(self.what, self.max_missing)
        return PerCallExport(output_path=str(folder), files=export.files, manifest=manifest, counts=report.counts)


class VolubileExportTranscriptsOperator(_PerCallExportOperator):
    """Export transcripts: one row per event, and on request one text per call.

    Files are ``date=YYYY-MM-DD/transcripts-<key>.<suffix>``, by the day of a call's first event; ``key`` is the same
    on every try of this task and run, so that a retry replaces. Transcripts that are not there yet are waited for.
    What was said is personal data: it goes to the files only. Returns a :class:`PerCallExport`.

    API facts: `Get transcript <https://docs.volubile.ai/api-reference/calls/get-transcript>`__.

    :param calls: the handle that a dialling operator returned, a call id, or a list of handles or ids.
    :param output_path: the folder.
    :param file_format: ``jsonl`` (gzip), ``parquet`` or ``csv``.
    :param text_per_call: also write ``transcript_texts-<key>``: what was said, one row per call.
    :param transcript_timeout: how long to wait for transcripts that are not there at first, in seconds.
    :param timezone: IANA zone whose days the ``date=`` folders are.
    :param max_missing: fail if more calls than this lack their transcript although somebody was heard. By default any
        number may, but the task fails if the service could not answer for one. What could be had is written first.
    """

    template_fields = (*_PerCallExportOperator.template_fields, "file_format")
    what = "transcripts"

    def __init__(
        self,
        *,
        calls: Calls,
        output_path: str | ObjectStoragePath,
        file_format: FileFormat = "jsonl",
        text_per_call: bool = False,
        transcript_timeout: float = 600,
        timezone: str = "UTC",
        max_missing: int | None = None,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            calls=calls,
            output_path=output_path,
            timezone=timezone,
            max_missing=max_missing,
            volubile_conn_id=volubile_conn_id,
            **kwargs,
        )
        self.file_format = file_format
        self.text_per_call = text_per_call
        self.transcript_timeout = transcript_timeout

    @fail_without_retry()
    def execute(self, context: Context) -> PerCallExport:
        from airflow_provider_volubile.exports.formats import check_format
        from airflow_provider_volubile.exports.transcripts import export_transcripts

        check_format(self.file_format)
        check_number("transcript_timeout", self.transcript_timeout)
        export_files = partial(
            export_transcripts,
            file_format=self.file_format,
            texts=self.text_per_call,
            patience=self.transcript_timeout,
        )
        return self.export(context, export_files)


class VolubileExportRecordingsOperator(_PerCallExportOperator):
    """Export the audio of calls that were recorded: one file each, ``date=YYYY-MM-DD/<call id>.<extension>``.

    Streamed to local disk, resumed when it breaks off, checked against the announced length, then put in place. A
    worker needs disk for four recordings at a time, and memory for none. Returns a :class:`PerCallExport`.

    API facts: only the route is documented (https://docs.volubile.ai/api-reference/authentication).

    :param calls: the handle that a dialling operator returned, a call id, or a list of handles or ids.
    :param output_path: the folder.
    :param timezone: IANA zone whose days the ``date=`` folders are.
    :param max_missing: fail if more calls than this were recorded but have no recording. By default any number may,
        but the task fails if the service could not answer for one. What could be had is written first.
    """

    what = "recordings"

    @fail_without_retry()
    def execute(self, context: Context) -> PerCallExport:
        from airflow_provider_volubile.exports.recording_files import export_recordings

        return self.export(context, export_recordings)


def _announce(folder: ObjectStoragePath) -> None:
    """Tell Airflow's lineage where the results are."""
    from airflow.sdk.lineage import get_hook_lineage_collector

    uri = str(folder) if "://" in str(folder) else f"file://{folder.absolute()}"
    get_hook_lineage_collector().add_output_asset(context=folder, uri=uri)
