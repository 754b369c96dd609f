"""Operators between ``@task`` functions, mapped over what they return, and written in Jinja."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import task

from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator
from airflow_provider_volubile.operators.calls import (
    VolubileBulkCallsOperator,
    VolubileCreateCallOperator,
    VolubileGetTranscriptOperator,
)
from airflow_provider_volubile.operators.campaigns import (
    VolubileCreateCampaignOperator,
    VolubileUpdateCampaignStatusOperator,
)
from airflow_provider_volubile.operators.exports import (
    VolubileExportRecordingsOperator,
    VolubileExportTranscriptsOperator,
)
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.sensors.campaigns import VolubileCampaignSensor
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import Ran, RunDag
from tests.airflow.helpers import FOLLOW_UP, REMINDER, numbers, phones

pytestmark = pytest.mark.airflow

SLOTS = ["09:00-12:00"]


@pytest.fixture(autouse=True)
def _fast(simulator: Simulator) -> None:
    simulator.configure(speed=3000, dial_interval=0)


def rendered(ran: Ran, task_id: str) -> list[dict[str, Any]]:
    """The rendered fields of a task as Airflow stores them and shows them in its UI, one per map index."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    model = RenderedTaskInstanceFields
    with create_session() as session:
        rows = session.scalars(
            select(model)
            .where(model.dag_id == ran.run.dag_id, model.run_id == ran.run.run_id, model.task_id == task_id)
            .order_by(model.map_index)
        )
        return [row.rendered_fields for row in rows]


def test_outputs_of_tasks_become_inputs(run_dag: RunDag, simulator: Simulator, tmp_path: Path) -> None:
    simulator.outcomes({"*": ["COMPLETED"]})
    people = [{"phone": phone, "firstName": "Lucie"} for phone in phones(6, numbers())]

    def make() -> None:
        @task
        def choose() -> list[dict[str, str]]:
            return people

        @task
        def first_agent() -> str:
            return REMINDER

        @task
        def ids(submission: dict[str, Any]) -> list[str]:
            return submission["call_ids"]

        @task
        def report(submission: dict[str, Any], transcripts: Iterable[list[dict[str, Any]]]) -> dict[str, int]:
            spoke = sum(any(event["actor"] == "AGENT" for event in transcript) for transcript in transcripts)
            return {"completed": submission["counts"]["COMPLETED"], "spoke": spoke}

        bulk = VolubileBulkCallsOperator(
            task_id="bulk",
            agent_id=first_agent(),
            recipients=choose(),
            wait_for="transcript",
            poll_interval=0.2,
            multiple_outputs=True,
        )
        VolubileCallsSensor(task_id="again", calls=bulk.output["call_ids"])
        transcripts = VolubileGetTranscriptOperator.partial(task_id="transcripts").expand(call_id=ids(bulk.output))
        VolubileExportTranscriptsOperator(
            task_id="export", calls=bulk.output, output_path=str(tmp_path), transcript_timeout=5
        )
        report.override(task_id="report")(bulk.output, transcripts.output)

    ran = run_dag(make)
    assert ran.state == "success"
    assert {entry["phone"] for entry in simulator.ledger()} == {person["phone"] for person in people}
    assert ran.xcom("report") == {"completed": 6, "spoke": 6}
    assert ran.xcom("export")["counts"]["written"] == 6
    assert len(ran.xcom("transcripts", map_index=5)) > 1


def test_mapped_tasks_do_not_affect_each_other(run_dag: RunDag, simulator: Simulator, tmp_path: Path) -> None:
    simulator.outcomes({"*": ["COMPLETED"]})
    source = numbers()
    batches = {name: [phones(4, source), phones(3, source)] for name in ("bulk", "single", "campaign")}
    one_by_one = [{"phone": phone, "call_context": {"n": n}} for n, phone in enumerate(phones(3, source))]

    def make() -> None:
        @task
        def batches_of(name: str) -> list[list[str]]:
            return batches[name]

        shared = {"agent_id": REMINDER, "poll_interval": 0.2}
        bulk = VolubileBulkCallsOperator.partial(task_id="bulk", **shared).expand(
            recipients=batches_of.override(task_id="for_bulk")("bulk")
        )
        VolubileBulkCallsOperator.partial(task_id="single", submit_as="single", deferrable=True, **shared).expand(
            recipients=batches["single"]
        )
        VolubileCreateCallOperator.partial(task_id="calls", **shared).expand_kwargs(one_by_one)
        campaigns = VolubileCreateCampaignOperator.partial(
            task_id="campaign", name="Winter tyres", time_slots=SLOTS, wait_for_completion=False, **shared
        ).expand(recipients=batches_of.override(task_id="for_campaign")("campaign"))
        wait = VolubileCampaignSensor.partial(task_id="wait", poke_interval=0.2).expand(campaign=campaigns.output)
        VolubileExportTranscriptsOperator.partial(
            task_id="transcripts", output_path=str(tmp_path), transcript_timeout=5
        ).expand(calls=wait.output)
        VolubileExportRecordingsOperator(task_id="recordings", calls=bulk.output, output_path=str(tmp_path / "audio"))
        wait >> VolubileUpdateCampaignStatusOperator(task_id="cancel", campaign_id=campaigns.output, status="CANCELLED")

    ran = run_dag(make)
    assert ran.state == "success"
    ledger = simulator.ledger()
    everybody = [phone for lists in batches.values() for batch in lists for phone in batch]
    everybody += [kwargs["phone"] for kwargs in one_by_one]
    assert sorted(entry["phone"] for entry in ledger) == sorted(everybody), "each once, by one task"

    for name in ("bulk", "single", "campaign"):
        for index, batch in enumerate(batches[name]):
            handle = ran.xcom(name if name != "campaign" else "wait", map_index=index)
            assert handle["counts"] == {"COMPLETED": len(batch)}
            if name == "campaign":
                (campaign,) = handle["campaigns"]
                found = simulator.ledger(campaign=campaign["name"])
                assert sorted(entry["phone"] for entry in found) == sorted(batch)
            else:
                assert len(handle["call_ids"]) == len(batch)
    names = [ran.xcom("campaign", map_index=index)["campaigns"][0]["name"] for index in range(2)]
    assert all(re.fullmatch(r"Winter tyres \[[0-9a-f]{20}-1\]", name) for name in names)
    assert names[0] != names[1], "one name for two campaigns would mix their calls"
    contexts = {entry["phone"]: entry["context"]["n"] for entry in ledger if "n" in entry["context"]}
    assert contexts == {kwargs["phone"]: str(kwargs["call_context"]["n"]) for kwargs in one_by_one}

    references = {entry["context"].get("airflow_ref") for entry in ledger}
    assert len(references) == len(simulator.submissions()), "one per request"
    files = sorted(path.name for path in tmp_path.rglob("transcripts-*"))
    assert len(files) == 2, "each mapped export has its own file"
    assert ran.xcom("recordings")["counts"]["calls"] == 7
    assert {campaign["status"] for campaign in simulator.state()["campaigns"]} == {"CANCELLED"}

    shown = json.dumps([rendered(ran, name) for name in ("bulk", "single", "calls", "campaign")])
    assert not [phone for phone in everybody if phone in shown or phone[3:] in shown]
    assert rendered(ran, "bulk")[0]["recipients"]["count"] == 4
    assert "+33 6 ** ** ** 00" in shown


@pytest.mark.parametrize("native", [False, True])
def test_every_templated_field_takes_jinja(run_dag: RunDag, simulator: Simulator, tmp_path: Path, native: bool) -> None:
    """Text where a Dag renders to text, and what the text stands for where it renders to native objects."""
    first, second, third = phones(3, numbers())
    people = tmp_path / "people.jsonl"
    people.write_text(json.dumps({"number": second, "firstName": "Lucie", "notes": "not for the agent"}))
    common = {"render_template_as_native_obj": native, "poll_interval": 0.2}
    outcomes = tmp_path / "outcomes.jsonl.gz"

    def make() -> None:
        call = VolubileCreateCallOperator(
            task_id="call",
            agent_id="{{ params.agent }}",
            phone="{{ params.first }}",
            call_context={"firstName": "{{ params.name }}", "visits": "{{ params.visits }}"},
            default_region="{{ params.region }}",
            on_unknown="{{ params.on_unknown }}",
            **common,
        )
        campaign = VolubileCreateCampaignOperator(
            task_id="campaign",
            name="Tyres of {{ params.name }}",
            agent_id="{{ params.agent }}",
            recipients="{{ params.people }}",
            phone_field="{{ params.column }}",
            context_fields=["{{ params.context }}"],
            default_region="{{ params.region }}",
            time_slots="{{ params.slots }}",
            campaign_start_date="{{ macros.ds_add(ds, 1) }}",
            days="{{ params.days }}",
            batch_size="{{ params.visits }}",
            redial={"max": "{{ params.redials }}", "delay": "{{ params.redials }}", "retry_on": ["{{ params.again }}"]},
            timezone="{{ params.zone }}",
            on_unknown="{{ params.on_unknown }}",
            outcomes_path="{{ params.outcomes }}",
            **common,
        )
        rows = VolubileBulkCallsOperator(
            task_id="rows",
            agent_id="{{ params.agent }}",
            recipients=[{"phone": "{{ params.third }}", "firstName": "{{ params.name }}"}],
            submit_as="{{ params.submit_as }}",
            **common,
        )
        waited = VolubileCallsSensor(
            task_id="waited",
            calls="{{ ti.xcom_pull(task_ids='call')['call_ids'][0] }}",
            poke_interval=0.2,
            render_template_as_native_obj=native,
        )
        agent = VolubileUpdateAgentOperator(
            task_id="agent",
            agent_id="{{ params.other_agent }}",
            changes={"active": "{{ params.off }}"},
            render_template_as_native_obj=native,
        )
        del campaign, rows, agent
        call >> waited

    params = {
        "agent": REMINDER,
        "other_agent": FOLLOW_UP,
        "first": first,
        "third": third,
        "people": str(people),
        "column": "number",
        "context": "firstName",
        "name": "Lucie",
        "visits": 12,
        "region": "FR",
        "slots": "09:00-12:00,14:00-18:30",
        "days": "MONDAY,sunday",
        "redials": 1,
        "again": "no_answer",
        "zone": "Europe/Lisbon",
        "on_unknown": "fail",
        "outcomes": str(outcomes),
        "submit_as": "single",
        "off": False,
    }
    ran = run_dag(make, **params)
    assert ran.state == "success"
    ledger = {entry["phone"]: entry for entry in simulator.ledger()}
    assert ledger.keys() == {first, second, third}
    assert ledger[first]["context"].items() >= {"firstName": "Lucie", "visits": "12"}.items()
    assert ledger[second]["context"].items() >= {"firstName": "Lucie"}.items()
    assert ledger[third]["context"]["firstName"] == "Lucie"
    (campaign,) = simulator.state()["campaigns"]
    assert campaign["name"].startswith("Tyres of Lucie [")
    assert [slot["startTime"] for slot in campaign["timeSlots"]] == ["09:00", "14:00"]
    assert campaign["days"] == ["MONDAY", "SUNDAY"]
    assert campaign["batchSize"] == 12
    assert campaign["retry"] == {"max": 1, "delay": 1, "retryOn": ["NO_ANSWER"]}
    assert campaign["timezone"] == "Europe/Lisbon"
    assert ran.xcom("waited")["call_ids"] == ran.xcom("call")["call_ids"]
    assert ran.xcom("agent")["active"] is False
    with gzip.open(outcomes, "rt") as lines:
        (row,) = map(json.loads, lines)
    assert row["phone"] == second
