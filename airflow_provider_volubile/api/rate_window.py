"""Stay inside the account's rate window without talking to anyone but the server.

Volubile grants an account 100 requests per fixed window of 15 s and tells on every answer how many are left
(https://docs.volubile.ai/api-reference/rate-limiting). It does not tell when a window opens, and nobody tells
who else uses the account. :class:`RateWindow` finds out both from the answers alone.

**When a window opens.** A remainder that does not fall from one request to the next shows that a window opened
in between; windows follow each other at a fixed distance, so every such interval narrows all the others, and
the window is taken for open when the narrowed interval is over. Nothing known yet is no harm: one length after
the first answer a new window is open for certain, whatever its phase. `Retry-After` narrows to a second.

**How many requests are mine.** Between two of my answers the remainder falls by one for mine and by one for
each request of others, so each of mine *costs* the window `1 + others / mine`. I send only while what is left
covers that cost for every request of mine in flight and for one more. With `n` equal clients the cost is `n`:
each stops at its first answer below `n`, and as no two answers tell the same remainder, the last `n` places go
to `n` different clients: nothing is left over and nobody is refused, in whatever order they run.

**How fast.** Alone, as fast as the threads ask. In company, one request per `0.7 × length / limit × √cost`:
slow enough that who comes a little late still finds something, and since the speed falls only with the root of
the cost, whoever has less than the others gains on them until all have the same.

**When the server tells nonsense.** More left than the limit, more and more left within a window, or a request
served after the last one: then requests are counted here, against the limit this window was made with, until the
headers make sense again. A window whose first answer already tells 0 may be one that others used up. When that
happens again and again, one request more finds out, at the price of a 429 at most.

**When it asks for more than a window's patience.** A 429 whose `Retry-After` is longer than a window is not
explained by this one; it is obeyed all the same, but for four windows at most, so that no thread hangs for hours.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

LIMIT = 100
LENGTH = 15.0
RESERVE = 10

# In lengths of a window
_SPREAD = 0.7  # two clients spread their requests over about half of this
_DRIFT = 2e-4  # two clocks never agree: a window may open that much later than predicted
_DOUBT = 0.05  # an opening known as well as this is known well enough
_PROBE = 0.125  # between requests that only find out whether a window has opened
_PATIENCE = 0.05  # how long all wait for one answer that tells what is left
_OBEDIENCE = 4.0  # the longest wait that a refusal can ask for

_QUIET = 1.5  # latencies after which what was under way has arrived
_COUNT = re.compile(r"[0-9]{1,9}")

_ALONE = 1.02  # a cost below is nobody else's: one poll now and then does not slow an export down

_CONTRADICTIONS = 3  # in a row, until the server is no longer believed: our own clock explains one or two
_SENSIBLE = 3  # answers in a row until it is again; twice as many each time
_MOST_SENSIBLE = 12  # many threads get few answers that can be compared
_BLANKS = 2  # windows in a row whose first answer tells 0, until that is checked; twice as many each time


class _Word(NamedTuple):
    """What the server told: how many requests were left at some moment between sending and receiving."""

    left: int  # -1: refused
    sent_at: float
    received_at: float


class _Credit:
    """Whether the server is believed when it tells what is left."""

    def __init__(self) -> None:
        self.given = True
        self._last: _Word | None = None
        self._row = 0  # answers in a row that speak for changing our mind
        self._sensible = _SENSIBLE
        self._blanks = 0  # windows in a row whose first answer told 0
        self._usual = self._believed = _BLANKS

    def rose(self, word: _Word, limit: int) -> bool:
        """Take in an answer; return whether it tells no less than the one before."""
        last = self._last
        if last and word.sent_at < last.received_at:
            return False  # they may have passed each other
        self._last = word
        fell = last is not None and word.left < last.left <= limit
        if not self.given:
            self._row = self._row + 1 if fell else 0
        elif fell:
            self._row = 0
        return last is not None and not fell

    def doubt(self) -> bool:
        """Take in an answer that nothing explains; return whether that makes too many."""
        self._row += 1
        return self._row >= _CONTRADICTIONS

    def blank(self, left: int) -> bool:
        """Take in what a window's first answer tells; return whether to check that nothing is left."""
        if left:
            self._blanks, self._believed = 0, self._usual
            return False
        self._blanks += 1
        if self._blanks < self._believed:
            return False
        self._blanks, self._believed = 0, 2 * self._believed
        return True

    def lose(self) -> None:
        self.given, self._row = False, 0
        self._usual = self._believed = 1  # who lost it once has every blank checked

    def regain(self) -> bool:
        """Give credit again if enough answers have made sense."""
        if self._row < self._sensible:
            return False
        self.given, self._row = True, 0
        self._sensible = min(2 * self._sensible, _MOST_SENSIBLE)
        return True


class _ThisThread(threading.local):
    """What the present thread has had of rate windows, for whoever decides how many threads to use."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.requests = 0
        self.waited = 0.0  # seconds for windows, and between attempts
        self.rate: float | None = None  # requests per second that the window grants this process; None before any
        self.failed_at: float | None = None  # whatever follows, until the next attempt, is waiting

    def sends(self, begun: float, now: float, rate: float) -> None:
        """Count a request, and what it waited for."""
        if self.failed_at is not None:
            begun, self.failed_at = self.failed_at, None
        self.requests += 1
        self.waited += max(0.0, now - begun)
        self.rate = rate


this_thread = _ThisThread()


class _Openings:
    """When windows open, as far as the answers tell: an interval that holds the present one's opening.

    Windows follow each other at a fixed distance, or else each opens with the first request after the last one
    is over (`on_demand`); then an opening is only ever known from having seen it.
    """

    def __init__(self, length: float) -> None:
        self.length = length
        self.earliest = -math.inf
        self.latest = math.inf
        self.led = False  # the present window was taken for open before `latest`
        self._lead = 0.0
        self._on_demand = False

    def next(self) -> float:
        """Return when to take the next window for open."""
        return self.latest + self.length - self._lead

    def hurry(self) -> None:
        """Try the next window in the middle of the doubt about its opening: no later than half as late as now."""
        doubt = self.latest - self.earliest
        self._lead = doubt / 2 if doubt > _DOUBT * self.length else 0.0

    def turn(self, now: float) -> None:
        """Move on to the window that is taken for open."""
        self.led = now < self.latest + self.length
        self._shift(max(1.0, (now - self.latest) // self.length))

    def answered(self, sent_at: float, received_at: float) -> None:
        """Take in an answer; the first of all tells that some window was open."""
        if self.latest == math.inf:
            self.earliest, self.latest = sent_at - self.length, received_at

    def opened(self, after: float, word: _Word, limit: int, turned: bool) -> bool:
        """Take in that a window opened after some moment and before an answer.

        :param after: when the window before was still on.
        :param word: the first answer from the new window.
        :param limit: requests per window.
        :param turned: it is the window already taken for open, not the next one.
        :return: False if none can have opened.
        """
        another = word.received_at > self.earliest + 0.9 * self.length
        if not turned and not another:
            return False
        if not turned or (another and word.received_at > self.latest + self.length / 4):
            self._shift(1)  # others may have used up the window taken for open before I came
        if after >= self.latest:
            self._on_demand = True  # later than a fixed distance allows
        earliest, latest = max(self.earliest, after), min(self.latest, word.received_at)
        if self._on_demand:
            latest = word.received_at
            if word.left == limit - 1:
                earliest = max(earliest, word.sent_at)  # it opened with this request
        if earliest > latest:  # what we believed is wrong
            earliest, latest = max(after, word.received_at - self.length), word.received_at
        self.earliest, self.latest = earliest, latest
        return True

    def refused(self, word: _Word, retry_after: float, turned: bool) -> int:
        """Take in a refusal that tells when the next window opens, in whole seconds rounded up.

        :return: in which window it came: -1 the one before that taken for open, 0 that one, 1 the next.
        """
        lower = word.sent_at + max(0.0, retry_after - 1) - self.length
        upper = word.received_at + min(retry_after, self.length) - self.length
        # The window it came in opened between these two. Which one does that fit best?
        fits = {number: self._overlap(lower, upper, number) for number in ((0, -1) if turned else (0, 1))}
        number = max(fits, key=lambda number: fits[number])
        if fits[number] < 0:  # none: what we believed is wrong
            number = -1 if turned and upper < self.latest - self.length / 2 else 0
        if number < 0:
            self._on_demand = self._on_demand or word.sent_at >= self.latest
        if number:
            self._shift(number)
        if not lower <= self.latest <= upper:
            self.latest = upper
        if self.earliest > upper:
            self.earliest = -math.inf
        self.earliest = min(self.latest, max(self.earliest, lower))
        self._lead = 0.0
        return number

    def _overlap(self, earliest: float, latest: float, number: int) -> float:
        """Return how long an interval and that of an opening so many windows later overlap; less than 0: not."""
        shift = number * self.length
        return min(latest, self.latest + shift) - max(earliest, self.earliest + shift)

    def take_back(self) -> None:
        """Take back the last turn: the window before is still on."""
        self._shift(-1)

    def _shift(self, windows: float) -> None:
        self.latest += windows * self.length + _DRIFT * self.length
        self.earliest += windows * self.length - _DRIFT * self.length
        self._lead = 0.0


class RateWindow:
    """One account's rate window as seen by one process; its threads share one object.

    Call :meth:`acquire` before each request and then exactly one of :meth:`observe` (an answer came, whatever
    its status) and :meth:`abandon` (none came).

    :param limit: requests per window until the server tells otherwise.
    :param length: seconds per window; the server does not tell. Both defaults are documented at
        https://docs.volubile.ai/api-reference/rate-limiting.
    :param reserve: requests per window that background work leaves to the foreground; a tenth of the limit at most.
    :param clock: monotonic seconds.
    :param sleep: how a thread waits, for tests with a clock of their own. By default it waits so that an answer
        to another thread wakes it.
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
        self._limit = self._own_limit = limit
        self._length = length
        self._reserve = reserve
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._changed = threading.Condition(threading.Lock())
        self._numbers = itertools.count()
        self._queue: dict[int, bool] = {}  # who waits, in the order in which they came: for the background or not
        self._in_flight = 0
        self._seen = -math.inf  # the last moment on the clock
        self._credit = _Credit()
        self._start_over()

    def _start_over(self) -> None:
        """Know nothing of any window, as at the beginning."""
        self._openings = _Openings(self._length)
        self._told: _Word | None = None  # the last that the server told of what is left
        self._latency = 0.0  # of the last answer
        self._last_send = self._next_send = self._closed_until = -math.inf
        self._past_mine = self._past_others = 0.0  # requests in the windows before, the older the lighter
        # The present window
        self._turned_at = -math.inf  # answers to requests sent earlier may tell of the window before
        self._certain = True  # and not perhaps still the window before
        self._left: int | None = None  # None: unknown, one request is to find out
        self._first = 0  # what was left at the first answer
        self._mine = 0  # requests of mine that ended after it
        self._reserved = False  # what is left is for the foreground
        self._lost = 0  # those without an answer: the server may count them late

    # Called around each request

    def acquire(self, *, background: bool = False) -> None:
        """Wait until one request may be sent, and count it as sent.

        :param background: leave the reserve to the foreground.
        """
        with self._changed:
            number = next(self._numbers)
            self._queue[number] = background
            begun = self._now()
            try:
                while (wait := self._wait(number, self._now())) > 0:
                    self._pause(wait)
                self._in_flight += 1
                this_thread.sends(begun, self._seen, self._limit / self._length / self._cost())
            finally:
                del self._queue[number]
                self._changed.notify_all()

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float, received_at: float) -> None:
        """Learn from the answer to an acquired request.

        :param status: HTTP status.
        :param headers: the answer's headers; absent or senseless ones are done without.
        :param sent_at: when the request was sent, in seconds of the clock.
        :param received_at: when the answer came.
        """
        limit, left = _count(headers, "X-RateLimit-Limit"), _count(headers, "X-RateLimit-Remaining")
        if limit == 0:
            limit = left = None  # no limit that an answer can come under
        this_thread.failed_at = received_at if status == 429 or status >= 500 else None
        with self._changed:
            now = self._now()
            self._ended()
            if not sent_at <= received_at <= now:
                return  # from before the clock went back
            limit = limit or self._limit
            if left is not None and not self._believes(_Word(left, sent_at, received_at), status, limit):
                limit, left = self._own_limit, None
            self._latency = received_at - sent_at
            self._turn(received_at)
            self._openings.answered(sent_at, received_at)
            if limit != self._limit:
                # What was counted under another limit says nothing about this one.
                self._limit, self._told = limit, None
                self._begin(sent_at)
                self._past_mine = self._past_others = 0.0
            if sent_at < self._turned_at:
                return
            if status == 429:
                self._refused(left, retry_after(headers), _Word(-1, sent_at, received_at))
            elif left is None:
                self._count_one()
            else:
                self._accepted(_Word(left, sent_at, received_at))

    def abandon(self) -> None:
        """Count an acquired request that got no answer as spent until the next window."""
        with self._changed:
            this_thread.failed_at = self._now()
            self._ended()
            self._lost += 1

    # For those who want to know

    @property
    def remaining(self) -> int | None:
        """What the present window had left at the last answer; None before its first answer."""
        with self._changed:
            self._turn(self._now())
            return self._left

    @property
    def seconds_until_open(self) -> float:
        """Seconds to wait for the next window; 0.0 while this one lets requests through."""
        with self._changed:
            now = self._now()
            return max(0.0, self._closed_until - now)

    # The rule. Everything below runs under the lock

    def _now(self) -> float:
        """Read the clock. Once it has gone back, what was learned is about moments that are far ahead: forget it."""
        now = self._clock()
        if now < self._seen:
            self._start_over()
        self._seen = now
        return now

    def _wait(self, number: int, now: float) -> float:
        """Return 0 if the request of one in the queue may go now, else the seconds after which to ask again."""
        background = self._queue[number]
        for other, is_background in self._queue.items():
            if other == number:
                break
            if not (is_background and self._reserved and not background):
                return self._length  # whoever was before me wakes me
        self._turn(now)
        hold = max(self._closed_until, self._next_send) - now
        if hold > 0:
            return min(max(hold, 0.001), self._length)  # less might not move the clock
        cost = self._cost()
        if self._left is None:
            patience = self._last_send + _PATIENCE * self._length - now
            if self._in_flight and patience > 0:
                return patience  # an answer will tell what is left
        else:
            spare = self._left - self._lost - math.ceil(cost * (self._in_flight + 1))
            if spare < 0 and self._in_flight:
                return _PATIENCE * self._length  # an answer will tell
            if spare < 0:
                self._spent(now, cost)
                return max(self._closed_until - now, 0.001)  # a hurried opening may be past already
            if cost > 1 and self._left < cost * (1 + self._latency / self._interval(cost)):
                # Others may have as many under way as I: near the end, let them all arrive first
                quiet = self._last_send + _QUIET * self._latency - now
                if quiet > 0:
                    return quiet
            self._reserved = spare < min(self._reserve, self._limit // 10)
            if background and self._reserved:
                self._changed.notify_all()
                return self._openings.next() - now
        self._last_send = now
        if cost > 1:
            self._next_send = now + self._interval(cost) * self._rng.uniform(0.5, 1.5)
        return 0

    def _cost(self) -> float:
        """Return by how much the remainder falls for each request of mine."""
        mine, others = self._past_mine + self._mine, self._past_others + self._others()
        cost = 1 + others / mine if mine else 1.0
        return cost if cost > _ALONE else 1.0

    def _others(self) -> int:
        """Return how many requests others surely sent in this window after my first answer."""
        return 0 if self._left is None else max(0, self._first - self._left - self._mine - self._in_flight)

    def _interval(self, cost: float) -> float:
        return _SPREAD * self._length / self._limit * math.sqrt(cost) if cost > 1 else 0.0

    def _spent(self, now: float, cost: float) -> None:
        """Close until the next window."""
        if not self._certain:
            self._find_out(now)
            return
        if cost == 1 and self._told and self._told.left >= 0:
            self._openings.hurry()  # nobody else will have been there first, and the answer will tell
        self._closed_until = self._openings.next()

    def _find_out(self, now: float) -> None:
        """Ask a little later whether this is still the window before."""
        self._left = None
        self._closed_until = now + _PROBE * self._length * self._rng.uniform(0.75, 1.25)

    def _turn(self, now: float) -> None:
        """Take the next window for open when it is time."""
        if now >= self._openings.next():
            self._openings.turn(now)
            self._begin(now)
            self._certain = False
            self._next_send = now + self._interval(self._cost()) * self._rng.random()

    def _begin(self, now: float) -> None:
        """Begin to count anew."""
        self._past_mine = (self._past_mine + self._mine) / 2
        self._past_others = (self._past_others + self._others()) / 2
        self._left, self._mine, self._lost, self._turned_at = None, 0, 0, now
        self._reserved = False

    def _ended(self) -> None:
        self._in_flight = max(0, self._in_flight - 1)
        self._mine += 1
        self._changed.notify_all()

    def _believes(self, word: _Word, status: int, limit: int) -> bool:
        """Return whether to believe what an answer tells of what is left, as far as it can be seen by itself."""
        if not self._credit.given:
            if status != 429:
                self._credit.rose(word, limit)
            if not self._credit.regain():
                return False
            self._start_over()
        elif word.left > limit:
            self._disbelieve()
            return False
        return True

    def _disbelieve(self) -> None:
        """Count for ourselves from now on; what was learned of others and of openings was learned from headers, too."""
        self._credit.lose()
        self._limit = self._own_limit
        self._start_over()

    def _count_one(self) -> None:
        """Count an answer that does not tell what is left."""
        self._certain = True
        self._left = max(0, (self._limit if self._left is None else self._left) - 1)

    def _accepted(self, word: _Word) -> None:
        """Take in what an answer tells that was no refusal."""
        told = self._told
        rose = self._credit.rose(word, self._limit)
        if told and word.left >= told.left and word.sent_at >= told.received_at:
            # It did not fall, and not only because an older answer came late
            if self._openings.opened(told.sent_at, word, self._limit, not self._certain):
                if self._certain:
                    self._begin(word.received_at)
                self._certain = True
                self._closed_until = -math.inf
            elif told.left == 0 or (rose and self._credit.doubt()):
                self._disbelieve()
                self._openings.answered(word.sent_at, word.received_at)
                self._count_one()
                return
            elif self._left is not None:
                word = word._replace(left=max(0, self._left - 1))  # not to be trusted: count ourselves
        check = False
        if self._left is None:
            self._left = self._first = word.left
            self._mine = 0
            if self._limit - word.left > self._cost():
                self._openings.hurry()  # the others began a round ago
            check = self._credit.blank(word.left)
        if word.left <= self._left:
            self._left, self._told = word.left, word
        if check:
            self._left = None  # one more is to find out

    def _refused(self, left: int | None, wait: float | None, word: _Word) -> None:
        """Take in a 429.

        :param wait: seconds until the next window, if it told.
        """
        told, now = self._told, word.received_at
        if told and told.left < 0 and word.sent_at < told.received_at:
            return  # one of several that were in flight
        if wait is not None and wait > self._length + 1:  # not for want of room in the window, or a wrong word
            self._told, self._left = word, None
            self._closed_until = now + min(wait, _OBEDIENCE * self._length)
            return
        wait = wait or None  # 0 tells nothing
        if left:  # not for want of room in the window
            self._closed_until = now + (wait or _PROBE * self._length)
            return
        self._told = word
        first, begun = self._left is None, True
        if wait is not None:
            number = self._openings.refused(word, wait, not self._certain)
            if number > 0:
                self._begin(word.sent_at)
                first = True
            begun = number >= 0
        elif not self._certain and self._openings.led:
            self._openings.take_back()
            begun = False
        elif not self._certain or told is None:
            self._find_out(now)
            return
        if begun and first and told:
            self._openings.hurry()  # the others have been here before me
        if first:
            self._first = 0
        self._left = 0
        self._closed_until = max(self._openings.next(), now + self._length / 50)

    def _pause(self, seconds: float) -> None:
        """Wait without the lock."""
        if self._sleep is None:
            self._changed.wait(seconds)
        else:
            self._changed.release()
            try:
                self._sleep(seconds)
            finally:
                self._changed.acquire()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, given as seconds or as a date; None when it does not, or oddly."""
    text = _get(headers, "Retry-After")
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text).timestamp()
            date = _get(headers, "Date")
            seconds = moment - (parsedate_to_datetime(date).timestamp() if date else time.time())
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _count(headers: Mapping[str, str], name: str) -> int | None:
    """Read a header that counts requests; None if it is absent or makes no sense."""
    text = _get(headers, name)
    return int(text) if _COUNT.fullmatch(text) else None


def _get(headers: Mapping[str, str], name: str) -> str:
    return (headers.get(name) or headers.get(name.lower()) or "").strip()


_windows: dict[str, RateWindow] = {}
_windows_lock = threading.Lock()


def shared_window(
    account_key: str, *, limit: int = LIMIT, length: float = LENGTH, reserve: int = RESERVE
) -> RateWindow:
    """Return this process's one window of an account; it is made at the first call.

    :param account_key: what tells accounts apart. Give no secret.
    :param limit: as for :class:`RateWindow`; like the others it counts at the first call only.
    :param length: seconds per window.
    :param reserve: requests per window that background work leaves to the foreground.
    """
    with _windows_lock:
        if account_key not in _windows:
            _windows[account_key] = RateWindow(limit=limit, length=length, reserve=reserve)
        return _windows[account_key]


def _forget() -> None:
    """Begin anew in a forked child: the threads that held the locks and sent the requests are not there."""
    global _windows_lock
    _windows_lock = threading.Lock()
    _windows.clear()


os.register_at_fork(after_in_child=_forget)
