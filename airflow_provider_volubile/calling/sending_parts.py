"""Sending the parts of a submission, each at most once, and finding those whose answer was lost. Knows no Airflow."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.routes import ISSUE_TOKEN
from airflow_provider_volubile.calling.journal import (
    Part,
    PartRecord,
    SubmissionJournal,
)
from airflow_provider_volubile.calling.recipients import Recipient
from airflow_provider_volubile.calling.schedule import Schedule
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.waiting.find_calls import CALL_TIME_TOLERANCE, REFERENCE_KEY, Listing, pages

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call

log = logging.getLogger(__name__)

# A process that was frozen after it had written down a request must not send it when it thaws: another may have
# decided about it meanwhile. Airflow takes a task for dead after five minutes without a heartbeat.
SEND_WITHIN = 120.0

# After these the service certainly did not take the request.
NOT_TAKEN = (
    VolubileAuthError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
)


def check_agent(client: VolubileClient, agent_id: str) -> None:
    """Check that an agent can call people (`Get agent <https://docs.volubile.ai/api-reference/agents/get>`__).

    :raises VolubileInputError: it is unknown, inbound, inactive or archived.
    """
    try:
        agent = client.get_agent(agent_id)
    except VolubileNotFound:
        raise VolubileInputError(f"agent_id {agent_id!r}: this account has no such agent.") from None
    fault = None
    if agent.type not in (None, "OUTBOUND"):
        fault = f"is {agent.type}; only an OUTBOUND agent can call people"
    elif agent.archived:
        fault = "is archived"
    elif agent.active is False:
        fault = "is not active"
    if fault:
        raise VolubileInputError(f"agent_id {agent_id!r} ({agent.name}) {fault}.")


class Dialler(Protocol):
    """One kind of request that dials."""

    def name(self, number: int) -> str | None:
        """The campaign's name, for the journal."""

    def send(self, number: int, part: Part, *, not_after: float) -> Sequence[str]:
        """Send a part. Returns the ids that the answer told.

        :param not_after: of :func:`time.monotonic`: later it is not sent, which is an error that says so.
        """

    def refuses_person(self, refusal: VolubileRequestRefused) -> bool:
        """Whether a refusal concerns one person, who is reported, and does not stop the others."""

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        """Look for a part that was sent. None: nothing shows that it was taken (yet)."""

    def identify(self, parts: Mapping[int, Part], records: Mapping[int, PartRecord]) -> Mapping[int, Sequence[str]]:
        """Look for the ids of accepted calls that the answers did not tell: all that are found, by part."""


def advance(
    journal: SubmissionJournal,
    parts: Sequence[Part],
    dialler: Dialler,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    stopping: Callable[[], bool] = lambda: False,
) -> int | None:
    """Send what was not sent yet, in order, and look for what may have been taken.

    Safe to call again whatever happened to an earlier call, as often as needed.

    :param stopping: asked before each request that dials: whether somebody is stopping the task.
    :returns: the number of the part of which nobody knows whether it was taken, or None when every part is
        accepted or refused.
    :raises VolubileError: a part was certainly not taken, or nobody was; what is pending may be sent later.
    """
    for number, part in enumerate(parts):
        if journal[number].state == "pending":
            if stopping():
                raise VolubileError(f"Stopped before request {number + 1} of {len(parts)} was sent.")
            # What was sent before may have shown up since somebody decided to send it again.
            if journal[number].resent and (found := dialler.find(number, part, journal[number])) is not None:
                log.info("Request %d of %d was taken after all: it is not sent again.", number + 1, len(parts))
                journal.accept(number, found)
                continue
            not_after = time.monotonic() + SEND_WITHIN
            journal.begin(number, now=clock(), name=dialler.name(number))
            try:
                journal.accept(number, dialler.send(number, part, not_after=not_after))
            except VolubileUnknownOutcome as unknown:
                log.warning("%s", unknown)
                if unknown.accepted:
                    journal.accept(number)
            except VolubileError as error:
                # Without its token a request was not even sent, and nothing was said about the person.
                was_sent = error.operation != ISSUE_TOKEN.operation
                if was_sent and isinstance(error, VolubileRequestRefused) and dialler.refuses_person(error):
                    if journal[number].resent:
                        log.warning("%s That was the second sending; the first may have been taken.", error)
                    else:
                        journal.refuse(number, error.reason or str(error))
                else:
                    if not was_sent or isinstance(error, NOT_TAKEN):
                        _not_taken(journal, number)
                    raise
        if journal[number].state == "in_flight":
            found = dialler.find(number, part, journal[number])
            if found is None:
                journal.miss(number, now=clock())
                return number
            log.info("Request %d of %d was taken: its calls are there.", number + 1, len(parts))
            journal.accept(number, found)
    reasons = Counter(record.reason or "no reason given" for record in journal if record.state == "refused")
    told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(5))
    if reasons.total() == len(journal):
        # Nobody at all: this is about the request, not about the people. Once it is mended they may be tried again.
        journal.release(*range(len(parts)))
        raise VolubileRequestRefused(f"Volubile refused every request, nobody is called ({told}).", status=400)
    if reasons:
        log.warning("Volubile refused %d of %d people: %s.", reasons.total(), len(journal), told)
    return None


def _not_taken(journal: SubmissionJournal, number: int) -> None:
    journal.release(number)
    before = sum(record.state == "accepted" for record in journal)
    if before:
        log.error(
            "Request %d of %d was not taken. %d accepted before it go on calling; another try begins with this one.",
            number + 1,
            len(journal),
            before,
        )


class CampaignDialler:
    """Sends each part as a campaign of its own.

    :param name: what the user calls it. Each part's name gets a suffix, since only its name ties calls to a campaign.
    :param submission: the reference of the submission (:func:`airflow_provider_volubile.calling.journal.reference`).
    :param schedule: when the campaign may call.
    :param extra_fields: further members of the request, for what the service may add.
    :raises VolubileInputError: ``extra_fields`` cannot be sent.
    """

    def __init__(
        self,
        client: VolubileClient,
        *,
        name: str,
        agent_id: str,
        schedule: Schedule,
        submission: str,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._agent_id = agent_id
        self._schedule = schedule
        self._submission = submission
        self._extra_fields = extra_fields or {}
        try:
            json.dumps(self._extra_fields, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise VolubileInputError(f"extra_fields cannot be sent, it is not JSON: {error}.") from None

    def name(self, number: int) -> str:
        return f"{self._name} [{self._reference(number)}]"

    def _reference(self, number: int) -> str:
        return f"{self._submission}-{number + 1}"

    def send(self, number: int, part: Part, *, not_after: float) -> Sequence[str]:
        schedule = self._schedule
        today = datetime.now(schedule.zone).date()
        body = wire.campaign_body(
            name=self.name(number),
            agent_id=self._agent_id,
            # A part that could only be sent on a later day cannot start before it.
            start_date=max(schedule.start_date, today),
            time_slots=[(slot.start, slot.end) for slot in schedule.time_slots],
            days=schedule.days,
            batch_size=schedule.batch_size,
            recipients=_marked(part, self._reference(number)),
            retry=schedule.redial.as_request(),
            timezone=schedule.zone.key,
        )
        return [self._client.create_campaign({**body, **self._extra_fields}, not_after=not_after).id]

    def refuses_person(self, refusal: VolubileRequestRefused) -> bool:
        return False

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        # A call of the campaign proves that it exists; its id stands nowhere in a call.
        phones = {person.phone for person in part}
        calls = calls_since(self._client, record.sent_at, campaign=record.name, agent_id=self._agent_id)
        # Should the service not filter by name, it lists the calls of others too.
        ours = (call.phone in phones and _is_ours(call, self._reference(number)) for call in calls)
        return () if any(ours) else None

    def identify(self, parts: Mapping[int, Part], records: Mapping[int, PartRecord]) -> Mapping[int, Sequence[str]]:
        return {}  # a campaign is waited for by its name: its calls need no ids


class CallDialler:
    """What bulk and single calls have in common: they are found by the reference alone."""

    def __init__(self, client: VolubileClient, *, agent_id: str, submission: str) -> None:
        self._client = client
        self._agent_id = agent_id
        self._submission = submission

    def name(self, number: int) -> None:
        return None

    def refuses_person(self, refusal: VolubileRequestRefused) -> bool:
        return False

    def identify(self, parts: Mapping[int, Part], records: Mapping[int, PartRecord]) -> Mapping[int, Sequence[str]]:
        number_of = {person.phone: number for number, part in parts.items() for person in part}
        known = {call_id for record in records.values() for call_id in record.ids}
        call_of: dict[str, str] = {}
        since = min((record.sent_at for record in records.values() if record.sent_at), default=None)
        for call in calls_since(self._client, since, agent_id=self._agent_id):
            number = number_of.get(call.phone or "")
            if number is None or not _is_ours(call, self._reference(number)):
                continue
            # A person who was called twice on purpose counts once, with the call that is known already.
            if call.id in known or call.phone not in call_of:
                call_of[str(call.phone)] = call.id
            if len(call_of) == len(number_of) and known <= set(call_of.values()):
                break
        found: dict[int, list[str]] = defaultdict(list)
        for phone, call_id in call_of.items():
            if call_id not in known:
                found[number_of[phone]].append(call_id)
        return found

    def _found(self, number: int, part: Part, record: PartRecord, **filters: Any) -> Iterator[Call]:
        """Calls of a part, one for each person."""
        missing = {person.phone for person in part}
        for call in calls_since(self._client, record.sent_at, agent_id=self._agent_id, **filters):
            if call.phone in missing and _is_ours(call, self._reference(number)):
                missing.discard(call.phone)
                yield call
            if not missing:
                return

    def _reference(self, number: int) -> str:
        return f"{self._submission}-{number + 1}"


class BulkDialler(CallDialler):
    """Sends each part as one bulk request."""

    def send(self, number: int, part: Part, *, not_after: float) -> Sequence[str]:
        people = _marked(part, self._reference(number))
        taken = self._client.create_bulk_calls(self._agent_id, people, not_after=not_after)
        return [call.id for call in taken if call.id]

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        return [call.id for call in self._found(number, part, record)] or None


class SingleDialler(CallDialler):
    """Sends each recipient as a call of its own; a part is one person."""

    def send(self, number: int, part: Part, *, not_after: float) -> Sequence[str]:
        (person,) = _marked(part, self._reference(number))
        call = self._client.create_call(self._agent_id, person, not_after=not_after)
        return [call.id] if call.id else []

    def refuses_person(self, refusal: VolubileRequestRefused) -> bool:
        if refusal.status not in wire.PERSON_REFUSALS:
            return False
        try:
            check_agent(self._client, self._agent_id)  # it may have been switched off meanwhile
        except VolubileError as fault:
            log.error("%s", fault)
            return False
        return True

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        return [call.id for call in self._found(number, part, record, phone=part[0].phone)] or None


def _marked(part: Part, reference: str) -> list[Recipient]:
    return [replace(person, context={**person.context, REFERENCE_KEY: reference}) for person in part]


def _is_ours(call: Call, reference: str) -> bool:
    """Whether a call may be of this request.

    The context is documented to come back; should there be none at all, number, agent and time must do.
    """
    return carried(call) == reference if call.context else True


def traces(client: VolubileClient, reference: str, since: datetime, **filters: Any) -> Iterator[str]:
    """References of the parts of which calls were made after ``since``: certainly those of this submission.

    :param reference: what they begin with.
    """
    for call in calls_since(client, since, **filters):
        if (marked := carried(call)) and marked.startswith(reference):
            yield marked


def carried(call: Call) -> str | None:
    """The reference that a call was created with, where the service tells it."""
    carried = (call.context or {}).get(REFERENCE_KEY)
    return str(carried) if carried else None


def calls_since(client: VolubileClient, sent_at: datetime | None, **filters: Any) -> Iterator[Call]:
    """Calls that may belong to something sent at that time, newest first."""
    now = datetime.now(UTC)
    since = (sent_at or now) - CALL_TIME_TOLERANCE
    for page in pages(client, Listing(**filters), horizon=since, since=since, now=now + timedelta(minutes=1)):
        for call in page:
            at = call.created or call.start_time
            if at is None or at >= since:
                yield call
