"""One request, one answer: connections, time limits, body limits, and whether a request left this machine.

No retries and no credentials of its own: who may be sent what again is decided in :mod:`.sending`.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_volubile import __version__
from airflow_provider_volubile.api.addresses import find_proxy
from airflow_provider_volubile.api.url_redaction import hide_urls_in_logs, quiet_urls
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import mask_phones

#: Bytes of a JSON body after decompression.
JSON_LIMIT = 32 * 2**20
#: Seconds for one body from its first to its last byte, however slowly they drip. All that comes before has to be there
#: within the read timeout.
BODY_SECONDS = 300.0
#: The same for a recording, whose size is not limited.
STREAM_SECONDS = 3600.0

_READ_SIZE = 2**16
_IDLE_SESSIONS = 10
_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it is sent.

    :param own_connection: use a connection that no other request used. On a kept-alive one that the server has just
        closed, nobody could tell whether it took the request.
    :param stream: leave the body of a success unread, for :meth:`Transport.read_chunks`.
    :param limit: bytes of body to read; a larger one is a flaw of the answer.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str | int] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    own_connection: bool = False
    stream: bool = False
    limit: int = JSON_LIMIT


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status, headers and, unless it is streamed, a body.

    :param body: None when it could not be read; ``flaw`` then says why.
    :param broken_off: the body stopped half-way: asking again may help.
    :param stream: the open response of a request that asked to stream a success.
    :param sent_at: monotonic, like ``received_at``, which is when the headers were there.
    """

    status: int
    headers: Mapping[str, str]
    sent_at: float
    received_at: float
    body: bytes | None = field(default=None, repr=False)
    flaw: str = ""
    broken_off: bool = False
    stream: requests.Response | None = field(default=None, repr=False)


class ConnectionFault(Exception):
    """No answer. ``sent``: whether the server may have read the request. The text is fit for people."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class _Body:
    """A request body that knows whether any of it was handed to the connection.

    The headers announce its length and go first, so a server that never got the body cannot have acted on it. This
    holds for every way to fail before: resolving, connecting, the proxy, TLS.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.started = False

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        self.started = True
        yield self._data


class _NoAuth(requests.auth.AuthBase):
    """Explicitly nobody: without an auth object, requests would look up the host in ``.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


_NO_AUTH = _NoAuth()


class Transport:
    """Sends requests over kept-alive connections. May be used by many threads: each borrows a session of its own.

    :param timeout: seconds without progress, for connecting and for reading, or one for each.
    """

    def __init__(self, timeout: float | tuple[float, float] = 30.0) -> None:
        self._timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        if not all(isinstance(t, int | float) and 0 < t < float("inf") for t in self._timeout):
            raise VolubileInputError(f"timeout {timeout!r} must be a positive number of seconds, or two of them.")
        self._idle: deque[requests.Session] = deque()
        hide_urls_in_logs()

    def exchange(self, request: Outgoing) -> Answer:
        """Send one request and read its answer. Redirects and errors are answers like others.

        :raises ConnectionFault: no answer came.
        """
        session = _new_session() if request.own_connection or request.stream else self._borrow()
        last_use = True
        try:
            response, sent_at, received_at = self._send(session, request)
            if request.stream and 200 <= response.status_code < 300:
                last_use = False
                return Answer(response.status_code, response.headers, sent_at, received_at, stream=response)
            body, flaw, broken_off = _read(response, request.limit, self._timeout)
            if not (flaw or request.own_connection or request.stream) and len(self._idle) < _IDLE_SESSIONS:
                last_use = False
                self._idle.append(session)
            return Answer(response.status_code, response.headers, sent_at, received_at, body, flaw, broken_off)
        finally:
            if last_use:
                session.close()

    def read_chunks(self, answer: Answer, size: int = _READ_SIZE) -> Iterator[bytes]:
        """The body of a streamed answer, piece by piece as it comes.

        :raises ConnectionFault: it broke off, or took longer than :data:`STREAM_SECONDS`.
        """
        assert answer.stream is not None  # noqa: S101
        _allow(answer.stream, STREAM_SECONDS)
        while True:
            fault = chunk = None
            try:
                chunk = answer.stream.raw.read1(size, decode_content=True)
            except _FAULTS as error:
                fault = describe(error, self._timeout)
            if fault:
                raise ConnectionFault(fault, sent=True)
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> requests.Session:
        try:
            return self._idle.pop()
        except IndexError:
            return _new_session()

    def _send(self, session: requests.Session, request: Outgoing) -> tuple[requests.Response, float, float]:
        body = _Body(request.body) if request.body is not None else None
        headers = dict(request.headers)
        if request.own_connection:
            headers["Connection"] = "close"
        # Plain http is for this machine only, so no proxy may carry it elsewhere.
        session.trust_env = is_https = urlsplit(request.url).scheme == "https"
        sent_at = time.monotonic()
        try:
            with quiet_urls():
                response = session.request(
                    request.method,
                    request.url,
                    params=request.params,
                    data=body,
                    headers=headers,
                    auth=_NO_AUTH,
                    timeout=self._timeout,
                    allow_redirects=False,
                    stream=True,
                )
            return response, sent_at, time.monotonic()
        except (*_FAULTS, ValueError) as error:  # ValueError: of an address in the environment
            reason = describe(error, self._timeout)
        if is_https:
            try:
                find_proxy(request.url)
            except ValueError as flaw:
                reason = str(flaw)
        # Raised out here so that the original, whose text holds the URL with its numbers, is no part of it.
        raise ConnectionFault(reason, sent=body is None or body.started)


class _TooSlow(TimeoutError):
    """Bytes came, but not all of them in time. The text is fit for people."""


class _Timed(io.RawIOBase):
    """What a socket receives until a moment, and never later: a time limit for each wait bounds none of what drips."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._timeout = sock.gettimeout() or BODY_SECONDS
        self._came = False
        self.allow(self._timeout, "the beginning of its answer")

    def allow(self, seconds: float, what: str) -> None:
        """Begin a part of the answer."""
        self._until = time.monotonic() + seconds
        self._excess = f"{what} took longer than {seconds:g} s"
        with suppress(OSError):  # closed, when there is no body
            self._sock.settimeout(self._timeout)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise _TooSlow(self._excess)
        self._sock.settimeout(min(left, self._timeout))
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            if self._came and left < self._timeout:
                raise _TooSlow(self._excess) from None
            raise
        self._came = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads in time whatever comes: answers of 1xx before its own, headers, lines between chunks and after them."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.timed = _Timed(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.timed)


def _allow(response: requests.Response, seconds: float) -> None:
    """Give a body its time, from now on."""
    original = response.raw._original_response
    assert isinstance(original, _Response)  # noqa: S101
    original.timed.allow(seconds, "it")


@cache
def _timed(pool: Any) -> Any:
    """A pool's class whose connections read in time."""
    connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": _Response})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._time(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = self.proxy_manager.get(proxy)
        return known or self._time(super().proxy_manager_for(proxy, **kwargs))

    @staticmethod
    def _time(manager: Any) -> Any:
        classes = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: _timed(pool) for scheme, pool in classes.items()}
        return manager


class _Session(requests.Session):
    """Knows no redirects. Even when told not to follow one, requests would read its whole body and parse its target."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _new_session() -> requests.Session:
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"airflow-provider-volubile/{__version__}"
    session.headers["Accept"] = "application/json"
    session.mount("https://", _Adapter(max_retries=0))
    session.mount("http://", _Adapter(max_retries=0))
    return session


def _read(response: requests.Response, limit: int, timeout: tuple[float, float]) -> tuple[bytes | None, str, bool]:
    """Return the body, or None with what is wrong and whether it broke off half-way.

    Read in single receives, so that a small body that unpacks into a huge one cannot fill the memory.
    """
    _allow(response, BODY_SECONDS)
    parts: list[bytes] = []
    size = 0
    try:
        while chunk := response.raw.read1(_READ_SIZE, decode_content=True):
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                return None, f"it is larger than {limit / 2**20:g} MiB", False
    except _FAULTS as error:
        return None, describe(error, timeout), not any(isinstance(cause, _TooSlow) for cause in _causes(error))
    return parts[0] if len(parts) == 1 else b"".join(parts), "", False


def describe(error: BaseException, timeout: tuple[float, float]) -> str:
    """Say what is wrong with a connection, without the URL that the texts of the libraries hold."""
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    through = "the proxy: " if first(urllib3.exceptions.ProxyError) else ""
    if slow := first(_TooSlow):
        return f"{through}{slow}"
    if first(socket.gaierror, urllib3.exceptions.NameResolutionError):
        return f"{through}the host name could not be resolved"
    if isinstance(tls := first(ssl.SSLCertVerificationError), ssl.SSLCertVerificationError):
        return f"{through}its TLS certificate was not accepted ({tls.verify_message or 'verification failed'})"
    if isinstance(tls := first(ssl.SSLError), ssl.SSLError):
        return f"{through}TLS failed ({getattr(tls, 'reason', None) or 'no reason given'})"
    if first(urllib3.exceptions.SSLError, ssl.CertificateError):
        return f"{through}TLS failed"
    if first(ConnectionRefusedError):
        return f"{through}the connection was refused"
    if first(urllib3.exceptions.ReadTimeoutError, requests.ReadTimeout):
        return f"nothing came for {timeout[1]:g} s"
    if first(urllib3.exceptions.NewConnectionError) is None and first(
        urllib3.exceptions.ConnectTimeoutError, requests.ConnectTimeout
    ):
        return f"{through}no connection within {timeout[0]:g} s"
    if first(ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        return f"{through}the connection was reset"
    for cause in causes:
        if type(cause) is OSError:  # no errno: from a proxy's refusal or a missing CA bundle, fit for people
            return through + (os.strerror(cause.errno) if cause.errno else mask_phones(str(cause)[:200]))
    if first(urllib3.exceptions.DecodeError):
        return "its compression is broken"
    if first(HTTPException, urllib3.exceptions.ProtocolError):
        return f"{through}the connection was closed before the answer was complete"
    if first(requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError, UnicodeError):
        return f"{through}no host can have this name"
    return f"{through}the connection failed, {type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that are behind it, innermost last."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        queue.extend(link for link in linked if isinstance(link, BaseException))
