"""Agents: reading and changing them, and which of them may dial."""

from __future__ import annotations

import pytest

from airflow_provider_volubile.simulator import (
    ARCHIVED_AGENT_ID,
    FOLLOW_UP_AGENT_ID,
    INACTIVE_AGENT_ID,
    RECEPTION_AGENT_ID,
    REMINDER_AGENT_ID,
    Simulator,
)

from .raw_api import RawApi, bulk_body, call_body, campaign_body


def test_the_account_has_five_agents_at_start(api: RawApi) -> None:
    agents = {agent["id"]: agent for agent in api.ok("GET", "/v1/agents")["content"]}
    assert agents.keys() == {
        REMINDER_AGENT_ID,
        FOLLOW_UP_AGENT_ID,
        RECEPTION_AGENT_ID,
        INACTIVE_AGENT_ID,
        ARCHIVED_AGENT_ID,
    }
    reminder = agents[REMINDER_AGENT_ID]
    assert (reminder["name"], reminder["type"]) == ("Garage appointment reminder", "OUTBOUND")
    assert reminder == api.ok("GET", f"/v1/agents/{REMINDER_AGENT_ID}")


def test_agents_are_listed_in_pages(api: RawApi) -> None:
    pages = [api.ok("GET", "/v1/agents", params={"size": 2, "page": page}) for page in (1, 2, 3)]
    assert [len(page["content"]) for page in pages] == [2, 2, 1]
    assert {page["totalPages"] for page in pages} == {3}
    names = [agent["name"] for agent in api.ok("GET", "/v1/agents", params={"sort": "name,DESC"})["content"]]
    assert names == sorted(names, reverse=True)


@pytest.mark.parametrize("answer", ["agent", "empty", "204"])
def test_a_patch_changes_only_the_named_fields(simulator: Simulator, api: RawApi, answer: str) -> None:
    simulator.configure(patch_answer=answer)
    before = api.ok("GET", f"/v1/agents/{REMINDER_AGENT_ID}")
    response = api("PATCH", f"/v1/agents/{REMINDER_AGENT_ID}", {"active": False, "name": "Night"})
    after = api.ok("GET", f"/v1/agents/{REMINDER_AGENT_ID}")
    assert after == before | {"active": False, "name": "Night"}
    if answer == "agent":
        assert response.json() == after
    else:
        assert (response.status_code, response.content) == (204 if answer == "204" else 200, b"")


@pytest.mark.parametrize(
    "agent_id", [RECEPTION_AGENT_ID, INACTIVE_AGENT_ID, ARCHIVED_AGENT_ID, "0" * 8 + "-0000" * 3 + "-" + "0" * 12]
)
@pytest.mark.parametrize("path", ["/v1/calls", "/v1/bulk/calls", "/v1/campaigns"])
def test_agents_that_may_not_dial_are_refused(simulator: Simulator, api: RawApi, path: str, agent_id: str) -> None:
    body = {"/v1/calls": call_body(), "/v1/bulk/calls": bulk_body(2), "/v1/campaigns": campaign_body(2)}[path]
    answer = api("POST", path, body | {"agentId": agent_id})
    assert answer.status_code == 400
    assert agent_id in answer.json()["message"]
    assert simulator.submissions() == []
    assert simulator.ledger() == []
