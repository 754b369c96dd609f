"""Which calls of the account are ours: by our reference first, by number and time only where there is no context."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call, Page
from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle
from airflow_provider_volubile.exceptions import VolubileOutcomeGap
from airflow_provider_volubile.waiting.find_calls import (
    REFERENCE_KEY,
    belongs_to_campaign,
    find_calls,
    find_our_calls,
    find_reference,
    reference_of,
)

NOW = datetime.now(UTC)
LUCIE, KARIM = "+33639980101", "+33639980102"
AGENT = "5B0F3C52-8a0e-4a4e-9d0c-6f2b1c7e9a10"


class Service:
    """A list of calls, newest first, one a page. It counts the pages that were read."""

    def __init__(self, *calls: Call) -> None:
        self.calls = calls
        self.pages = 0

    def list_calls(self, *, page: int, **_: object) -> Page[Call]:
        self.pages += 1
        content = self.calls[page - 1 : page]
        return Page(content, page=page, total_pages=len(self.calls), received=len(content), sort="created,DESC")


def client(*calls: Call) -> VolubileClient:
    return cast("VolubileClient", Service(*calls))


def call(call_id: str, phone: str | None = LUCIE, reference: str | None = "ref-1", **details: Any) -> Call:
    context = {} if reference is None else {REFERENCE_KEY: reference, "system": {}}
    return Call(**{"id": call_id, "phone": phone, "context": context, "created": NOW, "status": "COMPLETED"} | details)


def found(*calls: Call, phones: tuple[str, ...] = (LUCIE,)) -> dict[str, str]:
    return find_our_calls(client(*calls), {"ref-1": phones}, since=NOW, agent_id=AGENT)["ref-1"]


@pytest.mark.parametrize("notation", ["+33639980101", "33639980101", "+33 6 39 98 01 01", "0033639980101"])
@pytest.mark.parametrize("agent", [None, AGENT.lower(), AGENT])
@pytest.mark.parametrize("reference", ["ref-1", None])
def test_a_call_is_recognised_in_any_notation_of_its_number(
    notation: str, agent: str | None, reference: str | None
) -> None:
    assert found(call("1", notation, reference, agent_id=agent)) == {LUCIE: "1"}


@pytest.mark.parametrize("notation", [None, "", "anonymous", "06 39 98 01 01"])
def test_our_reference_is_enough_where_the_number_cannot_be_compared(notation: str | None) -> None:
    calls = call("1", notation), call("2", KARIM)
    assert found(*calls, phones=(LUCIE, KARIM)) == {LUCIE: "1", KARIM: "2"}


def test_a_call_of_another_request_is_never_ours() -> None:
    assert found(call("1", reference="ref-2"), call("2", reference=None, context={"name": "Lucie"})) == {}


def test_a_call_without_context_must_not_be_older_than_the_request() -> None:
    old = NOW - timedelta(minutes=6)
    assert found(call("1", reference=None, created=old)) == {}
    assert found(call("1", reference=None, created=None)) == {LUCIE: "1"}


def test_a_person_called_twice_has_one_call() -> None:
    assert found(call("2"), call("1"), phones=(LUCIE, KARIM)) == {LUCIE: "2"}


def test_listing_stops_when_all_were_found() -> None:
    service = Service(call("2"), call("1", KARIM), *(call(f"old {n}", reference="x-1") for n in range(5)))
    wanted = {"ref-1": [LUCIE, KARIM]}
    find_our_calls(cast("VolubileClient", service), wanted, since=NOW, agent_id=None)
    assert service.pages == 2


def test_a_reference_is_found_by_its_beginning_whatever_the_agent() -> None:
    calls = call("1", reference="other-1"), call("2", reference="submission-7", agent_id="another")
    assert find_reference(client(*calls), "submission", since=NOW) == "submission-7"
    assert find_reference(client(*calls), "nobody", since=NOW) is None
    assert reference_of(call("3", reference=None)) is None


def test_the_calls_of_a_handle_that_does_not_name_all_are_found_by_reference() -> None:
    handle = SubmissionHandle(
        kind="bulk", recipients=2, call_ids=["1"], reference="ref", submitted_at=NOW.isoformat(), agent_id=AGENT
    )
    # Lucie was called twice: the call that the handle names counts.
    calls = [call("3"), call("2", "33639980102"), call("1"), call("4", "+33639980104", "other-1")]
    refs = find_calls(client(*calls), handle, now=NOW)
    assert [(ref.call_id, ref.status) for ref in refs] == [("1", "COMPLETED"), ("2", "COMPLETED")]
    with pytest.raises(VolubileOutcomeGap, match="2 people were accepted, but only 1 of their calls"):
        find_calls(client(call("3"), call("1")), handle, now=NOW)


@pytest.mark.parametrize("phone", [None, "+33 6 ** ** ** 01", "8101", "sip:+33639980101@192.0.2.1"])
def test_a_call_that_carries_our_reference_is_found_whatever_its_number_looks_like(phone: str | None) -> None:
    assert found(call("1", phone)) == {LUCIE: "1"}


def test_a_call_that_carries_our_reference_is_found_though_the_clock_of_the_service_is_behind() -> None:
    assert found(call("1", created=NOW - timedelta(minutes=30))) == {LUCIE: "1"}


def test_calls_without_context_show_that_a_request_was_taken_only_if_they_are_complete() -> None:
    assert found(call("1", reference=None), phones=(LUCIE, KARIM)) == {}
    both = call("1", reference=None), call("2", KARIM, reference=None)
    assert found(*both, phones=(LUCIE, KARIM)) == {LUCIE: "1", KARIM: "2"}


def test_a_call_that_carries_the_reference_of_another_part_is_of_another_campaign() -> None:
    campaign = CampaignRef(id=None, name="Winter tyres [ref-1]", recipients=3)
    assert belongs_to_campaign(call("1"), campaign, agent_id=AGENT, since=NOW)
    assert not belongs_to_campaign(call("2", reference="ref-2"), campaign, agent_id=AGENT, since=NOW)
