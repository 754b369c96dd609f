"""Starts Dags when calls have ended: an event trigger for the watcher of an asset."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict, cast

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.find_calls import CALL_TIME_TOLERANCE, Listing
from airflow_provider_volubile.waiting.outcomes import NOTHING, Progress
from airflow_provider_volubile.waiting.shared_poll import poll_of
from airflow_provider_volubile.waiting.watches import Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Call

# Airflow stores what a trigger yields within a second or two. Only then is it remembered as reported: if the triggerer
# dies in between, it is reported again.
STORED_AFTER = 5.0
# An event becomes a row of Airflow's database.
IDS_PER_EVENT = 1000
# A call that takes longer does not keep the list of calls from being read less and less far back.
LONGEST_FOLLOWED_CALL = timedelta(hours=2)
PAUSE_AFTER_ERROR = 60.0


class FinishedCallsEvent(TypedDict):
    """What :class:`VolubileFinishedCallTrigger` reports: ids and counts, no people.

    ``call_ids`` ended since the event before, at most 1,000; ``counts`` is their number by final status; ``agent_id``
    and ``campaign`` are what the trigger was asked to look for.
    """

    call_ids: list[str]
    counts: dict[str, int]
    agent_id: str | None
    campaign: str | None


class Cursor(TypedDict):
    """Where a restarted trigger goes on: JSON.

    ``started``: what ended earlier is never reported; ``since``: no call that is still to be reported is older;
    ``told``: ids of reported calls that are not older either.
    """

    started: str
    since: str
    told: list[str]


class FinishedWatch(Watch):
    """Gives each call that ended once, and is never over.

    The poll shows it calls in a thread, while the trigger takes them in the event loop.
    """

    def __init__(self, *, agent_id: str | None, campaign: str | None, cursor: Cursor) -> None:
        super().__init__(Listing(campaign, agent_id), since=datetime.fromisoformat(cursor["since"]))
        self._started = datetime.fromisoformat(cursor["started"])
        self._reported = dict.fromkeys(cursor["told"], self.since)
        self._open: dict[str, datetime] = {}
        self._new: dict[str, str] = {}
        self._newest = self._reached = self.since
        self._now = self.since
        self._total = 0
        self._lock = Lock()

    def observe(self, call: Call, now: datetime) -> None:
        # A call that was just created may have no time yet.
        at = call.time or now
        with self._lock:
            self._now = now
            if at < self.since or call.id in self._reported:
                return
            self._newest = max(self._newest, min(at, now))
            if not (call.is_final or self.has_stayed(call, now)):
                self._open[call.id] = at
                return
            self._open.pop(call.id, None)
            self._reported[call.id] = at
            if (call.end_time or at) >= self._started:
                self._new[call.id] = call.status
                self._total += 1

    def listed(self, began: float) -> None:
        # Only now: of a list that broke off, the older calls were not shown, and would be left behind.
        with self._lock:
            recent = [at for at in self._open.values() if self._now - at < LONGEST_FOLLOWED_CALL]
            self._reached = min(recent, default=self._newest) - CALL_TIME_TOLERANCE

    def take(self) -> dict[str, str]:
        """Calls that ended and were not taken before: final statuses by id."""
        with self._lock:
            ended, self._new = self._new, {}
            self.since = max(self.since, self._reached)
            self._open = {call_id: at for call_id, at in self._open.items() if at >= self.since}
            self._reported = {call_id: at for call_id, at in self._reported.items() if at >= self.since}
        return ended

    def cursor(self) -> Cursor:
        """Where to go on once everything taken was reported."""
        with self._lock:
            reported = [call_id for call_id in self._reported if call_id not in self._new]
            return Cursor(started=self._started.isoformat(), since=self.since.isoformat(), told=reported)

    def progress(self) -> Progress:
        # Changes whenever a call has ended, and with nothing else.
        return Progress(self._total, self._total, 0, 0, 0, NOTHING.counts)

    def has_settled(self) -> bool:
        return False


class VolubileFinishedCallTrigger(BaseEventTrigger):
    """Fires whenever calls have ended, so that a Dag scheduled on an asset runs then.

    One event reports all calls that one round finds ended (:class:`FinishedCallsEvent`), so that a campaign does not
    start a thousand Dag runs. Rounds are shared with all deferred tasks of the account. Every call counts: inbound and
    outbound, and each attempt by itself.

    Each call is reported at least once. Calls that ended while no triggerer ran are reported when one runs again. Calls
    may be reported twice when a triggerer dies or a trigger moves. The asset's state store keeps what was reported, so
    give each asset a watcher with settings of its own. Calls that ended before the trigger first ran are not reported,
    and neither is a call that takes longer than two hours.

    :param volubile_conn_id: the connection.
    :param agent_id: only calls of this agent.
    :param campaign: only calls of campaigns with exactly this name. Those that
        :class:`~airflow_provider_volubile.operators.campaigns.VolubileCreateCampaignOperator` creates get a suffix.
    :param poll_interval: the longest time between two rounds of polling, in seconds.
    """

    def __init__(
        self,
        *,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        agent_id: str | None = None,
        campaign: str | None = None,
        poll_interval: float = 30,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.volubile_conn_id = volubile_conn_id
        self.agent_id = agent_id
        self.campaign = campaign
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {
            "volubile_conn_id": self.volubile_conn_id,
            "agent_id": self.agent_id,
            "campaign": self.campaign,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        watch = FinishedWatch(agent_id=self.agent_id, campaign=self.campaign, cursor=await self._load())
        await self._save(watch.cursor())
        while True:
            poll = await poll_of(self.volubile_conn_id)
            try:
                rounds = cast("AsyncGenerator[Progress]", poll.follow([watch], poll_interval=self.poll_interval))
                async with aclosing(rounds) as following:
                    async for _ in following:
                        for event in self._events(watch.take()):
                            yield TriggerEvent(dict(event))  # type: ignore[no-untyped-call]
                        cursor = watch.cursor()
                        await asyncio.sleep(STORED_AFTER)
                        await self._save(cursor)
            except VolubileError as error:
                # A watcher has no task that could fail. It goes on when the cause was removed.
                self.log.error("Calls cannot be followed: %s Trying again in %g s.", error, PAUSE_AFTER_ERROR)
                watch.error = None
                await asyncio.sleep(PAUSE_AFTER_ERROR)

    def _events(self, ended: Mapping[str, str]) -> list[FinishedCallsEvent]:
        ids = list(ended)
        return [
            FinishedCallsEvent(
                call_ids=some,
                counts=dict(sorted(Counter(ended[call_id] for call_id in some).items())),
                agent_id=self.agent_id,
                campaign=self.campaign,
            )
            for some in (ids[start : start + IDS_PER_EVENT] for start in range(0, len(ids), IDS_PER_EVENT))
        ]

    @property
    def _key(self) -> str:
        """Several triggers may watch for one asset."""
        settings = json.dumps([self.volubile_conn_id, self.agent_id, self.campaign])
        return f"volubile_finished_{hashlib.sha256(settings.encode()).hexdigest()[:10]}"

    async def _load(self) -> Cursor:
        now = datetime.now(UTC).replace(microsecond=0)  # as the service tells times
        fresh = Cursor(started=now.isoformat(), since=(now - LONGEST_FOLLOWED_CALL).isoformat(), told=[])
        if self.asset_state_store is None:
            return fresh
        try:
            stored = await self.asset_state_store.aget(self._key)
        except ValueError:  # the store is one asset's
            self.log.warning(
                "Several assets have a watcher with the same settings, so reported calls cannot be remembered. Calls "
                "that end while no triggerer runs will not be reported. Give each asset a watcher of its own."
            )
            self.asset_state_store = None
            return fresh
        return cast("Cursor", stored) if stored else fresh

    async def _save(self, cursor: Cursor) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(self._key, cast("dict[str, Any]", cursor))
