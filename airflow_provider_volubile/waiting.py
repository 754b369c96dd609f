"""Waiting for calls by listing them: one round of looking, and a loop of rounds.

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
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRequestRefused,
)
from airflow_provider_volubile.outcomes import BEGINNING, NOTHING, Attempt, Progress
from airflow_provider_volubile.watches import CallsWatch, FilteredWatch, Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)

PAGE_SIZE = wire.MAX_PAGE_SIZE
# Reading so many calls one by one is cheaper than listing an account back to an unknown day.
READ_ONE_BY_ONE = 100
# Half a window: the other half stays for those who do more than wait.
TRANSCRIPTS_PER_ROUND = 50

FIRST_INTERVAL = 2.0
# The whole budget is a request in 0.15 s; one wait, or all that share a poll, take at most half of it.
SECONDS_PER_REQUEST = 0.3
# With the calling hours closed and no call in progress, only a cancellation could be missed.
CLOSED_INTERVAL = 900.0
QUIET = timedelta(minutes=10)

Opening = Callable[[datetime], datetime]


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
    filtered: dict[tuple[str | None, str | None], list[FilteredWatch]] = {}
    calls: list[CallsWatch] = []
    for watch in watches:
        if isinstance(watch, FilteredWatch):
            filtered.setdefault((watch.campaign_name, watch.agent_id), []).append(watch)
        elif isinstance(watch, CallsWatch):
            calls.append(watch)
    for group in filtered.values():
        with _errors_of(group):
            result += _look_at_filtered(client, group, now)
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


def _look_at_filtered(client: VolubileClient, group: list[FilteredWatch], now: datetime) -> Round:
    """``group`` has the same filters: its calls are listed once, and a campaign's status read unless all is settled."""
    requests = moved = 0
    listed = pages(
        client,
        {"campaign": group[0].campaign_name, "agent_id": group[0].agent_id},
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
    # Some may know the campaign by its name only.
    campaign_id = next((watch.campaign_id for watch in group if watch.campaign_id), None)
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
        days["from_date"], days["to_date"] = wire.days_around(since, now)
    number = 1
    while True:
        page = client.list_calls(**filters, **days, page=number, size=PAGE_SIZE, sort=wire.NEWEST_FIRST)
        yield page.content
        if not page.received or page.page not in (None, number):
            return
        if page.total_pages is not None and number >= page.total_pages:
            return
        # A call without any time, just created, says nothing about the order.
        times = [at for call in page.content if (at := Attempt.of(call).at) > BEGINNING]
        newest_first = all(later <= earlier for earlier, later in pairwise(times))
        if horizon is not None and times and newest_first and times[-1] < horizon:
            return
        number += 1
