"""What may be sent again, and when to stop: the rules every request goes through.

A repeatable request is sent again after connection faults, 429 and 5xx. One that dials is sent again only when the
server certainly did not take it: the request was never begun, 429, or 401 and another credential to try. After
anything else without a definite answer its outcome is unknown, and only looking can tell.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.auth import Credentials, Identity, identify
from airflow_provider_volubile.api.headers import RateLimit, rate_limit, retry_after
from airflow_provider_volubile.api.transport import Answer, ConnectionFault, Message, Transport
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.masking import spellings

log = logging.getLogger(__name__)

_CHECK_BEFORE_SENDING_AGAIN = (
    "It may or may not have been taken, and sending it again could call people twice: look first whether its calls "
    "exist, in the list of calls or in the dashboard."
)
_LONGEST_PAUSE = 20.0  # seconds, unless the server asks for more
_RECOGNISABLE = 12  # characters of a secret that stand for nothing else in an answer


class Window(Protocol):
    """The account's rate window (:class:`airflow_provider_volubile.api.rate_window.RateWindow`)."""

    def acquire(self, *, background: bool = False) -> None: ...

    def wait_for_place(self) -> None: ...

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


class _Again(Exception):
    """This attempt failed and another may help.

    :param pause: seconds that the server asks to wait.
    """

    def __init__(self, error: VolubileError, pause: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause or 0.0


class _Patience:
    """How long one message is kept trying. For each failure tenacity asks for the pause, then whether to stop."""

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self._faults = 0
        self._paused = self._paused_for_limit = 0.0
        self._error: VolubileError | None = None

    def pause(self, state: RetryCallState) -> float:
        """Seconds: growing, random (many clients must not come back at once), never less than the server asks for."""
        again = state.outcome and state.outcome.exception()
        assert isinstance(again, _Again)  # noqa: S101
        growing = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(state.attempt_number - 1, 10))
        seconds = max(again.pause, growing * random.uniform(0.5, 1.0))
        self._error = again.error
        if isinstance(again.error, VolubileRateLimitError):
            self._paused_for_limit += seconds
        else:
            self._faults += 1
            self._paused += seconds
        return seconds

    def is_over(self, state: RetryCallState) -> bool:
        """Whether to give up instead of pausing."""
        if isinstance(self._error, VolubileRateLimitError):
            return self._paused_for_limit > self._budget.rate_limit_seconds
        return self._faults >= self._budget.attempts or self._paused > self._budget.seconds


class Sender:
    """Sends messages and judges the answers.

    :param background: leave the window's reserve to others.
    :param sleep: waits between attempts.
    """

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        credentials: Credentials,
        window: Window,
        *,
        budget: RetryBudget,
        background: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url
        self.transport = transport
        self._credentials = credentials
        self._window = window
        self._budget = budget
        self._background = background
        self._sleep = sleep
        self.rate_limit: RateLimit | None = None

    def send(self, message: Message) -> Answer:
        """Send a message, again where that is allowed, and return a 2xx, or a 3xx of a message to be streamed.

        :raises VolubileError: as the classes of :mod:`airflow_provider_volubile.exceptions` say.
        """
        identity = None
        if not message.anonymous:
            identity = identify(self._credentials, self.base_url, message.route.scope)
        patience = _Patience(self._budget)
        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            wait=patience.pause,
            stop=patience.is_over,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, message, identity)
        except _Again as again:
            error = again.error
        raise error

    def _attempt(self, message: Message, identity: Identity | None) -> Answer:
        """Send once, or twice when the first credential is refused."""
        while True:
            if identity is not None:
                identity.prepare(self.send)
            answer = self._exchange(message, identity)
            if identity is None or not identity.has_another(answer.status):
                return _judge(message, identity, answer)

    def wait_for_place(self) -> None:
        """Wait until the account's window lets a request through. Nothing is sent."""
        self._window.wait_for_place()

    def _exchange(self, message: Message, identity: Identity | None) -> Answer:
        """Send once, in the account's window unless the message is for another host."""
        failure = None
        if not message.anonymous:
            # Who needs a token waits for it, perhaps in the foreground: asking for one is never background work.
            self._window.acquire(background=self._background and message.route.scope is not None)
        try:
            if time.monotonic() > message.not_after:
                raise VolubileUnavailable(
                    f"{message.route.operation}: it was too late to send it: this process stood still, or waited too "
                    "long for the account's request window. Nothing was taken; try again.",
                    operation=message.route.operation,
                )
            answer = self.transport.exchange(message, identity)
        except ConnectionFault as fault:
            failure = _no_answer(message, fault)
        except BaseException:
            if not message.anonymous:
                self._window.abandon()
            raise
        if failure is not None:
            if not message.anonymous:
                self._window.abandon()
            raise failure
        if not message.anonymous:
            self._window.observe(answer.status, answer.headers, sent_at=answer.sent_at, received_at=answer.received_at)
            self.rate_limit = rate_limit(answer.headers) or self.rate_limit
        milliseconds = (answer.received_at - answer.sent_at) * 1000
        log.debug("%s -> %s, %.0f ms, limit %s", message.route.operation, answer.status, milliseconds, self.rate_limit)
        return answer


def _no_answer(message: Message, fault: ConnectionFault) -> Exception:
    route, host = message.route, urlsplit(message.url).hostname
    log.debug("%s to %s: no answer, %s", route.operation, host, fault.reason)
    if fault.sent and not route.repeatable:
        return VolubileUnknownOutcome(
            f"{route.operation}: {fault.reason}, before {host} answered. {_CHECK_BEFORE_SENDING_AGAIN}",
            operation=route.operation,
        )
    if message.public_only and not fault.may_pass:
        return VolubileProtocolError(
            f"{route.operation}: the link to {host} is not followed: {fault.reason}. If your storage is there, set "
            "private_storage in the connection's extra.",
            operation=route.operation,
        )
    error = VolubileUnavailable(
        f"{route.operation}: {host} could not be reached ({fault.reason}). Check the connection's host, the network, "
        "the proxy and the certificates of this machine, then try again.",
        operation=route.operation,
    )
    return _Again(error) if fault.may_pass else error


def _without(secrets: tuple[str, ...], answer: Answer) -> Answer:
    """An answer that does not repeat who asked: its texts go to XCom and to files, which nothing masks."""
    body = answer.body or b""
    echoed = {
        spelling.encode("latin-1")
        for secret in secrets
        if len(secret) >= _RECOGNISABLE
        for spelling in spellings(secret)
        if spelling.encode("latin-1") in body
    }
    for spelling in echoed:
        body = body.replace(spelling, b"***")
    return replace(answer, body=body) if echoed else answer


def _judge(message: Message, identity: Identity | None, answer: Answer) -> Answer:
    """Return a success; raise what anything else means."""
    if identity is not None:
        answer = _without(identity.secrets, answer)
    route, status = message.route, answer.status
    operation = route.operation
    host = urlsplit(message.url).hostname
    if 200 <= status < 300:
        if answer.flaw and route.repeatable:
            if answer.broken_off:
                raise _Again(_unavailable(operation, host, f"the answer broke off ({answer.flaw})", status))
            raise VolubileProtocolError(
                f"{operation}: the answer of {host} cannot be read: {answer.flaw}.", operation=operation, status=status
            )
        return answer
    if 300 <= status < 400 and message.stream:
        return answer
    reason = wire.server_message(answer.body, identity.secrets if identity else ())
    said = f": {reason}" if reason else ""
    if status == 429 and not message.anonymous:
        error = VolubileRateLimitError(
            f"{operation}: the account's request window stayed full (429). Nothing was taken. "
            "Let fewer tasks run at once, or give the task more retries.",
            operation=operation,
            status=status,
        )
        raise _Again(error, retry_after(answer.headers))
    if identity is not None and status in (401, 403):
        raise identity.refusal(operation, status, reason)
    if status == 404:
        raise VolubileNotFound(
            f"{operation}: {host} knows no such object (404){said}. Check the id, and that it belongs to the "
            "account of this connection.",
            operation=operation,
            status=status,
        )
    if not route.repeatable and (status < 400 or status == 408 or status >= 500):
        raise VolubileUnknownOutcome(
            f"{operation}: {host} answered {status}{said}. {_CHECK_BEFORE_SENDING_AGAIN}",
            operation=operation,
            status=status,
        )
    if status in (408, 429) or status >= 500:
        raise _Again(_unavailable(operation, host, f"it answered {status}{said}", status), retry_after(answer.headers))
    if 400 <= status < 500:
        raise VolubileRequestRefused(
            f"{operation}: {host} refused the request ({status}){said}. Nothing was taken; correct it before "
            "sending it again.",
            operation=operation,
            status=status,
            reason=reason,
        )
    target = _host_of(answer.headers.get("Location", ""))
    raise VolubileProtocolError(
        f"{operation}: {host} answered {status}"
        + (f", a redirect to {target}" if target else "")
        + ", which is not followed: the connection's host must be the API itself.",
        operation=operation,
        status=status,
    )


def _unavailable(operation: str, host: str | None, what: str, status: int) -> VolubileUnavailable:
    return VolubileUnavailable(
        f"{operation}: {host} is not available, {what}. Try again later.", operation=operation, status=status
    )


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
