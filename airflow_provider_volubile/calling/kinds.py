"""The three kinds of submission: campaigns, bulk calls, single calls.

What differs in sending stands here: how recipients are cut in parts, what a part is called, how it is sent, and
how it is found again when its answer was lost. An operator makes one of them from its parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.handles import SubmissionKind
from airflow_provider_volubile.calling.journal import Part, SubmissionJournal
from airflow_provider_volubile.calling.recipients import Recipient, split_parts
from airflow_provider_volubile.calling.schedule import Schedule
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound
from airflow_provider_volubile.waiting.find_calls import REFERENCE_KEY, find_our_calls

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

# Of bulk and single calls; a campaign operator takes any number of people.
MAX_CALLS = 10_000


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


def marked(people: Part, reference: str) -> list[Recipient]:
    """Recipients that carry the reference of their part.

    Calls carry the context they were created with (https://docs.volubile.ai/api-reference/calls/get), and a prompt
    ignores values it does not name (https://docs.volubile.ai/api-reference/calls/create). So the reference is the only
    tie between a call and the request that made it.
    """
    return [replace(person, context={**person.context, REFERENCE_KEY: reference}) for person in people]


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What bulk and single calls have in common: they are found by their reference alone."""

    agent_id: str
    kind: SubmissionKind
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Whether a refused request says something about one person, who is reported and does not stop the others.
    one_person: ClassVar[bool] = False

    @property
    def part_size(self) -> int:
        return wire.MAX_RECIPIENTS

    def cut(self, people: Sequence[Recipient]) -> list[tuple[Recipient, ...]]:
        """The recipients in parts, each for one request.

        :raises VolubileInputError: there are too many.
        """
        if len(people) > MAX_CALLS:
            raise VolubileInputError(
                f"{len(people)} recipients in one task; it takes at most {MAX_CALLS}. Map the operator over "
                "lists of people: VolubileBulkCallsOperator.partial(…).expand(recipients=…)."
            )
        return split_parts(people, self.part_size)

    def check(self, journal: SubmissionJournal) -> dict[str, Any] | None:
        """Check all that can be checked before anything is sent.

        :returns: the calling hours, if calls are restricted to some; see :meth:`Schedule.dump`.
        :raises VolubileInputError: naming the value and the rule.
        """
        return None

    def name(self, reference: str) -> str | None:
        """The campaign's name for a part; None if it becomes no campaign."""
        return None

    def send(
        self, client: VolubileClient, journal: SubmissionJournal, number: int, part: Part, *, not_after: float
    ) -> Sequence[str]:
        """Send a part.

        :param not_after: of :func:`time.monotonic`: later it is not sent, which is an error that says so.
        :returns: the ids that the answer gave.
        """
        people = marked(part, journal.reference_of(number))
        taken = client.create_bulk_calls(self.agent_id, people, not_after=not_after)
        return [call.id for call in taken if call.id]

    def find(
        self, client: VolubileClient, journal: SubmissionJournal, parts: Mapping[int, Part]
    ) -> dict[int, list[str]]:
        """Look for the calls of parts that were sent.

        :returns: for the parts of which there are calls, the ids that are to be waited for.
        """
        wanted = {journal.reference_of(number): [person.phone for person in part] for number, part in parts.items()}
        found = find_our_calls(
            client,
            wanted,
            since=min(journal[number].sent_at or journal.submitted_at for number in parts),
            agent_id=journal.head.agent_id,
        )
        calls = {number: found.get(journal.reference_of(number)) for number in parts}
        return {number: list(ids.values()) for number, ids in calls.items() if ids}


class BulkCalls(Calls):
    """Each part is one bulk request."""


class SingleCalls(Calls):
    """Each part is one person."""

    one_person: ClassVar[bool] = True

    @property
    def part_size(self) -> int:
        return 1

    def send(
        self, client: VolubileClient, journal: SubmissionJournal, number: int, part: Part, *, not_after: float
    ) -> Sequence[str]:
        (person,) = marked(part, journal.reference_of(number))
        call = client.create_call(self.agent_id, person, not_after=not_after)
        return [call.id] if call.id else []


@dataclass(frozen=True, kw_only=True)
class Campaigns(Calls):
    """Each part is a campaign of its own.

    :param title: what the user calls it. Each part's name gets its reference as a suffix, since only its name ties
        calls to a campaign.
    :param schedule: makes the :class:`Schedule` of a submission that began at ``now``.
    :param extra_fields: further members of the request, for what the service may add.
    """

    kind: SubmissionKind = "campaign"
    title: str
    schedule: Callable[..., Schedule]
    extra_fields: Mapping[str, Any] = field(default_factory=dict)

    def cut(self, people: Sequence[Recipient]) -> list[tuple[Recipient, ...]]:
        return split_parts(people, self.part_size)

    def check(self, journal: SubmissionJournal) -> dict[str, Any]:
        if not str(self.title or "").strip():
            raise VolubileInputError("name is empty: calls are tied to their campaign by its name.")
        if taken := self.extra_fields.keys() & wire.CAMPAIGN_MEMBERS:
            raise VolubileInputError(
                f"extra_fields holds {', '.join(sorted(taken))}, which this operator sends itself: use its parameters."
            )
        try:
            json.dumps(self.extra_fields, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise VolubileInputError(f"extra_fields cannot be sent, it is not JSON: {error}.") from None
        return self.schedule(now=journal.submitted_at).dump()

    def name(self, reference: str) -> str:
        return f"{self.title} [{reference}]"

    def send(
        self, client: VolubileClient, journal: SubmissionJournal, number: int, part: Part, *, not_after: float
    ) -> Sequence[str]:
        schedule = self.schedule(now=journal.submitted_at)
        reference = journal.reference_of(number)
        body = wire.campaign_body(
            name=self.name(reference),
            agent_id=self.agent_id,
            # A part that could only be sent on a later day cannot start before it.
            start_date=max(schedule.start_date, datetime.now(schedule.zone).date()),
            time_slots=[(slot.start, slot.end) for slot in schedule.time_slots],
            days=schedule.days,
            batch_size=schedule.batch_size,
            recipients=marked(part, reference),
            retry=schedule.redial.as_request(),
            timezone=schedule.zone.key,
        )
        return [client.create_campaign({**body, **self.extra_fields}, not_after=not_after).id]

    def find(
        self, client: VolubileClient, journal: SubmissionJournal, parts: Mapping[int, Part]
    ) -> dict[int, list[str]]:
        # A call of the campaign proves that it exists; its id stands nowhere in a call.
        return {
            number: []
            for number, part in parts.items()
            if find_our_calls(
                client,
                {journal.reference_of(number): [person.phone for person in part]},
                since=journal[number].sent_at or journal.submitted_at,
                agent_id=journal.head.agent_id,
                campaign=journal[number].name,
            ).get(journal.reference_of(number))
        }
