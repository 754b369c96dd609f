"""Faults, late news and restarts in the three ways of waiting: worker, triggerer, rescheduled sensor."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call, Campaign, Page
from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileWaitTimeout,
)
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.sensors.campaigns import VolubileCampaignSensor
from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
from airflow_provider_volubile.waiting import ending, poll_round, polling, shared_poll, watches
from airflow_provider_volubile.waiting.poll_round import poll_once
from airflow_provider_volubile.waiting.polling import Wait, wait

PHONE = "+33639980101"
CAMPAIGN = SubmissionHandle(
    kind="campaign", recipients=1, campaigns=[CampaignRef(id="campaign", name="Tyres", recipients=1)]
)
CALLS = SubmissionHandle(
    kind="bulk", recipients=1, call_ids=["1"], submitted_at=(datetime.now(UTC) - timedelta(minutes=2)).isoformat()
)


class Service:
    """One call of one campaign, whose list may fail for a while. It ends once that was answered a few times."""

    def __init__(self) -> None:
        self.faults: list[VolubileError] = []
        self.fault_until = 0.0
        self.fault: VolubileError | None = None
        self.status = "IN_PROGRESS"
        self.end_time: datetime | None = None
        self.campaign_status = "ACTIVE"
        self.call_ids = ["1"]
        self.transcripts: dict[str, int] = {}
        self.no_transcript: VolubileError = VolubileNotFound("no transcript", status=404)
        self.answers = 0

    def list_calls(self, *, page: int, **_: object) -> Page[Call]:
        if self.fault and time.monotonic() < self.fault_until:
            raise self.fault
        if self.faults:
            raise self.faults.pop()
        self.answers += 1
        calls = tuple(
            Call(id=call_id, phone=PHONE, status=self.status, created=datetime.now(UTC), end_time=self.end_time)
            for call_id in self.call_ids
        )
        return Page(calls, page=page, total_pages=1, received=len(calls), sort=wire.NEWEST_FIRST)

    def get_call(self, call_id: str) -> Call:
        return Call(id=call_id, phone=PHONE, status=self.status, created=datetime.now(UTC))

    def get_campaign(self, campaign_id: str) -> Campaign:
        return Campaign(id=campaign_id, status=self.campaign_status)

    def get_transcript(self, call_id: str) -> Any:
        self.transcripts[call_id] = self.transcripts.get(call_id, 0) + 1
        raise self.no_transcript

    @property
    def client(self) -> VolubileClient:
        return cast("VolubileClient", self)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr(polling, "FIRST_INTERVAL", 0.02)
    monkeypatch.setattr(polling, "FAULT_INTERVAL", 0.02)
    monkeypatch.setattr(polling, "SECONDS_PER_REQUEST", 0.0)
    monkeypatch.setattr(shared_poll, "FIRST_INTERVAL", 0.02)
    monkeypatch.setattr(shared_poll, "SECONDS_PER_REQUEST", 0.0)
    monkeypatch.setattr(VolubileHook, "client", lambda _, **__: service)
    monkeypatch.setattr(VolubileHook, "credentials_id", "account")
    return service


def in_worker(service: Service, handle: SubmissionHandle) -> dict[str, int]:
    event = wait(service.client, handle, deadline=datetime.now(UTC) + timedelta(seconds=20), poll_interval=0.05)
    return ending.finish_wait(handle, event, timeout=20)["counts"]


def deferred(service: Service, handle: SubmissionHandle) -> dict[str, int]:
    event = asyncio.run(fired(trigger(handle, timedelta(seconds=20))))
    return ending.finish_wait(handle, ending.read_event(event), timeout=20)["counts"]


def trigger(handle: SubmissionHandle, left: timedelta) -> WaitTrigger:
    deadline = (datetime.now(UTC) + left).isoformat()
    return WaitTrigger(volubile_conn_id="volubile", handle=handle, deadline=deadline, poll_interval=0.05)


async def fired(trigger: WaitTrigger) -> Any:
    return (await anext(aiter(trigger.run()))).payload


class Store:
    """A task state store."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)
        assert len(self.values[key]) < 64_000


def poke(handle: SubmissionHandle, store: Store, **settings: Any) -> Any:
    """One poke of a rescheduled sensor: each is in a process of its own."""
    settings = {"task_id": "wait", "mode": "reschedule", "poke_interval": 0.05} | settings
    sensor = (
        VolubileCampaignSensor(campaign=handle, **settings)
        if "campaigns" in handle
        else VolubileCallsSensor(calls=handle, **settings)
    )
    ExecutorSafeguard.tracker.set(sensor)
    return sensor.poke(cast("Any", {"task_state_store": store, "ti": SimpleNamespace(try_number=1)}))


def rescheduled(service: Service, handle: SubmissionHandle) -> dict[str, int]:
    store, until = Store(), time.monotonic() + 20
    while time.monotonic() < until:
        if (result := poke(handle, store)).is_done:
            return cast("dict[str, int]", result.xcom_value["counts"])
        time.sleep(0.05)
    raise AssertionError("it did not end")


WAYS = [in_worker, deferred, rescheduled]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handle", [CAMPAIGN, CALLS])
@pytest.mark.parametrize(
    "fault",
    [
        VolubileNotFound("404", status=404),
        VolubileProtocolError("HTML"),
        VolubileAuthError("403", status=403),
        VolubileAuthError("401", status=401),
        VolubileUnavailable("503", status=503),
    ],
)
def test_a_fault_that_passes_ends_no_wait(
    service: Service,
    way: Callable[[Service, SubmissionHandle], dict[str, int]],
    handle: SubmissionHandle,
    fault: VolubileError,
) -> None:
    service.status = "COMPLETED"
    service.faults = [fault] * 3
    assert way(service, handle) == {"COMPLETED": 1}


@pytest.mark.parametrize("way", WAYS)
def test_an_outage_of_seconds_ends_no_wait(
    service: Service, way: Callable[[Service, SubmissionHandle], dict[str, int]]
) -> None:
    service.status = "COMPLETED"
    service.fault, service.fault_until = VolubileAuthError("401", status=401), time.monotonic() + 1.5
    assert way(service, CAMPAIGN) == {"COMPLETED": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_that_lasts_ends_a_wait(
    service: Service,
    way: Callable[[Service, SubmissionHandle], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_volubile.waiting.fault_policy.REFUSAL_LIMIT", timedelta(seconds=1))
    service.fault, service.fault_until = VolubileAuthError("revoked", status=401), time.monotonic() + 60
    with pytest.raises(Exception, match="Waiting failed: revoked"):
        way(service, CALLS)


def test_a_trigger_that_starts_after_its_deadline_polls_once(service: Service) -> None:
    service.call_ids, service.status = ["1", "2"], "COMPLETED"
    handle = SubmissionHandle(**{**CALLS, "call_ids": ["1", "2"], "recipients": 2})
    event = asyncio.run(fired(trigger(handle, -timedelta(hours=1))))
    assert (event["status"], event["settled"]) == ("over", 2)
    service.status = "IN_PROGRESS"
    event = asyncio.run(fired(trigger(handle, -timedelta(hours=1))))
    assert (event["status"], event["recipients"], event["in_flight"]) == ("timeout", 2, 2)


# Statuses that came later than this package --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_call_with_an_unknown_status_and_an_end_is_over_once_it_stays_unchanged(
    service: Service,
    way: Callable[[Service, SubmissionHandle], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watches, "TIME_UNCHANGED", timedelta(seconds=0.2))
    watches._warned.clear()
    service.status, service.end_time = "BUSY", datetime.now(UTC)
    with caplog.at_level(logging.WARNING):
        assert way(service, CAMPAIGN) == {"BUSY": 1}
    assert len([record for record in caplog.records if "Status BUSY is not known" in record.message]) == 1


def test_a_call_with_an_unknown_status_is_not_over_while_it_changes(service: Service) -> None:
    waiting = Wait.of(CAMPAIGN, wait_for="ended", poll_interval=30)
    present = datetime.now(UTC)
    service.status = "ON_HOLD"
    for minute in range(10):
        if minute >= 5:
            service.end_time = present + timedelta(minutes=minute)  # it has an end, which moves
        poll_once(service.client, waiting.watches, now=present + timedelta(minutes=minute))
        waiting.update(present)
        assert not waiting.is_over


def test_calls_whose_id_cannot_be_used_are_reported_with_their_number(service: Service) -> None:
    service.call_ids, service.status = ["../1"], "COMPLETED"
    waiting = Wait.of(CAMPAIGN, wait_for="transcript", poll_interval=30)
    result = poll_once(service.client, waiting.watches, now=datetime.now(UTC))
    waiting.update(datetime.now(UTC))
    assert result.fault is None
    assert waiting.is_over
    assert waiting.event()["unusable_ids"] == 1


# Transcripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [VolubileNotFound("404", status=404), VolubileRequestRefused("410"), VolubileProtocolError("garbled")]
)
def test_every_transcript_is_asked_for_before_it_is_given_up(service: Service, answer: VolubileError) -> None:
    service.no_transcript = answer
    service.call_ids, service.status = [str(number) for number in range(300)], "COMPLETED"
    handle = SubmissionHandle(**{**CALLS, "call_ids": service.call_ids, "recipients": 300})
    waiting = Wait.of(handle, wait_for="transcript", poll_interval=30)
    present = datetime.now(UTC)
    rounds = 0
    while not waiting.is_over:
        rounds += 1
        poll_once(service.client, waiting.watches, now=present + rounds * timedelta(minutes=10))
        waiting.update(present)
    assert service.transcripts.keys() == set(service.call_ids)
    assert set(service.transcripts.values()) == {2}
    assert waiting.event()["transcripts_given_up"] == 300


def test_a_rescheduled_sensor_gives_transcripts_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "TRANSCRIPT_PATIENCE", timedelta(seconds=1))
    service.call_ids, service.status = [f"{number:036}" for number in range(2000)], "COMPLETED"
    monkeypatch.setattr(poll_round, "TRANSCRIPTS_PER_ROUND", 1000)
    handle = SubmissionHandle(**{**CALLS, "call_ids": service.call_ids, "recipients": 2000})
    store = Store()
    pokes = 1
    while not poke(handle, store, wait_for="transcript").is_done:
        pokes += 1
        time.sleep(0.5)
        assert pokes < 10
    assert set(service.transcripts.values()) == {2}


def test_a_new_try_of_a_rescheduled_sensor_begins_anew(service: Service) -> None:
    service.faults = [VolubileUnavailable("503")]
    store = Store()
    poke(CALLS, store)
    assert store.get("volubile_wait") == {"try": 1, "pieces": 1}
    assert json.loads(store.get("volubile_wait_0"))[0]["faults"]
    store.values["volubile_wait"] = json.dumps({"try": 0, "pieces": 1})
    poke(CALLS, store)
    assert not json.loads(store.get("volubile_wait_0"))[0]["faults"]


def test_a_rescheduled_sensor_notices_a_cancelled_campaign(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LIST_LAG", 0.1)
    service.call_ids, service.campaign_status = [], "CANCELLED"
    assert rescheduled(service, CAMPAIGN) == {"NEVER_DIALED": 1}


# What is given twice ------------------------------------------------------------------------------------------------


def test_calls_that_are_given_twice_are_waited_for_once(service: Service) -> None:
    service.call_ids, service.status = ["1", "2", "3"], "COMPLETED"
    bulk = SubmissionHandle(**{**CALLS, "call_ids": ["1", "2"], "recipients": 2})
    result = poke(cast("Any", [bulk, bulk, "2", "3", "3"]), Store())
    assert result.xcom_value["recipients"] == 3
    assert result.xcom_value["counts"] == {"COMPLETED": 3}


def test_a_campaign_known_by_its_calls_only_says_at_the_deadline_that_a_cancellation_is_not_noticed(
    service: Service,
) -> None:
    ref = CampaignRef(id=None, name="Tyres [ref-1]", recipients=1)
    handle = SubmissionHandle(kind="campaign", recipients=1, campaigns=[ref])
    event = wait(service.client, handle, deadline=datetime.now(UTC), poll_interval=1)
    with pytest.raises(VolubileWaitTimeout, match=r"Campaign 'Tyres \[ref-1\]' is known by its calls only"):
        ending.finish_wait(handle, event, timeout=0)
