"""Waiting for calls by listing them: one round of looking, and a loop of rounds.

A round costs about one request for every hundred calls in flight, however many tasks wait, because calls are listed by
pages of a hundred, newest first, only down to the oldest call that somebody still waits for
(`List calls <https://docs.volubile.ai/api-reference/calls/list>`__). Those that lie so deep that a request for each of
them is cheaper are read one by one.

Everything here is synchronous and knows nothing of Airflow: operators and sensors call :func:`look` in a loop of their
own, triggers share one loop (:mod:`airflow_provider_volubile.waiting.shared_poll`).
"""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
)
from airflow_provider_volubile.masking import mask_phones
from airflow_provider_volubile.waiting.find_calls import PAGE_SIZE, READ_ONE_BY_ONE, pages
from airflow_provider_volubile.waiting.outcomes import BEGINNING, NOTHING, Progress
from airflow_provider_volubile.waiting.watches import CampaignWatch, FilteredWatch, Listing, Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call, TranscriptEvent

log = logging.getLogger(__name__)

# Half a window: the other half stays for those who do more than wait.
TRANSCRIPTS_PER_ROUND = 50
# Campaigns that stand still tell so by their status only; a few a round, in turn, do.
STATUSES_PER_ROUND = 5
# So many failures in a row, each after the client's own retries, are an outage and not one object's trouble.
OUTAGE = 3
# Looking may fail for so long before those who wait are told: an outage of the service is not the end of a campaign.
FAILURE_BUDGET = timedelta(minutes=30)

FIRST_INTERVAL = 2.0
# The whole budget is a request in 0.15 s; one wait, or all that share a poll, take at most half of it.
SECONDS_PER_REQUEST = 0.3
# With the calling hours closed and no call in progress, only a cancellation could be missed.
CLOSED_INTERVAL = 900.0
QUIET = timedelta(minutes=10)

Opening = Callable[[datetime], datetime]

# Errors about one object: its waiters' own.
_ABOUT_ONE = (VolubileInputError, VolubileNotFound, VolubileRequestRefused, VolubileProtocolError)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of looking cost and found. The next one goes on from there.

    :param requests: sent.
    :param moved: calls whose status was news.
    :param depths: by listing, the page on which calls that are waited for were found last.
    """

    requests: int = 0
    moved: int = 0
    depths: Mapping[Listing, Mapping[str, int]] = field(default_factory=dict, repr=False)


def interval(
    progress: Progress,
    *,
    age: float,
    quiet: float,
    now: datetime,
    poll_interval: float,
    opening: Opening | None,
) -> float:
    """Seconds until the next look is due: soon at first, then every ``poll_interval``, rarely out of hours.

    :param age: seconds since waiting began.
    :param quiet: seconds since a look last brought news. Hours alone are not trusted: the service may keep another
        clock.
    :param now: the present by the wall clock, which is for the calling hours only: it may jump.
    :param opening: tells, for a moment, when calls may next be placed.
    """
    # With everybody settled only transcripts are waited for, which keep no calling hours.
    is_idle = not progress.in_flight and not progress.is_complete
    if opening and is_idle and quiet > QUIET.total_seconds():
        closed = (opening(now) - now).total_seconds()
        if closed > 0:
            return min(closed, max(CLOSED_INTERVAL, poll_interval))
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

    The synchronous twin of :meth:`~airflow_provider_volubile.waiting.shared_poll.SharedPoll.follow`.

    :raises VolubileError: Volubile could not be asked, or one of the watches cannot be followed.
    """
    began = moved = monotonic()
    cost = Round()
    while True:
        now = datetime.now(UTC)
        cost = look(client, watches, now=now, before=cost, patience=FAILURE_BUDGET)
        moved = monotonic() if cost.moved else moved
        for watch in watches:
            if watch.error:
                raise watch.error
        progress = sum((watch.progress() for watch in watches), NOTHING)
        yield progress
        if now >= deadline or all(watch.is_over(now) for watch in watches):
            return
        clock = monotonic()
        pause = interval(
            progress, age=clock - began, quiet=clock - moved, now=now, poll_interval=poll_interval, opening=opening
        )
        pause = min([pause, *(watch.soon for watch in watches)])
        pause = min(max(pause, cost.requests * SECONDS_PER_REQUEST), (deadline - now).total_seconds())
        time.sleep(max(pause, 0))


def look(
    client: VolubileClient,
    watches: Sequence[Watch],
    *,
    now: datetime,
    before: Round = Round(),
    patience: timedelta | None = None,
) -> Round:
    """Look once for everybody in ``watches``; each learns what concerns it.

    What is wrong with one campaign or call, or with one who waits, becomes the ``error`` of those who wait for it and
    disturbs nobody else.

    :param now: the present, aware.
    :param before: the look before this one, of the same watches or not: what it learned makes this one cheaper.
    :param patience: how long requests for some may fail while others are answered, until that is the ``error`` of the
        former. None: it is raised at once, after a look for everybody.
    :raises VolubileError: Volubile could not be asked at all. Nobody loses by that what is already known.
    """
    return _Look(client, now, before, patience).at(watches)


def as_volubile_error(error: BaseException) -> VolubileError:
    """What only this package raises, as it is; anything else with the place where it happened."""
    if isinstance(error, VolubileError):
        return error
    places = traceback.extract_tb(error.__traceback__)
    where = f" in {places[-1].name}, line {places[-1].lineno}" if places else ""
    return VolubileError(f"{type(error).__name__}: {mask_phones(str(error))}{where}")


@contextmanager
def _errors_of(*watches: Watch) -> Iterator[None]:
    """Whatever goes wrong within is the error of these alone."""
    try:
        yield
    except Exception as error:
        for watch in watches:
            watch.error = as_volubile_error(error)


class _Group(NamedTuple):
    """Requests for one object, or for one listing.

    :param what: is asked, for messages; also tells groups of one watch apart.
    :param request: sends them.
    :param everybodys: they are not about one object, so that no error is either.
    """

    what: str
    watches: Collection[Watch]
    request: Callable[[], None]
    everybodys: bool = False


class _Look:
    """One round: what it asks, what it costs, and who had no answer."""

    def __init__(self, client: VolubileClient, now: datetime, before: Round, patience: timedelta | None) -> None:
        self.client = client
        self.now = now
        self.before = before
        self.patience = patience
        self.requests = self.moved = 0
        self.depths: dict[Listing, dict[str, int]] = {}
        #: A moment before which none of these calls was made.
        self.ages: dict[str, datetime | None] = {}
        self.began = monotonic()
        self.is_answered = False
        self.failed: list[tuple[_Group, Exception]] = []

    def at(self, watches: Sequence[Watch]) -> Round:
        self._send(self._listings(watches))
        self._send(self._statuses(watches))
        self._send(self._transcripts(watches))
        if self.failed and (self.patience is None or not self.is_answered):
            raise self.failed[0][1]
        for group, error in self.failed:
            log.warning("Volubile could not be asked for %s, while others were answered: %s", group.what, error)
            for watch in group.watches:
                if self._lasts(error, since=watch.unanswered.get(group.what, self.began)):
                    watch.error = as_volubile_error(error)
        return Round(self.requests, self.moved, self.depths)

    def _lasts(self, error: Exception, *, since: float) -> bool:
        if isinstance(error, VolubileAuthError):
            # Keys that are revoked during a round (401) are refused to everybody in the next one.
            return error.status != 401 or since < self.began
        return self.patience is not None and monotonic() - since > self.patience.total_seconds()

    # Who is disturbed by what ---------------------------------------------------------------------------------------

    def _send(self, groups: list[_Group]) -> None:
        """Ask for one group after the other, whatever the others meet.

        :raises VolubileError: nobody was answered, or the request window stayed full.
        """
        # Those without an answer last time come last and in any order, so that the healthy never wait for them when
        # too many fail to try them all.
        groups.sort(
            key=lambda group: any(group.what in watch.unanswered for watch in group.watches) and random.random()
        )
        in_a_row = 0
        for group in groups:
            if in_a_row == OUTAGE:
                return
            in_a_row = 0 if self._ask(group) else in_a_row + 1

    def _ask(self, group: _Group) -> bool:
        try:
            group.request()
        except VolubileRateLimitError:
            raise
        except Exception as error:
            self.is_answered |= isinstance(error, VolubileNotFound | VolubileRequestRefused)
            if isinstance(error, _ABOUT_ONE) and not group.everybodys:
                for watch in group.watches:
                    watch.error = as_volubile_error(error)
                return True
            self.requests += 1
            self.failed.append((group, error))
            for watch in group.watches:
                watch.unanswered.setdefault(group.what, monotonic())
            if len(self.failed) >= OUTAGE and not self.is_answered:
                raise self.failed[0][1] from None
            return False
        for watch in group.watches:
            watch.unanswered.pop(group.what, None)
        return True

    def _count(self) -> None:
        """A request was answered."""
        self.requests += 1
        self.is_answered = True

    def _show(self, call: Call, watches: Collection[Watch]) -> None:
        moved = False
        for watch in watches:
            if watch.error is None:
                with _errors_of(watch):
                    moved |= not watch.knows(call)
                    watch.see(call, self.now)
        self.moved += moved

    # What is asked --------------------------------------------------------------------------------------------------

    def _listings(self, watches: Sequence[Watch]) -> list[_Group]:
        """Calls: by the filters of those who wait for calls that nobody knows yet, and by what is cheapest for those
        who wait for known ones.
        """
        unknown: dict[Listing, list[FilteredWatch]] = defaultdict(list)
        known: dict[Listing, dict[str, list[Watch]]] = defaultdict(lambda: defaultdict(list))
        waiting: list[tuple[Watch, Mapping[str, datetime | None]]] = []
        for watch in watches:
            with _errors_of(watch):
                pending = () if watch.error else watch.pending
                if pending is None and isinstance(watch, FilteredWatch):
                    unknown[watch.listing].append(watch)
                elif pending:
                    waiting.append((watch, {call_id: watch.not_before(call_id) for call_id in pending}))
        for watch, ages in waiting:
            if isinstance(watch, FilteredWatch) and watch.listing in unknown:
                unknown[watch.listing].append(watch)  # which is listed anyway
                continue
            for call_id, age in ages.items():
                known[watch.listing][call_id].append(watch)
                self.ages[call_id] = max(filter(None, (age, self.ages.get(call_id))), default=None)
        self._recall(known)
        groups = [
            _Group(_title(listing), group, partial(self._list, listing, group)) for listing, group in unknown.items()
        ]
        for listing, calls in self._cheapest(known).items():
            groups += self._find(listing, calls)
        return groups

    def _recall(self, known: Mapping[Listing, Mapping[str, list[Watch]]]) -> None:
        """Take over what the round before learned of calls that are still waited for."""
        pending = {call_id for waiting in known.values() for call_id in waiting}
        for listing, depths in self.before.depths.items():
            if still := {call_id: depth for call_id, depth in depths.items() if call_id in pending}:
                self.depths[listing] = still

    def _cheapest(self, known: dict[Listing, dict[str, list[Watch]]]) -> dict[Listing, dict[str, list[Watch]]]:
        """List calls of several campaigns together where that takes no more requests than a listing for each."""
        campaigns = {listing: waiting for listing, waiting in known.items() if listing.campaign is not None}
        plain = _together([waiting for listing, waiting in known.items() if listing.campaign is None])
        common = _together([*plain.values(), *campaigns.values()])
        apart = plain | campaigns
        if len(campaigns) > 1 and self._cost(common) <= self._cost(apart):
            return common
        return apart

    def _cost(self, known: Mapping[Listing, Collection[str]]) -> int:
        return sum(_plan(ids, self.depths.get(listing, {}))[0] for listing, ids in known.items())

    def _find(self, listing: Listing, waiting: dict[str, list[Watch]]) -> list[_Group]:
        """Calls whose ids are known: those that lie deep, and those of unknown age if they are few, one by one."""
        depths = self.depths.setdefault(listing, {})
        alone = [call_id for call_id in waiting if self.ages[call_id] is None]
        if len(alone) > READ_ONE_BY_ONE:
            alone = []
        listed = waiting.keys() - alone
        _, number = _plan(listed, depths)
        alone += [call_id for call_id in listed if depths.get(call_id, 0) > number]
        groups = [
            _Group(f"call {call_id}", watches, partial(self._read, call_id, watches, is_new=self.ages[call_id] is None))
            for call_id in alone
            if (watches := waiting.pop(call_id))
        ]
        if waiting:
            horizons = [self.ages[call_id] for call_id in waiting]
            horizon = None if None in horizons else min(filter(None, horizons))
            everyone = {id(watch): watch for watches in waiting.values() for watch in watches}.values()
            request = partial(self._search, listing, waiting, depths, horizon)
            groups.insert(0, _Group(_title(listing), everyone, request, everybodys=listing.campaign is None))
        return groups

    def _statuses(self, watches: Sequence[Watch]) -> list[_Group]:
        """Statuses of campaigns that stand still: nothing else tells whether they were cancelled."""
        campaigns: dict[Listing, list[CampaignWatch]] = defaultdict(list)
        asking: dict[Listing, float] = {}
        for watch in watches:
            if isinstance(watch, CampaignWatch) and watch.error is None:
                campaigns[watch.listing].append(watch)
                with _errors_of(watch):
                    if watch.stands_still:
                        asking[watch.listing] = min(watch.status_asked, asking.get(watch.listing, watch.status_asked))
        groups = []
        for listing in sorted(asking, key=lambda listing: asking[listing]):
            group = campaigns[listing]
            # Some may know the campaign by its name only.
            campaign_id = next((watch.campaign["id"] for watch in group if watch.campaign["id"]), None)
            if campaign_id:
                request = partial(self._ask_status, campaign_id, group)
                groups.append(_Group(f"the status of campaign {campaign_id}", group, request))
        return groups[:STATUSES_PER_ROUND]

    def _transcripts(self, watches: Sequence[Watch]) -> list[_Group]:
        missing: dict[str, list[Watch]] = defaultdict(list)
        for watch in watches:
            with _errors_of(watch):
                for call_id in () if watch.error else watch.untranscribed(self.now):
                    missing[call_id].append(watch)
        # A random choice, so that those who come late do not keep the others from being looked at.
        return [
            _Group(f"the transcript of call {id}", missing[id], partial(self._read_transcript, id, missing[id]))
            for id in random.sample(list(missing), min(len(missing), TRANSCRIPTS_PER_ROUND))
        ]

    # Requests -------------------------------------------------------------------------------------------------------

    def _list(self, listing: Listing, group: list[FilteredWatch]) -> None:
        """Show all that these filters find to ``group``, which has them in common."""
        began = monotonic()
        bounds = []
        for watch in group:
            with _errors_of(watch):
                bounds.append((watch.horizon, watch.since))
        if not bounds:
            return
        horizons, ages = zip(*bounds, strict=True)
        for page in self._pages(listing, horizon=min(horizons), since=min(ages)):
            for call in page:
                self._show(call, group)
        for watch in group:
            with _errors_of(watch):
                watch.listed(began)

    def _search(
        self, listing: Listing, waiting: dict[str, list[Watch]], depths: dict[str, int], horizon: datetime | None
    ) -> None:
        """List calls until all that are waited for were found."""
        number = 0
        for number, page in enumerate(self._pages(listing, horizon=horizon, since=horizon), 1):
            for call in page:
                if watches := waiting.pop(call.id, ()):
                    depths[call.id] = number
                    self._show(call, watches)
            if not waiting:
                return
        depths |= dict.fromkeys(waiting, number)  # so deep was looked for them, and will be again

    def _pages(self, listing: Listing, **bounds: datetime | None) -> Iterator[Sequence[Call]]:
        filters = {"campaign": listing.campaign, "agent_id": listing.agent_id}
        horizon, since = (at if at != BEGINNING else None for at in (bounds["horizon"], bounds["since"]))
        for page in pages(self.client, filters, horizon=horizon, since=since, now=self.now):
            self._count()
            yield page

    def _read(self, call_id: str, watches: Sequence[Watch], *, is_new: bool) -> None:
        try:
            call = self.client.get_call(call_id)
        except VolubileNotFound:
            self._count()
            # One whose age is known was accepted, or even seen: the service is behind.
            if is_new:
                log.warning("Volubile knows no call %s; it is not waited for any longer.", call_id)
                self.moved += 1
                for watch in watches:
                    watch.lose(call_id)
            return
        self._count()
        self._show(call, watches)

    def _ask_status(self, campaign_id: str, group: Sequence[CampaignWatch]) -> None:
        for watch in group:
            watch.status_asked = monotonic()
        status = self.client.get_campaign(campaign_id).status
        self._count()
        for watch in group:
            watch.see_status(status)

    def _read_transcript(self, call_id: str, watches: Sequence[Watch]) -> None:
        events: Sequence[TranscriptEvent] = ()
        with suppress(VolubileNotFound):
            events = self.client.get_transcript(call_id)
        self._count()
        if not events:
            return
        self.moved += 1
        for watch in watches:
            watch.see_transcript(call_id)


def _title(listing: Listing) -> str:
    return f"the calls of campaign {listing.campaign!r}" if listing.campaign is not None else "the calls"


def _together(known: Collection[Mapping[str, list[Watch]]]) -> dict[Listing, dict[str, list[Watch]]]:
    """One listing for the calls of all: by their agent, if they have only one."""
    waiting: dict[str, list[Watch]] = defaultdict(list)
    agents: set[str | None] = set()
    for group in known:
        for call_id, watches in group.items():
            waiting[call_id] += watches
            agents.update(watch.agent_id for watch in watches)
    return {Listing(None, agents.pop() if len(agents) == 1 else None): waiting} if waiting else {}


def _plan(ids: Collection[str], depths: Mapping[str, int]) -> tuple[int, int]:
    """How to find calls with the fewest requests.

    :param depths: the pages on which some of them were found last.
    :returns: the number of requests, and of pages to list; those that lie deeper are to be read one by one.
    """
    at = Counter(depths[call_id] for call_id in ids if call_id in depths)
    deeper = at.total()
    # The others must be listed wherever they lie: on so many pages at least.
    least = -(-(len(ids) - deeper) // PAGE_SIZE)
    at[least] += 0
    plans = [(max(number, least) + (deeper := deeper - at[number]), number) for number in sorted(at)]
    return min(plans, key=lambda plan: (plan[0], -plan[1]))
