"""One poll for all: the deferred waits of one account, with the same keys, share one loop in a triggerer.

A trigger joins with its watches and follows its own progress. The loop asks for all of them together
(:func:`~airflow_provider_volubile.waiting.poll_round.poll_once`). So its cost grows with the calls in flight divided by
a hundred, and not with the number of deferred tasks. A loop without members ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.fault_policy import as_volubile_error
from airflow_provider_volubile.waiting.outcomes import Progress
from airflow_provider_volubile.waiting.poll_round import PollResult, note_outage, poll_once
from airflow_provider_volubile.waiting.polling import FIRST_INTERVAL, SECONDS_PER_REQUEST, Opening, Wait
from airflow_provider_volubile.waiting.watches import Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)

T = TypeVar("T")
ClientFactory: TypeAlias = "Callable[[], VolubileClient]"

# Members are served in slices of so many seconds, in which so many have news at most: all of these run next, and log.
# So thousands of them never hold the event loop up.
SLICE = 0.005
WOKEN = 25
# Members that are due within so many seconds share a round.
DUE_TOGETHER = 1.0
# Seconds for which it is remembered whose account a connection is of: a triggerer starts thousands of triggers at once.
ACCOUNT_KEPT = 60.0

# Airflow's own thread pool is small and shared by all triggers; waiting for the rate window must not fill it.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="volubile")


# Stopping campaigns waits for the window of their account; a thousand of them must not keep any poll waiting.
stopping_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="volubile-stop")


async def in_thread(function: Callable[[], T], threads: ThreadPoolExecutor = _threads) -> T:
    """Run something blocking outside the event loop, in this provider's own threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, function)


@dataclass(eq=False)
class _Member(Wait):
    """The wait of one trigger.

    :param due: when the next round for it is due, monotonic.
    """

    due: float = field(default_factory=monotonic)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class SharedPoll:
    """The loop of one account and its keys. Get it with :func:`poll_of`.

    :param make_client: makes the client, in a thread, when the first member joins.
    """

    def __init__(self, make_client: ClientFactory, *, clock: Callable[[], datetime] | None = None) -> None:
        self._make_client = make_client
        self._client: VolubileClient | None = None
        self._clock = clock or (lambda: datetime.now(UTC))
        self._members: dict[_Member, None] = {}
        self._joined = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.rounds = 0

    async def follow(
        self, watches: Sequence[Watch], *, poll_interval: float, opening: Opening | None = None
    ) -> AsyncIterator[Progress]:
        """Yield how far ``watches`` have come together, after every round that brought news, until all are over.

        :param poll_interval: the longest time between two rounds while calls may be placed, in seconds.
        :param opening: tells, for a moment, when calls may next be placed; rounds are rarer until then.
        :raises VolubileError: a fault ended one of these watches (:mod:`.fault_policy`).
        """
        member = _Member(watches, poll_interval, opening)
        self._members[member] = None
        self._joined.set()
        if self._loop is None or self._loop.done():
            # An empty context: what the loop logs is not about the task that happened to start it.
            self._loop = asyncio.create_task(self._run(), name="volubile-poll", context=Context())
        try:
            while not member.is_over:
                await member.news.wait()
                member.news.clear()
                if member.error:
                    raise member.error
                yield member.progress
        finally:
            self._members.pop(member, None)

    async def _run(self) -> None:
        """Hold rounds while there are members."""
        # A thread of its own: an account whose window is full keeps no other waiting.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="volubile-poll")
        try:
            while self._members:
                self._joined.clear()
                due = {member for member in self._members if member.due <= monotonic() + DUE_TOGETHER}
                result = await in_thread(partial(self._round, list(self._members), due), thread)
                # All rounds together take at most half the budget.
                affordable = monotonic() + result.requests * SECONDS_PER_REQUEST
                self.rounds += result.is_answered
                wanted = await self._update_members(due)
                if not self._members:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._joined.wait(), max(wanted, affordable - monotonic()))
                    # A new member. Others may join in the same moment: one round serves them all.
                    await asyncio.sleep(max(FIRST_INTERVAL / 2, affordable - monotonic()))
        except BaseException as error:
            # Without this the members would wait for ever.
            end = VolubileError(f"The poll of all waits has ended unexpectedly: {as_volubile_error(error)}")
            for member in self._members:
                member.error = end
                member.news.set()
            if not isinstance(error, Exception):
                raise
            log.exception("The poll of all waits has ended")
        finally:
            self._client = None
            thread.shutdown(wait=False)

    def _round(self, members: Sequence[_Member], due: Collection[_Member]) -> PollResult:
        watches = list(_worth_asking(members, due))
        try:
            self._client = self._client or self._make_client()
        except Exception as error:
            return note_outage(watches, error)
        result = poll_once(self._client, watches, now=self._clock())
        if not result.is_answered:
            self._client = None  # The connection is read again: its keys may have been changed meanwhile.
        return result

    async def _update_members(self, due: Collection[_Member]) -> float:
        """Update each member. Returns the seconds until the first of them is due again.

        :param due: those for whom the round was held.
        """
        now = self._clock()
        wanted = inf
        slice_ends, woken = monotonic() + SLICE, 0
        for member in list(self._members):
            if monotonic() > slice_ends or woken >= WOKEN:
                await asyncio.sleep(0)
                slice_ends, woken = monotonic() + SLICE, 0
            before = member.progress
            usual = member.update(now)
            if member.progress != before or member.is_over or member.error:
                member.news.set()
            woken += member.news.is_set()
            if member.is_over or member.error:
                self._members.pop(member, None)
                continue
            if member in due:
                member.due = monotonic() + usual
            wanted = min(wanted, member.due - monotonic())
        return wanted


def _worth_asking(members: Iterable[_Member], due: Collection[_Member]) -> Iterator[Watch]:
    """What to ask for: all that is due, and all that costs next to nothing beside it.

    Calls of known ids come in the same pages. A watch of calls whose ids are not known needs a listing of its own, such
    as that of its campaign.
    """
    listings = {watch.listing for member in due for watch in member.watches}
    for member in members:
        for watch in member.watches:
            if member in due or watch.listing in listings or not _needs_listing(watch):
                yield watch


def _needs_listing(watch: Watch) -> bool:
    try:
        return watch.error is None and watch.pending is None
    except Exception:  # it becomes the watch's own error in the round
        return False


@dataclass
class _PollRegistry:
    """The polls of one event loop.

    :ivar polls: by account, with the same keys and mode, or by a connection that cannot be read.
    :ivar accounts: by connection: until when it is remembered, and of which account it is.
    :ivar connections: by account: the connections that led there.
    """

    polls: dict[str, SharedPoll] = field(default_factory=dict)
    accounts: dict[str, tuple[float, str]] = field(default_factory=dict)
    connections: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    reading: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))


_registries: WeakKeyDictionary[asyncio.AbstractEventLoop, _PollRegistry] = WeakKeyDictionary()


async def poll_of(volubile_conn_id: str) -> SharedPoll:
    """The poll that all waits on this connection share in the running event loop.

    Connections to one account with the same keys and mode share it too. A connection that cannot be read gets a poll of
    its own, which goes on trying.
    """
    registry = _registries.setdefault(asyncio.get_running_loop(), _PollRegistry())
    # One reads, and those who waited go on one by one: thousands at once would hold the event loop up.
    async with registry.reading[volubile_conn_id]:
        until, account = registry.accounts.get(volubile_conn_id, (-inf, ""))
        if monotonic() > until:
            account = await in_thread(partial(_account, volubile_conn_id))
            registry.accounts[volubile_conn_id] = monotonic() + ACCOUNT_KEPT, account
    connections = registry.connections[account]
    connections[volubile_conn_id] = None
    if account not in registry.polls:
        registry.polls[account] = SharedPoll(partial(_client, account, connections))
    return registry.polls[account]


def _account(volubile_conn_id: str) -> str:
    try:
        return VolubileHook(volubile_conn_id).credentials_id
    except Exception as error:
        log.warning("Connection %r cannot be read: %s", volubile_conn_id, as_volubile_error(error))
        return volubile_conn_id


def _client(account: str, volubile_conn_ids: Collection[str]) -> VolubileClient:
    """A client of this account. Of several connections one may have been pointed to another account meanwhile."""
    *others, last = volubile_conn_ids
    found = next((name for name in others if _account(name) == account), last)
    return VolubileHook(found).client(background=True)
