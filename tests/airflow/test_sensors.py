"""The sensors through real Airflow against the simulator, in each of their modes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import chain, task

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.exports import VolubileExportTranscriptsOperator
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.sensors.campaigns import VolubileCampaignSensor
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import RunDag
from tests.airflow.helpers import REMINDER, UNKNOWN, Failures, configure, numbers, phones

pytestmark = pytest.mark.airflow

MODES = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}
QUICK = {"poke_interval": 0.2, "timeout": 120}


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_waits_for_calls_of_handles_and_ids(run_dag: RunDag, simulator: Simulator, mode: str) -> None:
    simulator.configure(speed=1000, transcript_delay=300)
    source = numbers()
    bulk_people, people = phones(5, source), phones(2, source)
    settings = QUICK | MODES[mode]

    def make() -> None:
        submit = {"agent_id": REMINDER, "wait_for_completion": False}
        bulk = VolubileBulkCallsOperator(task_id="bulk", recipients=bulk_people, multiple_outputs=True, **submit)
        calls = VolubileCreateCallOperator.partial(task_id="calls", **submit).expand(phone=people)
        VolubileCallsSensor(task_id="handle", calls=bulk.output, wait_for="transcript", **settings)
        VolubileCallsSensor(task_id="ids", calls=bulk.output["call_ids"], **settings)
        bulk >> VolubileCallsSensor(
            task_id="id", calls="{{ ti.xcom_pull(task_ids='bulk')['call_ids'][0] }}", **settings
        )
        VolubileCallsSensor(task_id="handles", calls=calls.output, **settings)

    ran = run_dag(make)
    assert ran.state == "success"
    ledger = {entry["call_id"]: entry for entry in simulator.ledger()}
    bulk = ran.xcom("bulk")

    def counts(call_ids: list[str]) -> dict[str, int]:
        statuses = [ledger[call_id]["status"] for call_id in call_ids]
        assert "IN_PROGRESS" not in statuses
        return {status: statuses.count(status) for status in sorted(statuses)}

    assert ran.xcom("handle") == bulk | {"counts": counts(bulk["call_ids"])}
    assert ran.xcom("ids")["counts"] == counts(bulk["call_ids"])
    assert ran.xcom("id")["counts"] == counts(bulk["call_ids"][:1])
    handles = [ran.xcom("calls", map_index=index) for index in range(2)]
    together = ran.xcom("handles")
    assert together["call_ids"] == [call_id for handle in handles for call_id in handle["call_ids"]]
    assert together["agent_id"] == REMINDER
    assert together["submitted_at"] == min(handle["submitted_at"] for handle in handles)
    assert together["counts"] == counts(together["call_ids"])
    assert all(ledger[call_id]["transcript_ready"] for call_id in bulk["call_ids"] if heard(ledger[call_id]))
    assert simulator.summary()["max_attempts"] == 1


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_sensor_finds_calls_that_a_handle_does_not_name(
    run_dag: RunDag, simulator: Simulator, tmp_path: Path, mode: str
) -> None:
    people = phones(6, numbers())
    # The answer tells half of the ids, and the others are not listed before the operator has given up.
    simulator.configure(speed=3000, bulk_answer="partial", list_lag=3600)

    failures = Failures()

    def make() -> None:
        bulk = VolubileBulkCallsOperator(
            task_id="bulk", agent_id=REMINDER, recipients=people, wait_for_completion=False, confirmation_timeout=0.2
        )
        listed = configure(simulator, list_lag=0)
        settings = QUICK | MODES[mode] | {"on_failure_callback": failures}
        wait = VolubileCallsSensor(task_id="wait", calls=bulk.output, **settings)
        texts = VolubileExportTranscriptsOperator(
            task_id="texts", calls=bulk.output, output_path=str(tmp_path), transcript_timeout=0.2
        )

        @task
        def of_an_older_version(handle: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in handle.items() if name != "reference"}

        older = of_an_older_version(bulk.output)
        chain(bulk, listed, [wait, texts, older])
        VolubileCallsSensor(task_id="nobody_knows", calls=older, **settings)

    ran = run_dag(make)
    handle = ran.xcom("bulk")
    assert (handle["recipients"], len(handle["call_ids"])) == (6, 3)
    waited = ran.xcom("wait")
    assert sorted(waited["call_ids"]) == sorted(entry["call_id"] for entry in simulator.ledger())
    assert waited["counts"] == Counter(entry["status"] for entry in simulator.ledger())
    assert ran.xcom("texts")["counts"]["calls"] == 6
    assert "6 people were accepted, but only 3 of their calls are listed" in failures["nobody_knows"]


def heard(entry: Any) -> bool:
    return entry["status"] in ("COMPLETED", "VOICE_BOX", "TRANSFERRED", "FAILOVER")


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_waits_for_campaigns_of_handles_and_ids(run_dag: RunDag, simulator: Simulator, mode: str) -> None:
    # Times of calls are whole seconds: two attempts are to lie further apart than that.
    simulator.configure(speed=40, campaign_timezone="refused", dial_interval=0)
    simulator.outcomes({"*": ["NO_ANSWER", "COMPLETED"]})
    settings = QUICK | MODES[mode]

    def make() -> None:
        campaign = VolubileCreateCampaignOperator(
            task_id="campaign",
            name="Winter tyres",
            agent_id=REMINDER,
            recipients=phones(6, numbers()),
            time_slots=["09:00-12:00"],
            redial={"max": 1, "delay": 1, "retry_on": ["NO_ANSWER"]},
            wait_for_completion=False,
        )
        VolubileCampaignSensor(task_id="handle", campaign=campaign.output, **settings)
        campaign >> VolubileCampaignSensor(
            task_id="id",
            campaign="{{ ti.xcom_pull(task_ids='campaign')['campaigns'][0]['id'] }}",
            recipients="{{ ti.xcom_pull(task_ids='campaign')['recipients'] }}",
            **settings,
        )

    ran = run_dag(make)
    assert ran.state == "success"
    expected = {"COMPLETED": 6}
    assert ran.xcom("handle") == ran.xcom("campaign") | {"counts": expected}
    assert ran.xcom("id")["counts"] == expected
    assert ran.xcom("id")["redial"] == ran.xcom("campaign")["redial"]
    assert simulator.summary()["calls"] == 12, "the sensors waited for the second attempts too"


@pytest.mark.parametrize("mode", ["reschedule"])
def test_a_sensor_for_an_unknown_object_fails_at_once_and_disturbs_no_other(
    run_dag: RunDag, simulator: Simulator, mode: str
) -> None:
    (ended,) = simulator.load_calls(1, status="COMPLETED")
    (running,) = simulator.load_calls(1, status="IN_PROGRESS")
    failures = Failures()
    settings = QUICK | MODES[mode] | {"retries": 2, "on_failure_callback": failures}
    campaign = {"kind": "campaign", "campaigns": [{"id": UNKNOWN, "name": "x", "recipients": 1}], "recipients": 1}

    def calls(task_id: str, calls: Any, **changes: Any) -> VolubileCallsSensor:
        return VolubileCallsSensor(task_id=task_id, calls=calls, **settings | changes)

    def campaigns(task_id: str, campaign: Any, **changes: Any) -> VolubileCampaignSensor:
        return VolubileCampaignSensor(task_id=task_id, campaign=campaign, **settings | changes)

    def make() -> None:
        @task
        def nothing() -> list[str]:
            return []

        calls("ended", ended)
        calls("empty_list", nothing())
        calls("unknown_call", [ended, UNKNOWN])
        calls("no_uuid", "abc")
        calls("odd_id", "../agents")
        calls("none", None)
        calls("of_campaign", campaign)
        calls("wait_for", ended, wait_for="answer")
        calls("text", "{{ {'call_ids': []} }}")
        calls("soft", running, soft_fail=True, timeout=0.3, retries=0)
        calls("too_long", running, timeout=0.3, retries=0)
        campaigns("unknown_campaign", UNKNOWN, recipients=3)
        campaigns("no_number", UNKNOWN)
        campaigns("of_calls", {"kind": "bulk", "call_ids": [ended]})
        campaigns("several", [UNKNOWN, UNKNOWN], recipients=3)

    ran = run_dag(make)
    assert ran.xcom("ended")["counts"] == {"COMPLETED": 1}
    assert ran.xcom("empty_list") == {"kind": "bulk", "recipients": 0, "rejected": 0, "call_ids": [], "counts": {}}
    assert ran.task("soft").state == "skipped"
    assert "0.3" in failures["too_long"]
    expected = {
        "unknown_call": f"This account has no call {UNKNOWN}.",
        "no_uuid": "This account has no call abc.",
        "odd_id": "calls '../agents' is not an id",
        "none": "calls is a NoneType; expected a handle, an id, or a list of them",
        "of_campaign": "a handle of kind 'campaign' has no call ids; for campaigns there is VolubileCampaignSensor",
        "wait_for": "wait_for is 'answer'; it must be one of ended, transcript",
        "text": "got the text of a list or handle",
        "unknown_campaign": f"campaign {UNKNOWN!r}: this account has no such campaign",
        "no_number": "recipients is None: with a plain campaign id, say how many people it calls",
        "of_calls": "a handle of kind 'bulk' has no campaigns; for calls there is VolubileCallsSensor",
        "several": "campaign holds 2 ids or handles",
    }
    for task_id, message in expected.items():
        assert message in failures[task_id], task_id
        assert (ran.task(task_id).state, ran.task(task_id).try_number) == ("failed", 1), task_id
