"""Stay inside the account's rate window, with nothing shared but the server.

Volubile grants an account 100 requests per fixed window of 15 s, and each answer tells how many are left
(https://docs.volubile.ai/api-reference/rate-limiting). No answer tells when a window opens, or who else sends.

- **How much to send.** Between two of our answers the remainder falls by one for our request and by one for each of
  the others' requests, so a request of ours *costs* ``1 + others / ours``. We send while what is left covers that
  cost for every request in flight and for one more. With ``n`` equal clients the cost is ``n``: each stops at its
  first answer below ``n``, no two answers tell the same remainder, and the last ``n`` places go to ``n`` clients.
- **How fast.** Alone, as fast as the threads ask. Beside others we space our requests, so that a client that comes a
  little later finds places too. The speed falls with the root of the cost, so the client that has least catches up.
- **When to come back.** A remainder that does not fall shows that a window opened since the answer before. Each such
  interval narrows the one in which the next window opens. While that is wide, we try in its middle: the answer halves
  it, at the price of one 429 at most.
- **When the headers make no sense.** We count our own requests against the documented limit, until a window passes
  without a contradiction.
- **The longest wait** is what a 429 asked for (four windows at most) and one window more.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from airflow_provider_volubile.api.headers import rate_limit, retry_after

LIMIT = 100
LENGTH = 15.0
RESERVE = 10

# In lengths of a window.
_SPACING = 0.7  # the spaced requests of two clients take about half of this
_DRIFT = 2e-4  # clocks disagree: each window may open that much earlier or later than predicted
_DOUBT = 0.05  # an opening that is known as well as this is known well enough
_PATIENCE = 0.05  # how long to wait for an answer that tells what is left
_SETTLED = 1.5  # latencies after which the requests of others that were under way have arrived
_RETRY = 0.125  # between requests while nothing tells when the window opens
_LONGEST_REFUSAL = 4.0

_ALONE = 1.02  # a cost below is no company: a poll now and then does not slow an export down


class _Report(NamedTuple):
    """How many requests were left at some moment between sending and receiving."""

    left: int | None
    sent_at: float
    received_at: float


class _Opening:
    """Between which two moments the next window opens."""

    def __init__(self, length: float) -> None:
        self._length = length
        self.earliest = self.latest = math.inf

    @property
    def is_known(self) -> bool:
        return self.latest < math.inf

    @property
    def expected(self) -> float:
        """When to try: in the middle of a wide interval, else when the window is certainly open."""
        doubt = self.latest - self.earliest
        return self.earliest + doubt / 2 if doubt > _DOUBT * self._length else self.latest

    def narrow(self, earliest: float, latest: float) -> None:
        """Take in that the next window opens between two moments, and keep what agrees with what was known."""
        if self.is_known:
            windows = round((earliest + latest - self.earliest - self.latest) / 2 / self._length)
            shift, drift = windows * self._length, max(1, abs(windows)) * _DRIFT * self._length
            common = max(earliest, self.earliest + shift - drift), min(latest, self.latest + shift + drift)
            if common[0] <= common[1]:
                earliest, latest = common
        self.earliest, self.latest = earliest, latest

    def was_closed_at(self, moment: float) -> None:
        """Take in that the next window was not open at a moment."""
        self.earliest = min(max(self.earliest, moment), self.latest)

    def pass_by(self, now: float) -> None:
        """Expect the first window that is not certainly open by now."""
        if (windows := max(0.0, (now - self.latest) // self._length + 1)) > 0:
            self.earliest += windows * self._length * (1 - _DRIFT)
            self.latest += windows * self._length * (1 + _DRIFT)


class RateWindow:
    """One account's rate window as one process sees it; its threads share one object.

    Call :meth:`acquire` before each request, and then exactly one of :meth:`observe` (an answer came, whatever its
    status) and :meth:`abandon` (none came).

    :param limit: requests per window until the server tells otherwise.
    :param length: seconds per window; the server does not tell. Both defaults are documented at
        https://docs.volubile.ai/api-reference/rate-limiting.
    :param reserve: requests per window that background work leaves to the foreground; a tenth of the limit at most.
    :param clock: monotonic seconds.
    :param sleep: how a thread waits, for tests with a clock of their own. By default an answer to another thread wakes
        a thread that waits.
    :param rng: spreads the requests of several clients in time.
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
        self._documented_limit = limit
        self._length = length
        self._reserve = reserve
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._queue: dict[int, tuple[bool, float]] = {}  # who waits, in order: in the background or not, since when
        self._in_flight = 0
        self._limit = self._documented_limit
        self._opening = _Opening(self._length)
        self._last_report: _Report | None = None
        self._contradicted = self._contradicted_before = False
        self._latency = 0.0  # of the last answer, in seconds
        self._last_send = self._next_send = self._closed_until = -math.inf
        self._past_mine = self._past_others = 0.0  # requests in earlier windows, the older the lighter
        # The present window
        self._began_at = -math.inf  # answers to requests sent earlier may tell of the window before
        self._confirmed = True  # False: it may still be the window before
        self._left: int | None = None  # None: not known, one request is to find out
        self._first = 0  # what was left at the first answer
        self._mine = 0  # our requests that ended after it
        self._reserved = False  # what is left is for the foreground

    # Called around each request ------------------------------------------------------------------------------------

    def acquire(self, *, background: bool = False) -> None:
        """Wait until one request may be sent, and count it as sent.

        :param background: leave the reserve to the foreground.
        """
        with self._changed:
            self._wait_for_turn(background)
            now = self._clock()
            self._in_flight += 1
            self._last_send = now
            if (cost := self._cost()) > 1:
                self._next_send = now + self._spacing(cost) * self._rng.uniform(0.5, 1.5)

    def wait_for_place(self) -> None:
        """Wait until a request could be sent, and take no place: the journal writes "in flight" after this wait."""
        with self._changed:
            self._wait_for_turn(background=False)

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float, received_at: float) -> None:
        """Learn from the answer to an acquired request.

        :param status: HTTP status.
        :param headers: the answer's headers, whatever their case; absent or senseless ones are done without.
        :param sent_at: when the request was sent, in seconds of the clock.
        :param received_at: when the answer came.
        """
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._changed.notify_all()
            self._latency = received_at - sent_at
            self._turn(received_at)
            if not self._opening.is_known:
                self._opening.narrow(sent_at, received_at + self._length)
            if sent_at < self._began_at:
                return
            self._spend_one()
            report = rate_limit(headers)
            if report and not 0 < report.limit >= report.remaining:
                report = None
                self._disbelieve()
            if report and self._believes and report.limit != self._limit:
                # What was counted under another limit says nothing about this one.
                self._limit, self._last_report = report.limit, None
                self._begin(sent_at)
                self._past_mine = self._past_others = 0.0
            answer = _Report(report.remaining if report else None, sent_at, received_at)
            if status == 429:
                self._refused(answer, retry_after(headers))
            else:
                self._accepted(answer)

    def abandon(self) -> None:
        """Count an acquired request that got no answer as spent until the next window."""
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._changed.notify_all()
            self._spend_one()

    @property
    def remaining(self) -> int | None:
        """What the present window had left at the last answer; None before its first answer."""
        return self._left

    # Whether a request may go. Everything below runs under the lock -------------------------------------------------

    def _wait_for_turn(self, background: bool) -> None:
        number = next(self._numbers)
        self._queue[number] = background, self._clock()
        try:
            while (seconds := self._seconds_to_wait(number, self._clock())) > 0:
                self._pause(seconds)
        finally:
            del self._queue[number]
            self._changed.notify_all()

    def _seconds_to_wait(self, number: int, now: float) -> float:
        """0 if the request of one thread in the queue may go now, else the seconds after which to ask again."""
        background, since = self._queue[number]
        for other, (is_background, _) in self._queue.items():
            if other == number:
                break
            if background or not (is_background and self._reserved):
                return self._length  # the thread before this one wakes it
        self._turn(now)
        hold = max(self._closed_until, min(self._next_send, max(since, self._last_send) + self._length)) - now
        if hold > 0:
            return min(max(hold, 0.001), self._length)  # less might not move the clock
        cost = self._cost()
        if self._left is None:
            return max(0.0, self._last_send + _PATIENCE * self._length - now) if self._in_flight else 0.0
        spare = self._left - math.ceil(cost * (self._in_flight + 1))
        if spare < 0 and self._in_flight:
            return _PATIENCE * self._length  # an answer will tell
        if spare < 0:
            self._closed_until = max(self._opening.expected, now + 0.001)
            return self._closed_until - now
        if cost > 1 and self._left < cost * (1 + self._latency / self._spacing(cost)):
            # Others may have as many requests under way: near the end, let them arrive first.
            settled = self._last_send + min(_SETTLED * self._latency, self._length / 4) - now
            if settled > 0:
                return settled
        self._reserved = spare < min(self._reserve, self._limit // 10)
        if background and self._reserved:
            self._changed.notify_all()
            return max(self._opening.expected - now, 0.001)
        return 0.0

    def _cost(self) -> float:
        """By how much the remainder falls for each of our requests."""
        mine, others = self._past_mine + self._mine, self._past_others + self._others()
        cost = 1 + others / mine if mine else 1.0
        return cost if cost > _ALONE else 1.0

    def _others(self) -> int:
        """How many requests others certainly sent in this window after our first answer."""
        return 0 if self._left is None else max(0, self._first - self._left - self._mine - self._in_flight)

    def _spacing(self, cost: float) -> float:
        return _SPACING * self._length / self._limit * math.sqrt(cost)

    # What an answer tells --------------------------------------------------------------------------------------------

    def _accepted(self, report: _Report) -> None:
        """Take in an answer that was no refusal."""
        last = self._last_report
        if report.left is not None:
            self._last_report = report
        if report.left is None or last is None or last.left is None:
            if not self._confirmed:
                self._opened(self._opening.earliest, report)
        elif last.received_at <= report.sent_at:  # else they may have passed each other
            if report.left < last.left:
                if not self._confirmed:
                    self._opening.was_closed_at(report.sent_at)
            elif self._left is None or report.received_at >= self._opening.earliest - _DOUBT * self._length:
                self._opened(last.sent_at, report)
            else:
                self._disbelieve()
        self._confirmed = True
        self._count(report.left if self._believes else None)

    def _opened(self, after: float, report: _Report) -> None:
        """Take in that a window opened between a moment and an answer."""
        if self._left is not None:
            self._begin(report.sent_at)
        after = max(after, report.received_at - self._length)
        self._opening.narrow(after + self._length, report.received_at + self._length)
        self._closed_until = -math.inf

    def _spend_one(self) -> None:
        """Count a request of ours. What is left is never more than our own requests leave."""
        self._mine += 1
        if self._left is not None:
            self._left = max(0, min(self._left, self._first - self._mine))

    def _count(self, left: int | None) -> None:
        """Believe what the answer to a request that was served tells is left, if it tells that."""
        if self._left is None:
            # Others may have used the window up, or a header that always tells 0 lies: one request more finds out.
            self._left = self._first = self._limit - 1 if left is None else max(left, min(1, self._limit - 1))
            self._mine = 0
        elif left is not None:
            self._left = min(self._left, left)

    def _refused(self, report: _Report, seconds: float | None) -> None:
        """Take in a 429.

        :param seconds: what its ``Retry-After`` asks for.
        """
        pause = _RETRY * self._length * self._rng.uniform(0.75, 1.25)
        if report.left or (seconds is not None and seconds > self._length + 1):
            # The window does not explain it. It is obeyed all the same.
            pause = min(seconds, _LONGEST_REFUSAL * self._length) if seconds else pause
            self._closed_until = max(self._closed_until, report.received_at + pause)
            return
        self._last_report = report._replace(left=0)
        if seconds:
            # Whole seconds, rounded up.
            self._opening.narrow(
                report.sent_at + max(0.0, seconds - 1), report.received_at + min(seconds, self._length)
            )
        elif self._left is None:
            # It may still be the window before: one request is to find out, a little later.
            self._closed_until = report.received_at + pause
            return
        if self._left is None:
            self._first = self._mine = 0
        self._left, self._confirmed = 0, True
        self._closed_until = max(self._opening.expected, report.received_at + _DOUBT * self._length)

    @property
    def _believes(self) -> bool:
        """Whether the headers agreed with each other, in this window and in the one before."""
        return not (self._contradicted or self._contradicted_before)

    def _disbelieve(self) -> None:
        """Count our own requests from now on: an answer contradicts the ones before."""
        if self._believes:
            self._limit = self._documented_limit
            self._first = self._limit - 1
            self._left = max(0, self._first - self._mine)
        self._contradicted = True

    # Windows and time ------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """Take the next window for open when it is time."""
        opening = self._opening
        is_certain = now >= opening.latest
        if not is_certain and (not self._confirmed or now < opening.expected):
            return
        if self._confirmed:
            self._begin(now)
            if (cost := self._cost()) > 1:
                self._next_send = now + self._spacing(cost) * self._rng.random()
        self._confirmed = is_certain
        if is_certain:
            opening.pass_by(now)

    def _begin(self, now: float) -> None:
        """Begin to count anew."""
        self._past_mine = (self._past_mine + self._mine) / 2
        self._past_others = (self._past_others + self._others()) / 2
        self._left, self._mine, self._began_at = None, 0, now
        self._reserved = False
        self._contradicted_before, self._contradicted = self._contradicted, False

    def _pause(self, seconds: float) -> None:
        """Wait without the lock."""
        if self._sleep is None:
            self._changed.wait(seconds)
            return
        self._changed.release()
        try:
            self._sleep(seconds)
        finally:
            self._changed.acquire()


_windows: dict[str, RateWindow] = {}
_windows_lock = threading.Lock()


def shared_window(account_key: str, *, length: float = LENGTH) -> RateWindow:
    """This process's one window of an account; it is made at the first call.

    :param account_key: tells accounts apart. Give no secret.
    :param length: seconds per window, as for :class:`RateWindow`; it counts at the first call only.
    """
    with _windows_lock:
        if account_key not in _windows:
            _windows[account_key] = RateWindow(length=length)
        return _windows[account_key]


def _forget() -> None:
    """Begin anew in a forked child: the threads that held the locks and sent the requests are not there."""
    global _windows_lock
    _windows_lock = threading.Lock()
    _windows.clear()


os.register_at_fork(after_in_child=_forget)
