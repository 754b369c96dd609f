"""Keys that are replaced and tokens that run out while tasks wait: nobody notices but the log."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_provider_volubile.api import auth
from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileGetTranscriptOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.exports import (
    VolubileExportCallsOperator,
    VolubileExportRecordingsOperator,
    VolubileExportTranscriptsOperator,
)
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.waiting import fault_policy
from tests.airflow.conftest import Ran, RunDag, store
from tests.leaks.stampede import ask_at_once
from tests.live import connection_json

pytestmark = pytest.mark.airflow

AN_ID = "11111111-2222-3333-4444-555555555555"
PEOPLE = [{"phone": f"+3363998{n:04d}"} for n in range(8)]
REFUSED = "Connection 'volubile_default': the primary API key was refused (401), the secondary one works and is used"
#: How many tokens a wait outlives. At two seconds each, 30 are a minute; a suite has less time.
LIVES = int(os.environ.get("TOKEN_LIVES", "2"))


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    auth._working.clear()
    auth._slots.clear()
    yield
    auth._working.clear()
    auth._slots.clear()


def campaign(**changes: Any) -> BaseOperator:
    return VolubileCreateCampaignOperator(
        task_id="wait",
        name="Winter tyres",
        agent_id=REMINDER_AGENT_ID,
        recipients=PEOPLE,
        time_slots=["09:00-12:00"],
        poll_interval=1,
        **changes,
    )


def bulk(**changes: Any) -> BaseOperator:
    return VolubileBulkCallsOperator(
        task_id="wait", agent_id=REMINDER_AGENT_ID, recipients=PEOPLE, poll_interval=1, **changes
    )


@contextmanager
def meanwhile(steps: Callable[[], None]) -> Iterator[None]:
    """Do something while a Dag runs; what goes wrong in it is raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            steps()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def used(simulator: Simulator, operation: str) -> Counter[str]:
    return Counter(entry["credential"] for entry in simulator.requests() if entry["operation"] == operation)


def refusals(simulator: Simulator) -> int:
    return sum(entry["status"] == 401 for entry in simulator.requests())


def assert_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    (warning,) = [record for record in caplog.records if record.name == auth.__name__]
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(REFUSED)


# --- rotation ---


@pytest.fixture(params=["api_key", "bearer"])
def mode(request: pytest.FixtureRequest, simulator: Simulator, connection: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the connection authenticates."""
    mode = str(request.param)
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator, auth=mode))
    return mode


def revoke_after(simulator: Simulator, mode: str, operation: str, requests: int, *, keys: tuple[Any, ...]) -> int:
    """Revoke keys, and the tokens that they gave, once there were so many requests; how many there were by then."""
    first = "token" if mode == "bearer" else "primary"
    simulator.wait_until(lambda: used(simulator, operation)[first] >= requests)
    for key in keys:
        simulator.revoke_key(key)
    if mode == "bearer":
        simulator.revoke_tokens()
    return len(simulator.requests())


def answered_since(simulator: Simulator, operation: str, mode: str, since: int) -> int:
    """How many requests were answered for whoever took over."""
    next_one = "token" if mode == "bearer" else "secondary"
    return sum(
        (entry["operation"], entry["credential"], entry["status"]) == (operation, next_one, 200)
        for entry in simulator.requests()[since:]
    )


def assert_rotated(simulator: Simulator, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """The other key took over, and nobody heard more of it than one warning."""
    keys = {entry["credential"] for entry in simulator.requests() if entry["operation"] == "issueToken"}
    assert keys == ({"primary", "secondary"} if mode == "bearer" else set())
    assert_one_warning(caplog)


@pytest.mark.parametrize(("make", "deferrable"), [(campaign, True), (bulk, False)])
def test_a_wait_survives_a_revoked_primary_key(
    make: Callable[..., BaseOperator],
    deferrable: bool,
    mode: str,
    run_dag: RunDag,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator.configure(speed=0)  # nobody hangs up

    def rotate() -> None:
        since = revoke_after(simulator, mode, "listCalls", 2, keys=("primary",))
        simulator.wait_until(lambda: answered_since(simulator, "listCalls", mode, since) >= 2)
        simulator.configure(speed=600)

    with meanwhile(rotate):
        ran = run_dag(lambda: make(deferrable=deferrable))
    assert ran.state == "success"
    assert ran.task("wait").try_number == 1
    assert sum(ran.xcom("wait")["counts"].values()) == len(PEOPLE)
    assert simulator.summary()["max_attempts"] == 1
    if mode == "api_key":
        assert refusals(simulator) == 1
    assert_rotated(simulator, mode, caplog)


EXPORTS: dict[type[BaseOperator], str] = {
    VolubileExportTranscriptsOperator: "getTranscript",
    VolubileExportRecordingsOperator: "getRecording",
    VolubileExportCallsOperator: "listCalls",
}


@pytest.mark.parametrize(
    ("operator", "mode"), zip(EXPORTS, ["bearer", "api_key", "bearer"], strict=True), indirect=["mode"]
)
def test_an_export_survives_a_revoked_primary_key(
    operator: type[BaseOperator],
    mode: str,
    run_dag: RunDag,
    simulator: Simulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin, end = datetime.now(UTC) - timedelta(hours=3), datetime.now(UTC) - timedelta(hours=1)
    listed = operator is VolubileExportCallsOperator
    count = 1200 if listed else 120
    calls = simulator.load_calls(count, agent_id=REMINDER_AGENT_ID, created_from=begin, created_to=end)
    what: dict[str, Any] = {"interval_start": begin, "interval_end": end} if listed else {"calls": calls}
    # Sixteen ask at once: else they are through before anything is revoked.
    simulator.configure(latency=0.1)
    some = 3 if listed else 20
    since: list[int] = []

    def rotate() -> None:
        since.append(revoke_after(simulator, mode, EXPORTS[operator], some, keys=("primary",)))

    with meanwhile(rotate):
        ran = run_dag(lambda: operator(task_id="export", output_path=str(tmp_path), **what))
    assert ran.state == "success"
    assert ran.task("export").try_number == 1
    counts = ran.xcom("export")["counts"]
    assert counts["calls" if listed else "written"] == count
    assert answered_since(simulator, EXPORTS[operator], mode, *since) >= some, "it was in the middle"
    assert_rotated(simulator, mode, caplog)


def sensor(**changes: Any) -> BaseOperator:
    return VolubileCallsSensor(**{"task_id": "wait", "calls": [AN_ID], "poke_interval": 1} | changes)


def update_agent(**changes: Any) -> BaseOperator:
    return VolubileUpdateAgentOperator(
        task_id="wait", agent_id=REMINDER_AGENT_ID, changes={"recordable": False}, **changes
    )


def transcript(**changes: Any) -> BaseOperator:
    return VolubileGetTranscriptOperator(task_id="wait", call_id=AN_ID, **changes)


def export(operator: type[BaseOperator]) -> Callable[..., BaseOperator]:
    def make(**changes: Any) -> BaseOperator:
        moments = datetime.now(UTC) - timedelta(hours=3), datetime.now(UTC) - timedelta(hours=1)
        what: dict[str, Any] = dict(zip(("interval_start", "interval_end"), moments, strict=True))
        return operator(
            task_id="wait",
            output_path=str(changes.pop("folder")),
            **(what if operator is VolubileExportCallsOperator else {"calls": [AN_ID]}),
            **changes,
        )

    make.__name__ = operator.__name__
    return make


def assert_failed_at_once(ran: Ran, printed: str) -> None:
    assert ran.state == "failed"
    assert ran.task("wait").try_number == 1
    assert "'volubile_default': both API keys were refused (401)" in printed
    assert "https://eu.volubile.ai/integrations/api" in printed


@pytest.mark.parametrize(
    ("make", "mode"),
    zip(
        [bulk, campaign, sensor, update_agent, transcript, *map(export, EXPORTS)],
        itertools.cycle(["bearer", "api_key"]),
        strict=False,
    ),
    indirect=["mode"],
)
def test_a_task_with_two_revoked_keys_fails_without_a_retry_and_says_where_to_look(
    make: Callable[..., BaseOperator],
    mode: str,
    run_dag: RunDag,
    simulator: Simulator,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fault_policy, "REFUSAL_LIMIT", timedelta(0))
    simulator.revoke_key("primary")
    simulator.revoke_key("secondary")
    folder = {"folder": tmp_path} if "Export" in make.__name__ else {}
    ran = run_dag(lambda: make(retries=3, **folder))
    assert_failed_at_once(ran, "".join(capfd.readouterr()))
    assert refusals(simulator) == 2


@pytest.mark.parametrize(
    ("make", "mode"), [(bulk, "bearer"), (campaign, "api_key"), (sensor, "api_key")], indirect=["mode"]
)
def test_a_deferred_task_with_two_revoked_keys_fails_without_a_retry(
    make: Callable[..., BaseOperator],
    mode: str,
    run_dag: RunDag,
    simulator: Simulator,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fault_policy, "REFUSAL_LIMIT", timedelta(0))
    (call_id,) = simulator.load_calls(1, agent_id=REMINDER_AGENT_ID, status="IN_PROGRESS")
    simulator.configure(speed=0)
    asked = {"calls": [call_id]} if make is sensor else {}

    def revoke() -> None:
        revoke_after(simulator, mode, "listCalls", 2, keys=("primary", "secondary"))

    with meanwhile(revoke):
        ran = run_dag(lambda: make(retries=3, deferrable=True, **asked))
    assert_failed_at_once(ran, "".join(capfd.readouterr()))


# --- the Dag that looks after the keys ---


@pytest.fixture
def key_check(metadata_database: None, connection: str) -> DAG:
    """The example Dag, which does not wait long for a second try here."""
    path = Path(__file__).parents[2] / "dags" / "volubile_key_check.py"
    spec = importlib.util.spec_from_file_location("volubile_key_check_example", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag: DAG = module.volubile_key_check()
    assert dag.get_task("check_keys").retries == 2
    dag.get_task("check_keys").retry_delay = timedelta(seconds=0)
    store(dag)
    return dag


def test_the_daily_check_succeeds_while_both_keys_work(
    key_check: DAG, simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    assert Ran(key_check.test()).state == "success"
    assert used(simulator, "listAgents") == {"primary": 1, "secondary": 1}
    assert "accepts both API keys" in "".join(capfd.readouterr())


@pytest.mark.parametrize(("gone", "auth_mode"), [("primary", "api_key"), ("secondary", "bearer")])
def test_the_daily_check_fails_and_names_the_key_that_no_longer_works(
    gone: Any,
    auth_mode: str,
    key_check: DAG,
    simulator: Simulator,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator, auth=auth_mode))
    simulator.revoke_key(gone)
    ran = Ran(key_check.test())
    assert (ran.state, ran.task("check_keys").try_number) == ("failed", 1)
    printed = "".join(capfd.readouterr())
    assert f"Connection 'volubile_default': The {gone} API key is refused (401)" in printed
    assert simulator.primary_key not in printed
    assert simulator.secondary_key not in printed


def test_the_daily_check_fails_when_the_spare_key_is_no_spare(
    key_check: DAG, simulator: Simulator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = connection_json(simulator, secondary_api_key=simulator.primary_key)
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", same)
    assert Ran(key_check.test()).state == "failed"
    assert "Both fields hold the same key: it is no spare" in "".join(capfd.readouterr())


def test_the_daily_check_retries_when_the_service_does_not_answer(key_check: DAG, simulator: Simulator) -> None:
    simulator.fault("listAgents", "status", status=503, times=1)
    ran = Ran(key_check.test())
    assert (ran.state, ran.task("check_keys").try_number) == ("success", 2)


# --- tokens ---


@pytest.mark.parametrize(("make", "deferrable"), [(campaign, True), (bulk, False)])
def test_a_wait_outlives_its_tokens(
    make: Callable[..., BaseOperator],
    deferrable: bool,
    run_dag: RunDag,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator, auth="bearer"))
    simulator.configure(speed=0, token_life=2)

    def minted() -> int:
        """Tokens of all scopes."""
        return sum(entry["operation"] == "issueToken" for entry in simulator.requests())

    def let_it_wait() -> None:
        simulator.wait_until(lambda: used(simulator, "listCalls")["token"] >= 1)
        before = minted()
        simulator.wait_until(lambda: minted() >= before + LIVES, timeout=20 + 10 * LIVES)
        simulator.configure(speed=600)

    with meanwhile(let_it_wait):
        ran = run_dag(lambda: make(deferrable=deferrable))
    assert ran.state == "success"
    assert ran.task("wait").try_number == 1
    assert sum(ran.xcom("wait")["counts"].values()) == len(PEOPLE)
    keys = Counter(entry["operation"] for entry in simulator.requests() if entry["credential"] == "primary")
    assert set(keys) == {"issueToken"}, "keys do nothing but ask for tokens"


def test_tokens_that_are_revoked_during_a_wait_are_replaced(
    run_dag: RunDag, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator, auth="bearer"))
    simulator.configure(speed=0)

    def revoke() -> None:
        simulator.wait_until(lambda: used(simulator, "listCalls")["token"] >= 1)
        simulator.revoke_tokens()
        simulator.wait_until(lambda: refusals(simulator) >= 1)
        simulator.configure(speed=600)

    with meanwhile(revoke):
        ran = run_dag(bulk)
    assert ran.state == "success"
    assert ran.task("wait").try_number == 1


def test_500_threads_ask_for_one_token() -> None:
    asked = ask_at_once()
    print(asked.report())
    assert asked.agents == [5] * 500
    assert asked.requests == {"issueToken": {"200": 1}, "listAgents": {"200": 500}}
