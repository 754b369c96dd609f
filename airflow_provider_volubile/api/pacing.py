"""Stay inside the account's rate window without talking to anyone but the server.

Volubile grants an account 100 requests per fixed window of 15 s and says on every answer how many are left
(https://docs.volubile.ai/api-reference/rate-limiting). It does not say when a window opens, and nobody says
who else is using the account. `RateWindow` finds out both from the answers alone.

**When a window opens.** A remainder that goes *up* shows that a window opened between the two requests; a
429 with `Retry-After` bounds the next opening. Until either is seen, the first answer bounds it: whatever
the phase, a new window is open one length later. The earliest such bound is kept and moves on by one length
per window.

**How much of a window is mine to take.** Between two of my answers the remainder falls by one for mine and
by one for each request of somebody else: so each of my requests costs the window `1 + others / mine`. I
send only while the remainder covers that cost for every request I have in flight and for the next one. With
`n` equal clients the cost is `n`: each stops at its first answer below `n`, and as no two answers carry the
same remainder, `n` clients fill the last `n` places exactly, without one refusal, in whatever order they
run.

**How fast.** Alone: as fast as the threads ask. In company: one request per `0.7 × length / limit × √cost`.
The square root makes the shares converge (who has less goes relatively faster) and the pace keeps a client
that wakes a little late from finding the window empty.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

LIMIT = 100  # requests per account and window: https://docs.volubile.ai/api-reference/rate-limiting
LENGTH = 15.0  # seconds, same page
RESERVE = 10

_SPREAD = 0.7  # the part of a window over which two clients spread their requests
_PATIENCE = 0.02  # the part of a window to wait after a refusal that does not say how long; doubles each time
_DRIFT = 2e-4  # how much later than predicted a window may open, in lengths: two clocks never agree


class RateWindow:
    """One account's rate window as seen by one process; its threads share one object.

    Call :meth:`acquire` before each request, then exactly one of :meth:`observe` (an answer came, whatever
    its status) and :meth:`abandon` (none came).

    :param limit: requests per window until the server says otherwise.
    :param length: seconds per window. The server never tells; 15 is documented at
        https://docs.volubile.ai/api-reference/rate-limiting.
    :param reserve: requests per window that background work leaves to the foreground.
    :param clock: monotonic seconds.
    :param sleep: how to wait, for a test with a clock of its own; by default a waiting thread wakes as soon
        as another thread's answer changes its prospects.
    :param rng: spreads the requests of several clients.
    """

    def __init__(
        self,
        *,
        limit: int = LIMIT,
        length: float = LENGTH,
        reserve: int = RESERVE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._limit = limit
        self._length = length
        self._reserve = reserve
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        # The present window
        self._opened: float | None = None  # at the latest; None: nothing known
        self._not_before = -math.inf  # it opened at the earliest
        self._confirmed = False  # an answer has shown that it is a window of its own
        self._before = 0  # what was left of the window before it
        self._left: int | None = None  # the lowest remainder told in it; None: nobody asked yet
        self._left_at = -math.inf  # when that was told
        self._heard_from = -math.inf  # answers to requests sent earlier may tell of the window before
        self._lost = 0  # requests without an answer: counted by the server or not
        self._first = 0  # the first remainder told in it
        self._mine = 0  # answers of mine after that
        # Across windows
        self._in_flight = 0
        self._past_mine = 0.0
        self._past_others = 0.0
        self._drift = _DRIFT
        self._refusals = 0  # 429 in a row
        self._refused_at = -math.inf
        self._closed_until = -math.inf
        self._next_send = -math.inf
        self._last_send = -math.inf

    # What the clients call

    def acquire(self, *, background: bool = False) -> None:
        """Wait until one request may be sent, and count it as sent.

        :param background: leave the reserve to the foreground (polling does).
        """
        with self._changed:
            while (wait := self._wait(self._clock(), background)) > 0:
                self._pause(wait)
            self._in_flight += 1

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float, received_at: float) -> None:
        """Learn from the answer to an acquired request.

        :param status: HTTP status.
        :param headers: the answer's headers.
        :param sent_at: when the request was sent, in the clock's seconds.
        :param received_at: when its answer came.
        """
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._turn(received_at)
            self._mine += 1
            limit, left = _count(headers, "X-RateLimit-Limit"), _count(headers, "X-RateLimit-Remaining")
            self._limit = limit or self._limit
            if status == 429:
                self._refused(_retry_after(headers), sent_at, received_at)
            else:
                self._refusals = 0
                self._told(left if left is not None and left <= self._limit else None, sent_at, received_at)
            if self._waiting:
                self._changed.notify_all()

    def abandon(self) -> None:
        """Count an acquired request that got no answer as spent until the next window."""
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._lost += 1
            if self._waiting:
                self._changed.notify_all()

    # What others may look at

    @property
    def limit(self) -> int:
        """Requests per window, as last told by the server."""
        return self._limit

    @property
    def length(self) -> float:
        """Seconds per window."""
        return self._length

    @property
    def remaining(self) -> int | None:
        """What the present window has left by the last answer; None before its first answer."""
        with self._changed:
            self._turn(self._clock())
            return self._left

    @property
    def seconds_until_open(self) -> float:
        """Seconds until the next request may be sent; 0.0 while the window is open."""
        with self._changed:
            return max(0.0, self._closed_until - self._clock())

    # The rule; every method below runs under the lock

    def _wait(self, now: float, background: bool) -> float:
        """Return 0 if one request may go now, else the seconds after which to ask again."""
        self._turn(now)
        self._closed_until = min(self._closed_until, now + self._length * 1.1)  # a clock may jump
        hold = max(self._closed_until, self._next_send) - now
        if hold > 0:
            return hold
        cost = self._cost()
        if self._left is None:
            patience = self._last_send + self._length / 20 - now
            if self._in_flight and patience > 0:  # one request finds out
                return patience
        else:
            spare = self._left - self._lost - cost * (self._in_flight + 1)
            if spare < 0:
                if self._in_flight:
                    return self._length / 20  # its answer will tell
                self._closed_until = self._next_opening(now)
                return self._closed_until - now
            if background and spare < self._reserve:
                return max(self._next_opening(now) - now, self._length / 20)
        self._last_send = now
        if cost > 1:
            self._next_send = now + self._interval(cost) * self._rng.uniform(0.5, 1.5)
        return 0

    def _cost(self) -> float:
        """Return how far the remainder falls for each request of mine."""
        others = self._past_others + self._others()
        mine = self._past_mine + self._mine
        return 1 + others / mine if others >= 1 and mine else 1.0

    def _others(self) -> int:
        """Return how many requests others surely sent between my first answer in this window and my last."""
        return (
            max(0, self._first - self._left - self._mine - self._in_flight) if self._left is not None else 0
        )

    def _interval(self, cost: float) -> float:
        return _SPREAD * self._length / self._limit * math.sqrt(cost) if cost > 1 else 0.0

    def _next_opening(self, now: float) -> float:
        """Return when to send again after this window is spent."""
        if self._opened is None:
            return now + self._length
        if self._confirmed:
            return self._opened + self._length
        # Perhaps the window before is still on: ask again soon, and less often each time.
        self._refusals += 1
        return min(now + self._backoff(), self._opened + self._length)

    def _backoff(self) -> float:
        return self._length * min(1.0, _PATIENCE * 2.0**self._refusals) * self._rng.uniform(0.75, 1.25)

    def _turn(self, now: float) -> None:
        """Begin a new window if the present one is over."""
        if self._opened is None or now < self._opened + self._length:
            return
        passed = int((now - self._opened) // self._length) * self._length
        self._before = 0 if self._left is None else self._left
        self._begin(self._opened + passed, self._not_before + passed)
        self._confirmed = False
        self._next_send = self._opened + self._interval(self._cost()) * self._rng.random()

    def _begin(self, opened: float, not_before: float) -> None:
        self._past_others = self._past_others / 2 + self._others()
        self._past_mine = self._past_mine / 2 + self._mine
        self._opened, self._not_before, self._heard_from = opened, not_before, opened
        self._left = None
        self._lost = self._mine = 0
        self._closed_until = -math.inf

    def _told(self, left: int | None, sent_at: float, received_at: float) -> None:
        """Take in the remainder of an answer that was no refusal; None if it told none that makes sense."""
        if self._opened is None:
            self._opened, self._not_before, self._confirmed = received_at, sent_at - self._length, True
        if sent_at < self._heard_from:
            return
        if self._left is None:
            self._first_told(self._limit - 1 if left is None else left, received_at)
        elif left is None:
            self._left -= 1
        elif left < self._left:
            self._left, self._left_at = left, received_at
        elif sent_at > self._left_at:  # up, and not only because an older answer came late
            if received_at - self._not_before < 0.9 * self._length:
                self._left -= 1  # no two windows open that soon: the header is not to be trusted
                return
            if not self._confirmed:
                self._drift = max(self._drift, min(0.5, (received_at - self._opened) / self._length))
            self._before = 0
            self._begin(received_at, self._left_at)
            self._first_told(left, received_at)

    def _first_told(self, left: int, received_at: float) -> None:
        """Take in the first remainder told in this window."""
        assert self._opened is not None  # noqa: S101
        self._left, self._left_at, self._first, self._mine = left, received_at, left, 0
        self._confirmed = self._confirmed or left >= self._before
        if not self._confirmed:
            return
        self._opened = min(received_at, self._opened + self._drift * self._length)
        self._drift = max(_DRIFT, self._drift * 0.98)
        cost = self._cost()
        late = ((self._limit - left) / cost - 2) * self._interval(cost)
        if late > 0:  # the others began without me
            self._opened = max(self._not_before, self._opened - late / 2)

    def _refused(self, retry_after: float | None, sent_at: float, received_at: float) -> None:
        """Take in a 429: the window is spent."""
        if sent_at < self._refused_at:
            return  # one of several in flight
        self._refused_at = received_at
        self._left, self._left_at = 0, received_at
        self._refusals += 1
        known = self._opened is not None and (self._confirmed or retry_after is not None)
        opened = received_at if self._opened is None else self._opened
        opening = opened + self._length
        if retry_after is not None and 0 <= retry_after <= self._length + 1:
            # Whole seconds, rounded up
            opening = min(max(opening, sent_at + retry_after - 1), received_at + retry_after)
            known = True
        if opening - opened < self._length / 2 and self._opened is not None:
            self._drift = min(0.5, max(self._drift, (opening - opened) / self._length))
        self._opened = opening - self._length
        self._not_before = max(self._not_before, sent_at - self._length)
        wait = received_at + self._backoff()
        self._closed_until = max(opening, wait) if known else wait

    def _pause(self, seconds: float) -> None:
        """Wait without the lock."""
        if self._sleep is None:
            self._waiting += 1
            self._changed.wait(seconds)
            self._waiting -= 1
        else:
            self._changed.release()
            try:
                self._sleep(seconds)
            finally:
                self._changed.acquire()


def _count(headers: Mapping[str, str], name: str) -> int | None:
    """Read a header that counts requests; None if it is absent or no whole number."""
    text = headers.get(name) or headers.get(name.lower(), "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`, seconds or a date, as seconds from now; None if it is absent or odd."""
    text = headers.get("Retry-After") or headers.get("retry-after") or ""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text).timestamp()
        date = headers.get("Date") or headers.get("date")
        return until - (parsedate_to_datetime(date).timestamp() if date else time.time())
    except ValueError:
        return None


_windows: dict[str, RateWindow] = {}
_windows_lock = threading.Lock()


def shared_window(
    account_key: str, *, limit: int = LIMIT, length: float = LENGTH, reserve: int = RESERVE
) -> RateWindow:
    """Return this process's one window of an account, made at the first call.

    :param account_key: what tells accounts apart; no secret.
    :param limit: see :class:`RateWindow`; used at the first call only, as are the others.
    :param length: seconds per window.
    :param reserve: requests per window that background work leaves.
    """
    with _windows_lock:
        return _windows.setdefault(account_key, RateWindow(limit=limit, length=length, reserve=reserve))


def _forget() -> None:
    """Start anew in a forked child: its parent's threads and locks are not there."""
    global _windows_lock
    _windows_lock = threading.Lock()
    _windows.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
