"""The trigger that tells of calls which have ended: each of them, once, whoever else polls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call, Page
from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.calling.recipients import read_recipients
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileUnavailable
from airflow_provider_volubile.simulator import FOLLOW_UP_AGENT_ID, REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.triggers import finished
from airflow_provider_volubile.triggers.finished import Cursor, FinishedWatch, VolubileFinishedCallTrigger
from airflow_provider_volubile.waiting import fault_policy
from airflow_provider_volubile.waiting import shared_poll as polling
from airflow_provider_volubile.waiting.poll_round import poll_once
from airflow_provider_volubile.waiting.shared_poll import poll_of
from airflow_provider_volubile.waiting.watches import CallsWatch, CampaignWatch
from tests.live import connection_json
from tests.unit.fakes import Store

Take = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _quick(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_volubile.waiting.polling.FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(polling, "FIRST_INTERVAL", 0.1)
    monkeypatch.setattr(polling, "SECONDS_PER_REQUEST", 0.0)
    monkeypatch.setattr(finished, "STORED_AFTER", 0.1)
    monkeypatch.setattr(finished, "PAUSE_AFTER_ERROR", 0.1)
    simulator.configure(speed=0)  # nobody hangs up until we say so
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(simulator))


def trigger(store: Store | None = None, **settings: Any) -> VolubileFinishedCallTrigger:
    trigger = VolubileFinishedCallTrigger(poll_interval=0.2, **settings)
    trigger.asset_state_store = store  # type: ignore[assignment]
    return trigger


def dial(simulator: Simulator, count: int, **details: Any) -> list[str]:
    """Calls placed this moment. They end when :func:`hang_up` says so."""
    now = datetime.now(UTC) - timedelta(seconds=1)
    return simulator.load_calls(count, status="IN_PROGRESS", ends_within=60, created_from=now, **details)


def hang_up(simulator: Simulator) -> None:
    simulator.advance(60)


@asynccontextmanager
async def running(trigger: VolubileFinishedCallTrigger) -> AsyncIterator[Take]:
    """Run a trigger as a triggerer does, until the block ends; gives a function that waits for the next event."""
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def follow() -> None:
        async for event in trigger.run():
            events.put_nowait(event.payload)

    following = asyncio.create_task(follow())
    poll = await poll_of("volubile_default")
    rounds = poll.rounds
    while poll.rounds == rounds and not following.done():
        await asyncio.sleep(0.02)
    try:
        yield events.get
    finally:
        following.cancel()
        (end,) = await asyncio.gather(following, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError), end


async def until_told(take: Take, ids: list[str]) -> list[dict[str, Any]]:
    """Take events until all of these calls were told."""
    events: list[dict[str, Any]] = []
    while not set(ids) <= {call_id for event in events for call_id in event["call_ids"]}:
        events.append(await take())
    return events


def told(events: list[dict[str, Any]]) -> list[str]:
    return [call_id for event in events for call_id in event["call_ids"]]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_every_call_that_ends_is_told_once_with_what_became_of_it(simulator: Simulator) -> None:
    simulator.load_calls(5, status="COMPLETED", created_to=datetime.now(UTC) - timedelta(minutes=1))
    running_before = dial(simulator, 3)

    async def scenario() -> None:
        async with running(trigger()) as take:
            dialled = dial(simulator, 20)
            simulator.advance(30)
            events = await until_told(take, dialled[:10])
            simulator.advance(30)
            events += await until_told(take, dialled[10:])
        assert sorted(told(events)) == sorted(running_before + dialled), "not what had ended before, and nothing twice"
        statuses = {entry["call_id"]: entry["status"] for entry in simulator.ledger()}
        for event in events:
            assert event["counts"] == Counter(statuses[call_id] for call_id in event["call_ids"])
            assert event.keys() == {"call_ids", "counts", "agent_id", "campaign"}
        assert len(events) == 2, "one event for all that one look finds"

    run(scenario)


@pytest.mark.parametrize("wanted", [{"agent_id": FOLLOW_UP_AGENT_ID}, {"campaign": "Winter tyres"}])
def test_only_the_calls_asked_for_are_told(simulator: Simulator, wanted: dict[str, str]) -> None:
    dial(simulator, 5, agent_id=REMINDER_AGENT_ID, campaign="Summer tyres")
    ids = dial(simulator, 5, **{"agent_id": REMINDER_AGENT_ID} | wanted)

    async def scenario() -> None:
        async with running(trigger(**wanted)) as take:
            hang_up(simulator)
            events = await until_told(take, ids)
        assert sorted(told(events)) == sorted(ids)
        assert all(event[name] == value for event in events for name, value in wanted.items())

    run(scenario)


def test_a_restarted_trigger_goes_on_where_it_was(simulator: Simulator) -> None:
    store = Store()

    async def scenario() -> None:
        async with running(trigger(store)) as take:
            before = dict(store.values)
            first = dial(simulator, 5)
            hang_up(simulator)
            await until_told(take, first)
            while store.values == before:
                await asyncio.sleep(0.02)
        meanwhile = dial(simulator, 5)
        hang_up(simulator)
        async with running(trigger(store)) as take:
            events = await until_told(take, meanwhile)
        assert sorted(told(events)) == sorted(meanwhile)

    run(scenario)


def test_what_may_not_have_been_stored_is_told_again(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "STORED_AFTER", 60)
    store = Store()

    async def scenario() -> None:
        async with running(trigger(store)) as take:
            ids = dial(simulator, 3)
            hang_up(simulator)
            assert sorted((await take())["call_ids"]) == sorted(ids)
        async with running(trigger(store)) as take:
            assert sorted((await take())["call_ids"]) == sorted(ids)

    run(scenario)


def test_a_trigger_that_runs_twice_sends_nothing_and_tells_the_same(simulator: Simulator) -> None:
    store = Store()

    async def scenario() -> None:
        async with running(trigger(store)) as one, running(trigger(store)) as other:
            ids = dial(simulator, 3)
            hang_up(simulator)
            for take in (one, other):
                assert sorted(told(await until_told(take, ids))) == sorted(ids)

    run(scenario)
    assert set(simulator.request_summary()) == {"listCalls"}


def test_it_shares_the_poll_of_those_who_wait(simulator: Simulator) -> None:
    waiting_for = dial(simulator, 3)

    async def scenario() -> None:
        async with running(trigger()), running(trigger(agent_id=REMINDER_AGENT_ID)):
            poll = await poll_of("volubile_default")
            watch = CallsWatch(waiting_for, since=datetime.now(UTC) - timedelta(hours=2))
            hang_up(simulator)
            async for _ in poll.follow([watch], poll_interval=0.2):
                pass
            # One listing for each trigger and one for those who wait, in every round.
            assert simulator.request_summary()["listCalls"]["200"] <= 3 * (poll.rounds + 1)

    run(scenario)


def test_an_event_names_no_more_calls_than_a_row_should(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "IDS_PER_EVENT", 2)

    async def scenario() -> None:
        async with running(trigger()) as take:
            ids = dial(simulator, 5, final_status="NO_ANSWER")
            hang_up(simulator)
            events = await until_told(take, ids)
        assert [len(event["call_ids"]) for event in events] == [2, 2, 1]
        assert [event["counts"] for event in events] == [{"NO_ANSWER": 2}, {"NO_ANSWER": 2}, {"NO_ANSWER": 1}]
        assert sorted(told(events)) == sorted(ids)

    run(scenario)


def test_it_goes_on_after_errors_that_end_a_wait(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_policy, "REFUSAL_LIMIT", timedelta(0))

    async def scenario() -> None:
        async with running(trigger()) as take:
            for key in ("primary", "secondary"):
                simulator.revoke_key(key)  # type: ignore[arg-type]
            ids = dial(simulator, 3)
            hang_up(simulator)
            # One round ends the wait, and one more is of a trigger that has come back. Each tries both keys.
            while sum(entry["status"] == 401 for entry in simulator.requests()) < 4:
                await asyncio.sleep(0.05)
            simulator.restore_key("primary")
            assert sorted(told(await until_told(take, ids))) == sorted(ids)

    run(scenario)


def test_a_call_that_never_ends_does_not_make_looks_dearer(simulator: Simulator) -> None:
    now = datetime.now(UTC)
    three_hours_ago = now - timedelta(hours=3)
    simulator.load_calls(1, status="IN_PROGRESS", created_from=three_hours_ago, created_to=three_hours_ago)
    simulator.load_calls(600, created_from=three_hours_ago, created_to=now - timedelta(hours=1))
    store = Store()

    async def scenario() -> None:
        async with running(trigger(store)):
            (cursor,) = store.values.values()
        cursor["since"] = (now - timedelta(hours=4)).isoformat()  # as if it had been there when that call began
        async with running(trigger(store)) as take:
            ids = dial(simulator, 3)
            hang_up(simulator)
            await until_told(take, ids)
            poll, before = await poll_of("volubile_default"), len(simulator.requests())
            rounds = poll.rounds
            while poll.rounds < rounds + 3:
                await asyncio.sleep(0.02)
            assert len(simulator.requests()) - before <= 5

    run(scenario)


def test_who_waits_for_the_same_campaign_still_learns_its_status(simulator: Simulator, client: VolubileClient) -> None:
    name, now = "Winter tyres", datetime.now(UTC)
    body = wire.campaign_body(
        name=name,
        agent_id=REMINDER_AGENT_ID,
        start_date=now.date(),
        time_slots=[(time(9), time(12))],
        days=["MONDAY"],
        batch_size=10,
        recipients=read_recipients(["+33639980001"]).accepted,
        retry=None,
        timezone="Europe/Paris",
    )
    # Of two people one was called: it stands still.
    campaign = CampaignRef(id=client.create_campaign(body).id, name=name, recipients=2)
    simulator.advance(3600)
    waiting = CampaignWatch(campaign, agent_id=None, since=now, redial=Redial())
    cursor = Cursor(started=now.isoformat(), since=now.isoformat(), told=[])
    poll_once(client, [FinishedWatch(agent_id=None, campaign=name, cursor=cursor), waiting], now=now)
    assert waiting.status == "ACTIVE"


def test_what_a_list_that_broke_off_did_not_show_is_told_later() -> None:
    """The newest calls are on its first page; who moves on with them leaves all older ones behind."""
    present = datetime.now(UTC)
    begin = (present - timedelta(hours=1)).isoformat()
    watch = FinishedWatch(agent_id=None, campaign=None, cursor=Cursor(started=begin, since=begin, told=[]))
    newest = Call(id="new", status="COMPLETED", created=present, end_time=present)
    older = Call(id="old", status="COMPLETED", created=present - timedelta(minutes=40), end_time=present)
    is_up = False

    class Pages:
        def list_calls(self, *, page: int, **_: object) -> Page[Call]:
            if page == 2 and not is_up:
                raise VolubileUnavailable("503")
            return Page((newest if page == 1 else older,), page=page, total_pages=2, received=1, sort="created,DESC")

    client = cast("VolubileClient", Pages())
    poll_once(client, [watch], now=present)
    assert watch.take() == {"new": "COMPLETED"}
    is_up = True
    poll_once(client, [watch], now=present)
    assert watch.take() == {"old": "COMPLETED"}
    assert watch.cursor()["told"] == ["new"]


def test_its_serialization_tells_triggers_apart_and_nothing_else() -> None:
    def identity(**settings: Any) -> int:
        path, kwargs = VolubileFinishedCallTrigger(**settings).serialize()
        assert path == "airflow_provider_volubile.triggers.finished.VolubileFinishedCallTrigger"
        assert VolubileFinishedCallTrigger(**kwargs).serialize() == (path, kwargs)
        return BaseEventTrigger.hash(path, kwargs)

    different: list[dict[str, Any]] = [
        {},
        {"agent_id": REMINDER_AGENT_ID},
        {"campaign": "Tyres"},
        {"volubile_conn_id": "other"},
        {"poll_interval": 60},
    ]
    assert len({identity(**settings) for settings in different}) == len(different)
    assert identity(agent_id=REMINDER_AGENT_ID) == identity(agent_id=REMINDER_AGENT_ID, poll_interval=30)
