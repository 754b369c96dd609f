"""Two clocks: telephones run on simulated time, and clients see wall time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_volubile.simulator import Simulator, SimulatorError

from .raw_api import RawApi, bulk_body, call_body, campaign_body


def ago(text: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(text)


def test_answers_show_wall_time_at_any_speed(simulator: Simulator, api: RawApi) -> None:
    simulator.reset(start=datetime(2031, 5, 5, 9, tzinfo=UTC))
    simulator.configure(speed=36000, limit=100_000)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    api.ok("POST", "/v1/bulk/calls", bulk_body(20))
    simulator.wait_until_quiet()
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    calls = api.listed(**{"from": today, "to": tomorrow})
    assert len(calls) == 20
    for call in calls:
        for name in ("created", "startTime", "endTime"):
            assert timedelta(0) <= ago(call[name]) < timedelta(minutes=5)
    for entry in simulator.ledger():
        assert entry["created_simulated"].startswith("2031-05-05")
        assert timedelta(0) <= ago(entry["ended_wall"] or "") < timedelta(minutes=5)


def test_duration_is_in_simulated_seconds(frozen: Simulator, api: RawApi) -> None:
    frozen.outcomes({"*": ["COMPLETED"]})
    api.ok("POST", "/v1/calls", call_body())
    frozen.advance(600)
    [entry] = frozen.ledger()
    simulated = datetime.fromisoformat(entry["ended_simulated"] or "") - datetime.fromisoformat(
        entry["created_simulated"]
    )
    [call] = api.listed()
    assert timedelta(seconds=call["duration"]) < simulated <= timedelta(seconds=call["duration"] + 6)
    assert ago(call["endTime"]) < timedelta(minutes=1)


@pytest.mark.parametrize("speed", [0, 1])
def test_events_that_an_advance_skips_show_the_wall_time_of_the_advance(
    simulator: Simulator, api: RawApi, speed: float
) -> None:
    simulator.configure(speed=speed)
    before = datetime.now(UTC)
    api.ok("POST", "/v1/campaigns", campaign_body(30))
    simulator.advance(3600)
    after = datetime.now(UTC)
    entries = simulator.ledger()
    assert len(entries) == 30
    for entry in entries:
        assert before <= datetime.fromisoformat(entry["ended_wall"] or "") <= after
        assert entry["created_wall"] <= (entry["ended_wall"] or "")
    assert all(call["startTime"] <= call["endTime"] for call in api.listed(size=100))


def test_speed_one_keeps_both_clocks_together(simulator: Simulator) -> None:
    simulator.reset()
    state = simulator.state()
    assert state["config"]["speed"] == 1
    apart = datetime.fromisoformat(state["wall"]) - datetime.fromisoformat(state["simulated"])
    assert abs(apart) < timedelta(seconds=1)


def test_the_speed_can_change_while_the_simulator_runs(simulator: Simulator) -> None:
    def simulated() -> datetime:
        return datetime.fromisoformat(simulator.state()["simulated"])

    simulator.configure(speed=0)
    still = simulated()
    time.sleep(0.05)
    assert simulated() == still
    simulator.configure(speed=1_000_000)
    simulator.wait_until(lambda: simulated() > still + timedelta(hours=3))


def test_a_seed_gives_the_same_calls_at_any_speed(simulator: Simulator, api: RawApi) -> None:
    def run(speed: float) -> list[tuple[object, ...]]:
        simulator.reset(start=datetime(2026, 6, 8, 7, tzinfo=UTC))
        simulator.configure(speed=speed, ignore_windows=True)
        retry = {"max": 2, "delay": 1, "retryOn": ["NO_ANSWER", "VOICE_BOX"]}
        api.ok("POST", "/v1/campaigns", campaign_body(30, retry=retry))
        api.ok("POST", "/v1/bulk/calls", bulk_body(30))
        simulator.advance(7200)
        fields = ("submission", "recipient_index", "attempt", "call_id", "status", "duration")
        return sorted(tuple(entry[field] for field in fields) for entry in simulator.ledger())  # type: ignore[literal-required]

    frozen = run(speed=0)
    assert len(frozen) > 60
    assert run(speed=50) == frozen
    assert run(speed=100_000) == frozen


def test_another_seed_gives_other_calls(simulator: Simulator, api: RawApi) -> None:
    def outcome(one: Simulator) -> list[str]:
        one.configure(speed=0)
        RawApi(one).ok("POST", "/v1/bulk/calls", bulk_body(50))
        one.advance(600)
        return [entry["status"] for entry in one.ledger()]

    with Simulator(seed=8) as other:
        assert outcome(other) != outcome(simulator)


def test_simulated_time_never_runs_backwards(simulator: Simulator) -> None:
    with pytest.raises(SimulatorError):
        simulator.advance(-1)
