"""What may be sent again, and when to stop: the rules every request goes through.

A repeatable request is sent again after connection faults, 429 and 5xx. One that dials is sent again only when the
server certainly did not take it: not a byte of its body left, 429, or 401 and another credential to try. After
anything else without a definite answer its outcome is unknown, and only looking can tell.
"""

from __future__ import annotations

import json
import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.auth import Identity
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.api.transport import JSON_LIMIT, Answer, ConnectionFault, Outgoing, Transport
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.masking import mask_secrets

log = logging.getLogger(__name__)

_CHECK_BEFORE_SENDING_AGAIN = (
    "It may or may not have been taken, and sending it again could call people twice: look first whether its calls "
    "exist, in the list of calls or in the dashboard."
)


_COUNT = re.compile(r"[0-9]{1,9}")
_LONGEST_PAUSE = 20.0  # seconds, unless the server asks for more
_RECOGNISABLE = 12  # characters of a secret that stand for nothing else in an answer


class Window(Protocol):
    """The account's rate window (:class:`airflow_provider_volubile.api.rate_window.RateWindow`)."""

    def acquire(self, *, background: bool = False) -> None: ...

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float, received_at: float) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How long one request is kept trying.

    :param attempts: sendings that may fail with a connection fault or 5xx.
    :param seconds: total pause between them.
    :param rate_limit_seconds: total pause after 429, which is no fault: others use the account too.
    """

    attempts: int = 5
    seconds: float = 60.0
    rate_limit_seconds: float = 300.0


class RateLimit(NamedTuple):
    """What the last answer told about the account's window (https://docs.volubile.ai/api-reference/rate-limiting)."""

    limit: int
    remaining: int


class _Again(Exception):
    """This attempt failed and another may help."""

    def __init__(self, error: VolubileError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after
        self.limited = isinstance(error, VolubileRateLimitError)


@dataclass(frozen=True, slots=True)
class Message:
    """What to send, before it is known who sends it.

    :param url: whole, without the query.
    :param not_after: of :func:`time.monotonic`: it is not sent later.
    :param anonymous: without credentials and outside the account's window: for other hosts than the API.
    """

    route: Route
    url: str
    params: Mapping[str, str | int] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    anonymous: bool = False
    stream: bool = False
    limit: int = JSON_LIMIT
    not_after: float = math.inf


class Sender:
    """Sends messages and judges the answers.

    :param identify: who a request of a route goes out as.
    :param background: leave the window's reserve to others.
    :param sleep: waits between attempts.
    """

    def __init__(
        self,
        transport: Transport,
        identify: Callable[[Route], Identity],
        window: Window,
        *,
        budget: RetryBudget,
        background: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._identify = identify
        self._window = window
        self._budget = budget
        self._background = background
        self._sleep = sleep
        self.rate_limit: RateLimit | None = None

    def send(self, message: Message) -> Answer:
        """Send a message, again where that is allowed, and return a 2xx or 3xx answer.

        :raises VolubileError: as the classes of :mod:`airflow_provider_volubile.exceptions` say.
        """
        identity = None if message.anonymous else self._identify(message.route)
        body = None if message.json is None else _encode(message.route, message.json)
        patience = _Patience(self._budget)
        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=patience.is_over,
            wait=patience.pause,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, message, identity, body)
        except _Again as last:
            error = last.error
        raise error

    def _attempt(self, message: Message, identity: Identity | None, body: bytes | None) -> Answer:
        while True:
            answer = self._exchange(message, identity, body)
            if answer.status != 401 or identity is None:
                break
            if not identity.refused():
                reason = wire.server_message(answer.body, identity.secrets)
                raise identity.refusal(message.route.operation, 401, reason)
        if identity is not None:
            identity.answered(answer.status)
            answer = _without(identity.secrets, answer)
        return _judge(message, identity, answer)

    def _exchange(self, message: Message, identity: Identity | None, body: bytes | None) -> Answer:
        route = message.route
        headers = dict(message.headers or {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        if identity is not None:
            headers.update(identity.headers())
        outgoing = Outgoing(
            route.method,
            message.url,
            headers,
            message.params,
            body,
            own_connection=not route.repeatable,
            stream=message.stream,
            limit=message.limit,
        )
        if identity is None:
            return self._noted(route, self._tried(route, outgoing))
        self._window.acquire(background=self._background)
        try:
            if time.monotonic() > message.not_after:
                raise VolubileUnavailable(
                    f"{route.operation}: it was too late to send it: this process stood still, or waited too long for "
                    "the account's request window. Nothing was taken; try again.",
                    operation=route.operation,
                )
            answer = self._tried(route, outgoing)
        except BaseException:
            self._window.abandon()
            raise
        self._window.observe(answer.status, answer.headers, sent_at=answer.sent_at, received_at=answer.received_at)
        return self._noted(route, answer)

    def _tried(self, route: Route, outgoing: Outgoing) -> Answer:
        try:
            return self._transport.exchange(outgoing)
        except ConnectionFault as fault:
            reason, sent = fault.reason, fault.sent
        host = urlsplit(outgoing.url).hostname
        log.debug("%s to %s: no answer, %s", route.operation, host, reason)
        if sent and not route.repeatable:
            raise VolubileUnknownOutcome(
                f"{route.operation}: {reason}, before {host} answered. {_CHECK_BEFORE_SENDING_AGAIN}",
                operation=route.operation,
            )
        raise _Again(
            VolubileUnavailable(
                f"{route.operation}: {host} could not be reached ({reason}). Check the connection's host, the network, "
                "the proxy and the certificates of this machine, then try again.",
                operation=route.operation,
            )
        )

    def _noted(self, route: Route, answer: Answer) -> Answer:
        limit, left = answer.headers.get("X-RateLimit-Limit"), answer.headers.get("X-RateLimit-Remaining")
        if limit and left and _COUNT.fullmatch(limit) and _COUNT.fullmatch(left):
            self.rate_limit = RateLimit(int(limit), int(left))
        if log.isEnabledFor(logging.DEBUG):
            milliseconds = (answer.received_at - answer.sent_at) * 1000
            log.debug("%s -> %s, %s left, %.0f ms", route.operation, answer.status, left or "?", milliseconds)
        return answer


def _encode(route: Route, data: Any) -> bytes:
    with suppress(TypeError, ValueError, RecursionError):
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
    raise VolubileInputError(
        f"{route.operation}: the request holds something that is not JSON: use texts, numbers, true, false, lists and "
        "objects only.",
        operation=route.operation,
    )


class _Patience:
    """How long one message is still worth another attempt. tenacity asks for the pause first, then whether to stop."""

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self._faults = 0
        self._paused = {True: 0.0, False: 0.0}  # seconds, by whether it was for 429

    def pause(self, state: RetryCallState) -> float:
        """Seconds: growing and random, so that many clients do not come back at once; never less than the server
        says.
        """
        again = _failure(state)
        growing = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(state.attempt_number - 1, 10))
        seconds = max(again.retry_after or 0.0, growing * random.uniform(0.5, 1.0))
        self._paused[again.limited] += seconds
        self._faults += not again.limited
        return seconds

    def is_over(self, state: RetryCallState) -> bool:
        """Whether to give up instead of pausing."""
        if _failure(state).limited:
            return self._paused[True] > self._budget.rate_limit_seconds
        return self._faults >= self._budget.attempts or self._paused[False] > self._budget.seconds


def _failure(state: RetryCallState) -> _Again:
    assert state.outcome is not None  # noqa: S101
    failure = state.outcome.exception()
    assert isinstance(failure, _Again)  # noqa: S101
    return failure


def _without(secrets: Iterable[str], answer: Answer) -> Answer:
    """An answer that does not repeat who asked: its texts go to XCom and to files, which nothing masks."""
    if not answer.body:
        return answer
    # In Latin-1 any bytes are a text, and secrets are ASCII.
    body = mask_secrets(answer.body.decode("latin-1"), [one for one in secrets if len(one) >= _RECOGNISABLE])
    return replace(answer, body=body.encode("latin-1"))


def _judge(message: Message, identity: Identity | None, answer: Answer) -> Answer:
    """Return a success; raise what anything else means."""
    route, status = message.route, answer.status
    host = urlsplit(message.url).hostname
    if 200 <= status < 300:
        if answer.flaw and route.repeatable:
            if answer.broken_off:
                raise _Again(_unavailable(route, host, f"the answer broke off ({answer.flaw})", status))
            raise VolubileProtocolError(
                f"{route.operation}: the answer of {host} cannot be read: {answer.flaw}.",
                operation=route.operation,
                status=status,
            )
        return answer
    reason = wire.server_message(answer.body, identity.secrets if identity else ())
    said = f": {reason}" if reason else ""
    if status == 429:
        raise _Again(
            VolubileRateLimitError(
                f"{route.operation}: the account's request window stayed full (429). Nothing was taken. "
                "Let fewer tasks run at once, or give the task more retries.",
                operation=route.operation,
                status=status,
            ),
            retry_after(answer.headers),
        )
    if status == 403 and identity is not None:
        raise identity.refusal(route.operation, 403, reason)
    if status == 404:
        raise VolubileNotFound(
            f"{route.operation}: {host} knows no such object (404){said}. Check the id, and that it belongs to the "
            "account of this connection.",
            operation=route.operation,
            status=status,
        )
    if 300 <= status < 400 and message.stream:
        return answer
    if not route.repeatable and (status < 400 or status == 408 or status >= 500):
        raise VolubileUnknownOutcome(
            f"{route.operation}: {host} answered {status}{said}. {_CHECK_BEFORE_SENDING_AGAIN}",
            operation=route.operation,
            status=status,
        )
    if status == 408 or status >= 500:
        raise _Again(_unavailable(route, host, f"it answered {status}{said}", status), retry_after(answer.headers))
    if 400 <= status < 500:
        raise VolubileRequestRefused(
            f"{route.operation}: {host} refused the request ({status}){said}. Nothing was taken; correct it before "
            "sending it again.",
            operation=route.operation,
            status=status,
            reason=reason,
        )
    target = _host_of(answer.headers.get("Location", ""))
    raise VolubileProtocolError(
        f"{route.operation}: {host} answered {status}"
        + (f", a redirect to {target}" if target else "")
        + ", which is not followed: the connection's host must be the API itself.",
        operation=route.operation,
        status=status,
    )


def _unavailable(route: Route, host: str | None, what: str, status: int) -> VolubileUnavailable:
    return VolubileUnavailable(
        f"{route.operation}: {host} is not available, {what}. Try again later.",
        operation=route.operation,
        status=status,
    )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, given as seconds or as a date; None when it does not, or oddly."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text).timestamp()
            now = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = moment - now
    return max(0.0, seconds) if math.isfinite(seconds) else None
