"""What is awaited: campaigns until everyone has an outcome, calls until they have ended. Sends nothing.

:func:`airflow_provider_volubile.waiting.poll_round.poll_once` shows watches the calls that it finds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.waiting.fault_policy import Fault
from airflow_provider_volubile.waiting.find_calls import (
    CALL_TIME_TOLERANCE,
    Listing,
    UnlistedCalls,
    begin_of,
    belongs_to_campaign,
    check_people,
    references_of,
)
from airflow_provider_volubile.waiting.outcomes import BEGINNING, Attempt, Progress, progress

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)

#: What became of a transcript that is not waited for any longer.
Transcript = Literal["there", "given_up", "unusable_id"]
# A status that came later than this package is not known to be final. A call of such a status that has an end is over
# when it has not changed in so many rounds and for so long.
ROUNDS_UNCHANGED = 3
TIME_UNCHANGED = timedelta(minutes=1)
# A transcript that does not appear within this time after it was first asked for is given up.
TRANSCRIPT_PATIENCE = timedelta(minutes=15)


# Statuses that were warned about.
_warned: set[str] = set()


class Watch:
    """What one task waits for. Subclasses say which calls; this part keeps what was seen of them.

    :param listing: the filters that find its calls.
    :param since: no call that is waited for is older; :data:`.BEGINNING` if that is not known.
    :param with_transcripts: a call that ended is only done with when its transcript is there too, or is given up.
    """

    #: Seconds after which another round brings certainty, whatever the calling hours are.
    recheck_after: float = inf
    #: Attributes that another process needs in order to go on. Moments are monotonic.
    kept: ClassVar[tuple[str, ...]] = ("unchanged", "transcripts_due", "transcripts")
    kept_moments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, listing: Listing, *, since: datetime, with_transcripts: bool = False) -> None:
        self.listing = listing
        self.since = since
        self.with_transcripts = with_transcripts
        self.error: VolubileError | None = None
        #: What failed in the latest rounds, by what was asked for.
        self.faults: dict[str, Fault] = {}
        #: Calls whose transcripts are missing: when each was first and last asked for, in POSIX seconds.
        self.transcripts_due: dict[str, tuple[float, float] | None] = {}
        #: Calls whose transcripts are not waited for any longer. An id that cannot be used in a request is among them.
        self.transcripts: dict[str, Transcript] = {}
        #: Calls with an end and an unknown status: what was seen, in how many rounds, and since when (POSIX seconds).
        self.unchanged: dict[str, tuple[str, int, float]] = {}
        self._attempts: dict[str, Attempt] = {}
        self._progress: Progress | None = None

    @property
    def attempts(self) -> Collection[Attempt]:
        return self._attempts.values()

    @property
    def pending(self) -> Collection[str] | None:
        """Ids of the calls that are waited for; None while calls may come whose ids are not known."""
        return None

    @property
    def horizon(self) -> datetime:
        """How far back its listing must be read: older calls bring nothing new."""
        return self.since

    def not_before(self, call_id: str) -> datetime:
        """A moment before which this call was not made; :data:`.BEGINNING` if nothing is known of its age."""
        known = self._attempts.get(call_id)
        return known.at if known and known.at > BEGINNING else self.since

    def observe(self, call: Call, now: datetime) -> None:
        """Learn of a call that belongs to this watch."""
        attempt = Attempt.of(call)
        if not attempt.final and self.has_stayed(call, now):
            attempt = attempt._replace(final=True)
        if self._attempts.get(call.id) == attempt:
            return
        self._attempts[call.id] = attempt
        self._progress = None
        if call.id in self.transcripts:
            return
        if not wire.is_id(call.id):
            self.transcripts[call.id] = "unusable_id"
        elif self.with_transcripts and attempt.final and wire.may_have_transcript(attempt.status):
            self.transcripts_due.setdefault(call.id, None)

    def has_stayed(self, call: Call, now: datetime) -> bool:
        """Whether a call of an unknown status, such as ``BUSY``, has an end and has not changed for a while."""
        if not wire.has_ended(call.status, has_end=call.end_time is not None):
            return False
        looks = f"{call.status} {call.end_time}"
        before, rounds, since = self.unchanged.get(call.id, ("", 0, 0.0))
        if before != looks:
            rounds, since = 0, now.timestamp()
        self.unchanged[call.id] = looks, rounds + 1, since
        if rounds + 1 < ROUNDS_UNCHANGED or now.timestamp() - since < TIME_UNCHANGED.total_seconds():
            return False
        if call.status not in _warned:
            _warned.add(call.status)
            log.warning("Status %s is not known to this provider. Calls of it that have an end are over.", call.status)
        return True

    def listed(self, began: float) -> None:
        """Learn that its listing was read down to the horizon, from ``began`` (monotonic) on."""

    def mark_missing(self, call_id: str) -> None:
        """Learn that the service has no such call, of whose age nothing is known."""

    def observe_transcript(self, call_id: str) -> None:
        """Learn that a transcript is there."""
        self.transcripts_due.pop(call_id, None)
        self.transcripts[call_id] = "there"

    def mark_untranscribed(self, call_id: str, now: datetime) -> None:
        """Learn that a transcript was asked for and is not there. After a while it is given up."""
        moment = now.timestamp()
        first, _ = self.transcripts_due.get(call_id) or (moment, moment)
        self.transcripts_due[call_id] = first, moment
        if moment - first >= TRANSCRIPT_PATIENCE.total_seconds():
            del self.transcripts_due[call_id]
            self.transcripts[call_id] = "given_up"

    def note_fault(self, what: str, error: VolubileError) -> None:
        """Learn that a request for ``what`` failed. A fault that lasts ends the watch."""
        now = monotonic()
        fault = self.faults[what] = Fault.after(self.faults.get(what), error, now)
        if fault.ends_wait(now):
            self.error = error

    def dump(self) -> dict[str, Any]:
        """What another process needs in order to go on; JSON. Calls are not in it: they are listed again."""
        faults = {what: [fault.since, fault.refused_since] for what, fault in self.faults.items()}
        kept = {name: getattr(self, name) for name in (*self.kept, *self.kept_moments)}
        return {"clock": time() - monotonic(), "faults": faults, **kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`dump` was called, by the clock of this process."""
        shift = state["clock"] - (time() - monotonic())
        for name in self.kept:
            setattr(self, name, state[name])
        for name in self.kept_moments:
            setattr(self, name, state[name] + shift)
        for what, (since, refused_since) in state["faults"].items():
            refused_since = None if refused_since is None else refused_since + shift
            self.faults[what] = Fault(VolubileError(what), since + shift, refused_since)

    def progress(self) -> Progress:
        """How far it has come. Counted after news only: it is asked for often, and thousands wait."""
        if self._progress is None:
            self._progress = self._count()
        return self._progress

    def _count(self) -> Progress:
        raise NotImplementedError

    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.has_settled() and not self.transcripts_due

    def has_settled(self) -> bool:
        """Whether everyone has an outcome, transcripts aside."""
        raise NotImplementedError


class CampaignWatch(Watch):
    """Waits until everyone in one campaign has an outcome.

    :param campaign: the campaign; calls are tied to it by its name only.
    :param agent_id: its agent, to recognise an answer in which the filter was not applied.
    :param since: no call of this campaign is older; aware. :data:`.BEGINNING` if that is not known.
    :param redial: its rule for further attempts.
    """

    kept = (*Watch.kept, "status", "calls_listed", "dials_no_more")
    kept_moments = ("cancelled_since", "quiet_since")

    status: str | None = None
    #: When its status was last asked for, monotonic.
    status_asked = -inf

    def __init__(
        self,
        campaign: CampaignRef,
        *,
        agent_id: str | None,
        since: datetime,
        redial: Redial,
        with_transcripts: bool = False,
    ) -> None:
        super().__init__(Listing(campaign["name"], agent_id), since=since, with_transcripts=with_transcripts)
        self.campaign = campaign
        self.redial = redial
        self.calls_listed = 0
        self.cancelled_since = inf
        self.quiet_since = inf
        self.dials_no_more = False

    def observe(self, call: Call, now: datetime) -> None:
        if not belongs_to_campaign(call, self.campaign, agent_id=self.listing.agent_id, since=self.since):
            return
        if call.id not in self._attempts and self.status == "PAUSED":  # it may have been resumed
            self.status = None
        super().observe(call, now)

    @property
    def pending(self) -> Collection[str] | None:
        state = self.progress()
        if (state.not_dialed or state.redial_due) and not self.dials_no_more:
            return None
        return [attempt.call_id for attempt in self._attempts.values() if not attempt.final]

    def _count(self) -> Progress:
        result = progress(self.campaign["recipients"], self._attempts.values(), self.redial)
        check_people(self.campaign, sum(result.counts.values()))
        return result

    @property
    def is_cancelled(self) -> bool:
        return self.status == "CANCELLED"

    @property
    def is_stalled(self) -> bool:
        """Whether its status matters: no call is in progress, and not everyone has an outcome."""
        return self.progress().in_flight == 0 and not self.has_settled()

    def observe_status(self, status: str) -> None:
        """Learn the campaign's status."""
        if status == "CANCELLED" and not self.is_cancelled:
            self.cancelled_since, self.quiet_since = monotonic(), inf
        self.status = status

    def listed(self, began: float) -> None:
        # Somebody may have been dialled after the list was read and before the campaign was cancelled. So "cancelled"
        # counts only after it was listed, and listed once more, without news, when nothing can be missing.
        if self.is_cancelled and began >= self.cancelled_since:
            if len(self._attempts) != self.calls_listed or self.quiet_since == inf:
                self.quiet_since = began
            elif began - self.quiet_since >= wire.LIST_LAG:
                self.dials_no_more = True
        self.calls_listed = len(self._attempts)

    @property
    def recheck_after(self) -> float:  # type: ignore[override]
        return wire.LIST_LAG if self.is_cancelled and self.is_stalled else inf

    def has_settled(self) -> bool:
        state = self.progress()
        # A cancelled campaign dials no one any more, but calls in progress still come to an end.
        return state.is_complete or (self.dials_no_more and state.in_flight == 0)

    @property
    def horizon(self) -> datetime:
        """No call older than this can bring news: the oldest call in progress, else the newest known."""
        moving = [attempt.at for attempt in self._attempts.values() if not attempt.final]
        at = min(moving) if moving else max((attempt.at for attempt in self._attempts.values()), default=BEGINNING)
        return at - CALL_TIME_TOLERANCE if at > BEGINNING else self.since


class CallsWatch(Watch):
    """Waits until calls have ended: those of known ids and, found by their reference, those of everyone else accepted.

    :param call_ids: the calls whose ids are known.
    :param recipients: people who were accepted; as many as there are ids by default.
    :param references: what the references of calls begin with whose ids are not known.
    :param agent_id: their agent, if they all have one and it is known.
    :param since: none of them is older; :data:`.BEGINNING` if that is not known.
    """

    def __init__(
        self,
        call_ids: Iterable[str],
        *,
        recipients: int | None = None,
        references: Collection[str] = (),
        agent_id: str | None = None,
        since: datetime = BEGINNING,
        with_transcripts: bool = False,
    ) -> None:
        super().__init__(Listing(None, agent_id), since=since, with_transcripts=with_transcripts)
        #: Ids that the service does not know.
        self.missing: dict[str, None] = {}
        #: Ids that were found by their reference: those of each part, by its number.
        self.found: dict[str, list[str]] = {}
        self._ids = dict.fromkeys(call_ids)
        self._pending = dict.fromkeys(self._ids)
        #: People who were accepted and of whom no call is known.
        self.unlisted = max((recipients or 0) - len(self._ids), 0)
        self._finder = UnlistedCalls(references, self._ids.keys()) if self.unlisted and references else None

    @property
    def pending(self) -> Collection[str] | None:
        return None if self._finder and self.unlisted else self._pending

    def observe(self, call: Call, now: datetime) -> None:
        if self._finder and self.unlisted:
            self._finder.observe(call)
        if call.id in self._ids:
            super().observe(call, now)
            if self._attempts[call.id].final:
                self._pending.pop(call.id, None)

    def listed(self, began: float) -> None:
        for call, part in self._finder.take(self.unlisted) if self._finder else ():
            self.unlisted -= 1
            self.found.setdefault(part, []).append(call.id)
            self._ids[call.id] = self._pending[call.id] = None
            self.observe(call, datetime.now(UTC))

    def mark_missing(self, call_id: str) -> None:
        self.missing[call_id] = None
        self._pending.pop(call_id, None)
        self._progress = None

    def _count(self) -> Progress:
        attempts = self._attempts.values()
        in_flight = sum(not attempt.final for attempt in attempts)
        return Progress(
            recipients=len(self._ids) + self.unlisted,
            settled=len(self._ids) - len(self._pending) - len(self.missing),
            in_flight=in_flight,
            redial_due=0,
            not_dialed=len(self._pending) - in_flight + self.unlisted,
            counts=dict(Counter(attempt.status for attempt in attempts)),
        )

    def has_settled(self) -> bool:
        return not self._pending and not (self._finder and self.unlisted)


def watches_for(handle: SubmissionHandle, *, wait_for: str = "ended") -> list[Watch]:
    """What to watch for a submission.

    :param handle: of campaigns, of bulk or single calls, or made from plain ids.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    """
    agent_id, since, with_transcripts = handle.get("agent_id"), begin_of(handle), wait_for == "transcript"
    redial = Redial.parse(handle.get("redial"))
    watches: list[Watch] = [
        CampaignWatch(campaign, agent_id=agent_id, since=since, redial=redial, with_transcripts=with_transcripts)
        for campaign in handle.get("campaigns", ())
    ]
    if "call_ids" in handle:
        calls = CallsWatch(
            handle["call_ids"],
            recipients=handle.get("recipients"),
            references=references_of(handle),
            agent_id=agent_id,
            since=since,
            with_transcripts=with_transcripts,
        )
        watches.append(calls)
    return watches
