"""One request, one answer: connections, time limits, body limits, and whether a request left this machine.

No retries and no credentials of its own: who may be sent what again is decided in :mod:`.sending`.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_volubile import __version__
from airflow_provider_volubile.api.quiet import hide_urls_in_logs, quiet_urls
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import mask_phones

#: Bytes of a JSON body after decompression.
JSON_LIMIT = 32 * 2**20
#: Seconds for one body from its first to its last byte, however slowly they drip. (Headers are bounded by http.client,
#: 100 lines of 64 KiB, and each wait for more of them by the read timeout.)
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


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    if not host:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str | SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials belong to.

    :raises ValueError: the URL has no usable host or port.
    """
    parts = urlsplit(url) if isinstance(url, str) else url
    if not parts.hostname:
        raise ValueError("no host")
    scheme = parts.scheme.lower()
    return scheme, parts.hostname.lower(), parts.port or {"https": 443, "http": 80}.get(scheme, 0)


def check_base_url(url: str) -> str:
    """Return the address of the API without a slash at its end.

    :raises VolubileInputError: not https (http is for this machine only), or anything but host, port and path in it.
        The message never shows a user or password that was put into the URL.
    """
    text = str(url).strip()
    try:
        parts = urlsplit(text)
        scheme, host, _ = origin(parts)
    except ValueError:
        raise VolubileInputError(
            "the host of the connection is not a URL: expected for example https://api.eu.volubile.ai"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise VolubileInputError(f"the URL of {host} holds a user or password: keys belong in their own fields.")
    if "?" in text or "#" in text:
        raise VolubileInputError(f"the URL of {host} holds a query or fragment: give host, port and path only.")
    if scheme != "https" and not (scheme == "http" and is_loopback(host)):
        raise VolubileInputError(
            f"{scheme}://{host} would send keys and numbers unprotected: use https (http only for this machine)."
        )
    if any(not c.isprintable() or c.isspace() or c == "\\" for c in text):
        raise VolubileInputError(f"the URL of {host} holds a space or another character that no URL has.")
    base = text.rstrip("/")
    if base.endswith("/v1"):
        raise VolubileInputError(f"the URL of {host} must end before '/v1': the client adds it.")
    return base


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
        deadline = time.monotonic() + STREAM_SECONDS
        while True:
            fault = chunk = None
            try:
                chunk = answer.stream.raw.read1(size, decode_content=True)
            except _FAULTS as error:
                fault = describe(error, self._timeout)
            if time.monotonic() > deadline:
                fault = f"it took longer than {STREAM_SECONDS:g} s"
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
        session.trust_env = request.url.startswith("https:")
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
        except _FAULTS as error:
            reason = describe(error, self._timeout)
        # Raised out here so that the original, whose text holds the URL with its numbers, is no part of it.
        raise ConnectionFault(reason, sent=body is None or body.started)


class _Session(requests.Session):
    """Knows no redirects. Even when told not to follow one, requests would read its whole body and parse its target."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _new_session() -> requests.Session:
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"airflow-provider-volubile/{__version__}"
    session.headers["Accept"] = "application/json"
    session.mount("https://", HTTPAdapter(max_retries=0))
    session.mount("http://", HTTPAdapter(max_retries=0))
    return session


def _read(response: requests.Response, limit: int, timeout: tuple[float, float]) -> tuple[bytes | None, str, bool]:
    """Return the body, or None with what is wrong and whether it broke off half-way.

    Read in single receives, so that neither dripping bytes nor a small body that unpacks into a huge one can hold us
    or fill the memory: both limits are looked at after each.
    """
    deadline = time.monotonic() + BODY_SECONDS
    parts: list[bytes] = []
    size = 0
    try:
        while chunk := response.raw.read1(_READ_SIZE, decode_content=True):
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                return None, f"it is larger than {limit / 2**20:g} MiB", False
            if time.monotonic() > deadline:
                return None, f"it took longer than {BODY_SECONDS:g} s", False
    except _FAULTS as error:
        return None, describe(error, timeout), True
    return parts[0] if len(parts) == 1 else b"".join(parts), "", False


def describe(error: BaseException, timeout: tuple[float, float]) -> str:
    """Say what is wrong with a connection, without the URL that the texts of the libraries hold."""
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    through = "the proxy: " if first(urllib3.exceptions.ProxyError) else ""
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
    return f"{through}{type(error).__name__}"


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
