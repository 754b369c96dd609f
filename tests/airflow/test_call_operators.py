"""Bulk and single calls through real Airflow, held against the simulator's ledger."""

from __future__ import annotations

import csv
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator, chain

from airflow_provider_volubile.calling import unknown_outcome
from airflow_provider_volubile.operators.calls import (
    VolubileBulkCallsOperator,
    VolubileCreateCallOperator,
    VolubileGetTranscriptOperator,
)
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import Ran, RunDag
from tests.airflow.helpers import REMINDER, UNKNOWN, Failures, configure, numbers, phones

pytestmark = pytest.mark.airflow

# Looks follow each other closely, and calls take a tenth of a second: nobody wants to wait in a test.
BRIEF = {"agent_id": REMINDER, "poll_interval": 0.2}


@pytest.fixture(autouse=True)
def _fast(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.configure(speed=3000)
    monkeypatch.setattr(unknown_outcome, "LOOK_AGAIN", timedelta(seconds=0.5))


def check_handle(ran: Ran, simulator: Simulator, task_id: str, people: list[str], kind: str) -> None:
    """Everybody was called once, the handle names exactly these calls, and everyone has an outcome."""
    ledger = {entry["phone"]: entry for entry in simulator.ledger() if entry["phone"] in people}
    assert len(ledger) == len(people)
    assert all(simulator.summary(phone=phone)["calls"] == 1 for phone in people)
    handle = ran.xcom(task_id)
    assert handle["kind"] == kind
    assert handle["agent_id"] == REMINDER
    assert (handle["recipients"], handle["rejected"]) == (len(people), 0)
    assert sorted(handle["call_ids"]) == sorted(entry["call_id"] for entry in ledger.values())
    statuses = [entry["status"] for entry in ledger.values()]
    assert handle["counts"] == {status: statuses.count(status) for status in statuses}


@pytest.mark.parametrize("deferrable", [False, True])
def test_everyone_is_called_once_and_waited_for(run_dag: RunDag, simulator: Simulator, deferrable: bool) -> None:
    source = numbers()
    one, bulk, single = phones(1, source), phones(7, source), phones(5, source)

    def make() -> None:
        shared = BRIEF | {"deferrable": deferrable}
        VolubileCreateCallOperator(task_id="one", phone=one[0], call_context={"firstName": "Lucie"}, **shared)
        VolubileBulkCallsOperator(task_id="bulk", recipients=bulk, wait_for="transcript", **shared)
        people = [{"phone": phone, "context": {"order": index}} for index, phone in enumerate(single)]
        VolubileBulkCallsOperator(task_id="single", recipients=people, submit_as="single", **shared)

    ran = run_dag(make)
    assert ran.state == "success"
    check_handle(ran, simulator, "one", one, "call")
    check_handle(ran, simulator, "bulk", bulk, "bulk")
    check_handle(ran, simulator, "single", single, "bulk")
    by_phone = {entry["phone"]: entry for entry in simulator.ledger()}
    assert by_phone[one[0]]["context"]["firstName"] == "Lucie"
    assert [by_phone[phone]["context"]["order"] for phone in single] == ["0", "1", "2", "3", "4"]
    assert [entry["operation"] for entry in simulator.submissions()].count("createBulkCalls") == 1
    heard = [by_phone[phone] for phone in bulk if by_phone[phone]["status"] in ("COMPLETED", "VOICE_BOX")]
    assert heard, "the seed gives calls that were answered"
    assert all(entry["transcript_ready"] for entry in heard)


@pytest.mark.parametrize("deferrable", [True])
def test_ids_that_no_answer_tells_are_found_in_the_list(
    run_dag: RunDag, simulator: Simulator, deferrable: bool
) -> None:
    shared = BRIEF | {"deferrable": deferrable}
    source = numbers()
    groups: dict[str, list[str]] = {}

    def call(name: str) -> BaseOperator:
        groups[name] = phones(1, source)
        return VolubileCreateCallOperator(task_id=name, phone=groups[name][0], **shared)

    def bulk(name: str) -> BaseOperator:
        groups[name] = phones(6, source)
        return VolubileBulkCallsOperator(task_id=name, recipients=groups[name], **shared)

    def single(name: str) -> BaseOperator:
        groups[name] = phones(3, source)
        return VolubileBulkCallsOperator(task_id=name, recipients=groups[name], submit_as="single", **shared)

    def make() -> None:
        chain(
            *(
                step
                for answer in ("no_id", "empty", "204")
                for step in (configure(simulator, call_answer=answer), call(f"call_{answer}"))
            ),
            single("single_204"),
            *(
                step
                for answer in ("list", "empty", "partial", "no_ids")
                for step in (configure(simulator, bulk_answer=answer), bulk(f"bulk_{answer}"))
            ),
            # The list itself may be odd: unsorted, late, or without the time of creation.
            configure(simulator, sort="ignored", default_sort="created,ASC"),
            bulk("bulk_unsorted"),
            configure(simulator, sort="refused"),
            bulk("bulk_refused"),
            configure(simulator, list_lag=1.0),
            bulk("bulk_late"),
            configure(simulator, list_lag=0.0, created="missing"),
            call("call_without_created"),
            bulk("bulk_without_created"),
        )

    ran = run_dag(make)
    assert ran.state == "success", {name: ran.task(name).state for name in groups}
    for name, people in groups.items():
        check_handle(ran, simulator, name, people, "call" if name.startswith("call") else "bulk")
    assert simulator.summary()["dialled_by_several_submissions"] == []


def test_who_is_refused_is_reported_and_stops_no_one(run_dag: RunDag, simulator: Simulator, tmp_path: Path) -> None:
    source = numbers()
    people = phones(4, source)
    table = tmp_path / "outcomes.csv"

    def make() -> None:
        refuse = configure(simulator, call_answer="id")
        simulator.fault("createCall", "status", status=400, skip=1)
        single = VolubileBulkCallsOperator(
            task_id="single", recipients=people, submit_as="single", outcomes_path=str(table), max_missing=1, **BRIEF
        )
        rows = [*phones(2, source), "12", "", {"phone": "+33639989999", "firstName": "Lucie"}, "+33639989999"]
        bulk = VolubileBulkCallsOperator(task_id="bulk", recipients=rows, wait_for_completion=False, **BRIEF)
        chain(refuse, single, bulk)

    ran = run_dag(make)
    assert ran.state == "success"
    handle = ran.xcom("single")
    assert (handle["recipients"], handle["rejected"], len(handle["call_ids"])) == (3, 1, 3)
    assert sum(handle["counts"].values()) == 3
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phone"] for row in rows] == people
    assert [(row["phone"], row["settled"]) for row in rows if row["status"] == "REFUSED"] == [(people[1], "true")]
    assert Counter(row["status"] for row in rows) == Counter(handle["counts"]) + Counter(REFUSED=1)
    handle = ran.xcom("bulk")
    assert (handle["recipients"], handle["rejected"], len(handle["call_ids"])) == (3, 3, 3)
    assert "counts" not in handle, "nobody waited for an outcome"
    assert simulator.summary()["people"] == 6


@pytest.mark.parametrize("bound", [{"max_missing": 0}, {"min_success_ratio": 0.51}])
def test_who_is_refused_counts_as_missing(run_dag: RunDag, simulator: Simulator, bound: dict[str, Any]) -> None:
    people = phones(2, numbers())
    failures = Failures()

    def make() -> None:
        simulator.fault("createCall", "status", status=400, skip=1)
        VolubileBulkCallsOperator(
            task_id="single",
            recipients=people,
            submit_as="single",
            on_failure_callback=failures,
            **bound,
            **BRIEF,
        )

    assert run_dag(make).state == "failed"
    assert re.search("[01] of 2 recipients were (never dialled|reached)", failures["single"])


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_transcript_comes_through_xcom(run_dag: RunDag, simulator: Simulator, deferrable: bool) -> None:
    (ready,) = simulator.load_calls(1, status="COMPLETED")
    (running,) = simulator.load_calls(1, status="IN_PROGRESS", ends_within=2000)
    (silent,) = simulator.load_calls(1, status="IN_PROGRESS", ends_within=2000, final_status="NO_ANSWER")
    (late,) = simulator.load_calls(1, status="COMPLETED", transcripts=False)
    failures = Failures()

    def transcript(task_id: str, call_id: str, **changes: Any) -> VolubileGetTranscriptOperator:
        return VolubileGetTranscriptOperator(
            task_id=task_id,
            call_id=call_id,
            poll_interval=0.2,
            deferrable=deferrable,
            on_failure_callback=failures,
            **changes,
        )

    def make() -> None:
        transcript("running", running)
        transcript("silent", silent)
        transcript("late", late, timeout=0.5)
        transcript("unknown", UNKNOWN, retries=3)
        transcript("odd", "../campaigns", retries=3)
        chain(
            transcript("array", ready),
            configure(simulator, transcript_shape="ndjson"),
            transcript("ndjson", ready),
            configure(simulator, transcript_shape="single"),
            transcript("single", ready),
            configure(simulator, transcript_shape="array", transcript_size=300_000),
            transcript("large", ready, retries=3),
        )

    ran = run_dag(make)
    events = ran.xcom("array")
    assert events[0].keys() == {"action", "time", "actor", "message"}
    assert {event["actor"] for event in events} >= {"HUMAN", "AGENT"}
    assert ran.xcom("ndjson") == events
    assert len(ran.xcom("single")) == 1
    assert len(ran.xcom("running")) > 1
    assert ran.task("silent").state == "skipped"
    assert "0.5 s" in failures["late"]
    assert failures["unknown"] == f"This account has no call {UNKNOWN}."
    assert "call_id '../campaigns' is not an id" in failures["odd"]
    assert "VolubileExportTranscriptsOperator" in failures["large"]
    assert all(ran.task(name).try_number == 1 for name in ("unknown", "odd", "large"))
