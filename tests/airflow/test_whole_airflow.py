"""What only a whole Airflow shows: questions and answers, tasks that people stop or clear, triggers that move."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests

from airflow_provider_volubile.calling.unknown_outcome import CREATED, SEND, STOP
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.helpers import FOLLOW_UP, REMINDER, numbers, phones
from tests.live import LiveAirflow, free_port, live_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("whole_airflow")]

DAGS = Path(__file__).parent / "dags"
EXAMPLES = Path(__file__).parents[2] / "dags"
FAST = 3000
# Airflow says so of every trigger that it stops before it has fired, whatever the reason.
STOPPING = "invoking on_kill"
source = numbers()


@pytest.fixture(scope="module")
def service() -> Iterator[Simulator]:
    with Simulator(seed=7, ignore_windows=True, limit=100_000, dial_interval=0) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def airflow(service: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    environment = {
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    }
    home = tmp_path_factory.mktemp("airflow")
    shutil.copytree(EXAMPLES / "data", home / "dags" / "data")
    for path in (DAGS / "whole.py", EXAMPLES / "volubile_campaign.py"):
        shutil.copy(path, home / "dags")
    with live_airflow(home, home / "dags", service, environment=environment) as airflow:
        yield airflow


@pytest.fixture
def simulator(service: Simulator) -> Simulator:
    service.reset()
    return service


def people_for(*tasks: str, count: int = 3) -> dict[str, list[str]]:
    return {task: phones(count, source) for task in tasks}


def task_path(dag: str, run: str, task: str) -> str:
    return f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}"


def xcom(airflow: LiveAirflow, dag: str, run: str, task: str) -> Any:
    return airflow.api("GET", f"{task_path(dag, run, task)}/xcomEntries/return_value")["value"]


def mark_failed(airflow: LiveAirflow, dag: str, run: str, *tasks: str) -> None:
    def marked(task: str) -> bool:
        with suppress(AssertionError):  # SQLite may just be locked
            airflow.api("PATCH", task_path(dag, run, task), json={"new_state": "failed"})
            return True
        return False

    for task in tasks:
        airflow.wait_until(lambda task=task: marked(task), 60)


def clear(airflow: LiveAirflow, dag: str, run: str, *tasks: str) -> None:
    body = {"dry_run": False, "dag_run_id": run, "task_ids": tasks, "only_failed": False}
    airflow.api("POST", f"/dags/{dag}/clearTaskInstances", json=body)


def log(airflow: LiveAirflow, dag: str, run: str, task: str, tries: int = 1) -> str:
    return str(airflow.api("GET", f"{task_path(dag, run, task)}/logs/{tries}?full_content=true"))


def times_called(simulator: Simulator, people: list[str]) -> list[int]:
    called = Counter(entry["phone"] for entry in simulator.ledger())
    return [called[phone] for phone in people]


def campaigns(simulator: Simulator) -> dict[str, Any]:
    """By the name that the Dag gave them."""
    return {campaign["name"].partition(" [")[0]: campaign for campaign in simulator.state()["campaigns"]}


def statuses(simulator: Simulator) -> dict[str, str]:
    return {name: campaign["status"] for name, campaign in campaigns(simulator).items()}


def looked_at(simulator: Simulator) -> set[str]:
    """The campaigns that somebody waits for."""
    queries = [parse_qs(entry["query"]) for entry in simulator.requests() if entry["operation"] == "listCalls"]
    names = {name for query in queries for name in query.get("campaign", ())}
    return {name for name, campaign in campaigns(simulator).items() if campaign["name"] in names}


def set_status(simulator: Simulator, name: str, status: str) -> None:
    """As a person does in Volubile's dashboard."""
    answer = requests.post(
        f"{simulator.url}/v1/campaigns/{campaigns(simulator)[name]['id']}/status",
        json=status,
        headers={"X-Api-Key": simulator.primary_key},
        timeout=30,
    )
    assert answer.ok, answer.text


def triggerers(airflow: LiveAirflow) -> set[int]:
    """Those that the triggers of deferred tasks are assigned to."""
    with sqlite3.connect(f"file:{airflow.home}/airflow.db?mode=ro", uri=True) as database:
        return {row[0] for row in database.execute("SELECT triggerer_id FROM trigger") if row[0] is not None}


def suspended(airflow: LiveAirflow, process: subprocess.Popen[bytes]) -> bool:
    """Stop a component, as if its machine were suspended; but not while it may have locked SQLite for all others."""
    os.killpg(process.pid, signal.SIGSTOP)
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=2, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            os.killpg(process.pid, signal.SIGCONT)
            return False
    return True


def noticed(airflow: LiveAirflow, run: str, task: str) -> bool:
    """Whether the scheduler knows that a process of this task has ended."""
    wanted = (
        f"Received executor event with state success for task instance TaskInstanceKey(dag_id='asks', task_id='{task}'"
    )
    lines = (airflow.home / "scheduler.log").read_text(errors="replace").splitlines()
    return any(wanted in line and run in line for line in lines)


# --- waiting ---


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def check_against_the_ledger(output: Path, simulator: Simulator) -> None:
    """Check that every recipient has the outcome of the ledger and was dialled at most three times."""
    dialled = defaultdict(list)
    for entry in simulator.ledger():
        dialled[entry["phone"]].append(entry)
    outcomes = rows(next(output.rglob("outcomes.jsonl.gz")))
    assert len(outcomes) == 24
    assert {row["phone"] for row in outcomes} == set(dialled)
    for row in outcomes:
        calls = sorted(dialled[row["phone"]], key=lambda entry: entry["attempt"])
        assert row["settled"]
        assert row["attempts"] == len(calls) <= 3
        last = calls[-1]
        assert (row["status"], row["last_call_id"], row["duration"]) == (
            last["status"],
            last["call_id"],
            last["duration"],
        )
    spoken = {row["call_id"] for row in rows(next(output.rglob("transcripts-*.jsonl.gz")))}
    assert spoken == {entry["call_id"] for entry in simulator.ledger() if entry["transcript_ready"]}


def test_the_campaign_dag_waits_without_a_worker(airflow: LiveAirflow, simulator: Simulator, tmp_path: Path) -> None:
    simulator.configure(speed=0)  # no call ends before the test lets the clock run
    run = airflow.trigger("volubile_campaign", output=f"file://{tmp_path}")
    airflow.wait_for("volubile_campaign", run, "call_people", "deferred")
    airflow.wait_until(lambda: airflow.api("GET", "/pools/default_pool")["deferred_slots"] == 1, 60)
    pool = airflow.api("GET", "/pools/default_pool")
    assert (pool["running_slots"], pool["queued_slots"]) == (0, 0)
    simulator.configure(speed=600)
    assert airflow.wait_for("volubile_campaign", run) == "success"
    check_against_the_ledger(tmp_path, simulator)


# --- asking ---


def test_a_task_asks_and_goes_on_with_each_answer(airflow: LiveAirflow, simulator: Simulator) -> None:
    simulator.configure(speed=FAST, list_lag=3600)
    tasks = ("campaign", "bulk", "call")
    runs, people = {}, {}

    def ask(answer: str, **fault: Any) -> None:
        for operation in ("createCampaign", "createBulkCalls", "createCall"):
            simulator.fault(operation, "drop", **fault)
        people[answer] = people_for(*tasks)
        runs[answer] = airflow.trigger("asks", people=people[answer])
        for task in tasks:
            airflow.wait_for("asks", runs[answer], task, "awaiting_input")
            # Airflow fails the try of a task that is answered before the scheduler has noticed the question.
            airflow.wait_until(lambda task=task: noticed(airflow, runs[answer], task), 120)

    def answer(given: str, task: str, **params: Any) -> None:
        path = f"{task_path('asks', runs[given], task)}/-1/hitlDetails"
        question = airflow.api("GET", path)
        assert question["subject"] == "Was this request created in Volubile?"
        assert question["options"] == [CREATED, SEND, STOP]
        assert ("campaign 'campaign [" in question["body"]) is (task == "campaign")
        airflow.api("PATCH", path, json={"chosen_options": [given], "params_input": params})

    ask(CREATED)
    ask(SEND, accept=False)
    ask(STOP, accept=False)
    simulator.configure(list_lag=0)
    created = campaigns(simulator)["campaign"]["id"]
    for given in (CREATED, SEND, STOP):
        for task in tasks:
            answer(given, task, **({"id": created} if (given, task) == (CREATED, "campaign") else {}))
    for given, state in ((CREATED, "success"), (SEND, "success"), (STOP, "failed")):
        for task in tasks:
            assert airflow.wait_for("asks", runs[given], task) == state, (given, task)
    assert xcom(airflow, "asks", runs[CREATED], "campaign")["campaigns"][0]["id"] == created
    for task in tasks:
        size = 1 if task == "call" else 3
        for given in (CREATED, SEND):
            assert times_called(simulator, people[given][task][:size]) == [1] * size, (given, task)
            assert sum(xcom(airflow, "asks", runs[given], task)["counts"].values()) == size
        assert times_called(simulator, people[STOP][task]) == [0, 0, 0]
        assert airflow.api("GET", task_path("asks", runs[STOP], task))["try_number"] == 1, "three retries were left"
        assert "Somebody decided to stop. Nothing was sent again." in log(airflow, "asks", runs[STOP], task)
    # One request each that was lost, and one more where somebody said so.
    summary = simulator.request_summary()
    for operation in ("createCampaign", "createBulkCalls", "createCall"):
        assert summary[operation] == {"none": 3, "201": 1}


# --- stops ---


def test_stopped_tasks_do_with_their_campaigns_as_they_were_told(airflow: LiveAirflow, simulator: Simulator) -> None:
    simulator.configure(speed=0, lines=1)  # nobody hangs up
    workers, deferred = (
        [f"{action}_{where}" for action in ("pause", "cancel", "leave")] for where in ("worker", "deferred")
    )
    deferred.append("paused_by_a_person")
    people = people_for(*workers, *deferred)
    run = airflow.trigger("stopped", people=people)
    for task in deferred:
        airflow.wait_for("stopped", run, task, "deferred")
    airflow.wait_until(lambda: looked_at(simulator) == set(people), 120)
    set_status(simulator, "paused_by_a_person", "PAUSED")
    mark_failed(airflow, "stopped", run, *workers, *deferred)
    expected = {
        **dict.fromkeys(["pause_worker", "pause_deferred", "paused_by_a_person"], "PAUSED"),
        **dict.fromkeys(["cancel_worker", "cancel_deferred"], "CANCELLED"),
        **dict.fromkeys(["leave_worker", "leave_deferred"], "ACTIVE"),
    }
    airflow.wait_until(lambda: statuses(simulator) == expected, 120)

    clear(airflow, "stopped", run, *workers, *deferred)
    expected |= dict.fromkeys(["pause_worker", "pause_deferred"], "ACTIVE")
    airflow.wait_until(lambda: statuses(simulator) == expected, 120)
    simulator.configure(speed=FAST)
    for task in {*workers, *deferred} - {"paused_by_a_person"}:
        assert airflow.wait_for("stopped", run, task) == "success", task
    assert statuses(simulator) == expected, "nobody resumes what a person paused"
    set_status(simulator, "paused_by_a_person", "ACTIVE")
    assert airflow.wait_for("stopped", run) == "success"
    for task, numbers_ in people.items():
        handle = xcom(airflow, "stopped", run, task)
        reached = [1, 0, 0] if task.startswith("cancel") else [1, 1, 1]
        assert times_called(simulator, numbers_) == reached, task
        assert sum(handle["counts"].values()) == handle["recipients"] == 3
        assert handle["counts"].get("NEVER_DIALED", 0) == reached.count(0)
    assert simulator.request_summary()["createCampaign"] == {"201": len(people)}


def test_a_task_that_goes_on_pauses_nothing(airflow: LiveAirflow, simulator: Simulator) -> None:
    """Its trigger is told to stop, since it moved to another triggerer, or since the task was cleared."""
    simulator.configure(speed=0, lines=1)
    people = people_for("cleared")
    run = airflow.trigger("goes_on", people=people)
    airflow.wait_for("goes_on", run, "cleared", "deferred")
    airflow.wait_until(lambda: looked_at(simulator), 120)

    frozen = airflow.processes.pop("triggerer")
    try:
        airflow.wait_until(lambda: suspended(airflow, frozen), 60)
        first = triggerers(airflow)
        airflow.environment["AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT"] = str(free_port())
        airflow.start("triggerer")
        airflow.wait_until(lambda: triggerers(airflow) - first, 120)
        os.killpg(frozen.pid, signal.SIGCONT)
        airflow.wait_until(lambda: STOPPING in log(airflow, "goes_on", run, "cleared"), 120)
    finally:
        os.killpg(frozen.pid, signal.SIGKILL)
        frozen.wait()
    stopped = log(airflow, "goes_on", run, "cleared").count(STOPPING)
    clear(airflow, "goes_on", run, "cleared")
    airflow.wait_until(lambda: log(airflow, "goes_on", run, "cleared").count(STOPPING) > stopped, 120)
    simulator.configure(speed=FAST)
    assert airflow.wait_for("goes_on", run) == "success"
    assert "updateCampaignStatus" not in simulator.request_summary()
    assert times_called(simulator, people["cleared"]) == [1, 1, 1]
    assert simulator.request_summary()["createCampaign"] == {"201": 1}


# --- events ---


def test_calls_that_end_start_a_dag_scheduled_on_an_asset(airflow: LiveAirflow, simulator: Simulator) -> None:
    simulator.configure(speed=0)
    airflow.api("PATCH", "/dags/calls_have_ended", json={"is_paused": False})
    (airflow.home / "dags" / "whole.py").touch()  # Airflow starts the watchers of an asset when it parses the file

    def told() -> list[str]:
        """What the Dag's runs were given, of all of them that are over."""
        runs = airflow.api("GET", "/dags/calls_have_ended/dagRuns?limit=100")["dag_runs"]
        assert all(run["run_type"] == "asset_triggered" for run in runs)
        payloads = [
            payload
            for run in runs
            if run["state"] == "success"
            for payload in xcom(airflow, "calls_have_ended", run["dag_run_id"], "tell")
        ]
        for payload in payloads:
            assert payload["counts"] == {"NO_ANSWER": len(payload["call_ids"])}
        return [call_id for payload in payloads for call_id in payload["call_ids"]]

    def dial(agent: str) -> list[str]:
        now = datetime.now(UTC) - timedelta(seconds=1)
        return simulator.load_calls(
            5, agent_id=agent, status="IN_PROGRESS", final_status="NO_ANSWER", ends_within=60, created_from=now
        )

    airflow.wait_until(lambda: simulator.request_summary().get("listCalls"), 120)
    ids = dial(FOLLOW_UP)
    dial(REMINDER)
    simulator.advance(60)
    airflow.wait_until(lambda: set(told()) >= set(ids), 120)
    assert sorted(told()) == sorted(ids)

    # What ends while no triggerer runs is told by the next one; what was told just before may be told again.
    triggerer = airflow.processes.pop("triggerer")
    os.killpg(triggerer.pid, signal.SIGKILL)
    triggerer.wait()
    more = dial(FOLLOW_UP)
    simulator.advance(60)
    airflow.environment["AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT"] = str(free_port())
    airflow.start("triggerer")
    airflow.wait_until(lambda: set(told()) >= set(more), 120)
    assert set(told()) == {*ids, *more}
