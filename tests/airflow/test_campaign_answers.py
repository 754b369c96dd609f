"""Campaigns whose answers and calls come in forms that no page documents."""

from __future__ import annotations

import pytest
from airflow.sdk import BaseOperator, chain

from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import RunDag
from tests.airflow.helpers import REMINDER, configure, numbers, phones

pytestmark = pytest.mark.airflow


@pytest.mark.parametrize("deferrable", [True])
def test_everyone_gets_an_outcome_whatever_the_form(
    run_dag: RunDag, simulator: Simulator, caplog: pytest.LogCaptureFixture, deferrable: bool
) -> None:
    simulator.configure(speed=3000, dial_interval=0)
    source = numbers()
    groups: dict[str, list[str]] = {}

    def campaign(name: str) -> BaseOperator:
        groups[name] = phones(4, source)
        return VolubileCreateCampaignOperator(
            task_id=name,
            name="Tyres",
            agent_id=REMINDER,
            recipients=groups[name],
            time_slots=["09:00-12:00"],
            timezone="Europe/Lisbon",
            poll_interval=0.2,
            deferrable=deferrable,
        )

    ran = run_dag(
        lambda: chain(
            configure(simulator, campaign_timezone="refused"),
            campaign("zone_refused"),
            configure(simulator, campaign_timezone="ignored"),
            campaign("zone_ignored"),
            configure(simulator, sort="ignored", default_sort="created,ASC"),
            campaign("unsorted"),
            configure(simulator, sort="refused", default_sort="phone,ASC"),
            campaign("sort_refused"),
            configure(simulator, list_lag=1.0),
            campaign("late"),
            configure(simulator, list_lag=0.0, created="missing"),
            campaign("without_created"),
            configure(simulator, date_zone="Pacific/Auckland", date_filter="startTime"),
            campaign("other_days"),
        )
    )
    assert ran.state == "success", {name: ran.task(name).state for name in groups}
    ledger = {entry["phone"]: entry for entry in simulator.ledger()}
    assert len(simulator.ledger()) == len(ledger) == 4 * len(groups)
    for name, people in groups.items():
        statuses = [ledger[phone]["status"] for phone in people]
        assert ran.xcom(name)["counts"] == {status: statuses.count(status) for status in sorted(statuses)}, name
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "the server takes no timezone; the campaign runs on the account's clock" in said
    assert "runs on the clock of Europe/Paris, not of Europe/Lisbon as was asked" in said
