"""What is awaited: campaigns until everybody has an outcome, calls until they have ended. Sends nothing.

:func:`airflow_provider_volubile.waiting.polling.look` shows watches the calls that it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileError, VolubileProtocolError
from airflow_provider_volubile.waiting.find_calls import CALL_TIME_TOLERANCE
from airflow_provider_volubile.waiting.outcomes import BEGINNING, Attempt, Progress, progress

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Call

# A transcript that did not appear so long after its call ended is not waited for any longer.
TRANSCRIPT_PATIENCE = timedelta(minutes=15)


class Listing(NamedTuple):
    """Filters of the list of calls; None for all."""

    campaign: str | None
    agent_id: str | None


class Watch:
    """What one task waits for. Subclasses say which calls; this part keeps what was seen of them.

    :param agent_id: the agent of all these calls, if they have one and it is known.
    :param since: no call that is waited for is older; None when that is not known.
    :param with_transcripts: a call that ended is only done with when its transcript is there too.
    """

    #: The campaign of all these calls, by name, if they have one.
    campaign_name: str | None = None

    def __init__(self, *, agent_id: str | None, since: datetime | None, with_transcripts: bool = False) -> None:
        self.agent_id = agent_id
        self.since = since
        self.with_transcripts = with_transcripts
        self.error: VolubileError | None = None
        #: Since when, monotonic, what is asked for it has not been answered.
        self.unanswered: dict[str, float] = {}
        self._attempts: dict[str, Attempt] = {}
        self._ended: dict[str, datetime] = {}
        # Dicts of texts instead of sets: the garbage collector need not look at ten thousand of them.
        self._transcribed: dict[str, None] = {}
        self._progress: Progress | None = None

    @property
    def attempts(self) -> Collection[Attempt]:
        return self._attempts.values()

    @property
    def listing(self) -> Listing:
        """The filters that find its calls."""
        return Listing(self.campaign_name, self.agent_id)

    @property
    def pending(self) -> Collection[str] | None:
        """Ids of the calls that are waited for; None while calls may come whose ids nobody knows."""
        return None

    @property
    def soon(self) -> float:
        """Seconds after which another look brings certainty, whatever the calling hours are; infinite if none does."""
        return inf

    def not_before(self, call_id: str) -> datetime | None:
        """A moment before which this call was not made; None when nothing is known of its age."""
        known = self._attempts.get(call_id)
        at = known.at if known and known.at > BEGINNING else self.since
        return at if at and at > BEGINNING else None

    def knows(self, call: Call) -> bool:
        """Whether this status of this call is no news."""
        known = self._attempts.get(call.id)
        return known is not None and known.status == call.status

    def see(self, call: Call, now: datetime) -> None:
        """Learn of a call that belongs to this watch."""
        attempt = Attempt.of(call)
        if self._attempts.get(call.id) != attempt:
            self._attempts[call.id] = attempt
            self._progress = None
        if call.is_final:
            self._ended.setdefault(call.id, now)

    def lose(self, call_id: str) -> None:
        """Learn that the service has no such call, of whose age nothing is known."""

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
        self._transcribed[call_id] = None

    def progress(self) -> Progress:
        """How far it has come. Counted after news only: it is asked for often, and thousands wait."""
        if self._progress is None:
            self._progress = self._count()
        return self._progress

    def _count(self) -> Progress:
        raise NotImplementedError

    def is_over(self, now: datetime) -> bool:
        """Whether there is nothing more to wait for."""
        return self._has_settled() and not self.untranscribed(now)

    def _has_settled(self) -> bool:
        raise NotImplementedError


class FilteredWatch(Watch):
    """Waits for calls that the filters of the list of calls find.

    :param campaign_name: only calls of the campaign of this name; None for all.
    :param agent_id: only calls of this agent; None for all.
    :param since: no call that is waited for is older; aware.
    """

    since: datetime

    def __init__(
        self, *, campaign_name: str | None, agent_id: str | None, since: datetime, with_transcripts: bool = False
    ) -> None:
        super().__init__(agent_id=agent_id, since=since, with_transcripts=with_transcripts)
        self.campaign_name = campaign_name

    @property
    def horizon(self) -> datetime:
        """How far back the list must be read: older calls tell nothing new."""
        raise NotImplementedError

    def listed(self, began: float) -> None:
        """Learn that all was shown that the list held from the horizon on, read from ``began`` (monotonic) on."""


class CampaignWatch(FilteredWatch):
    """Waits until everyone in one campaign has an outcome.

    :param campaign: the campaign; calls are tied to it by its name only.
    :param agent_id: its agent, to recognise an answer in which the filter was not applied.
    :param since: no call of this campaign is older; aware. None when that is not known.
    :param redial: its rule for further attempts.
    """

    status: str | None = None
    #: When its status was last asked for, monotonic.
    status_asked = -inf

    def __init__(
        self,
        campaign: CampaignRef,
        *,
        agent_id: str | None,
        since: datetime | None,
        redial: Redial,
        with_transcripts: bool = False,
    ) -> None:
        super().__init__(
            campaign_name=campaign["name"],
            agent_id=agent_id,
            since=since - CALL_TIME_TOLERANCE if since else BEGINNING,
            with_transcripts=with_transcripts,
        )
        self.campaign = campaign
        self.redial = redial
        self._has_news = False
        self._cancelled_since = inf
        self._quiet_since: float | None = None
        self._dials_no_more = False

    def see(self, call: Call, now: datetime) -> None:
        ours = self.agent_id in (None, call.agent_id)
        at = Attempt.of(call).at
        # A call that was just created may have no time yet; that it was listed under the campaign's name must do.
        if ours and (at == BEGINNING or at >= self.since):
            if call.id not in self._attempts:
                self._has_news = True
                self.unanswered.clear()  # its status is not asked for now, and may be answered next time
                if self.status == "PAUSED":  # it may have been resumed
                    self.status = None
            super().see(call, now)

    @property
    def pending(self) -> Collection[str] | None:
        state = self.progress()
        if (state.not_dialed or state.redial_due) and not self._dials_no_more:
            return None
        return [attempt.call_id for attempt in self._attempts.values() if not attempt.final]

    def _count(self) -> Progress:
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

    @property
    def stands_still(self) -> bool:
        """Whether its status matters: nobody is on the telephone, and not everybody has an outcome."""
        return self.progress().in_flight == 0 and not self._has_settled()

    def see_status(self, status: str) -> None:
        """Learn the campaign's status."""
        if status == "CANCELLED" and not self.is_cancelled:
            self._cancelled_since, self._quiet_since = monotonic(), None
        self.status = status

    def listed(self, began: float) -> None:
        # Somebody may have been dialled after the list was read and before the campaign was cancelled. So "cancelled"
        # counts only after it was listed, and listed once more when nothing can be missing: to no news.
        if self.is_cancelled and began >= self._cancelled_since:
            if self._has_news or self._quiet_since is None:
                self._quiet_since = began
            elif began - self._quiet_since >= wire.LIST_LAG:
                self._dials_no_more = True
        self._has_news = False

    @property
    def soon(self) -> float:
        return wire.LIST_LAG if self.is_cancelled and self.stands_still else inf

    def _has_settled(self) -> bool:
        state = self.progress()
        # A cancelled campaign dials no one any more, but calls in progress still come to an end.
        return state.is_complete or (self._dials_no_more and state.in_flight == 0)

    @property
    def horizon(self) -> datetime:
        """No call older than this can bring news: the oldest call in progress, else the newest known."""
        attempts = self._attempts.values()
        moving = [attempt.at for attempt in attempts if not attempt.final]
        if moving:
            return min(moving) - CALL_TIME_TOLERANCE
        return max((attempt.at for attempt in attempts), default=self.since) - CALL_TIME_TOLERANCE


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
        super().__init__(
            agent_id=agent_id, since=since - CALL_TIME_TOLERANCE if since else None, with_transcripts=with_transcripts
        )
        self.missing: dict[str, None] = {}
        self._pending = dict.fromkeys(call_ids)
        self._asked = len(self._pending)

    @property
    def pending(self) -> Collection[str]:
        return self._pending

    def see(self, call: Call, now: datetime) -> None:
        super().see(call, now)
        if call.is_final:
            self._pending.pop(call.id, None)

    def lose(self, call_id: str) -> None:
        self.missing[call_id] = None
        self._pending.pop(call_id, None)
        self._progress = None

    def _count(self) -> Progress:
        attempts = self._attempts.values()
        in_flight = sum(not attempt.final for attempt in attempts)
        return Progress(
            recipients=self._asked,
            settled=self._asked - len(self._pending) - len(self.missing),
            in_flight=in_flight,
            redial_due=0,
            not_dialed=len(self._pending) - in_flight,
            counts=dict(Counter(attempt.status for attempt in attempts)),
        )

    def _has_settled(self) -> bool:
        return not self._pending


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
