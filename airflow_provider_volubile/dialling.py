"""Sending the parts of a submission, each at most once, and finding those whose answer was lost. Knows no Airflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.recipients import Recipient
from airflow_provider_volubile.schedule import Schedule
from airflow_provider_volubile.submissions import Part, PartRecord, SubmissionJournal
from airflow_provider_volubile.waiting import CLOCK_TOLERANCE, pages

log = logging.getLogger(__name__)

# Calls carry the context they were created with (https://docs.volubile.ai/api-reference/calls/get), and a prompt
# ignores values it does not name (https://docs.volubile.ai/api-reference/calls/create). So each recipient of a bulk
# or single call carries the reference of its part: the only tie between a call and the request that made it.
REFERENCE_KEY = "airflow_ref"

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

    #: A refusal concerns one person, who is reported; it does not stop the others.
    refusals_are_rejections: bool

    def name(self, number: int) -> str | None:
        """The campaign's name, for the journal."""

    def send(self, number: int, part: Part) -> Sequence[str]:
        """Send a part. Returns the ids that the answer told."""

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        """Look for a part that was sent. None: nothing shows that it was taken (yet)."""


def advance(
    journal: SubmissionJournal,
    parts: Sequence[Part],
    dialler: Dialler,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int | None:
    """Send what was not sent yet, in order, and look for what may have been taken.

    Safe to call again whatever happened to an earlier call, as often as needed.

    :returns: the number of the part of which nobody knows whether it was taken, or None when every part is
        accepted or refused.
    :raises VolubileError: a part was certainly not taken; it and those after it may be sent later.
    """
    for number, part in enumerate(parts):
        if journal[number].state == "pending":
            journal.begin(number, now=clock(), name=dialler.name(number))
            try:
                journal.accept(number, dialler.send(number, part))
            except VolubileUnknownOutcome as unknown:
                log.warning("%s", unknown)
                if unknown.accepted:
                    journal.accept(number)
            except VolubileRequestRefused as refusal:
                if not dialler.refusals_are_rejections:
                    journal.release(number)
                    raise
                journal.refuse(number, refusal.reason or str(refusal))
            except NOT_TAKEN:
                journal.release(number)
                raise
        if journal[number].state == "in_flight":
            found = dialler.find(number, part, journal[number])
            if found is None:
                return number
            log.info("Part %d of %d was taken: its calls are there.", number + 1, len(parts))
            journal.accept(number, found)
    return None


class CampaignDialler:
    """Sends each part as a campaign of its own.

    :param name: what the user calls it. Each part's name gets a suffix, since only its name ties calls to a campaign.
    :param submission: the reference of the submission (:func:`airflow_provider_volubile.submissions.reference`).
    :param schedule: when the campaign may call.
    :param extra_fields: further members of the request, for what the service may add.
    """

    refusals_are_rejections = False

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

    def name(self, number: int) -> str:
        return f"{self._name} [{self._submission}-{number + 1}]"

    def send(self, number: int, part: Part) -> Sequence[str]:
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
            recipients=part,
            retry=schedule.redial.as_request(),
            timezone=schedule.zone.key,
        )
        return [self._client.create_campaign({**body, **self._extra_fields}).id]

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        # A call of the campaign proves that it exists; its id stands nowhere in a call.
        phones = {person.phone for person in part}
        for call in _calls_since(self._client, record, campaign=record.name, agent_id=self._agent_id):
            if call.phone in phones:
                return ()
        return None


class BulkDialler:
    """Sends each part as one bulk request."""

    refusals_are_rejections = False

    def __init__(self, client: VolubileClient, *, agent_id: str, submission: str) -> None:
        self._client = client
        self._agent_id = agent_id
        self._submission = submission

    def name(self, number: int) -> None:
        return None

    def send(self, number: int, part: Part) -> Sequence[str]:
        people = [_marked(person, self._reference(number)) for person in part]
        taken = self._client.create_bulk_calls(self._agent_id, people)
        return [call.id for call in taken if call.id]

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        missing = {person.phone for person in part}
        found = []
        for call in _calls_since(self._client, record, agent_id=self._agent_id):
            if call.phone in missing and _may_be(call, self._reference(number)):
                missing.discard(call.phone)
                found.append(call.id)
                if not missing:
                    break
        return found or None

    def _reference(self, number: int) -> str:
        return f"{self._submission}-{number + 1}"


class SingleDialler:
    """Sends each recipient as a call of its own; a part is one person."""

    refusals_are_rejections = True

    def __init__(self, client: VolubileClient, *, agent_id: str, submission: str) -> None:
        self._client = client
        self._agent_id = agent_id
        self._submission = submission

    def name(self, number: int) -> None:
        return None

    def send(self, number: int, part: Part) -> Sequence[str]:
        call = self._client.create_call(self._agent_id, _marked(part[0], self._reference(number)))
        return [call.id] if call.id else []

    def find(self, number: int, part: Part, record: PartRecord) -> Sequence[str] | None:
        for call in _calls_since(self._client, record, agent_id=self._agent_id, phone=part[0].phone):
            if call.phone == part[0].phone and _may_be(call, self._reference(number)):
                return [call.id]
        return None

    def _reference(self, number: int) -> str:
        return f"{self._submission}-{number + 1}"


def _marked(person: Recipient, reference: str) -> Recipient:
    return replace(person, context={**person.context, REFERENCE_KEY: reference})


def _may_be(call: Call, reference: str) -> bool:
    """Whether a call to the right number may be ours: unless it carries another reference, or none comes back."""
    carried = (call.context or {}).get(REFERENCE_KEY)
    return carried in (None, reference)


def _calls_since(client: VolubileClient, record: PartRecord, **filters: Any) -> Iterator[Call]:
    """Calls that may belong to a part, newest first, none older than its sending."""
    since = (record.sent_at or datetime.now(UTC)) - CLOCK_TOLERANCE
    now = datetime.now(UTC) + timedelta(minutes=1)
    for page in pages(client, filters, horizon=since, since=since, now=now):
        for call in page:
            at = call.created or call.start_time
            if at is None or at >= since:
                yield call
