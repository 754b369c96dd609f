"""One round of polling for any number of waits: what is asked, what it costs, and whom a fault concerns.

A round costs about one request for every hundred calls in flight, however many tasks wait: calls are listed by pages of
a hundred, newest first, only down to the oldest call that is waited for
(`List calls <https://docs.volubile.ai/api-reference/calls/list>`__). Calls that lie deep below others are read singly.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
)
from airflow_provider_volubile.waiting.fault_policy import as_volubile_error, concerns_one_object
from airflow_provider_volubile.waiting.find_calls import READ_ONE_BY_ONE, Listing, pages
from airflow_provider_volubile.waiting.outcomes import BEGINNING
from airflow_provider_volubile.waiting.watches import CampaignWatch, Watch

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call, TranscriptEvent

log = logging.getLogger(__name__)

# Campaigns with fewer calls in progress are looked for together: a page for each would be nearly empty.
FEW_CALLS = 25
# Half a window: the other half stays for those who do more than wait.
TRANSCRIPTS_PER_ROUND = 50
# Stalled campaigns are asked for their status in turn: a few a round, or half as many as lists were read. So each of
# any number, which are listed one by one, is asked in every second round.
STATUSES_PER_ROUND = 5
# So many failures in a row, each after the client's own retries, are an outage: the rest of the round is not asked.
FAILURES_IN_A_ROW = 3
#: What a fault concerns that is the account's.
ACCOUNT = "anything"


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one round cost, and whether it was answered.

    :param requests: sent.
    :param is_answered: whether the service answered anything, or nothing was asked.
    :param fault: the first error, if there was one. Waits go on; see :mod:`.fault_policy`.
    """

    requests: int = 0
    is_answered: bool = True
    fault: VolubileError | None = None


def poll_once(client: VolubileClient, watches: Sequence[Watch], *, now: datetime) -> PollResult:
    """Ask once for everything in ``watches``; each learns what concerns it.

    What fails for one campaign or call is a fault of those who wait for it, and disturbs no one else. If nothing is
    answered it is a fault of all. Progress so far is kept. A fault that lasts becomes the ``error`` of a watch.

    :param now: the present, aware.
    """
    return _Round(client, now).ask([watch for watch in watches if watch.error is None])


def note_outage(watches: Sequence[Watch], error: BaseException) -> PollResult:
    """Let ``watches`` learn that the service cannot be asked at all."""
    fault = as_volubile_error(error)
    for watch in watches:
        watch.note_fault(ACCOUNT, fault)
    return PollResult(FAILURES_IN_A_ROW, is_answered=False, fault=fault)


@contextmanager
def _errors_of(watch: Watch) -> Iterator[None]:
    """Whatever goes wrong within is the error of this watch alone."""
    try:
        yield
    except Exception as error:
        watch.error = as_volubile_error(error)


class _Question(NamedTuple):
    """Requests about one thing.

    :param what: is asked for; names faults.
    :param watches: want to know it.
    :param ask: sends the requests.
    """

    what: str
    watches: Collection[Watch]
    ask: Callable[[], None]


class _Round:
    """One round: what it asks, what it costs, and what failed."""

    def __init__(self, client: VolubileClient, now: datetime) -> None:
        self.client = client
        self.now = now
        self.requests = 0
        self.failures_in_a_row = 0
        self.is_answered = False
        self.fault: VolubileError | None = None
        #: A moment before which none of these calls was made.
        self.ages: dict[str, datetime] = {}
        #: Calls of unknown age, or too deep in the list.
        self.read_singly: dict[str, list[Watch]] = {}

    def ask(self, watches: Sequence[Watch]) -> PollResult:
        considered = {ACCOUNT}
        for questions in (self._listings, self._calls, self._statuses, self._transcripts):
            considered |= self._send(*questions([watch for watch in watches if watch.error is None]))
        is_answered = self.is_answered or self.fault is None
        for watch in watches:
            watch.faults = {what: fault for what, fault in watch.faults.items() if what in considered}
            if is_answered:
                watch.faults.pop(ACCOUNT, None)
            elif self.fault:
                watch.note_fault(ACCOUNT, self.fault)
        return PollResult(self.requests, is_answered, self.fault)

    def _send(self, questions: Sequence[_Question], limit: int | None = None) -> set[str]:
        """Ask one question after the other, whatever becomes of the others.

        :param limit: ask only the first of them.
        :returns: what all questions are about.
        """
        failed = {each.what for each in questions if any(each.what in watch.faults for watch in each.watches)}
        # What failed last time comes last, and in any order. So faults never keep the others from being asked.
        for question in sorted(questions[:limit], key=lambda each: (each.what in failed, random.random())):
            if self.failures_in_a_row == FAILURES_IN_A_ROW or isinstance(self.fault, VolubileRateLimitError):
                break
            try:
                question.ask()
            except Exception as reason:
                error = as_volubile_error(reason)
                log.warning("Volubile could not be asked for %s: %s", question.what, error)
                self.requests += 1
                self.fault = self.fault or error
                self.is_answered |= concerns_one_object(error)
                self.failures_in_a_row = 0 if concerns_one_object(error) else self.failures_in_a_row + 1
                for watch in question.watches:
                    watch.note_fault(question.what, error)
            else:
                self.is_answered, self.failures_in_a_row = True, 0
                for watch in question.watches:
                    watch.faults.pop(question.what, None)
        if self.is_answered:
            self.failures_in_a_row = 0
        return {each.what for each in questions}

    # What is asked --------------------------------------------------------------------------------------------------

    def _listings(self, watches: Sequence[Watch]) -> tuple[list[_Question]]:
        """Lists of calls: for watches of calls whose ids are not known yet, and for those of known ids."""
        unknown: dict[Listing, list[Watch]] = defaultdict(list)
        known: list[tuple[Watch, dict[str, datetime]]] = []
        for watch in watches:
            with _errors_of(watch):
                if (pending := watch.pending) is None:
                    unknown[watch.listing].append(watch)
                elif pending:
                    known.append((watch, {call_id: watch.not_before(call_id) for call_id in pending}))
        listed: dict[Listing, dict[str, list[Watch]]] = defaultdict(lambda: defaultdict(list))
        agents = {watch.listing.agent_id for watch, _ in known}
        everything = Listing(None, agents.pop() if len(agents) == 1 else None)
        for watch, ages in known:
            if watch.listing.campaign and watch.listing in unknown:
                unknown[watch.listing].append(watch)  # it is listed anyway
                continue
            listing = watch.listing if watch.listing.campaign and len(ages) >= FEW_CALLS else everything
            for call_id, age in ages.items():
                listed[listing][call_id].append(watch)
                self.ages[call_id] = max(age, self.ages.get(call_id, BEGINNING))
        questions = [
            _Question(f"the calls of {listing}", group, partial(self._list, listing, group))
            for listing, group in unknown.items()
        ]
        for listing, calls in listed.items():
            alone = [call_id for call_id in calls if self.ages[call_id] == BEGINNING]
            if len(alone) <= READ_ONE_BY_ONE:
                self.read_singly |= {call_id: calls.pop(call_id) for call_id in alone}
            if calls:
                group = list(dict.fromkeys(watch for watches in calls.values() for watch in watches))
                questions.append(_Question(f"calls of {listing}", group, partial(self._search, listing, calls)))
        return (questions,)

    def _calls(self, _: Sequence[Watch]) -> tuple[list[_Question]]:
        """Calls that are read singly."""
        return (
            [
                _Question(f"call {call_id}", watches, partial(self._read, call_id, watches))
                for call_id, watches in self.read_singly.items()
            ],
        )

    def _statuses(self, watches: Sequence[Watch]) -> tuple[list[_Question], int]:
        """Statuses of stalled campaigns: nothing else tells whether they were cancelled."""
        campaigns: dict[str, list[CampaignWatch]] = defaultdict(list)
        for watch in watches:
            if isinstance(watch, CampaignWatch):
                with _errors_of(watch):
                    if watch.is_stalled and (campaign_id := watch.campaign["id"]):
                        campaigns[campaign_id].append(watch)
        questions = [
            _Question(f"the status of campaign {id}", group, partial(self._ask_status, id, group))
            for id, group in sorted(campaigns.items(), key=lambda item: item[1][0].status_asked)
        ]
        return questions, max(STATUSES_PER_ROUND, -(-self.requests // 2))

    def _transcripts(self, watches: Sequence[Watch]) -> tuple[list[_Question], int]:
        """Transcripts that are missing: those first that were not asked for the longest time."""
        due: dict[str, list[Watch]] = defaultdict(list)
        asked: dict[str, float] = {}
        for watch in watches:
            for call_id, times in watch.transcripts_due.items():
                due[call_id].append(watch)
                asked[call_id] = times[1] if times else 0
        questions = [
            _Question(f"the transcript of call {id}", due[id], partial(self._read_transcript, id, due[id]))
            for id in sorted(due, key=asked.__getitem__)
        ]
        return questions, TRANSCRIPTS_PER_ROUND

    # Requests -------------------------------------------------------------------------------------------------------

    def _list(self, listing: Listing, group: Sequence[Watch]) -> None:
        """Show all that these filters find to ``group``, which has them in common."""
        began = monotonic()
        bounds = []
        for watch in group:
            with _errors_of(watch):
                bounds.append((watch.horizon, watch.since))
        if not bounds:
            return
        horizon, since = map(min, zip(*bounds, strict=True))
        for page in pages(self.client, listing, horizon=horizon, since=since, now=self.now):
            self.requests += 1
            for call in page:
                self._show(call, group)
        for watch in group:
            with _errors_of(watch):
                watch.listed(began)

    def _search(self, listing: Listing, waiting: dict[str, list[Watch]]) -> None:
        """List calls until all that are waited for were found, or until reading the others singly is cheaper."""
        horizon = min(self.ages[call_id] for call_id in waiting)
        pages_in_vain = 0
        for page in pages(self.client, listing, horizon=horizon, since=horizon, now=self.now):
            self.requests += 1
            found = [call for call in page if call.id in waiting]
            for call in found:
                self._show(call, waiting.pop(call.id, ()))
            pages_in_vain += not found
            if pages_in_vain >= len(waiting):
                self.read_singly |= {call_id: group for call_id, group in waiting.items() if wire.is_id(call_id)}
                return

    def _read(self, call_id: str, watches: Sequence[Watch]) -> None:
        try:
            call = self.client.get_call(call_id)
        except (VolubileNotFound, VolubileRequestRefused) as error:
            if isinstance(error, VolubileRequestRefused) and self.ages[call_id] != BEGINNING:
                raise
            self.requests += 1
            # Otherwise it was accepted, or even seen: the service is behind.
            if self.ages[call_id] == BEGINNING:
                log.warning("Volubile knows no call %s, which is not waited for any longer: %s", call_id, error)
                for watch in watches:
                    watch.mark_missing(call_id)
        else:
            self.requests += 1
            self._show(call, watches)

    def _ask_status(self, campaign_id: str, group: Sequence[CampaignWatch]) -> None:
        for watch in group:
            watch.status_asked = monotonic()
        status = self.client.get_campaign(campaign_id).status
        self.requests += 1
        for watch in group:
            watch.observe_status(status)

    def _read_transcript(self, call_id: str, watches: Sequence[Watch]) -> None:
        events: Sequence[TranscriptEvent] = ()
        # One transcript that cannot be read is given up after a while, and does not end the wait.
        with suppress(VolubileNotFound, VolubileRequestRefused, VolubileProtocolError):
            events = self.client.get_transcript(call_id)
        self.requests += 1
        for watch in watches:
            if events:
                watch.observe_transcript(call_id)
            else:
                watch.mark_untranscribed(call_id, self.now)

    def _show(self, call: Call, watches: Collection[Watch]) -> None:
        for watch in watches:
            if watch.error is None:
                with _errors_of(watch):
                    watch.observe(call, self.now)
