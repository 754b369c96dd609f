"""The audio of a call: bytes, a redirect or a link, streamed and never whole in memory.

The page of this route is not known, so all three are understood
(https://docs.volubile.ai/api-reference/authentication lists the route and its scope).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urljoin, urlsplit

import requests

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.addresses import is_loopback, is_private, origin
from airflow_provider_volubile.api.answers import unreadable
from airflow_provider_volubile.api.routes import GET_RECORDING
from airflow_provider_volubile.api.sending import Sender
from airflow_provider_volubile.api.transport import Answer, ConnectionFault, Message, read_chunks
from airflow_provider_volubile.exceptions import (
    VolubileNotFound,
    VolubileProtocolError,
    VolubileUnavailable,
    without_frames,
)

MAX_HOPS = 3
_LINK_LIMIT = 2**20
_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


@dataclass(frozen=True)
class Recording:
    """An open recording.

    :param content_type: as the server calls it, such as ``audio/mpeg``; empty when it does not.
    :param length: bytes of the whole recording; None when the server did not tell.
    :param offset: where the chunks begin. 0 although another was asked for: the server cannot resume, begin anew.
    """

    content_type: str
    length: int | None
    offset: int
    _chunks: Iterator[bytes] = field(repr=False)

    def iter_chunks(self) -> Iterator[bytes]:
        """The audio, once.

        :raises VolubileUnavailable: it broke off or is shorter than announced. Keep what came and open it again with
            ``offset``.
        """
        at = self.offset
        reason = None
        try:
            for chunk in self._chunks:
                at += len(chunk)
                yield chunk
        except ConnectionFault as fault:
            reason = fault.reason
        if reason is None and self.length is not None and at != self.length:
            reason = f"it has {at} bytes instead of {self.length}"
        if reason is not None:
            raise _broken_off(at, reason)


@contextmanager
def open_recording(sender: Sender, call_id: str, offset: int, private_storage: bool) -> Iterator[Recording]:
    """Find and open a recording; see :meth:`VolubileClient.open_recording`."""
    url = sender.base_url + wire.path(GET_RECORDING.path, call_id, what="call id")
    answer, stream = _find(sender, url, offset, private_storage)
    with closing(stream):
        chunks = read_chunks(stream, sender.transport.timeout)
        first = _first(chunks)
        recording = _describe(answer, chain([first], chunks) if first else iter(()), offset)
        if not first and (recording.length is None or recording.length == recording.offset == 0):
            raise _not_recorded(answer.status)
        yield recording


@without_frames
def _find(sender: Sender, url: str, offset: int, private_storage: bool) -> tuple[Answer, requests.Response]:
    """Follow redirects and links to an answer that holds audio, and its open response."""
    headers = {"Accept": "audio/*, application/json;q=0.5, */*;q=0.1", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    anonymous = False
    private_storage = private_storage or is_loopback(urlsplit(sender.base_url).hostname)
    for _ in range(MAX_HOPS + 1):
        # Once elsewhere, always a stranger: storage that leads back to the API must not choose what our key asks for.
        anonymous = anonymous or origin(url) != origin(sender.base_url)
        public_only = not private_storage and origin(url) != origin(sender.base_url)
        answer = sender.send(
            Message(GET_RECORDING, url, headers=headers, anonymous=anonymous, public_only=public_only, stream=True)
        )
        link = _link(answer, sender.transport.timeout)
        if link is None and answer.stream is not None:
            return answer, answer.stream
        url = _checked_hop(url, link or "", sender.base_url, answer.status, private_storage)
    raise VolubileProtocolError(
        f"{GET_RECORDING.operation}: the recording is behind more than {MAX_HOPS} redirects.",
        operation=GET_RECORDING.operation,
    )


def _link(answer: Answer, timeout: tuple[float, float]) -> str | None:
    """Where an answer sends us; None when it is the audio itself."""
    if answer.stream is None:
        location = answer.headers.get("Location")
        if not location:
            raise unreadable(GET_RECORDING, answer, "is a redirect to nowhere")
        return location
    if "json" not in answer.headers.get("Content-Type", "").lower():
        return None
    body = b""
    with closing(answer.stream), suppress(ConnectionFault):  # an incomplete link is not JSON
        for chunk in read_chunks(answer.stream, timeout):
            body += chunk
            if len(body) > _LINK_LIMIT:
                break
    if not body.strip():
        raise _not_recorded(answer.status)
    data = None
    with suppress(ValueError, RecursionError):
        data = json.loads(body)
    if data is None:
        raise unreadable(GET_RECORDING, answer, "is neither audio nor a link")
    link = wire.recording_link(data)
    if link is None:
        raise unreadable(GET_RECORDING, answer, "is JSON without a link to the recording")
    return link


def _checked_hop(url: str, link: str, base_url: str, status: int, private_storage: bool = False) -> str:
    """Return the next address if it may be asked: https, or this machine when the API is on it too.

    A private address is refused here where the link names it; where it names a host, the connection is checked.
    """
    try:
        target = urljoin(url, link)
        parts = urlsplit(target)
        scheme, host, _ = origin(parts)
    except ValueError:
        scheme, host, parts, target = "", "", urlsplit(""), ""
    allowed = scheme == "https" or (scheme == "http" and is_loopback(host) and is_loopback(urlsplit(base_url).hostname))
    if not allowed or parts.username is not None or any(c.isspace() or not c.isprintable() for c in target):
        raise VolubileProtocolError(
            f"{GET_RECORDING.operation}: the recording's link leads to {host or 'no host'} in a way that is not "
            f"followed ({scheme or 'no scheme'}): only https is.",
            operation=GET_RECORDING.operation,
            status=status,
        )
    with suppress(ValueError):
        if is_private(host) and not private_storage and origin(target) != origin(base_url):
            host = ""
    if not host:
        raise VolubileProtocolError(
            f"{GET_RECORDING.operation}: the recording's link leads to a private address, which is not followed. If "
            "your storage is there, set private_storage in the connection's extra.",
            operation=GET_RECORDING.operation,
            status=status,
        )
    return target.split("#")[0]


def _describe(answer: Answer, chunks: Iterator[bytes], offset: int) -> Recording:
    headers = answer.headers
    start, length = 0, None
    announced = headers.get("Content-Length", "")
    if _LENGTH.fullmatch(announced) and headers.get("Content-Encoding", "identity").lower() == "identity":
        length = int(announced)
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != offset:
            raise unreadable(GET_RECORDING, answer, "is another part of the recording than was asked for")
        start = offset
        length = int(found[2]) if found[2] != "*" else (None if length is None else length + offset)
    return Recording(headers.get("Content-Type", ""), length, start, chunks)


def _first(chunks: Iterator[bytes]) -> bytes:
    try:
        return next(chunks, b"")
    except ConnectionFault as fault:
        reason = fault.reason
    raise _broken_off(0, reason)


def _broken_off(at: int, reason: str) -> VolubileUnavailable:
    return VolubileUnavailable(
        f"{GET_RECORDING.operation}: the recording broke off after {at} bytes ({reason}). Open it again from there.",
        operation=GET_RECORDING.operation,
    )


def _not_recorded(status: int) -> VolubileNotFound:
    return VolubileNotFound(
        f"{GET_RECORDING.operation}: the call has no recording ({status} without content).",
        operation=GET_RECORDING.operation,
        status=status,
    )
