"""The shared poll: one loop for everybody, and nobody disturbs anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError, VolubileNotFound
from airflow_provider_volubile.handles import CampaignRef
from airflow_provider_volubile.outcomes import Progress
from airflow_provider_volubile.schedule import Redial
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.triggers import polling
from airflow_provider_volubile.triggers.polling import SharedPoll, shared_poll
from airflow_provider_volubile.watches import CallsWatch, CampaignWatch, Watch

AN_HOUR_AGO = timedelta(hours=1, minutes=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_volubile.waiting.FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(polling, "FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(polling, "SECONDS_PER_REQUEST", 0.0)


def calls(simulator: Simulator, count: int, **details: Any) -> CallsWatch:
    ids = simulator.load_calls(count, status="IN_PROGRESS", **details)
    return CallsWatch(ids, since=datetime.now(UTC) - AN_HOUR_AGO)


async def last(poll: SharedPoll, *watches: Watch) -> Progress:
    async with aclosing(poll.follow(watches, poll_interval=0.2)) as following:
        return [progress async for progress in following][-1]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def listings(simulator: Simulator) -> int:
    return sum(simulator.request_summary().get("listCalls", {}).values())


@pytest.mark.parametrize("tasks", [1, 200])
def test_rounds_cost_the_same_however_many_wait(simulator: Simulator, client: VolubileClient, tasks: int) -> None:
    ids = simulator.load_calls(400, status="IN_PROGRESS", ends_within=600)
    share = len(ids) // tasks
    since = datetime.now(UTC) - AN_HOUR_AGO

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        waits = [last(poll, CallsWatch(ids[at : at + share], since=since)) for at in range(0, len(ids), share)]
        states = await asyncio.gather(*waits)
        assert sum(state.settled for state in states) == 400
        assert listings(simulator) <= poll.rounds * 5

    run(scenario)


def test_an_empty_board_stops_polling_and_a_new_member_starts_it(simulator: Simulator, client: VolubileClient) -> None:
    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        await last(poll, calls(simulator, 3, ends_within=60))
        before = listings(simulator)
        await asyncio.sleep(0.5)
        assert listings(simulator) == before
        await last(poll, calls(simulator, 3, ends_within=60))
        assert listings(simulator) > before

    run(scenario)


def test_one_who_leaves_takes_nobody_along(simulator: Simulator, client: VolubileClient) -> None:
    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        leaving = asyncio.create_task(last(poll, calls(simulator, 3)))
        staying = asyncio.create_task(last(poll, calls(simulator, 3, ends_within=300)))
        await asyncio.sleep(0.3)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        assert (await staying).settled == 3

    run(scenario)


def test_the_error_of_one_is_not_the_error_of_all(simulator: Simulator, client: VolubileClient) -> None:
    ref = CampaignRef(id="7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1", name="Tyres", recipients=3)
    bad = CampaignWatch(ref, agent_id=None, since=datetime.now(UTC), redial=Redial())

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        good = asyncio.create_task(last(poll, calls(simulator, 3, ends_within=300)))
        with pytest.raises(VolubileNotFound):
            await last(poll, bad)
        assert (await good).settled == 3

    run(scenario)


def test_an_outage_is_waited_out(simulator: Simulator, client: VolubileClient) -> None:
    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        waiting = asyncio.create_task(last(poll, calls(simulator, 3, ends_within=60)))
        simulator.fault("listCalls", "malformed", times=4)
        assert (await waiting).settled == 3
        assert simulator.request_summary()["listCalls"]

    run(scenario)


def test_an_outage_beyond_the_budget_is_told(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "FAILURE_BUDGET", timedelta(seconds=1))
    simulator.fault("listCalls", "malformed", times=None)

    async def scenario() -> None:
        with pytest.raises(VolubileError):
            await last(SharedPoll(lambda: client), calls(simulator, 3))

    run(scenario)


def test_refused_keys_are_read_again_before_anyone_is_told(simulator: Simulator, client: VolubileClient) -> None:
    made: list[VolubileClient] = []

    def make_client() -> VolubileClient:
        made.append(client)
        if len(made) > 1:  # somebody mended the connection
            simulator.restore_key("primary")
        return client

    async def scenario() -> None:
        waiting = asyncio.create_task(last(SharedPoll(make_client), calls(simulator, 3, ends_within=600)))
        while not made:
            await asyncio.sleep(0.02)
        simulator.revoke_key("primary")
        simulator.revoke_key("secondary")
        assert (await waiting).settled == 3
        assert len(made) == 2

    run(scenario)


def test_keys_that_stay_refused_are_told_at_once(simulator: Simulator, client: VolubileClient) -> None:
    simulator.revoke_key("primary")
    simulator.revoke_key("secondary")

    async def scenario() -> None:
        with pytest.raises(VolubileAuthError):
            await last(SharedPoll(lambda: client), calls(simulator, 3))

    run(scenario)


def test_the_poll_is_shared_by_connection_and_by_event_loop(client: VolubileClient) -> None:
    async def get() -> tuple[SharedPoll, SharedPoll, SharedPoll]:
        return tuple(shared_poll(name, lambda: client) for name in ("one", "one", "two"))  # type: ignore[return-value]

    first = asyncio.run(get())
    assert first[0] is first[1]
    assert first[0] is not first[2]
    assert asyncio.run(get())[0] is not first[0]
