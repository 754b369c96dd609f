"""The shared poll: one loop for all waits of an account, and no wait disturbs another."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError, VolubileNotFound
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.notifications.call import VolubileCallNotifier
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.waiting import fault_policy
from airflow_provider_volubile.waiting import polling as rounds
from airflow_provider_volubile.waiting import shared_poll as polling
from airflow_provider_volubile.waiting.outcomes import Progress
from airflow_provider_volubile.waiting.shared_poll import SharedPoll, poll_of
from airflow_provider_volubile.waiting.watches import CallsWatch, CampaignWatch, Watch
from tests.live import connection_json

AN_HOUR_AGO = timedelta(hours=1, minutes=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(rounds, "FAULT_INTERVAL", 0.2)
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
def test_rounds_cost_the_same_for_any_number_of_waits(simulator: Simulator, client: VolubileClient, tasks: int) -> None:
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


def test_polling_stops_without_members_and_starts_with_a_new_one(simulator: Simulator, client: VolubileClient) -> None:
    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        await last(poll, calls(simulator, 3, ends_within=60))
        before = listings(simulator)
        await asyncio.sleep(0.5)
        assert listings(simulator) == before
        await last(poll, calls(simulator, 3, ends_within=60))
        assert listings(simulator) > before

    run(scenario)


def test_a_member_that_leaves_does_not_end_the_others(simulator: Simulator, client: VolubileClient) -> None:
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


def test_the_error_of_one_wait_is_not_the_error_of_all(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_policy, "REFUSAL_LIMIT", timedelta(0))
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

    run(scenario)


def test_an_outage_that_lasts_too_long_ends_the_wait(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_policy, "OUTAGE_LIMIT", timedelta(seconds=1))
    simulator.fault("listCalls", "malformed", times=None)

    async def scenario() -> None:
        with pytest.raises(VolubileError):
            await last(SharedPoll(lambda: client), calls(simulator, 3))

    run(scenario)


def test_an_outage_of_the_service_that_checks_keys_is_waited_out(simulator: Simulator, client: VolubileClient) -> None:
    clients: list[VolubileClient] = []

    async def scenario() -> None:
        poll = SharedPoll(lambda: clients.append(client) or client)  # type: ignore[func-returns-value]
        waiting = [asyncio.create_task(last(poll, calls(simulator, 3, ends_within=600))) for _ in range(5)]
        while not listings(simulator):  # the first round was answered
            await asyncio.sleep(0.02)
        for key in ("primary", "secondary"):
            simulator.revoke_key(key)  # type: ignore[arg-type]
        await asyncio.sleep(3.5)
        simulator.restore_key("primary")
        assert {progress.settled for progress in await asyncio.gather(*waiting)} == {3}
        assert len(clients) > 1, "the connection was read again"

    run(scenario)


def test_keys_that_stay_refused_end_the_wait(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_policy, "REFUSAL_LIMIT", timedelta(seconds=1))
    simulator.revoke_key("primary")
    simulator.revoke_key("secondary")

    async def scenario() -> None:
        with pytest.raises(VolubileAuthError):
            await last(SharedPoll(lambda: client), calls(simulator, 3))

    run(scenario)


class Broken(CallsWatch):
    """It has a defect."""

    def progress(self) -> Progress:
        raise ValueError("a defect")


def broken_hours(_: datetime) -> datetime:
    raise OverflowError("a defect")


@pytest.mark.parametrize("where", ["progress", "opening"])
def test_a_defect_in_one_watch_ends_only_its_own_wait(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("airflow_provider_volubile.waiting.polling.QUIET", timedelta(seconds=-1))
    since = datetime.now(UTC) - AN_HOUR_AGO

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        good = asyncio.create_task(last(poll, calls(simulator, 3, ends_within=300)))
        bad = Broken(["x"], since=since) if where == "progress" else CallsWatch(["x"], since=since)
        with pytest.raises(VolubileError, match="a defect"):
            async for _ in poll.follow([bad], poll_interval=0.2, opening=broken_hours):
                pass
        assert (await good).settled == 3

    run(scenario)


@pytest.mark.parametrize("end", [KeyError("a defect"), asyncio.CancelledError("a defect")])
def test_members_of_a_loop_that_dies_get_its_error(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    async def die(self: SharedPoll, due: object) -> float:
        raise end

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        with monkeypatch.context() as patch:
            patch.setattr(SharedPoll, "_update_members", die)
            waits = [last(poll, calls(simulator, 1, ends_within=60)) for _ in range(2)]
            for error in await asyncio.gather(*waits, return_exceptions=True):
                assert isinstance(error, VolubileError)
                assert "a defect" in str(error)
        assert (await last(poll, calls(simulator, 1, ends_within=60))).settled == 1, "whoever comes then starts it anew"

    run(scenario)


@pytest.mark.parametrize("limit", [{"SLICE": 0.0}, {"WOKEN": 1}])
def test_members_are_updated_in_slices(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float]
) -> None:
    for name in ("SLICE", "WOKEN"):
        monkeypatch.setattr(polling, name, limit.get(name, 1000))
    turns = 0

    class Slow(CallsWatch):
        turn = 0

        def progress(self) -> Progress:
            self.turn = turns
            time.sleep(0.001)
            return super().progress()

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ids = simulator.load_calls(10, status="IN_PROGRESS", ends_within=60)
    watches = [Slow([call_id], since=datetime.now(UTC) - AN_HOUR_AGO) for call_id in ids]

    async def scenario() -> None:
        counting = asyncio.create_task(count())
        poll = SharedPoll(lambda: client)
        await asyncio.gather(*(last(poll, watch) for watch in watches))
        counting.cancel()
        assert len({watch.turn for watch in watches}) == len(watches)

    run(scenario)


def test_new_members_do_not_make_rounds_more_frequent_than_affordable(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "SECONDS_PER_REQUEST", 0.1)
    watch = calls(simulator, 500)

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        began = time.monotonic()
        waits = []
        for call_id in watch.pending:
            waits.append(asyncio.create_task(last(poll, CallsWatch([call_id], since=watch.since))))
            await asyncio.sleep(0.005)
            if poll.rounds >= 4:
                break
        while poll.rounds < 4:
            await asyncio.sleep(0.01)
        passed = time.monotonic() - began
        requests = len(simulator.requests())
        assert requests > 12
        assert passed >= (requests - 5) * 0.1
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    run(scenario)


def test_a_clock_that_jumps_during_an_outage_ends_no_wait(simulator: Simulator, client: VolubileClient) -> None:
    asked = itertools.count()
    waited_for = calls(simulator, 3, ends_within=60)
    simulator.fault("listCalls", "malformed", times=4)

    async def scenario() -> None:
        poll = SharedPoll(lambda: client, clock=lambda: datetime.now(UTC) + timedelta(hours=next(asked)))
        assert (await last(poll, waited_for)).settled == 3

    run(scenario)


def test_connections_of_one_account_share_a_poll(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONE", "TWO"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", connection_json(simulator))
    # Of the same account, but one is asked with a mistyped key, and one otherwise: what is refused to it is its own.
    mistyped = connection_json(simulator).replace(simulator.secondary_key, "mistyped")
    monkeypatch.setenv("AIRFLOW_CONN_MISTYPED", mistyped)
    monkeypatch.setenv("AIRFLOW_CONN_BEARER", connection_json(simulator, auth="bearer"))
    other = connection_json(simulator).replace(simulator.primary_key, simulator.secondary_key)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", other)
    read: list[str] = []
    get_connection = VolubileHook.get_connection

    def reading(_: type[VolubileHook], name: str) -> Any:
        read.append(name)
        return get_connection(name)

    monkeypatch.setattr(VolubileHook, "get_connection", classmethod(reading))

    async def scenario() -> None:
        names = ["one", "two", "other", "none", "mistyped", "bearer"]
        polls = await asyncio.gather(*(poll_of(name) for name in names * 100))
        assert polls[:6] == polls[-6:]
        assert sorted(read) == sorted(names)
        one, two, *others = polls[:6]
        assert one is two
        assert len({one, *others}) == 5
        assert await asyncio.to_thread(asyncio.run, poll_of("one")) is not one, "another event loop"
        # That "one" is another account's now is no reason to ask that account for those who came by "two".
        monkeypatch.setenv("AIRFLOW_CONN_ONE", other)
        monkeypatch.setattr(VolubileHook, "client", lambda self, **_: self.volubile_conn_id)
        assert str(one._make_client()) == "two"

    run(scenario)


def test_a_member_that_is_not_due_costs_no_listing_of_its_own(
    simulator: Simulator, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign that is looked at every ten minutes, beside calls that are looked at all the time."""
    simulator.configure(speed=60)
    since = datetime.now(UTC) - AN_HOUR_AGO
    ref = CampaignRef(id=None, name="Tyres", recipients=1)
    campaign = CampaignWatch(ref, agent_id=None, since=since, redial=Redial.parse(None))
    asked: list[str | None] = []
    list_calls, usual = client.list_calls, rounds.interval

    def listed(**query: Any) -> Any:
        asked.append(query.get("campaign"))
        return list_calls(**query)

    def patient(*args: Any, poll_interval: float, **more: Any) -> float:
        return poll_interval if poll_interval > 1 else usual(*args, poll_interval=poll_interval, **more)

    monkeypatch.setattr(client, "list_calls", listed)
    monkeypatch.setattr(rounds, "interval", patient)
    monkeypatch.setattr(polling, "DUE_TOGETHER", 0.0)

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        closed = asyncio.create_task(follow_with(poll, campaign, 600))
        await last(poll, calls(simulator, 3, ends_within=120))
        assert poll.rounds > 5
        closed.cancel()

    run(scenario)
    assert asked.count("Tyres") <= 2
    assert asked.count(None) > 5


async def follow_with(poll: SharedPoll, watch: Watch, poll_interval: float) -> None:
    async with aclosing(poll.follow([watch], poll_interval=poll_interval)) as following:
        async for _ in following:
            pass


def test_stopping_many_campaigns_keeps_no_poll_waiting(simulator: Simulator, client: VolubileClient) -> None:
    """Each stop waits for the window of its account, for minutes when there are many."""
    may_end = threading.Event()

    async def scenario() -> None:
        poll = SharedPoll(lambda: client)
        stops = [asyncio.create_task(polling.in_thread(may_end.wait, polling.stopping_threads)) for _ in range(50)]
        assert (await last(poll, calls(simulator, 3, ends_within=60))).settled == 3
        assert not any(stop.done() for stop in stops)
        may_end.set()
        await asyncio.gather(*stops)

    try:
        run(scenario)
    finally:
        may_end.set()


def test_notifiers_of_a_dead_account_keep_no_poll_waiting(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ONE", connection_json(simulator))
    may_end = threading.Event()
    monkeypatch.setattr(VolubileCallNotifier, "notify", lambda *_: may_end.wait())

    async def scenario() -> None:
        notifier = VolubileCallNotifier(agent_id="agent", phone="+33639980101")
        notifying = [asyncio.create_task(notifier.async_notify({})) for _ in range(50)]  # type: ignore[typeddict-item]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(poll_of("one"), 5)
        may_end.set()
        await asyncio.gather(*notifying)

    try:
        run(scenario)
    finally:
        may_end.set()
