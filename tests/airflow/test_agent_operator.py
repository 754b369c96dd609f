"""Agents and the status of campaigns through real Airflow against the simulator."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import chain

from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator
from airflow_provider_volubile.operators.campaigns import (
    VolubileCreateCampaignOperator,
    VolubileUpdateCampaignStatusOperator,
)
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import RunDag
from tests.airflow.helpers import FOLLOW_UP, REMINDER, UNKNOWN, Failures, configure, numbers, phones

pytestmark = pytest.mark.airflow


def agent_of(simulator: Simulator, agent_id: str) -> dict[str, Any]:
    return next(agent for agent in simulator.state()["agents"] if agent["id"] == agent_id)


def test_an_agent_changes_only_in_the_named_fields(run_dag: RunDag, simulator: Simulator) -> None:
    before = agent_of(simulator, FOLLOW_UP)
    failures = Failures()

    def update(task_id: str, changes: Any, agent_id: str = FOLLOW_UP) -> VolubileUpdateAgentOperator:
        return VolubileUpdateAgentOperator(
            task_id=task_id, agent_id=agent_id, changes=changes, retries=2, on_failure_callback=failures
        )

    def make() -> None:
        chain(
            update("off", {"active": False}),
            configure(simulator, patch_answer="empty"),
            update("renamed", {"name": "Night shift", "recordable": "{{ params.recordable }}"}),
            configure(simulator, patch_answer="204"),
            update("archived", {"archived": True}),
        )
        update("unknown_agent", {"active": False}, UNKNOWN)
        update("odd_id", {"active": False}, "../agents")
        update("unknown_field", {"voice": "Amelie"})
        update("no_truth", {"active": "perhaps"})
        update("nothing", {})
        update("no_object", "active")

    ran = run_dag(make, recordable=True)
    assert ran.xcom("off") | {"active": True} == {name: before[name] for name in ran.xcom("off")}
    assert ran.xcom("off")["active"] is False
    assert ran.xcom("renamed")["name"] == "Night shift"
    assert ran.xcom("renamed")["recordable"] is True
    assert ran.xcom("archived")["archived"] is True
    after = agent_of(simulator, FOLLOW_UP)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"active", "name", "recordable", "archived"}
    assert simulator.request_summary()["updateAgent"] == {"200": 2, "204": 1}

    assert failures["unknown_agent"] == f"agent_id {UNKNOWN!r}: this account has no such agent."
    assert "agent_id '../agents' is not an id" in failures["odd_id"]
    assert "'voice' cannot be changed" in failures["unknown_field"]
    assert "'active' must be a bool, and not empty" in failures["no_truth"]
    assert "no changes given" in failures["nothing"]
    assert "changes is a str" in failures["no_object"]
    failed = ("unknown_agent", "odd_id", "unknown_field", "no_truth", "nothing", "no_object")
    assert all(ran.task(name).state == "failed" and ran.task(name).try_number == 1 for name in failed)


def test_campaigns_are_paused_resumed_and_cancelled(run_dag: RunDag, simulator: Simulator) -> None:
    simulator.configure(ignore_windows=False, speed=1)
    failures = Failures()
    source = numbers()

    def status(task_id: str, campaign_id: Any, status: str) -> VolubileUpdateCampaignStatusOperator:
        return VolubileUpdateCampaignStatusOperator(
            task_id=task_id, campaign_id=campaign_id, status=status, retries=2, on_failure_callback=failures
        )

    def make() -> None:
        campaign = VolubileCreateCampaignOperator(
            task_id="campaign",
            name="Winter tyres",
            agent_id=REMINDER,
            recipients=phones(1001, source),
            time_slots=["09:00-12:00"],
            campaign_start_date="{{ macros.ds_add(ds, 2) }}",
            wait_for_completion=False,
        )
        chain(
            campaign,
            status("paused", campaign.output, "PAUSED"),
            status("paused_again", campaign.output, "PAUSED"),
            status("resumed", "{{ ti.xcom_pull(task_ids='campaign')['campaigns'][0]['id'] }}", "ACTIVE"),
            status("cancelled", campaign.output, "{{ params.status }}"),
            status("too_late", campaign.output, "ACTIVE"),
        )
        status("one_l", UNKNOWN, "CANCELED")
        status("unknown", UNKNOWN, "PAUSED")
        status("odd_id", "../campaigns", "PAUSED")
        status("no_campaign", {"kind": "bulk", "call_ids": ["x"]}, "PAUSED")
        status("text", "{{ {'campaigns': []} }}", "PAUSED")

    ran = run_dag(make, status="CANCELLED")
    first, second = ran.xcom("campaign")["campaigns"]
    assert (first["recipients"], second["recipients"]) == (1000, 1)
    assert first["name"] != second["name"]
    for task_id, expected in (("paused", "PAUSED"), ("paused_again", "PAUSED"), ("cancelled", "CANCELLED")):
        assert ran.xcom(task_id) == [{"campaign_id": part["id"], "status": expected} for part in (first, second)]
    assert ran.xcom("resumed") == [{"campaign_id": first["id"], "status": "ACTIVE"}]
    assert {campaign["status"] for campaign in simulator.state()["campaigns"]} == {"CANCELLED"}
    assert "updateCampaignStatus" in failures["too_late"]
    assert failures["one_l"] == "status is 'CANCELED'; it must be one of ACTIVE, PAUSED, CANCELLED."
    assert failures["unknown"] == f"campaign_id {UNKNOWN!r}: this account has no such campaign."
    assert "campaign_id '../campaigns' is not an id" in failures["odd_id"]
    assert "holds no campaign" in failures["no_campaign"]
    assert "text of a list or handle" in failures["text"]
    failed = ("too_late", "one_l", "unknown", "odd_id", "no_campaign", "text")
    assert all(ran.task(name).state == "failed" and ran.task(name).try_number == 1 for name in failed)
    assert simulator.ledger() == []
