"""What dialling operators hand over through XCom, and what sensors, exports and triggers take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from airflow_provider_volubile.exceptions import VolubileInputError

if TYPE_CHECKING:
    from airflow_provider_volubile.calling.journal import SubmissionJournal

SubmissionKind = Literal["campaign", "bulk", "call"]


class CampaignRef(TypedDict):
    """One campaign of a submission. ``id`` is None when its creation was only found through its calls."""

    id: str | None
    name: str
    recipients: int


class SubmissionHandle(TypedDict, total=False):
    """A submission: ids and counts, no people. What does not apply is left out.

    :ivar kind: ``campaign``, ``bulk`` or ``call``.
    :ivar agent_id: the agent.
    :ivar submitted_at: before this moment no call of it was made; ISO 8601.
    :ivar recipients: people the service accepted.
    :ivar rejected: rows that nobody was called for.
    :ivar campaigns: of a campaign submission: id, name and number of recipients of each part.
    :ivar redial: of a campaign submission: ``max``, ``delay``, ``retry_on``.
    :ivar schedule: of a campaign submission: its calling hours, as ``Schedule.dump()`` gives them.
    :ivar call_ids: of bulk and single calls: their ids, as far as they were known.
    :ivar reference: of bulk and single calls: what the ``airflow_ref`` in each call's context begins with.
    :ivar references: the same, of a handle that a sensor made of several.
    :ivar counts: after waiting: number of people by outcome, ``NEVER_DIALED`` included.
    :ivar outcomes: where the outcomes table was written, if it was asked for.
    """

    kind: SubmissionKind
    agent_id: str
    submitted_at: str
    recipients: int
    rejected: int
    campaigns: list[CampaignRef]
    redial: Mapping[str, Any]
    schedule: Mapping[str, Any]
    call_ids: list[str]
    reference: str
    references: list[str]
    counts: dict[str, int]
    outcomes: str


def handle_of(journal: SubmissionJournal) -> SubmissionHandle:
    """What a submission hands over, from what its journal knows by now."""
    head = journal.head
    refused = len(journal.numbers("refused"))  # only a request for one person is refused and passed over
    handle = SubmissionHandle(
        kind=head.kind,
        agent_id=head.agent_id,
        submitted_at=head.submitted_at,
        recipients=head.recipients - refused,
        rejected=head.rejected + refused,
    )
    if head.kind == "campaign":
        handle["campaigns"] = [
            CampaignRef(
                id=next(iter(journal[number].ids), None),
                name=journal[number].name or "",
                recipients=journal.size(number),
            )
            for number in journal.numbers("accepted")
        ]
        handle["redial"] = head.settings["redial"]
        if head.schedule:
            handle["schedule"] = head.schedule
    else:
        handle["call_ids"] = [call_id for record in journal for call_id in record.ids]
        handle["reference"] = head.reference
    return SubmissionHandle(**{**handle, **(head.completed or {})})  # type: ignore[typeddict-item]


def handles_and_ids(value: Any, name: str) -> Iterator[SubmissionHandle | str]:
    """What a user gave where handles or ids are expected: one of them, or a list. Ids are not checked.

    :param name: the parameter, for messages.
    :raises VolubileInputError: it is none of these.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        raise VolubileInputError(
            f"{name}: got the text of a list or handle where the thing itself is expected; hand over the task's output "
            f"({name}=task.output), or set render_template_as_native_obj=True on the Dag."
        )
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, Iterable):
        raise VolubileInputError(f"{name} is a {type(value).__name__}; expected a handle, an id, or a list of them.")
    for item in value:
        if isinstance(item, str) and item:
            yield item
        elif isinstance(item, Mapping) and ("campaigns" in item or "call_ids" in item):
            yield cast("SubmissionHandle", item)
        else:
            raise VolubileInputError(
                f"{name} holds a {type(item).__name__} that is neither an id nor the handle of a submission."
            )
