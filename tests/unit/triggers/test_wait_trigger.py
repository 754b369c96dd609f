"""The trigger behind deferred waits: what it is stored as, and that what an earlier version stored still loads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
from airflow_provider_volubile.triggers.campaigns import VolubileCampaignTrigger
from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
from airflow_provider_volubile.waiting import polling, shared_poll
from tests.live import connection_json

SINCE = "2026-11-24T09:00:00+00:00"
LATER = "2026-12-24T09:00:00+00:00"
HOURS = {"start_date": "2026-11-24", "time_slots": ["09:00-12:00"], "days": ["MONDAY"], "timezone": "Europe/Paris"}
CAMPAIGNS = [{"id": "7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1", "name": "Tyres [ref-1]", "recipients": 3}]
REDIAL = {"max": 1, "delay": 90, "retry_on": ["NO_ANSWER"]}

# As version 0.1.0 stored them: kwargs and the handle that they mean.
OLD_CAMPAIGN = {
    "volubile_conn_id": "volubile_default",
    "since": SINCE,
    "deadline": LATER,
    "poll_interval": 30,
    "wait_for": "ended",
    "campaigns": CAMPAIGNS,
    "agent_id": "agent",
    "schedule": HOURS,
    "redial": REDIAL,
    "on_kill_action": "pause",
}
OLD_CALLS = {
    "volubile_conn_id": "volubile_default",
    "since": None,
    "deadline": LATER,
    "poll_interval": 30,
    "wait_for": "transcript",
    "call_ids": ["one", "two"],
    "agent_id": None,
}


@pytest.mark.parametrize(
    ("trigger_class", "kwargs", "handle"),
    [
        (
            VolubileCampaignTrigger,
            OLD_CAMPAIGN,
            {
                "campaigns": CAMPAIGNS,
                "agent_id": "agent",
                "submitted_at": SINCE,
                "redial": REDIAL,
                "schedule": HOURS,
            },
        ),
        (VolubileCallsTrigger, OLD_CALLS, {"call_ids": ["one", "two"]}),
    ],
)
def test_a_trigger_that_waits_across_an_upgrade_loads(
    trigger_class: type[WaitTrigger], kwargs: dict[str, Any], handle: SubmissionHandle
) -> None:
    trigger = trigger_class(**kwargs)
    assert trigger.handle == handle
    path, stored = trigger.serialize()
    assert path == f"{trigger_class.__module__}.{trigger_class.__qualname__}"
    again = trigger_class(**stored)
    assert again.serialize() == (path, stored)
    assert (again.handle, again.on_kill_action) == (handle, kwargs.get("on_kill_action", "leave"))


def test_calls_whose_ids_the_answer_did_not_tell_are_found_and_reported(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(shared_poll, "SECONDS_PER_REQUEST", 0.0)
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator))
    began = datetime.now(UTC)
    for area, reference in enumerate(("ref-1", "ref-2", "other-1")):
        people = [{"phone": f"+336399801{area}{n}", "context": {"airflow_ref": reference}} for n in (1, 2)]
        client.create_bulk_calls(REMINDER_AGENT_ID, people)
    ids = [entry["call_id"] for entry in simulator.ledger()][:4]
    handle = SubmissionHandle(
        kind="bulk", recipients=4, call_ids=ids[:1], reference="ref", submitted_at=began.isoformat()
    )
    trigger = WaitTrigger(
        volubile_conn_id="volubile_default",
        handle=handle,
        deadline=(datetime.now(UTC) + timedelta(minutes=1)).isoformat(),
        poll_interval=0.2,
    )

    async def event() -> Any:
        return (await anext(aiter(trigger.run()))).payload

    payload = asyncio.run(event())
    assert payload["status"] == "over"
    assert payload["settled"] == 4
    assert {part: sorted(found) for part, found in payload["found"].items()} == {"1": ids[1:2], "2": sorted(ids[2:])}
    assert payload["unlisted"] == 0
