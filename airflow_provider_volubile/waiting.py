"""Waiting for calls by listing them: what is awaited, and one round of looking.

A round costs about one request for every hundred calls in flight, however many tasks wait, because calls are listed by
pages of a hundred, newest first, only down to the oldest call that somebody still waits for
(`List calls <https://docs.volubile.ai/api-reference/calls/list>`__).

Everything here is synchronous and knows nothing of Airflow: operators and sensors call :func:`look` in a loop of their
own, triggers share one loop (:mod:`airflow_provider_volubile.triggers.polling`).
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRequestRefused,
)
from airflow_provider_volubile.outcomes import BEGINNING, NOTHING, Attempt, Progress, progress
from airflow_provider_volubile.schedule import Redial

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)

PAGE_SIZE = wire.MAX_PAGE_SIZE
NEWEST_FIRST = "created,DESC"
# Server and worker clocks differ, and `created` may be set a little late.
CLOCK_TOLERANCE = timedelta(minutes=5)
# Reading so many calls one by one is cheaper than listing an account back to an unknown day.
READ_ONE_BY_ONE = 100
# A transcript that did not appear so long after its call ended is not waited for any longer.
TRANSCRIPT_PATIENCE = timedelta(minutes=15)
# Half a window: the other half stays for those who do more than wait.
TRANSCRIPTS_PER_ROUND = 50

FIRST_INTERVAL = 2.0
# The whole budget is a request in 0.15 s; one wait, or all that share a poll, take at most half of it.
SECONDS_PER_REQUEST = 0.3
# With the calling hours closed and no call in progress, only a cancellation could be missed.
CLOSED_INTERVAL = 900.0
QUIET = timedelta(minutes=10)

Opening = Callable[[datetime], datetime]


class CampaignRef(TypedDict):
    """One campaign of a submission. ``id`` is None when its creation was only found through its calls."""

    id: str | None
    name: str
    recipients: int


class Watch:
    """What one task waits for. Subclasses say which calls; this part keeps what was seen of them.

    :param with_transcripts: a call that ended is only done with when its transcript is there too.
    """

    def __init__(self, *, with_transcripts: bool = False) -> None:
        self.with_transcripts = with_transcripts
        self.error: VolubileError | None = None
        self._attempts: dict[str, Attempt] = {}
        self._ended: dict[str, datetime] = {}
        self._transcribed: set[str] = set()

    @property
    def attempts(self) -> Collection[Attempt]:
        return self._attempts.values()

    def knows(self, call: Call) -> bool:
        """Whether this status of this call is no news."""
        known = self._attempts.get(call.id)
        return known is not None and known.status == call.status

    def see(self, call: Call, now: datetime) -> None:
        """Learn of a call that belongs to this watch."""
        self._attempts[call.id] = Attempt.of(call)
        if call.is_final:
            self._ended.setdefault(call.id, now)

    def untranscribed(self, now: datetime) -> list[str]:
        """Calls that ended, should have a transcript, and were not given up."""
        if not self.with_transcripts:
            return []
        return [
            call_id
            for call_id, ended in self._ended.items()
            if call_id not in self._transcribed
            and self._attempts[call_id].status in wire.TRANSCRIBED_CALL_STATUSES
            and now - ended < TRANSCRIPT_PATIENCE
        ]

    def see_transcript(self, call_id: str) -> None:
        self._transcribed.add(call_id)

    def progress(self) -> Progress:
        raise NotImplementedError

    def is_over(self, now: datetime) -> bool:
        """Whether there is nothing more to wait for."""
        return self._has_settled() and not self.untranscribed(now)

    def _has_settled(self) -> bool:
        raise NotImplementedError


class CampaignWatch(Watch):
    """Waits until everyone in one campaign has an outcome.

    :param campaign: the campaign; calls are tied to it by its name only.
    :param agent_id: its agent, to recognise an answer in which the filter was not applied.
    :param since: no call of this campaign is older; aware. None when that is not known.
    :param redial: its rule for further attempts.
    """

    def __init__(
        self,
        campaign: CampaignRef,
        *,
        agent_id: str | None,
        since: datetime | None,
        redial: Redial,
        with_transcripts: bool = False,
    ) -> None:
        super().__init__(with_transcripts=with_transcripts)
        self.campaign = campaign
        self.agent_id = agent_id
        self.since = since - CLOCK_TOLERANCE if since else BEGINNING
        self.redial = redial
        self.status: str | None = None

    def see(self, call: Call, now: datetime) -> None:
        ours = self.agent_id in (None, call.agent_id)
        if ours and Attempt.of(call).at >= self.since:
            super().see(call, now)

    def progress(self) -> Progress:
        result = progress(self.campaign["recipients"], self._attempts.values(), self.redial)
        people = sum(result.counts.values())
        if people > self.campaign["recipients"]:
            raise VolubileProtocolError(
                f"Campaign {self.campaign['name']!r} has {self.campaign['recipients']} recipients, but the list of "
                f"its calls shows {people} people. Either the service did not apply the filter by campaign name, or "
                "another campaign has the same name; outcomes cannot be told apart.",
                operation="listCalls",
            )
        return result

    @property
    def is_cancelled(self) -> bool:
        return self.status == "CANCELLED"

    def _has_settled(self) -> bool:
        state = self.progress()
        # A cancelled campaign dials no one any more, but calls in progress still come to an end.
        return state.is_complete or (self.is_cancelled and state.in_flight == 0)

    @property
    def horizon(self) -> datetime:
        """No call older than this can bring news: the oldest call in progress, else the newest known."""
        attempts = self._attempts.values()
        moving = [attempt.at for attempt in attempts if not attempt.final]
        if moving:
            return min(moving) - CLOCK_TOLERANCE
        return max((attempt.at for attempt in attempts), default=self.since) - CLOCK_TOLERANCE


class CallsWatch(Watch):
    """Waits until calls, known by their ids, have ended.

    :param call_ids: the calls.
    :param agent_id: their agent, if they all have one and it is known.
    :param since: none of them is older; None when that is not known.
    """

    def __init__(
        self,
        call_ids: Iterable[str],
        *,
        agent_id: str | None = None,
        since: datetime | None = None,
        with_transcripts: bool = False,
    ) -> None:
        super().__init__(with_transcripts=with_transcripts)
        self.call_ids = frozenset(call_ids)
        self.agent_id = agent_id
        self.since = since - CLOCK_TOLERANCE if since else None
        self.pending = set(self.call_ids)
        self.missing: set[str] = set()

    def see(self, call: Call, now: datetime) -> None:
        super().see(call, now)
        if call.is_final:
            self.pending.discard(call.id)

    def lose(self, call_id: str) -> None:
        """The service says that there is no such call."""
        self.missing.add(call_id)
        self.pending.discard(call_id)

    def progress(self) -> Progress:
        attempts = self._attempts.values()
        in_flight = sum(not attempt.final for attempt in attempts)
        return Progress(
            recipients=len(self.call_ids),
            settled=len(self.call_ids) - len(self.pending) - len(self.missing),
            in_flight=in_flight,
            redial_due=0,
            not_dialed=len(self.pending) - in_flight,
            counts=Counter(attempt.status for attempt in attempts),
        )

    def _has_settled(self) -> bool:
        return not self.pending

    @property
    def horizon(self) -> datetime | None:
        """No pending call is older than this; None when that is not known."""
        if self._attempts.keys() >= self.pending:
            return min((self._attempts[call_id].at for call_id in self.pending), default=self.since)
        return self.since


def campaign_watches(
    campaigns: Sequence[CampaignRef],
    *,
    agent_id: str | None,
    since: str | None,
    redial: Mapping[str, Any] | None,
    wait_for: str,
) -> list[CampaignWatch]:
    """What to watch for the campaigns of one submission.

    :param since: ISO 8601, aware: no call is older. None for a campaign of unknown age.
    """
    return [
        CampaignWatch(
            campaign,
            agent_id=agent_id,
            since=datetime.fromisoformat(since) if since else None,
            redial=Redial.parse(redial),
            with_transcripts=wait_for == "transcript",
        )
        for campaign in campaigns
    ]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of looking cost and found.

    :param requests: sent.
    :param moved: calls whose status was news.
    """

    requests: int = 0
    moved: int = 0

    def __add__(self, other: Round) -> Round:
        return Round(self.requests + other.requests, self.moved + other.moved)


def interval(
    progress: Progress,
    *,
    since: datetime,
    moved: datetime,
    now: datetime,
    poll_interval: float,
    opening: Opening | None,
) -> float:
    """Seconds until the next look is due: soon at first, then every ``poll_interval``, rarely out of hours.

    :param since: when waiting began.
    :param moved: when a look last brought news. Hours alone are not trusted: the service may keep another clock.
    :param opening: tells, for a moment, when calls may next be placed.
    """
    if opening and not progress.in_flight and now - moved > QUIET:
        closed = (opening(now) - now).total_seconds()
        if closed > 0:
            return min(closed, max(CLOSED_INTERVAL, poll_interval))
    age = (now - since).total_seconds()
    return min(poll_interval, max(FIRST_INTERVAL, age / 4))


def follow(
    client: VolubileClient,
    watches: Sequence[Watch],
    *,
    deadline: datetime,
    poll_interval: float,
    opening: Opening | None = None,
) -> Iterator[Progress]:
    """Look until all of ``watches`` are over, or until ``deadline``; yield the common progress after every look.

    The synchronous twin of :meth:`airflow_provider_volubile.triggers.polling.SharedPoll.follow`: it holds its worker.

    :raises VolubileError: Volubile could not be asked, or one of the watches cannot be followed.
    """
    began = moved = datetime.now(UTC)
    while True:
        now = datetime.now(UTC)
        cost = look(client, watches, now=now)
        moved = now if cost.moved else moved
        for watch in watches:
            if watch.error:
                raise watch.error
        progress = sum((watch.progress() for watch in watches), NOTHING)
        yield progress
        if now >= deadline or all(watch.is_over(now) for watch in watches):
            return
        pause = interval(progress, since=began, moved=moved, now=now, poll_interval=poll_interval, opening=opening)
        pause = min(max(pause, cost.requests * SECONDS_PER_REQUEST), (deadline - now).total_seconds())
        time.sleep(max(pause, 0))


def look(client: VolubileClient, watches: Sequence[Watch], *, now: datetime) -> Round:
    """Look once for everybody in ``watches``; each learns what concerns it.

    What is wrong with one campaign or call becomes the ``error`` of those who wait for it and disturbs nobody else.

    :param now: the present, aware.
    :raises VolubileError: Volubile could not be asked at all. Nobody loses by that what is already known.
    """
    result = Round()
    campaigns: dict[tuple[str, str | None], list[CampaignWatch]] = {}
    calls: list[CallsWatch] = []
    for watch in watches:
        if isinstance(watch, CampaignWatch):
            campaigns.setdefault((watch.campaign["name"], watch.agent_id), []).append(watch)
        elif isinstance(watch, CallsWatch):
            calls.append(watch)
    for group in campaigns.values():
        with _errors_of(group):
            result += _look_at_campaign(client, group, now)
    result += _look_at_calls(client, calls, now)
    return result + _look_for_transcripts(client, watches, now)


@contextmanager
def _errors_of(group: Sequence[Watch]) -> Iterator[None]:
    """Errors about one object are its waiters' own; those about the account or the service are everybody's."""
    try:
        yield
    except (VolubileInputError, VolubileNotFound, VolubileRequestRefused, VolubileProtocolError) as error:
        for watch in group:
            watch.error = error


def _look_at_campaign(client: VolubileClient, group: list[CampaignWatch], now: datetime) -> Round:
    """``group`` waits for one campaign: its calls are listed once, and its status read unless all is settled."""
    requests = moved = 0
    listed = pages(
        client,
        {"campaign": group[0].campaign["name"], "agent_id": group[0].agent_id},
        horizon=min(watch.horizon for watch in group),
        since=min(watch.since for watch in group),
        now=now,
    )
    for page in listed:
        requests += 1
        for call in page:
            moved += not group[0].knows(call)
            for watch in group:
                watch.see(call, now)
    campaign_id = group[0].campaign["id"]
    if campaign_id and not all(watch.is_over(now) for watch in group):
        requests += 1
        status = client.get_campaign(campaign_id).status
        for watch in group:
            watch.status = status
    return Round(requests, moved)


def _look_at_calls(client: VolubileClient, group: list[CallsWatch], now: datetime) -> Round:
    waiting: dict[str, list[CallsWatch]] = defaultdict(list)
    ageless: set[str] = set()
    for watch in group:
        horizon = watch.horizon
        for call_id in watch.pending:
            waiting[call_id].append(watch)
            if horizon is None:
                ageless.add(call_id)
    result = Round()
    if len(ageless) <= READ_ONE_BY_ONE:
        for call_id in ageless:
            waiters = waiting.pop(call_id)
            with _errors_of(waiters):
                result += _read_call(client, call_id, waiters, now)
    if not waiting:
        return result
    everyone = {id(watch): watch for watches in waiting.values() for watch in watches}.values()
    horizons = [watch.horizon for watch in everyone]
    horizon = None if None in horizons else min(filter(None, horizons))
    agents = {watch.agent_id for watch in everyone}
    filters = {"agent_id": agents.pop()} if len(agents) == 1 else {}
    for page in pages(client, filters, horizon=horizon, since=horizon, now=now):
        moved = 0
        for call in page:
            watches = waiting.pop(call.id, ())
            moved += any(not watch.knows(call) for watch in watches)
            for watch in watches:
                watch.see(call, now)
        result += Round(1, moved)
        if not waiting:
            break
    return result


def _read_call(client: VolubileClient, call_id: str, watches: Sequence[CallsWatch], now: datetime) -> Round:
    try:
        call = client.get_call(call_id)
    except VolubileNotFound:
        log.warning("Volubile knows no call %s; it is not waited for any longer.", call_id)
        for watch in watches:
            watch.lose(call_id)
        return Round(1, 1)
    moved = any(not watch.knows(call) for watch in watches)
    for watch in watches:
        watch.see(call, now)
    return Round(1, int(moved))


def _look_for_transcripts(client: VolubileClient, watches: Sequence[Watch], now: datetime) -> Round:
    missing: dict[str, list[Watch]] = defaultdict(list)
    for watch in watches:
        for call_id in watch.untranscribed(now):
            missing[call_id].append(watch)
    result = Round()
    # A random choice, so that those who come late do not keep the others from being looked at.
    for call_id in random.sample(list(missing), min(len(missing), TRANSCRIPTS_PER_ROUND)):
        with _errors_of(missing[call_id]):
            try:
                client.get_transcript(call_id)
            except VolubileNotFound:
                result += Round(1, 0)
            else:
                for watch in missing[call_id]:
                    watch.see_transcript(call_id)
                result += Round(1, 1)
    return result


def pages(
    client: VolubileClient,
    filters: dict[str, Any],
    *,
    horizon: datetime | None,
    since: datetime | None,
    now: datetime,
) -> Iterator[Sequence[Call]]:
    """Pages of calls, newest first, until one reaches below ``horizon``.

    New calls push older ones to later pages while we read, so a call may come twice and none is missed. Where the
    service does not sort as asked, everything since ``since`` is read.
    """
    days: dict[str, Any] = {}
    if since is not None and since > BEGINNING:
        # The filter's clock and zone are not documented: ask a day wider on both sides, decide by the timestamps.
        days = {
            "from_date": (since.astimezone(UTC) - timedelta(days=1)).date(),
            "to_date": (now.astimezone(UTC) + timedelta(days=1)).date(),
        }
    number = 1
    while True:
        page = client.list_calls(**filters, **days, page=number, size=PAGE_SIZE, sort=NEWEST_FIRST)
        yield page.content
        if not page.received or page.page not in (None, number):
            return
        if page.total_pages is not None and number >= page.total_pages:
            return
        times = [Attempt.of(call).at for call in page.content]
        newest_first = all(later <= earlier for earlier, later in pairwise(times))
        if horizon is not None and times and newest_first and times[-1] < horizon:
            return
        number += 1
