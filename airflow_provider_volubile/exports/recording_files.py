"""Recordings of calls: one file each, streamed to disk, resumed when they break off."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileStoreError,
    VolubileUnavailable,
)
from airflow_provider_volubile.exports.days import folder_of
from airflow_provider_volubile.exports.export_report import ExportReport
from airflow_provider_volubile.exports.fetching import fetch_all
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.waiting.find_calls import CallRef

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)

# Each download takes its length on local disk, and all share the network.
AT_A_TIME = 4
# A recording that breaks off so often without getting further than before is given up.
FRUITLESS_ATTEMPTS = 3

EXTENSIONS = {
    "audio/aac": ".aac",
    "audio/flac": ".flac",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/vnd.wave": ".wav",
    "audio/wav": ".wav",
    "audio/wave": ".wav",
    "audio/webm": ".webm",
    "audio/x-flac": ".flac",
    "audio/x-m4a": ".m4a",
    "audio/x-wav": ".wav",
}


class Download(NamedTuple):
    """A recording on local disk.

    :param ref: its call, as it is now.
    """

    ref: CallRef
    path: Path
    content_type: str


def export_recordings(
    client: VolubileClient, export: Export, refs: Iterable[CallRef], *, zone: ZoneInfo
) -> ExportReport:
    """Write ``date=YYYY-MM-DD/<call id>.<extension>`` for every call that was recorded, by the day of the call.

    :param refs: the calls. Those whose status is not known are looked up first.
    :raises VolubileError: the service is down, the credentials are refused, or the store refused. The manifest lists
        what was written by then.
    """
    report = ExportReport(export)
    pending = {ref.call_id: ref for ref in refs}
    report.calls = len(pending)
    # A download may still be writing when an error has ended the export.
    with TemporaryDirectory(prefix="volubile-export-", ignore_cleanup_errors=True) as folder:
        try:
            for ref, answer in fetch_all(
                partial(_fetch, client, Path(folder)), list(pending.values()), workers=AT_A_TIME
            ):
                if isinstance(answer, VolubileError):
                    report.add_error(ref, answer)
                elif isinstance(answer, CallRef):
                    _add_unrecorded(answer, report)
                else:
                    path = f"{folder_of(answer.ref.at, zone)}/{answer.path.name}{_extension(answer.content_type)}"
                    export.add_file(path, answer.path, call_id=ref.call_id, content_type=answer.content_type)
                    answer.path.unlink()
                    report.written += 1
                del pending[ref.call_id]
        except Exception as error:
            if report.written:  # and is in the store, where every file must be listed in a manifest
                reason = error if isinstance(error, VolubileError) else type(error).__name__
                for ref in pending.values():
                    report.add_error(ref, VolubileUnavailable(f"the export ended before it: {reason}"))
                with suppress(VolubileStoreError):
                    export.finish(report.counts)
            raise
    return report


def _fetch(client: VolubileClient, folder: Path, ref: CallRef) -> Download | CallRef:
    """Download a recording; where there is none, return the call as it is now."""
    if ref.status is None:
        ref = CallRef.of(client.get_call(ref.call_id))
    if not _is_recorded(ref):
        return ref
    try:
        return download(client, ref, folder)
    except VolubileUnavailable as error:
        client.get_call(ref.call_id)  # is the service down, or is it this recording alone?
        raise _given_up(error) from error


def _is_recorded(ref: CallRef) -> bool:
    """Whether there is a whole recording: while a call goes on, there may be a part of one."""
    return bool(ref.recorded and ref.has_ended)


def _add_unrecorded(ref: CallRef, report: ExportReport) -> None:
    if not ref.has_ended:
        report.add_missing(ref, f"{ref.status or 'no status'}: has not ended")
    elif ref.recorded is None:
        report.add_missing(ref, f"{ref.status}: the service does not tell whether it was recorded")
    else:
        report.add_none(ref, f"{ref.status}: was not recorded")


def _extension(content_type: str) -> str:
    return EXTENSIONS.get(_media_type(content_type), ".bin")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def download(client: VolubileClient, ref: CallRef, folder: Path) -> Download:
    """Stream a recording to a file named by its call, a chunk in memory at a time.

    When it breaks off, it is resumed where it stopped; where the service cannot resume, or offers another length than
    before, it is begun anew. The client checks the length against what was announced.

    :raises VolubileError: there is no recording, it is no audio, or it kept breaking off.
    """
    path = folder / wire.check_id(ref.call_id, "call_id")
    try:
        with path.open("wb") as file:
            return Download(ref, path, _stream(client, ref.call_id, file))
    except BaseException:
        path.unlink()
        raise


def _stream(client: VolubileClient, call_id: str, file: IO[bytes]) -> str:
    """Fill a file with a recording, and return its content type."""
    length: int | None = None
    broken: VolubileUnavailable | None = None
    opened = False
    furthest = fruitless = 0
    while True:
        before = file.tell()
        try:
            with client.open_recording(call_id, offset=before) as recording:
                opened = True
                _check_audio(call_id, recording.content_type)
                if before and length not in (None, recording.length):
                    _cut(file, 0)
                    length = None
                    continue
                length = recording.length
                _cut(file, recording.offset)
                for chunk in recording.iter_chunks():
                    file.write(chunk)
            return recording.content_type
        except VolubileUnavailable as error:
            broken = error
        except VolubileRequestRefused as refused:
            if refused.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or broken is None:
                raise
            _cut(file, 0)  # nothing lies beyond what came, and yet it did not end: that was not the recording
        fruitless = 0 if file.tell() > furthest else fruitless + 1
        furthest = max(furthest, file.tell())
        if fruitless >= FRUITLESS_ATTEMPTS:
            raise _given_up(broken) if opened else broken
        log.info("%s Going on from byte %d.", broken, file.tell())


def _given_up(error: VolubileUnavailable) -> VolubileError:
    """The error of a recording that the service cannot deliver, although it answers."""
    return VolubileProtocolError(
        f"{error} {FRUITLESS_ATTEMPTS} attempts got no further.", operation=error.operation, status=error.status
    )


def _cut(file: IO[bytes], size: int) -> None:
    file.seek(size)
    file.truncate()


def _check_audio(call_id: str, content_type: str) -> None:
    kind = _media_type(content_type)
    if kind.startswith(("text/", "image/")) or kind in ("application/json", "application/xml"):
        raise VolubileProtocolError(
            f"getRecording: the answer for call {call_id} is {kind}, not audio.", operation="getRecording"
        )
