"""One poll for everybody: all deferred waits of one connection in a triggerer share one loop.

A trigger joins with what it watches and follows its own progress; the loop looks for all of them together
(:func:`airflow_provider_volubile.waiting.look`), so its cost grows with the calls in flight divided by a hundred and
not with the number of deferred tasks. A loop without members ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError
from airflow_provider_volubile.outcomes import NOTHING, Progress
from airflow_provider_volubile.waiting import FIRST_INTERVAL, SECONDS_PER_REQUEST, Opening, Round, interval, look
from airflow_provider_volubile.watches import Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)

T = TypeVar("T")
ClientFactory: TypeAlias = "Callable[[], VolubileClient]"

# Polling may fail for so long before its waiters are told: an outage of the service is not the end of a campaign.
FAILURE_BUDGET = timedelta(minutes=30)
# Members are served in slices, so that thousands of them never hold the event loop up.
SLICE = 25

# Airflow's own thread pool is small and shared by all triggers; waiting for the rate window must not fill it.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="volubile")


async def in_thread(function: Callable[[], T]) -> T:
    """Run something blocking outside the event loop, in this provider's own threads."""
    return await asyncio.get_running_loop().run_in_executor(_threads, function)


@dataclass(eq=False)
class _Member:
    watches: Sequence[Watch]
    poll_interval: float
    opening: Opening | None
    joined: datetime
    moved: datetime
    news: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress = NOTHING
    over: bool = False
    error: VolubileError | None = None

    def update(self, now: datetime) -> None:
        """Take in what the last look found, and wake whoever follows if it is news."""
        progress = self.progress
        if self.error is None:
            self.error = next((watch.error for watch in self.watches if watch.error), None)
        if self.error is None:
            try:
                progress = sum((watch.progress() for watch in self.watches), NOTHING)
                self.over = all(watch.is_over(now) for watch in self.watches)
            except VolubileError as error:
                self.error = error
        if progress != self.progress:
            self.progress, self.moved = progress, now
        elif not self.over and self.error is None:
            return
        self.news.set()

    def interval(self, now: datetime) -> float:
        """Seconds until this member wants to be looked at again."""
        return interval(
            self.progress,
            since=self.joined,
            moved=self.moved,
            now=now,
            poll_interval=self.poll_interval,
            opening=self.opening,
        )


class SharedPoll:
    """The loop of one connection. Get it with :func:`shared_poll`.

    :param make_client: makes the client, in a thread, when the first member joins.
    """

    def __init__(self, make_client: ClientFactory, *, clock: Callable[[], datetime] | None = None) -> None:
        self._make_client = make_client
        self._clock = clock or (lambda: datetime.now(UTC))
        self._members: dict[_Member, None] = {}
        self._joined = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.rounds = 0

    async def follow(
        self, watches: Sequence[Watch], *, poll_interval: float, opening: Opening | None = None
    ) -> AsyncIterator[Progress]:
        """Yield how far ``watches`` have come together, after every round that brought news, until all are over.

        :param poll_interval: the longest time between two looks while calls may be placed, in seconds.
        :param opening: tells, for a moment, when calls may next be placed; looks are rarer until then.
        :raises VolubileError: one of these watches cannot be followed, or Volubile could not be asked for longer
            than :data:`FAILURE_BUDGET`.
        """
        now = self._clock()
        member = _Member(watches, poll_interval, opening, joined=now, moved=now)
        self._members[member] = None
        self._joined.set()
        if self._loop is None or self._loop.done():
            # An empty context: what the loop logs is not about the task that happened to start it.
            self._loop = asyncio.create_task(self._run(), name="volubile-poll", context=Context())
        try:
            while not member.over:
                await member.news.wait()
                member.news.clear()
                if member.error:
                    raise member.error
                yield member.progress
        finally:
            self._members.pop(member, None)

    async def _run(self) -> None:
        client: VolubileClient | None = None
        failing_since: datetime | None = None
        while self._members:
            self._joined.clear()
            cost = Round()
            fresh = client is None
            try:
                if client is None:
                    client = await in_thread(self._make_client)
                watches = [watch for member in self._members for watch in member.watches]
                cost = await in_thread(partial(look, client, watches, now=self._clock()))
                failing_since = None
                self.rounds += 1
            except asyncio.CancelledError:
                raise
            except Exception as error:
                now = self._clock()
                failing_since = failing_since or now
                log.warning("Volubile could not be polled, %s: %s", _since(failing_since, now), error)
                # The next round reads the connection anew: its keys may have been changed meanwhile.
                client = None
                if (isinstance(error, VolubileAuthError) and fresh) or now - failing_since > FAILURE_BUDGET:
                    self._fail(_as_volubile_error(error))
            await self._pause(await self._tell(), cost)

    async def _tell(self) -> float:
        """Tell each member what is news to it. Returns the seconds until the first of them is due again."""
        now = self._clock()
        wanted = FIRST_INTERVAL if not self._members else float("inf")
        for number, member in enumerate(list(self._members)):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            member.update(now)
            if member.over or member.error:
                self._members.pop(member, None)
            else:
                wanted = min(wanted, member.interval(now))
        return wanted

    def _fail(self, error: VolubileError) -> None:
        for member in list(self._members):
            member.error = error

    async def _pause(self, wanted: float, cost: Round) -> None:
        """Sleep until the first member is due or, for a new member, a little only: it is looked at soon."""
        if not self._members:
            return
        affordable = cost.requests * SECONDS_PER_REQUEST
        try:
            await asyncio.wait_for(self._joined.wait(), max(wanted, affordable))
        except TimeoutError:
            return
        # Others may join in the same moment: one look serves them all.
        await asyncio.sleep(max(FIRST_INTERVAL, affordable) / 2)


_polls: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoll]] = WeakKeyDictionary()


def shared_poll(volubile_conn_id: str, make_client: ClientFactory) -> SharedPoll:
    """The poll that all waits on this connection share in the running event loop."""
    polls = _polls.setdefault(asyncio.get_running_loop(), {})
    if volubile_conn_id not in polls:
        polls[volubile_conn_id] = SharedPoll(make_client)
    return polls[volubile_conn_id]


def _since(start: datetime, now: datetime) -> str:
    seconds = int((now - start).total_seconds())
    return f"for {seconds} s now" if seconds else "for the first time"


def _as_volubile_error(error: Exception) -> VolubileError:
    return error if isinstance(error, VolubileError) else VolubileError(str(error))
