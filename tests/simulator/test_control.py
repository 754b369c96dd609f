"""The control interface: the ledger, the controls, and the handle for Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from datetime import datetime

import pytest
import requests

from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator, SimulatorError

from .raw_api import RawApi, bulk_body, call_body, campaign_body, phones

COMMAND = [sys.executable, "-m", "airflow_provider_volubile.simulator"]


def test_the_ledger_names_the_request_of_each_attempt(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/campaigns", campaign_body(3, name="Spring"))
    api.ok("POST", "/v1/bulk/calls", bulk_body(2))
    api.ok("POST", "/v1/calls", call_body(phones(1)[0], orderNumber="5HZ"))
    frozen.advance(600)
    assert [(one["seq"], one["operation"], one["name"], one["recipients"]) for one in frozen.submissions()] == [
        (1, "createCampaign", "Spring", 3),
        (2, "createBulkCalls", None, 2),
        (3, "createCall", None, 1),
    ]
    assert [entry["seq"] for entry in frozen.ledger()] == [1, 2, 3, 4, 5, 6]
    assert {entry["recipient_index"] for entry in frozen.ledger(campaign="Spring")} == {0, 1, 2}
    assert {entry["source"] for entry in frozen.ledger(submission=2)} == {"bulk"}
    first = frozen.ledger(phone=phones(1)[0])
    assert {entry["submission"] for entry in first} == {1, 2, 3}
    single = frozen.ledger(submission=3)[0]
    assert (single["source"], single["agent_id"]) == ("call", REMINDER_AGENT_ID)
    assert single["context"] == {"orderNumber": "5HZ"}
    summary = frozen.summary()
    assert (summary["calls"], summary["people"], summary["max_attempts"]) == (6, 3, 1)
    assert summary["dialled_by_several_submissions"] == phones(2)
    assert frozen.summary(submission=1)["dialled_by_several_submissions"] == []


def test_a_number_that_appears_twice_is_called_twice(frozen: Simulator, api: RawApi) -> None:
    body = bulk_body(1)
    api.ok("POST", "/v1/bulk/calls", body | {"recipients": body["recipients"] * 2})
    assert frozen.summary()["max_attempts"] == 2


def test_the_log_holds_every_request(simulator: Simulator, api: RawApi) -> None:
    api("GET", "/v1/calls", params={"page": 2, "phone": "+33639980142"})
    api("GET", "/v1/elsewhere")
    api("DELETE", "/v1/calls")
    first, second, third = simulator.requests()
    assert (first["operation"], first["route"], first["status"]) == ("listCalls", "/v1/calls", 200)
    assert first["query"] == "page=2&phone=%2B33639980142"
    assert abs(first["wall"] - time.time()) < 60
    assert (second["operation"], second["path"], second["status"]) == ("unknown", "/v1/elsewhere", 404)
    assert third["status"] == 404
    assert [entry["seq"] for entry in simulator.requests(since=1)] == [2, 3]
    assert simulator.request_summary() == {"listCalls": {"200": 1}, "unknown": {"404": 2}}


def test_forced_outcomes_apply_to_each_attempt(frozen: Simulator, api: RawApi) -> None:
    never_ends, strange = phones(2)
    frozen.outcomes({never_ends: ["IN_PROGRESS"], strange: ["ABDUCTED"], "*": ["FAILED"]})
    api.ok("POST", "/v1/bulk/calls", bulk_body(4))
    frozen.advance(86400)
    assert [entry["status"] for entry in frozen.ledger()] == ["IN_PROGRESS", "ABDUCTED", "FAILED", "FAILED"]


def test_pending_counts_the_events_to_come(frozen: Simulator, api: RawApi) -> None:
    def pending() -> int:
        return int(frozen.state()["pending"])

    assert pending() == 0
    frozen.configure(transcript_delay=1000)
    frozen.outcomes({"*": ["COMPLETED"]})
    api.ok("POST", "/v1/bulk/calls", bulk_body(3))
    assert pending() == 3, "calls that will end"
    frozen.advance(600)
    assert pending() == 3, "transcripts that will appear"
    frozen.advance(1000)
    assert pending() == 0


def test_reset_forgets_everything(simulator: Simulator, api: RawApi) -> None:
    token = api.token("agents:read")
    api.ok("POST", "/v1/campaigns", campaign_body(3))
    api.ok("PATCH", f"/v1/agents/{REMINDER_AGENT_ID}", {"active": False})
    simulator.fault("*", "drop", times=None)
    simulator.revoke_key("primary")
    simulator.outcomes({"*": ["FAILED"]})
    simulator.configure(call_answer="empty")
    simulator.reset()
    state = simulator.state()
    assert (state["calls"], state["submissions"], state["requests"]) == (0, 0, 0)
    assert state["outcomes"] == {}
    assert state["config"]["call_answer"] == "id"
    assert api.ok("GET", f"/v1/agents/{REMINDER_AGENT_ID}")["active"] is True
    assert api("GET", "/v1/agents", headers=token).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [{"colour": "red"}, {"call_answer": "yes"}, {"window": 0}, {"speed": -1}, {"date_zone": "Mars/Olympus"}],
)
def test_unknown_configuration_is_refused(simulator: Simulator, changes: dict[str, object]) -> None:
    before = simulator.state()["config"]
    with pytest.raises(SimulatorError, match=next(iter(changes))):
        simulator.configure(**changes, limit=12345)
    assert simulator.state()["config"] == before, "all or nothing"
    with requests.patch(f"{simulator.url}/_sim/config", json=changes, timeout=30) as answer:
        assert answer.status_code == 400


def test_twenty_thousand_calls_are_loaded_and_listed(frozen: Simulator, api: RawApi) -> None:
    assert len(frozen.load_calls(20_000, campaign="Big", status="*")) == 20_000
    page = api.ok("GET", "/v1/calls", params={"campaign": "Big", "size": 100, "page": 200})
    assert (len(page["content"]), page["totalElements"]) == (100, 20_000)
    entries = frozen.ledger()
    assert len({entry["phone"] for entry in entries}) == 20_000
    assert all(re.fullmatch(r"\+3363998\d{4}|\+3319900\d{4}", entry["phone"]) for entry in entries)


def test_attach_leaves_the_simulator_running(simulator: Simulator) -> None:
    with Simulator.attach(simulator.url) as other:
        assert (other.media_url, other.primary_key) == (simulator.media_url, simulator.primary_key)
        other.configure(limit=77)
    assert simulator.state()["config"]["limit"] == 77


def test_options_are_passed_to_the_process() -> None:
    start = datetime.fromisoformat("2026-03-29T01:30:00+01:00")
    with Simulator(seed=3, start=start, primary_key="one", secondary_key="two", speed=0, limit=9) as simulator:
        state = simulator.state()
        assert datetime.fromisoformat(state["simulated"]) == start
        assert (state["seed"], state["config"]["limit"]) == (3, 9)
        answer = RawApi(simulator)("GET", "/v1/agents", headers={"X-Api-Key": "two"})
        assert answer.headers["X-RateLimit-Limit"] == "9"
        pid = simulator._process.pid if simulator._process else 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_simulator_that_cannot_start_says_why() -> None:
    with pytest.raises(SimulatorError, match="colour"):
        Simulator(colour="red").start()
    with Simulator() as running, pytest.raises(SimulatorError, match="in use"):
        Simulator(port=int(running.url.rpartition(":")[2])).start()


def test_the_command_line_prints_one_line_and_stops_quietly() -> None:
    flags = ["--port=0", "--speed=600", "--seed=7", "--ignore-windows", "--set", "call_answer=no_id"]
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    ready = re.fullmatch(
        r"Volubile simulator listening on (http://127\.0\.0\.1:\d+) \(media http://127\.0\.0\.1:\d+\)\n", line
    )
    assert ready
    config = Simulator.attach(ready[1]).state()["config"]
    assert (config["speed"], config["ignore_windows"], config["call_answer"]) == (600, True, "no_id")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (rest, errors, process.returncode) == ("", "", 0)


@pytest.mark.parametrize("start", ["2026-03-29T01:30:00", "yesterday"])
def test_a_start_must_be_an_instant(start: str) -> None:
    run = subprocess.run([*COMMAND, "--start", start], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert start in run.stderr


def test_the_simulator_stops_when_the_process_that_started_it_is_killed(simulator: Simulator) -> None:
    owner = """
        import os, signal
        from airflow_provider_volubile.simulator import Simulator
        simulator = Simulator()
        simulator.start()
        print(simulator.url, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(owner)], capture_output=True, text=True, timeout=60, check=False
    )
    state = f"{run.stdout.strip()}/_sim/state"

    def gone() -> bool:
        try:
            return not requests.get(state, timeout=5)
        except requests.ConnectionError:
            return True

    simulator.wait_until(gone)


def test_importing_loads_neither_the_server_nor_airflow_nor_the_client() -> None:
    code = """
        import sys
        import airflow_provider_volubile.simulator
        heavy = ("fastapi", "starlette", "uvicorn", "airflow", "airflow_provider_volubile.api")
        print(sorted(name for name in sys.modules if name in heavy))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_server_shares_nothing_with_the_rest_of_the_package() -> None:
    code = """
        import sys
        import airflow_provider_volubile.simulator.server
        package = "airflow_provider_volubile"
        print(sorted(name for name in sys.modules if name.startswith(package + ".")
                     and not name.startswith(package + ".simulator")))
        print("airflow" in sys.modules)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "False"]


def test_a_message_names_the_extra_when_it_is_missing() -> None:
    code = """
        import sys
        sys.modules["fastapi"] = None
        from airflow_provider_volubile.simulator.__main__ import main
        sys.exit(main(["--port", "0"]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    assert run.stderr.strip().endswith("pip install 'airflow-provider-volubile[simulator]'")
