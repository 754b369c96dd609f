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
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileUnavailable,
)
from airflow_provider_volubile.exports.days import partition
from airflow_provider_volubile.exports.export_report import Tally, VolubileIncompleteExport
from airflow_provider_volubile.exports.fetching import FAILURES_IN_A_ROW, fetch_all
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.formats import FileFormat
from airflow_provider_volubile.exports.rows import event_rows, text_row
from airflow_provider_volubile.exports.schemas import TRANSCRIPT_TEXTS, TRANSCRIPTS
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
    key: str,
    zone: ZoneInfo,
    file_format: FileFormat,
    texts: bool,
    patience: float,
) -> Tally:
    """Write ``date=YYYY-MM-DD/transcripts-<key>`` and ``transcript_texts-<key>``, by the day of the first event.

    Calls that by their status have no transcript are not asked for. A call that failed, although an earlier run had it,
    leaves everything as it was: new files would be without it.

    :param refs: the calls.
    :param key: tells this export's files from those of others in the folder.
    :param texts: also write one text per call.
    :param patience: seconds to wait for transcripts that are not there at first.
    :raises VolubileIncompleteExport: such a call failed.
    :raises VolubileError: the service is down, the credentials are refused, or the store refused.
    """
    tally = Tally(export)
    with Spool() as events, Spool() as spoken:
        for ref, answer in _read_all(client, _expected(refs, tally), patience):
            if isinstance(answer, Absent):
                _count_absent(answer.ref, tally, patience)
            elif isinstance(answer, VolubileError):
                tally.add_error(ref, answer)
            else:
                started = next((event.time for event in answer if event.time), None)
                place = ref.call_id, partition(started, zone), started.isoformat() if started else ""
                try:
                    events.put(*place, map(TRANSCRIPTS.encode, event_rows(ref.call_id, answer)))
                except ValueError as error:
                    tally.add_missing(ref, f"cannot be rows: {error}")
                    continue
                if texts:
                    spoken.put(*place, [TRANSCRIPT_TEXTS.encode(text_row(ref.call_id, answer))])
                tally.written += 1
        if tally.lost:
            raise VolubileIncompleteExport(
                f"transcripts: {tally}. The files of an earlier run have {tally.lost} of the calls that failed now. So "
                f"these files and {export.manifest} are left as they are, and a retry asks again. To write the others "
                "without those that fail, remove that manifest."
            )
        for spool, schema in ((events, TRANSCRIPTS), (spoken, TRANSCRIPT_TEXTS)):
            for part in spool.parts():
                export.write_rows(f"{part}/{schema.name}-{key}", spool.lines(part), schema, file_format)
    return tally


def _expected(refs: Iterable[CallRef], tally: Tally) -> Iterator[CallRef]:
    for ref in refs:
        tally.calls += 1
        if ref.expects_transcript:
            yield ref
        else:
            _count_absent(ref, tally, 0)


def _count_absent(ref: CallRef, tally: Tally, patience: float) -> None:
    if not ref.expects_transcript:
        tally.add_none(ref, f"{ref.status}: nobody was heard")
    elif ref.has_ended:
        tally.add_missing(ref, f"{ref.status}: no transcript after {patience:g} s")
    else:
        tally.add_missing(ref, f"{ref.status or 'no status'}: has not ended")


def _read_all(client: VolubileClient, refs: Iterable[CallRef], patience: float) -> Iterator[tuple[CallRef, Answer]]:
    """Ask for every transcript, then again and again for those that are late or could not be had."""
    late: deque[tuple[CallRef, Answer]] = deque()

    def ask(batch: Iterable[CallRef], failures_in_a_row: float = FAILURES_IN_A_ROW) -> Iterator[tuple[CallRef, Answer]]:
        for ref, answer in fetch_all(partial(_read, client), batch, failures_in_a_row=failures_in_a_row):
            if isinstance(answer, Absent) and answer.ref.expects_transcript:
                late.append((answer.ref, answer))
            elif isinstance(answer, VolubileUnavailable | VolubileRateLimitError):
                late.append((ref, answer))
            else:
                yield ref, answer

    yield from ask(refs)
    deadline = time.monotonic() + patience
    asked_once = len(late) if patience > 0 else 0

    def ask_again(most_requests: float) -> Iterator[tuple[CallRef, Answer]]:
        nonlocal asked_once
        again: list[CallRef] = []
        while late and most_requests > 0:
            again.append(late.popleft()[0])
            most_requests -= 1 if again[-1].has_ended else 2  # its call is looked at, too
        asked_once = max(asked_once - len(again), 0)
        # Those that could not be had stand side by side here, which says nothing of the service.
        yield from ask(again, failures_in_a_row=math.inf)

    while late and (left := deadline - time.monotonic()) > 0:
        log.info("%d transcripts are not there yet; waiting for up to %.0f s more", len(late), left)
        time.sleep(min(PAUSE, left))
        yield from ask_again(REQUESTS_FOR_LATE)
    while asked_once:  # they came last in a long queue, and nobody is given up without a second look
        yield from ask_again(REQUESTS_FOR_LATE)
    yield from late


def _read(client: VolubileClient, ref: CallRef) -> Sequence[TranscriptEvent] | Absent:
    """A transcript, or what is known of a call that has none. An empty one counts as not there yet.

    Whether there may be a part of one while the call goes on is not documented: only its end makes it whole.
    """
    events = _events(client, ref.call_id)
    if events and (ref.has_ended or wire.is_whole_transcript(event.action for event in events)):
        return events
    if not ref.has_ended:
        ref = CallRef.of(client.get_call(ref.call_id))
        if events and ref.has_ended:
            events = _events(client, ref.call_id)
    return events if events and ref.has_ended else Absent(ref)


def _events(client: VolubileClient, call_id: str) -> Sequence[TranscriptEvent]:
    try:
        return client.get_transcript(call_id)
    except VolubileNotFound:
        return ()
