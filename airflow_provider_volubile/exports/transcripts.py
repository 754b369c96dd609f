"""Transcripts of calls: a table of events and, on request, one of texts. Late ones are waited for."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileIncompleteExport,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileUnavailable,
)
from airflow_provider_volubile.exports.columns import TRANSCRIPT_TEXTS, TRANSCRIPTS, Transcript
from airflow_provider_volubile.exports.days import folder_of
from airflow_provider_volubile.exports.export_report import ExportReport
from airflow_provider_volubile.exports.fetching import FAILURES_IN_A_ROW, fetch_all
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.formats import FileFormat
from airflow_provider_volubile.exports.spool import Spool
from airflow_provider_volubile.waiting.find_calls import CallRef

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import TranscriptEvent

log = logging.getLogger(__name__)

# Late transcripts are asked for with so many requests, once per rate window: half of it stays for others.
REQUESTS_FOR_LATE = 50
PAUSE = 15.0  # seconds


class Absent(NamedTuple):
    """There is no transcript, or none yet.

    :param ref: its call, as it is now.
    """

    ref: CallRef


Answer: TypeAlias = "Sequence[TranscriptEvent] | Absent | VolubileError"


def export_transcripts(
    client: VolubileClient,
    export: Export,
    refs: Iterable[CallRef],
    *,
    zone: ZoneInfo,
    file_format: FileFormat,
    texts: bool,
    patience: float,
) -> ExportReport:
    """Write ``date=YYYY-MM-DD/transcripts-<key>`` and ``transcript_texts-<key>``, by the day of the first event.

    Calls that by their status have no transcript are not asked for. A call that failed, although an earlier run had it,
    leaves everything as it was: new files would be without it.

    :param refs: the calls.
    :param texts: also write one text per call.
    :param patience: seconds to wait for transcripts that are not there at first.
    :raises VolubileIncompleteExport: such a call failed.
    :raises VolubileError: the service is down, the credentials are refused, or the store refused.
    """
    report = ExportReport(export)
    with Spool() as events, Spool() as spoken:
        for ref, answer in _read_all(client, _expected(refs, report), patience):
            if isinstance(answer, Absent):
                _add_absent(answer.ref, report, patience)
            elif isinstance(answer, VolubileError):
                report.add_error(ref, answer)
            else:
                transcript = Transcript(ref.call_id, answer)
                folder = folder_of(transcript.started, zone)
                at = transcript.started.isoformat() if transcript.started else ""
                try:
                    events.put(folder, at, ref.call_id, [TRANSCRIPTS.row(line) for line in transcript.lines])
                except ValueError as error:
                    report.add_missing(ref, f"cannot be rows: {error}")
                    continue
                if texts:
                    spoken.put(folder, at, ref.call_id, [TRANSCRIPT_TEXTS.row(transcript)])
                report.written += 1
        if report.lost:
            raise VolubileIncompleteExport(
                f"transcripts: {report}. The files of an earlier run have {report.lost} of the calls that failed now. "
                f"So these files and {export.manifest} are left as they are, and a retry asks again. To write the "
                "others without those that fail, remove that manifest."
            )
        for spool, table in ((events, TRANSCRIPTS), (spoken, TRANSCRIPT_TEXTS)):
            for folder in sorted(spool.counts):
                export.write_rows(f"{folder}/{table.name}", spool.rows(folder), table, file_format)
    return report


def _expected(refs: Iterable[CallRef], report: ExportReport) -> Iterator[CallRef]:
    for ref in refs:
        report.calls += 1
        if ref.expects_transcript:
            yield ref
        else:
            _add_absent(ref, report, 0)


def _add_absent(ref: CallRef, report: ExportReport, patience: float) -> None:
    if not ref.expects_transcript:
        report.add_none(ref, f"{ref.status}: nobody was heard")
    elif ref.has_ended:
        report.add_missing(ref, f"{ref.status}: no transcript after {patience:g} s")
    else:
        report.add_missing(ref, f"{ref.status or 'no status'}: has not ended")


def _read_all(client: VolubileClient, refs: Iterable[CallRef], patience: float) -> Iterator[tuple[CallRef, Answer]]:
    """Ask for every transcript, then again and again for those that are late or could not be had."""
    late: deque[tuple[CallRef, Answer]] = deque()

    def ask(batch: Iterable[CallRef], failures_in_a_row: float) -> Iterator[tuple[CallRef, Answer]]:
        for ref, answer in fetch_all(partial(_read, client), batch, failures_in_a_row=failures_in_a_row):
            if isinstance(answer, Absent) and answer.ref.expects_transcript:
                late.append((answer.ref, answer))
            elif isinstance(answer, VolubileUnavailable | VolubileRateLimitError):
                late.append((ref, answer))
            else:
                yield ref, answer

    yield from ask(refs, FAILURES_IN_A_ROW)
    deadline = time.monotonic() + patience
    # In a long queue the last may be asked for once only until the deadline. Each is asked for a second time.
    asked_once = len(late) if patience > 0 else 0
    while late and ((left := deadline - time.monotonic()) > 0 or asked_once > 0):
        if left > 0:
            log.info("%d transcripts are not there yet; waiting for up to %.0f s more", len(late), left)
            time.sleep(min(PAUSE, left))
        again: list[CallRef] = []
        requests = 0
        while late and requests < REQUESTS_FOR_LATE:
            again.append(late.popleft()[0])
            requests += 1 if again[-1].has_ended else 2  # its call is read, too
        asked_once -= len(again)
        # Those that could not be had stand side by side here, which says nothing of the service.
        yield from ask(again, math.inf)
    yield from late


def _read(client: VolubileClient, ref: CallRef) -> Sequence[TranscriptEvent] | Absent:
    """A transcript, or what is known of a call that has none. An empty one counts as not there yet.

    Whether there may be a part of one while the call goes on is not documented: only its end makes it whole.
    """

    def read_events() -> Sequence[TranscriptEvent]:
        try:
            return client.get_transcript(ref.call_id)
        except VolubileNotFound:
            return ()

    events = read_events()
    if events and (ref.has_ended or wire.is_whole_transcript(event.action for event in events)):
        return events
    if not ref.has_ended:
        ref = CallRef.of(client.get_call(ref.call_id))
        if events and ref.has_ended:
            events = read_events()
    return events if events and ref.has_ended else Absent(ref)
