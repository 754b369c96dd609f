"""The one place that recognises our calls. Waits and recovery list calls here.

Every recipient is sent with a reference in the context: Dag run, task and part, as
:func:`airflow_provider_volubile.calling.journal.reference` makes it. A call gives its context back
(`Get call <https://docs.volubile.ai/api-reference/calls/get>`__), and a prompt ignores values that it does not name
(`Create call <https://docs.volubile.ai/api-reference/calls/create>`__). So the reference recognises a call, however the
service writes its number and whether or not it names the agent. Only a call without any context is recognised by its
number, its time and, if it names one, its agent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile.api import routes, wire
from airflow_provider_volubile.api.paging import turn_pages
from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle, handles_and_ids
from airflow_provider_volubile.exceptions import VolubileOutcomeGap, VolubileProtocolError
from airflow_provider_volubile.waiting.outcomes import BEGINNING

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call, Page

#: The key of the reference in a call's context.
REFERENCE_KEY = "airflow_ref"
PAGE_SIZE = wire.MAX_PAGE_SIZE
# So many calls are read singly, rather than listing an account back to an unknown day.
READ_ONE_BY_ONE = 100
# The clocks of server and worker differ, and `created` may be set late: a call may seem older than its request.
CALL_TIME_TOLERANCE = timedelta(minutes=5)
# Before a request is sent again, its calls are looked for much further back: a server's clock may be badly wrong.
SEARCH_TOLERANCE = timedelta(hours=1)


class CallRef(NamedTuple):
    """What is kept of a call while many are handled.

    :param status: None when the call was not looked at.
    :param recorded: None likewise, or when the service does not tell.
    :param at: the call's time, aware: ``created``, else ``startTime``, else ``endTime``.
    :param has_end: whether the call has an ``endTime``.
    """

    call_id: str
    status: str | None = None
    recorded: bool | None = None
    at: datetime | None = None
    has_end: bool = False

    @classmethod
    def of(cls, call: Call) -> CallRef:
        return cls(call.id, call.status, call.recorded, call.time, call.end_time is not None)

    @property
    def has_ended(self) -> bool:
        return wire.has_ended(self.status, has_end=self.has_end)

    @property
    def expects_transcript(self) -> bool:
        """Whether a transcript may appear: somebody was heard, or that is not known."""
        return wire.may_have_transcript(self.status)


def reference_of(call: Call) -> str | None:
    """The reference of the request that made this call; None when its context holds none."""
    reference = (call.context or {}).get(REFERENCE_KEY)
    return str(reference) if reference else None


# Listing --------------------------------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """Filters of the list of calls; None for all."""

    campaign: str | None = None
    agent_id: str | None = None
    phone: str | None = None

    def __str__(self) -> str:
        return "the account" if self.campaign is None else f"campaign {self.campaign!r}"


def pages(
    client: VolubileClient, listing: Listing, *, horizon: datetime, since: datetime, now: datetime
) -> Iterator[Sequence[Call]]:
    """Pages of calls, newest first, until one reaches below ``horizon``.

    New calls push older ones to later pages while we read. So a call may come twice, and none is missed. If the service
    does not sort as asked, everything since ``since`` is read. Both are :data:`BEGINNING` if nothing is known.

    :raises VolubileProtocolError: the list breaks off, as :func:`~.api.paging.turn_pages` says.
    """
    filters: dict[str, Any] = listing._asdict()
    if since > BEGINNING:
        filters["from_date"], filters["to_date"] = wire.days_around(since, now)

    def fetch(number: int) -> Page[Call]:
        return client.list_calls(**filters, page=number, size=PAGE_SIZE, sort=wire.NEWEST_FIRST)

    for page in turn_pages(routes.LIST_CALLS.operation, fetch):
        yield page.content
        # A call without any time was just created, and says nothing about the order.
        times = [at for call in page.content if (at := call.time)]
        newest_first = all(later <= earlier for earlier, later in pairwise(times))
        # Calls of one moment show no order.
        shows_order = page.sort is not None and newest_first and bool(times) and times[0] > times[-1]
        if shows_order and times[-1] < horizon:
            return


def _calls_since(client: VolubileClient, since: datetime, listing: Listing, tolerance: timedelta) -> Iterator[Call]:
    """Calls that may be of a request that was sent at ``since``, newest first."""
    begin = since - tolerance
    for page in pages(client, listing, horizon=begin, since=begin, now=datetime.now(UTC) + tolerance):
        for call in page:
            if call.time is None or call.time >= begin:
                yield call


# Recognising ----------------------------------------------------------------------------------------------------------


def find_our_calls(
    client: VolubileClient,
    wanted: Mapping[str, Collection[str]],
    *,
    since: datetime,
    agent_id: str | None,
    campaign: str | None = None,
) -> dict[str, dict[str, str]]:
    """Find the calls of requests, one for each person. Stops listing when all were found.

    The list is not filtered by number: a call that carries our reference is ours, even if the service writes its number
    in another way. Without a campaign's name, calls without a context count only if there is one for each person of a
    request.

    :param wanted: the numbers of the people (E.164) by the reference of the request that has them called.
    :param since: no request was sent before this moment; aware.
    :param agent_id: list only calls of this agent; None for all.
    :param campaign: list only calls of campaigns of this name.
    :returns: ids of calls by reference and number. If numbers come back in a notation that cannot be compared, the
        calls of a request are given to its people in any order.
    :raises VolubileError: the calls cannot be listed.
    """
    people = {
        reference: {wire.significant_digits(each): each for each in phones} for reference, phones in wanted.items()
    }
    found: dict[str, dict[str, str]] = {reference: {} for reference in wanted}
    other_notation: dict[str, dict[str, None]] = {reference: {} for reference in wanted}
    by_number: dict[str, str] = {}
    for call in _calls_since(client, since, Listing(campaign, agent_id), SEARCH_TOLERANCE):
        number = wire.significant_digits(call.phone or "")
        if not call.context:
            if call.time is None or call.time >= since - CALL_TIME_TOLERANCE:
                by_number.setdefault(number, call.id)
            continue
        reference = reference_of(call)
        if reference not in people:
            continue
        if number in people[reference]:
            found[reference].setdefault(people[reference][number], call.id)
        else:
            other_notation[reference][call.id] = None
        if all(len(found[each]) + len(other_notation[each]) >= len(people[each]) for each in people):
            break
    for reference, calls in found.items():
        left = (each for each in people[reference].values() if each not in calls)
        calls |= dict(zip(list(left), other_notation[reference], strict=False))
        nameless = {people[reference][number]: id for number, id in by_number.items() if number in people[reference]}
        if campaign or len(nameless) == len(people[reference]):
            found[reference] = nameless | calls
    return found


def find_reference(
    client: VolubileClient,
    prefix: str | tuple[str, ...],
    *,
    since: datetime,
    agent_id: str | None = None,
    phone: str | None = None,
) -> str | None:
    """The reference of the newest call since ``since`` that begins with ``prefix``; None when no call has one.

    :param prefix: one, or several of which any will do.
    :param agent_id: list only calls of this agent.
    :param phone: list only calls to this number, E.164.
    :raises VolubileError: the calls cannot be listed.
    """
    for call in _calls_since(client, since, Listing(None, agent_id, phone), CALL_TIME_TOLERANCE):
        if (reference := reference_of(call)) and reference.startswith(prefix):
            return reference
    return None


def find_people(
    client: VolubileClient, prefix: str | tuple[str, ...], phones: Collection[str], *, since: datetime
) -> dict[str, str]:
    """The references, beginning with ``prefix``, of the newest calls to these people, by number.

    :param phones: numbers in E.164.
    :raises VolubileError: the calls cannot be listed.
    """
    people = {wire.significant_digits(phone): phone for phone in phones}
    found: dict[str, str] = {}
    for call in _calls_since(client, since, Listing(), CALL_TIME_TOLERANCE):
        phone = people.get(wire.significant_digits(call.phone or ""))
        if phone and (reference := reference_of(call)) and reference.startswith(prefix):
            found.setdefault(phone, reference)
            if len(found) == len(people):
                break
    return found


class UnlistedCalls:
    """Recognises calls of people who were accepted in an answer that did not tell the ids.

    :param references: what the references of the parts begin with; the number of the part follows a hyphen.
    :param ids: the ids that are known.
    """

    def __init__(self, references: Collection[str], ids: Collection[str]) -> None:
        self._references = frozenset(references)
        self._ids = ids
        self._identified: set[str] = set()
        self._candidates: dict[str, tuple[Call, str]] = {}

    def observe(self, call: Call) -> None:
        person = wire.significant_digits(call.phone or "") or call.id
        if call.id in self._ids:
            self._identified.add(person)
            return
        prefix, _, part = (reference_of(call) or "").rpartition("-")
        if prefix in self._references:
            self._candidates.setdefault(person, (call, part))

    def take(self, people: int) -> list[tuple[Call, str]]:
        """Calls of at most so many people in a list that was observed to its end, each with the number of its part.

        A person who was called twice on purpose counts once, with the call whose id is known.
        """
        taken = [person for person in self._candidates if person not in self._identified][:people]
        self._identified.update(taken)
        found = [self._candidates[person] for person in taken]
        self._candidates.clear()
        return found


def belongs_to_campaign(call: Call, campaign: CampaignRef, *, agent_id: str | None, since: datetime) -> bool:
    """Whether a call that was listed under a campaign's name is of this campaign.

    :param since: no call of the campaign is older.
    """
    # The name of a campaign that we created ends with the reference of its calls.
    if reference := reference_of(call):
        return campaign["name"].endswith(f"[{reference}]")
    if agent_id and call.agent_id and agent_id.lower() != call.agent_id.lower():
        return False
    at = call.time
    return at is None or at >= since


def check_people(campaign: CampaignRef, people: int) -> None:
    """Check that the list of a campaign's calls shows no more people than the campaign has.

    :raises VolubileProtocolError: it does.
    """
    if people > campaign["recipients"]:
        raise VolubileProtocolError(
            f"Campaign {campaign['name']!r} has {campaign['recipients']} recipients, but the list of its calls shows "
            f"{people} people. Either the service did not apply the filter by campaign name, or another campaign has "
            "the same name. Outcomes cannot be told apart.",
            operation=routes.LIST_CALLS.operation,
        )


# The calls of handles -------------------------------------------------------------------------------------------------


def find_calls(client: VolubileClient, calls: Any, *, now: datetime) -> list[CallRef]:
    """Find the calls of submissions, or take ids as they are, each once.

    The calls of a campaign are found by its name; those of many ids by listing their agent's calls, where the handle
    tells the agent and the time. Few or plain ids are not looked at: their ``status`` is None.

    :param calls: a handle that a dialling operator returned, an id, or a list of handles or ids.
    :raises VolubileInputError: it is none of these.
    :raises VolubileOutcomeGap: not all calls of a handle are listed.
    """
    found: dict[str, CallRef] = {}
    for item in handles_and_ids(calls, "calls"):
        if isinstance(item, str):
            found.setdefault(item, CallRef(item))
            continue
        since = begin_of(item)
        for campaign in item.get("campaigns", ()):
            found |= _of_campaign(client, campaign, item.get("agent_id"), since, now)
        found |= _of_calls(client, item, since, now)
    return list(found.values())


def _of_campaign(
    client: VolubileClient, campaign: CampaignRef, agent_id: str | None, since: datetime, now: datetime
) -> dict[str, CallRef]:
    found: dict[str, CallRef] = {}
    people: set[str] = set()
    for page in pages(client, Listing(campaign["name"], agent_id), horizon=since, since=since, now=now):
        for call in page:
            if belongs_to_campaign(call, campaign, agent_id=agent_id, since=since):
                found[call.id] = CallRef.of(call)
                people.add(wire.significant_digits(call.phone or ""))
    check_people(campaign, len(people))
    return found


def _of_calls(client: VolubileClient, handle: SubmissionHandle, since: datetime, now: datetime) -> dict[str, CallRef]:
    ids = handle.get("call_ids", [])
    # A wait has already looked for the calls of everyone, and its end was accepted.
    unknown = 0 if "counts" in handle or "call_ids" not in handle else handle.get("recipients", len(ids)) - len(ids)
    found = {call_id: CallRef(call_id) for call_id in ids}
    finder = UnlistedCalls(references_of(handle), found.keys())
    is_searching = unknown > 0 and bool(references_of(handle))
    if since > BEGINNING and (len(ids) > READ_ONE_BY_ONE or is_searching):
        not_found = set(found)
        for page in pages(client, Listing(None, handle.get("agent_id")), horizon=since, since=since, now=now):
            for call in page:
                finder.observe(call)
                if call.id in not_found:
                    not_found.discard(call.id)
                    found[call.id] = CallRef.of(call)
            if not (not_found or is_searching):
                break
        more = finder.take(unknown) if is_searching else []
        unknown -= len(more)
        found |= {call.id: CallRef.of(call) for call, _ in more}
    if unknown > 0:
        raise VolubileOutcomeGap(
            f"{handle['recipients']} people were accepted, but only {len(found)} of their calls are listed. Look in "
            "Volubile's dashboard for the others. Clearing this task looks once more, and calls no one."
        )
    return found


def references_of(handle: SubmissionHandle) -> list[str]:
    """What the references of a submission's calls begin with; several of a handle made of several."""
    return [handle["reference"]] if "reference" in handle else handle.get("references", [])


def begin_of(handle: SubmissionHandle) -> datetime:
    """A moment before which no call of a submission was made; :data:`BEGINNING` if that is not known."""
    submitted_at = handle.get("submitted_at")
    return datetime.fromisoformat(submitted_at) - CALL_TIME_TOLERANCE if submitted_at else BEGINNING
