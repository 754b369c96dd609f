"""Campaigns through real Airflow against the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import RunDag

pytestmark = pytest.mark.airflow

AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
PEOPLE = [{"phone": f"+3363998{n:04d}", "firstName": "Lucie"} for n in range(12)]


def campaign(**changes: Any) -> VolubileCreateCampaignOperator:
    settings: dict[str, Any] = {
        "task_id": "call",
        "name": "Winter tyres",
        "agent_id": AGENT,
        "recipients": PEOPLE,
        "time_slots": ["09:00-12:00"],
        "poll_interval": 1,
    }
    return VolubileCreateCampaignOperator(**settings | changes)


@pytest.mark.parametrize("deferrable", [False, True])
def test_everyone_gets_an_outcome(run_dag: RunDag, simulator: Simulator, deferrable: bool) -> None:
    ran = run_dag(lambda: campaign(deferrable=deferrable))
    assert ran.state == "success"
    handle = ran.xcom("call")
    assert sum(handle["counts"].values()) == handle["recipients"] == len(PEOPLE)
    assert {entry["phone"] for entry in simulator.ledger()} == {person["phone"] for person in PEOPLE}
    assert simulator.summary()["max_attempts"] == 1
