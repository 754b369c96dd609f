"""One request, one answer: connections, time limits, body limits, and whether a request left this machine.

No retries and no credentials of its own: :mod:`.sending` decides what is sent again, and :mod:`.auth` with which key.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3.connection
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_volubile import __version__
from airflow_provider_volubile.api.addresses import find_proxy, is_private
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.api.url_redaction import hide_urls_in_logs, redacted_urls
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import mask_phones

#: Bytes of a JSON body after decompression.
JSON_LIMIT = 32 * 2**20
#: Values in a body, told by its commas and brackets: a short one can unpack into millions of objects.
VALUES_LIMIT = 400_000
#: Seconds for one body from its first to its last byte, however slowly they drip.
BODY_SECONDS = 300.0
#: The same for a recording, whose size is not limited.
STREAM_SECONDS = 3600.0
#: Connections that stay open between requests; more threads than that open connections for one request each.
POOL_SIZE = 32

Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]

_READ_SIZE = 2**16
_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Message:
    """A request without its credentials.

    :param url: whole, without the query.
    :param anonymous: without credentials and outside the account's window: for other hosts than the API.
    :param public_only: not to an address that is reachable from here only, such as a cluster's. The link that leads to
        it comes from outside.
    :param stream: leave the body of a success unread, for :func:`read_chunks`.
    :param limit: bytes of body to read; a larger one is a flaw of the answer.
    :param not_after: of :func:`time.monotonic`: it is not sent later.
    """

    route: Route
    url: str = field(repr=False)
    params: Mapping[str, str | int] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    anonymous: bool = False
    public_only: bool = False
    stream: bool = False
    limit: int = JSON_LIMIT
    not_after: float = float("inf")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status, headers and, unless it is streamed, a body.

    :param body: None when it could not be read; ``flaw`` then says why.
    :param broken_off: the body stopped half-way: asking again may help.
    :param stream: the open response of a request that asked to stream a success.
    :param sent_at: monotonic, like ``received_at``, which is when the headers were there.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    sent_at: float
    received_at: float
    body: bytes | None = field(default=None, repr=False)
    flaw: str = ""
    broken_off: bool = False
    stream: requests.Response | None = field(default=None, repr=False)


class ConnectionFault(Exception):
    """No answer, or no complete one. The text is fit for people.

    :param sent: the server may have read the request.
    :param may_pass: another attempt may succeed.
    """

    def __init__(self, reason: str, *, sent: bool, may_pass: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.may_pass = may_pass


class Transport:
    """Sends requests over kept-alive connections. Threads may share it.

    :param timeout: seconds without progress, for connecting and for reading, or one for each.
    """

    def __init__(self, timeout: float | tuple[float, float] = 30.0) -> None:
        self.timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        if not all(isinstance(t, int | float) and 0 < t < float("inf") for t in self.timeout):
            raise VolubileInputError(f"timeout {timeout!r} must be a positive number of seconds, or two of them.")
        self._session = _new_session()
        self._process = os.getpid()
        hide_urls_in_logs()

    def exchange(self, message: Message, auth: Auth | None) -> Answer:
        """Send one request with these credentials and read its answer. Redirects and errors are answers like others.

        A request that dials has a connection of its own: on a kept-alive one that the server has just closed, nobody
        could tell whether it took the request.

        :raises ConnectionFault: no answer came.
        """
        if self._process != os.getpid():  # forked: the connections are the parent's
            self._session, self._process = _new_session(), os.getpid()
        keep_open = message.route.repeatable
        session = self._session if keep_open else _new_session(keep_alive=False)
        try:
            sent_at = time.monotonic()
            response = _send(session, message, auth, self.timeout)
            received_at = time.monotonic()
            if response.status_code < 200:  # 101 Switching Protocols: nobody asked for it
                response.close()
                raise ConnectionFault(f"it answered {response.status_code}, which ends no request", sent=True)
            if message.stream and 200 <= response.status_code < 300:
                return Answer(response.status_code, response.headers, sent_at, received_at, stream=response)
            body, flaw, broken_off = None, "", False
            try:
                body, flaw = _read(response, message.limit, self.timeout)
            except ConnectionFault as fault:
                flaw, broken_off = fault.reason, fault.may_pass
            if flaw or message.stream:
                response.close()  # what is left in the connection is no beginning of another answer
            return Answer(response.status_code, response.headers, sent_at, received_at, body, flaw, broken_off)
        finally:
            if not keep_open:
                session.close()

    def close(self) -> None:
        """Close the connections that are idle."""
        self._session.close()


def _send(
    session: requests.Session, message: Message, auth: Auth | None, timeout: tuple[float, float]
) -> requests.Response:
    _this_thread.sent, _this_thread.public_only = None, message.public_only
    content_type = {} if message.body is None else {"Content-Type": "application/json"}
    try:
        with redacted_urls():
            return session.request(
                message.route.method,
                message.url,
                params=message.params,
                data=message.body,
                headers={**content_type, **message.headers},
                auth=auth,
                proxies={"http": ""},  # plain http is for this machine only, so no proxy may carry it elsewhere
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
    except _FAULTS as error:
        sent, reason = _this_thread.sent, describe(error, timeout)
        if sent is None:  # none of our connections took part: a fault before, or one of a mocked session
            sent = isinstance(error, requests.ConnectionError | requests.Timeout)
            sent = sent and not isinstance(error, requests.ConnectTimeout)
        may_pass = sent or isinstance(error, requests.ConnectionError | requests.Timeout)
        if private := next((cause for cause in _causes(error) if isinstance(cause, PrivateAddress)), None):
            reason, may_pass = str(private), False
    if message.url.startswith("https:"):
        try:
            find_proxy(message.url)
        except ValueError as flaw:
            reason, may_pass = str(flaw), False
    # Raised out here so that the original, whose text holds the URL with its numbers, is no part of it.
    raise ConnectionFault(reason, sent=sent, may_pass=may_pass)


def read_chunks(
    response: requests.Response, timeout: tuple[float, float], seconds: float | None = None
) -> Iterator[bytes]:
    """The body of an answer, piece by piece as it comes: a small one that unpacks into a huge one fills no memory.

    :param seconds: for all of it; :data:`STREAM_SECONDS` by default.
    :raises ConnectionFault: it broke off, or took longer.
    """
    seconds = STREAM_SECONDS if seconds is None else seconds
    until = time.monotonic() + seconds
    while True:
        fault = None
        try:
            chunk = response.raw.read1(_READ_SIZE, decode_content=True)
        except _FAULTS as error:
            fault = describe(error, timeout)
        if fault:
            raise ConnectionFault(fault, sent=True)
        if not chunk:
            return
        if time.monotonic() > until:
            raise ConnectionFault(f"it took longer than {seconds:g} s", sent=True, may_pass=False)
        yield chunk


def _read(response: requests.Response, limit: int, timeout: tuple[float, float]) -> tuple[bytes | None, str]:
    """Return the body, or None and why it is not read to its end."""
    parts: list[bytes] = []
    size = values = 0
    for chunk in read_chunks(response, timeout, BODY_SECONDS):
        parts.append(chunk)
        size += len(chunk)
        values += chunk.count(b",") + chunk.count(b"[") + chunk.count(b"{")
        if size > limit:
            return None, f"it is larger than {limit / 2**20:g} MiB"
        if values > VALUES_LIMIT:
            return None, f"it holds more than {VALUES_LIMIT} values"
    return b"".join(parts), ""


class PrivateAddress(OSError):
    """A link leads to an address that is reachable from here only. The text is fit for people."""


class _ThisThread(threading.local):
    sent: bool | None = None  # None: no connection was asked for
    public_only = False


_this_thread = _ThisThread()


class _Response(http.client.HTTPResponse):
    """Passes over all informational answers, such as 103 Early Hints. http.client does so for 100 only."""

    def begin(self) -> None:
        super().begin()
        while 101 < self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(urllib3.connection.HTTPConnection):
    """Notes whether a request was begun. What fails before (resolving, connecting, the proxy, TLS) was never sent."""

    response_class = _Response

    def connect(self) -> None:
        _this_thread.sent = False
        super().connect()
        self._check_address()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:
            self.connect()
        self._check_address()
        _this_thread.sent = True
        super().request(*args, **kwargs)

    def _check_address(self) -> None:
        """Judge the address that the name resolved to, on the connection itself: asked again, it may resolve to
        another one. Behind a proxy only the proxy knows it.
        """
        if _this_thread.public_only and not self.proxy and is_private(address := self.sock.getpeername()[0]):
            self.close()
            raise PrivateAddress(f"its address {address} is private")


@cache
def _noting(pool: type[urllib3.HTTPConnectionPool]) -> type[urllib3.HTTPConnectionPool]:
    """A class of connection pools, with connections as above. There is one for http, https and SOCKS each."""
    connection = type(pool.ConnectionCls.__name__, (_Connection, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


# Devices in between forget connections that are idle for some minutes.
_KEEP_ALIVE = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), seconds)
        for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_KEEP_ALIVE, **kwargs)
        self._note(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return self._note(super().proxy_manager_for(proxy, socket_options=_KEEP_ALIVE, **kwargs))

    @staticmethod
    def _note(manager: Any) -> Any:
        pools = manager.pool_classes_by_scheme
        if not any(issubclass(pool.ConnectionCls, _Connection) for pool in pools.values()):
            manager.pool_classes_by_scheme = {scheme: _noting(pool) for scheme, pool in pools.items()}
        return manager


class _Session(requests.Session):
    """Knows no redirects. Even when told not to follow one, requests would read its whole body and parse its target."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without an auth object, requests would look up the host in ``.netrc``."""
    return request


def _new_session(*, keep_alive: bool = True) -> requests.Session:
    session = _Session()
    session.auth = _no_auth
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"airflow-provider-volubile/{__version__}"
    session.headers["Accept"] = "application/json"
    if not keep_alive:
        session.headers["Connection"] = "close"
    adapter = _Adapter(pool_maxsize=POOL_SIZE)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def describe(error: BaseException, timeout: tuple[float, float]) -> str:
    """Say what is wrong with a connection, without the URL that the texts of the libraries hold."""
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> Any:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if first(socket.gaierror, urllib3.exceptions.NameResolutionError):
        reason = "the host name could not be resolved"
    elif tls := first(ssl.SSLCertVerificationError):
        reason = f"its TLS certificate was not accepted ({tls.verify_message or 'verification failed'})"
    elif first(ssl.SSLError, ssl.CertificateError, urllib3.exceptions.SSLError):
        reason = f"TLS failed ({getattr(first(ssl.SSLError), 'reason', None) or 'no reason given'})"
    elif first(ConnectionRefusedError):
        reason = "the connection was refused"
    elif first(urllib3.exceptions.ReadTimeoutError, requests.ReadTimeout):
        return f"nothing came for {timeout[1]:g} s"
    elif not first(urllib3.exceptions.NewConnectionError) and first(
        urllib3.exceptions.ConnectTimeoutError, requests.ConnectTimeout
    ):
        reason = f"no connection within {timeout[0]:g} s"
    elif first(ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        reason = "the connection was reset"
    elif system := next((cause for cause in causes if type(cause) is OSError), None):
        # Without an errno: from a missing CA bundle, or a proxy's refusal, whose own words may repeat its password.
        refusal = re.match(r"Tunnel connection failed: (\d{3})", str(system))
        reason = f"it answered {refusal[1]}" if refusal else mask_phones(str(system)[:200])
        reason = os.strerror(system.errno) if system.errno else reason
    elif first(urllib3.exceptions.DecodeError):
        reason = "its compression is broken"
    elif first(HTTPException, urllib3.exceptions.ProtocolError):
        reason = "the connection was closed before the answer was complete"
    elif first(requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError, UnicodeError):
        reason = "no host can have this name"
    else:
        reason = f"the connection failed, {type(error).__name__}"
    return f"the proxy: {reason}" if first(urllib3.exceptions.ProxyError) else reason


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that are behind it, innermost last."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop(0)
        if id(current) not in seen:
            seen.add(id(current))
            yield current
            linked = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
            queue.extend(link for link in linked if isinstance(link, BaseException))
