"""Submissions at the worst moments: an operator, the simulator, and a store that a process may die over."""

from __future__ import annotations

import asyncio
import csv
import inspect
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.calling import installation, sending_parts, stopping, unknown_outcome
from airflow_provider_volubile.calling.journal import HEAD_KEY, SubmissionJournal
from airflow_provider_volubile.calling.unknown_outcome import CREATED, SEND, STOP
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownSubmission,
)
from airflow_provider_volubile.operators import submission
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.submission import SubmissionOperator
from airflow_provider_volubile.simulator import FOLLOW_UP_AGENT_ID, REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.waiting import find_calls
from airflow_provider_volubile.waiting.polling import wait
from tests.unit.fakes import Store, Variables, context

# Written by the code of commit 97b675b.
VERSION_2 = Path(__file__).with_name("journal_version_2.json")
PEOPLE = [f"+3363998{number:04d}" for number in range(5)]
KINDS = pytest.mark.parametrize("kind", ["campaign", "bulk", "single"])
OPERATION = {"campaign": "createCampaign", "bulk": "createBulkCalls", "single": "createCall"}


class Crash(BaseException):
    """The process was killed."""


@pytest.fixture(autouse=True)
def _here(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    simulator.configure(speed=3000, dial_interval=0)
    monkeypatch.setattr(stopping, "Variable", Variables())
    # Stopped only where a test stops it: then a thread of its own asks whether it really is.
    monkeypatch.setattr(stopping, "is_stopped", lambda ti: threading.current_thread().name == "volubile-on-kill")
    monkeypatch.setattr(unknown_outcome, "show_question", lambda *_, **__: True)
    yield
    _join_stopping_threads()


def _join_stopping_threads() -> None:
    """They look once more, and must meet neither the next try nor what is no longer patched."""
    for thread in threading.enumerate():
        if thread.name == "volubile-on-kill":
            thread.join(60)


class Task:
    """One task of one Dag run, and the tries of it."""

    def __init__(self, simulator: Simulator, kind: str, **settings: Any) -> None:
        self.simulator, self.kind = simulator, kind
        self.settings = {
            "agent_id": REMINDER_AGENT_ID,
            "recipients": PEOPLE,
            "poll_interval": 0.1,
            "confirmation_timeout": 0,
            "deferrable": False,
        } | settings
        self.store = Store()
        self.tries = 0
        self.max_tries = 3
        self.map_index = -1
        self.clear_number = 0
        self.began = datetime.now(UTC) - timedelta(minutes=1)

    def client(self, *, with_tokens: bool = False) -> VolubileClient:
        keys = ApiKeyPair(self.simulator.primary_key, self.simulator.secondary_key, name="test")
        credentials = BearerTokens(keys) if with_tokens else keys
        return VolubileClient(self.simulator.url, credentials, window=RateWindow(limit=100_000))

    def operator(self, client: VolubileClient | None = None) -> SubmissionOperator:
        operator: SubmissionOperator
        if self.kind == "campaign":
            operator = VolubileCreateCampaignOperator(
                task_id="dial", name="Tyres", time_slots=["09:00-12:00"], **self.settings
            )
        else:
            operator = VolubileBulkCallsOperator(task_id="dial", submit_as=self.kind, **self.settings)  # type: ignore[arg-type]
        mine = client or self.client()
        operator.__dict__["hook"] = SimpleNamespace(client=lambda **_: mine)
        return operator

    def try_(self, client: VolubileClient | None = None) -> Any:
        operator = self.operator(client)
        return self.run(operator, operator.execute)

    def answer(self, chosen: str, number: int = 0) -> Any:
        operator = self.operator()
        return self.run(operator, lambda context: operator.answered(context, {"chosen_options": [chosen]}, [number]))

    def run(self, operator: SubmissionOperator, step: Callable[[Any], Any]) -> Any:
        """What a step returned or raised."""
        self.tries += 1
        ExecutorSafeguard.tracker.set(operator)
        try:
            return step(
                context(
                    self.store,
                    try_number=self.tries,
                    max_tries=self.max_tries,
                    map_index=self.map_index,
                    clear_number=self.clear_number,
                    began=self.began,
                )
            )
        except AirflowFailException as error:
            return error.__cause__
        except BaseException as error:
            return error

    @property
    def times_called(self) -> Counter[str]:
        return Counter(entry["phone"] for entry in self.simulator.ledger())

    @property
    def campaign_statuses(self) -> list[str]:
        return [campaign["status"] for campaign in self.simulator.state()["campaigns"]]


def frozen(client: VolubileClient, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, ...]:
    """Let a client's process stand still before it sends what dials. Returns events: it stands; it may go on."""
    stands, goes_on = threading.Event(), threading.Event()
    name = {"campaign": "create_campaign", "bulk": "create_bulk_calls", "single": "create_call"}[kind]
    send = getattr(client, name)

    def still(*args: Any, **kwargs: Any) -> Any:
        stands.set()
        goes_on.wait(60)
        return send(*args, **kwargs)

    monkeypatch.setattr(client, name, still)
    return stands, goes_on


@KINDS
def test_a_process_that_thaws_too_late_sends_nothing(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    task = Task(simulator, kind, on_unknown="ask")
    client = task.client()
    stands, goes_on = frozen(client, kind, monkeypatch)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(task.try_(client)))
    with monkeypatch.context() as impatient:  # whoever begins now stands still for too long in any case
        impatient.setattr(sending_parts, "SEND_WITHIN", 0.0)
        thread.start()
        assert stands.wait(60)
    asked = task.try_()
    assert type(asked).__name__ == "TaskAwaitingInput"
    handle = task.answer(SEND)
    assert handle["recipients"] == 5
    goes_on.set()
    thread.join(60)
    assert isinstance(ended[0], VolubileUnavailable)
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


@KINDS
@pytest.mark.parametrize("write", range(4))
def test_a_try_whose_store_was_refused_before_it_sent_leaves_nothing_unknown(
    simulator: Simulator, kind: str, write: int
) -> None:
    """Somebody clears the task while it writes down its first request; the next try goes on as if nothing had been."""
    task = Task(simulator, kind)

    class Refusing(Store):
        def set(self, key: str, value: Any, **details: Any) -> None:
            if len(written) == write:
                raise RuntimeError("404: no such task instance")
            written.append(key)
            super().set(key, value, **details)

    written: list[str] = []
    task.store = Refusing()
    assert "404" in str(task.try_())
    assert not simulator.ledger()
    written = [""] * 5  # no longer refused
    assert task.try_()["recipients"] == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


@KINDS
@pytest.mark.parametrize("fault", [("malformed", {}), ("status", {"status": 400})], ids=["unreadable", "refused"])
def test_a_token_that_is_not_to_be_had_says_nothing_of_the_people(
    simulator: Simulator, kind: str, fault: tuple[str, dict[str, int]]
) -> None:
    task = Task(simulator, kind)
    simulator.fault("issueToken", fault[0], skip=1, **fault[1])  # the first is for the agent
    assert str(task.try_(task.client(with_tokens=True))).startswith("issueToken: ")
    handle = task.try_()
    assert (handle["recipients"], handle["rejected"]) == (5, 0)
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_a_part_of_the_store_that_is_gone_is_missed(simulator: Simulator) -> None:
    task = Task(simulator, "campaign")
    task.try_()
    head = task.store.get(HEAD_KEY)
    del head["completed"]
    task.store.values = {HEAD_KEY: head}
    assert "volubile_parts_0_0 is gone from this task's state store" in str(task.try_())
    task.store.set(HEAD_KEY, head | {"version": head["version"] + 1})
    assert "Another version of this provider" in str(task.try_())
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_a_journal_of_version_2_goes_on(simulator: Simulator) -> None:
    """A task that an earlier version of the provider had deferred: nobody is called twice and nobody is forgotten."""
    task = Task(simulator, "single", on_unknown="resend", wait_for_completion=False)
    task.store.values = json.loads(VERSION_2.read_text())
    journal = SubmissionJournal.resume(task.store)
    assert journal is not None
    assert [record.state for record in journal] == ["accepted", "refused", "to_resend", "in_flight", "pending"]
    assert (journal[0].ids, journal[1].reason) == (("c0",), "not callable")
    assert journal.reference_of(2) == "a7164475e60a1b2c-3"
    task.tries = 1
    for name in ("submit_on", "look_on"):  # where tasks of that version resume after a pause
        operator = task.operator()
        task.run(operator, lambda context, step=name, operator=operator: getattr(operator, step)(context, event=None))
        assert task.times_called == dict.fromkeys(PEOPLE[2:], 1)
    stored = task.store.get(HEAD_KEY)
    assert (stored["version"], stored["reference"]) == (3, "a7164475e60a1b2c")
    operator = task.operator()
    answer = {"chosen_options": [STOP]}
    assert "Somebody decided to stop" in str(
        task.run(operator, lambda context: operator.answered(context, answer, number=3))
    )


@KINDS
def test_a_run_of_the_same_name_is_another_submission(simulator: Simulator, kind: str) -> None:
    """Staging and production on one account, or a Dag run that was deleted and made again."""
    first, second = Task(simulator, kind), Task(simulator, kind)
    first.try_()
    simulator.fault(OPERATION[kind], "drop", accept=False)
    assert "It is not known whether" in str(second.try_()), "the calls of the first are not taken for its own"
    sent = PEOPLE[1:] if kind == "single" else []
    assert first.times_called == Counter(PEOPLE) + Counter(sent)
    third = Task(simulator, kind)
    simulator.configure(speed=1)
    waits = threading.Thread(target=lambda: Task(simulator, kind, timeout=60).try_(), daemon=True)
    waits.start()
    simulator.wait_until(lambda: len(simulator.ledger()) == 10 + len(sent))
    assert "5 in progress" in str(Task(simulator, kind, timeout=0.1).try_())
    simulator.configure(speed=3000)
    assert sum(third.try_()["counts"].values()) == 5
    waits.join(60)
    assert not waits.is_alive()


@KINDS
def test_an_emptied_store_does_not_make_anyone_be_called_again(simulator: Simulator, kind: str) -> None:
    task = Task(simulator, kind)
    task.try_()
    task.store.values.clear()
    handle = task.try_()
    assert sum(handle["counts"].values()) == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_everybody_refused_is_no_success_however_the_process_ends(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(simulator, "single")
    simulator.fault("createCall", "status", status=400, times=5)

    def die(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as dying:
        dying.setattr(SubmissionJournal, "release", die)
        assert isinstance(task.try_(), Crash)
    assert "Volubile refused every request, nobody is called (5 × " in str(task.try_())
    assert task.try_()["recipients"] == 5, "once the cause is mended"


def test_a_refusal_is_told_with_its_reason(
    simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "outcomes.csv"
    simulator.fault("createCall", "status", status=400, skip=1)
    Task(simulator, "single", outcomes_path=str(table)).try_()
    assert "Volubile refused 1 of 5 people: 1 × " in caplog.text
    with table.open(newline="") as file:
        refused = [row for row in csv.DictReader(file) if row["status"] == "REFUSED"]
    assert [row["phone"] for row in refused] == PEOPLE[1:2]
    assert refused[0]["reason"]
    assert refused[0]["reason"] in caplog.text


def test_outcomes_that_cannot_be_looked_up_are_not_written(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "outcomes.csv"
    task = Task(simulator, "bulk", outcomes_path=str(table))
    write = SubmissionOperator._write_outcomes

    def with_a_fault(operator: SubmissionOperator, *args: Any) -> str:
        simulator.fault("listCalls", "malformed", times=1)
        return write(operator, *args)

    with monkeypatch.context() as patched:
        patched.setattr(SubmissionOperator, "_write_outcomes", with_a_fault)
        assert isinstance(task.try_(), VolubileError)
    assert not table.exists()
    handle = task.try_()
    with table.open(newline="") as file:
        assert Counter(row["status"] for row in csv.DictReader(file)) == handle["counts"]
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


# --- stopped by a person ---


def _stopped_when_accepted(task: Task, client: VolubileClient, monkeypatch: pytest.MonkeyPatch) -> SubmissionOperator:
    """An operator that is stopped just when a campaign is accepted."""
    operator = task.operator(client)
    create = client.create_campaign

    def stopped_meanwhile(*args: Any, **kwargs: Any) -> Any:
        campaign = create(*args, **kwargs)
        operator.on_kill()
        return campaign

    monkeypatch.setattr(client, "create_campaign", stopped_meanwhile)
    return operator


def test_a_campaign_accepted_while_the_task_is_stopped_is_paused(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.configure(speed=0, lines=1)
    task = Task(simulator, "campaign", deferrable=True)
    client = task.client()
    operator = _stopped_when_accepted(task, client, monkeypatch)
    assert "Stopped while it submitted" in str(task.run(operator, operator.execute))
    simulator.wait_until(lambda: task.campaign_statuses == ["PAUSED"])
    assert isinstance(task.try_(), TaskDeferred), "cleared, it waits for the same campaign"
    assert task.campaign_statuses == ["ACTIVE"]


def test_a_task_stopped_on_its_last_step_lets_its_campaign_go_on_once_it_is_cleared(simulator: Simulator) -> None:
    simulator.configure(speed=0, lines=1)
    task = Task(simulator, "campaign", wait_for_completion=False)
    operator = task.operator()
    task.run(operator, operator.execute)
    operator.on_kill()
    simulator.wait_until(lambda: task.campaign_statuses == ["PAUSED"])
    task.try_()
    assert task.campaign_statuses == ["ACTIVE"]


def test_a_task_stopped_while_it_looks_again_stops_what_was_accepted(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 3)
    simulator.fault("createCampaign", "drop", accept=False, skip=1)
    task = Task(simulator, "campaign", deferrable=True, confirmation_timeout=60)
    deferred = task.try_()
    assert isinstance(deferred, TaskDeferred)
    path, kwargs = deferred.trigger.serialize()
    assert path.endswith("LookAgainTrigger")
    trigger = type(deferred.trigger)(**kwargs)
    trigger._task_instance = SimpleNamespace(dag_id="dag")
    stopped = []
    monkeypatch.setattr(
        "airflow_provider_volubile.triggers.recovery.stop_if_killed", lambda *args: stopped.append(args[2:])
    )
    asyncio.run(trigger.on_kill())
    (campaigns, action) = stopped[0]
    assert [campaign["recipients"] for campaign in campaigns] == [3]
    assert action == "pause"


@pytest.mark.parametrize(("action", "status"), [("pause", "PAUSED"), ("cancel", "CANCELLED"), ("leave", "ACTIVE")])
def test_the_answer_stop_stops_what_was_accepted(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, action: str, status: str
) -> None:
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 3)
    simulator.configure(speed=0, lines=1)
    simulator.fault("createCampaign", "drop", accept=False, skip=1)
    task = Task(simulator, "campaign", on_unknown="ask", on_kill_action=action)
    task.try_()
    assert "Somebody decided to stop" in str(task.answer(STOP))
    assert task.campaign_statuses == [status]


def test_people_whose_calls_never_show_up_may_be_done_without(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.configure(bulk_answer="empty")
    monkeypatch.setattr(unknown_outcome, "LOOK_AGAIN", timedelta(seconds=0.2))
    task = Task(simulator, "bulk", timeout=1)
    client = task.client()
    listing, unlisted = client.list_calls, set(PEOPLE[3:])

    def without_some(**query: Any) -> Any:
        page = listing(**query)
        return replace(page, content=tuple(call for call in page.content if call.phone not in unlisted))

    monkeypatch.setattr(client, "list_calls", without_some)
    assert "5 people were accepted, but only 3 of their calls are listed" in str(task.try_(client))
    task.settings["max_missing"] = 2
    handle = task.try_(client)
    assert handle["counts"]["NEVER_DIALED"] == 2
    assert sum(handle["counts"].values()) == 5


def _stopped_after_one_part(simulator: Simulator, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Task:
    """A task that was stopped while it submitted: of its two campaigns the first is there, and paused."""
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 3)
    simulator.configure(speed=0)
    task = Task(simulator, "campaign", **settings)
    client = task.client()
    operator = _stopped_when_accepted(task, client, monkeypatch)
    task.run(operator, operator.execute)
    simulator.wait_until(lambda: task.campaign_statuses == ["PAUSED"])
    _join_stopping_threads()
    return task


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "drop", "accept": False},
        {"kind": "reset"},
        {"kind": "status", "status": 500, "accept": True},
        {"kind": "status", "status": 503},
        {"kind": "truncated"},
        {"kind": "rate_limit", "seconds": 1},
    ],
    ids=str,
)
def test_a_pause_and_its_end_survive_a_fault_of_their_route(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """The storm hardly ever stops a task within the seconds for which its campaign has somebody left to call."""
    simulator.fault("updateCampaignStatus", **fault)
    task = _stopped_after_one_part(simulator, monkeypatch, deferrable=True)
    simulator.fault("updateCampaignStatus", **fault)
    assert isinstance(task.try_(), TaskDeferred)
    assert task.campaign_statuses == ["ACTIVE", "ACTIVE"]
    assert all(met["applied"] == 1 for met in simulator.faults())


def test_a_task_that_does_not_wait_lets_go_on_what_it_had_paused(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _stopped_after_one_part(simulator, monkeypatch, wait_for_completion=False)
    assert task.try_()["recipients"] == 5
    assert task.campaign_statuses == ["ACTIVE", "ACTIVE"]


def test_what_was_accepted_goes_on_though_the_rest_is_refused(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _stopped_after_one_part(simulator, monkeypatch)
    simulator.fault("createCampaign", "status", status=400)
    assert isinstance(task.try_(), VolubileRequestRefused)
    assert task.campaign_statuses == ["ACTIVE"]


@pytest.mark.parametrize("status", [402, 403, 409])
def test_what_would_be_refused_for_anybody_refuses_nobody(simulator: Simulator, status: int) -> None:
    task = Task(simulator, "single")
    simulator.fault("createCall", "status", status=status, skip=1)
    assert f"({status})" in str(task.try_())
    assert len(task.times_called) == 1
    assert task.try_()["recipients"] == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_an_agent_switched_off_meanwhile_refuses_nobody(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(simulator, "single")
    client = task.client()
    create = client.create_call

    def one_and_off(*args: Any, **kwargs: Any) -> Any:
        call = create(*args, **kwargs)
        client.update_agent(REMINDER_AGENT_ID, {"active": False})
        return call

    monkeypatch.setattr(client, "create_call", one_and_off)
    assert isinstance(task.try_(client), VolubileRequestRefused)
    assert len(task.times_called) == 1
    client.update_agent(REMINDER_AGENT_ID, {"active": True})
    assert task.try_()["recipients"] == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


@pytest.mark.parametrize("on_unknown", ["resend", "ask"])
def test_a_refusal_of_the_second_sending_says_nothing_of_the_first(simulator: Simulator, on_unknown: str) -> None:
    task = Task(simulator, "single", recipients=PEOPLE[:1], on_unknown=on_unknown)
    simulator.configure(list_lag=2)
    simulator.fault("createCall", "drop", accept=True)
    simulator.fault("createCall", "status", status=400)
    first = task.try_()
    if on_unknown == "ask":
        first = task.answer(SEND)
    assert isinstance(first, VolubileUnknownSubmission | TaskAwaitingInput), first
    simulator.wait_until(lambda: task.client().list_calls().content)
    assert task.try_()["recipients"] == 1
    assert task.times_called == dict.fromkeys(PEOPLE[:1], 1)


def test_people_whose_calls_are_listed_late_are_waited_for(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without ids, and calls that are listed as they are dialled: the first have ended before the last."""
    monkeypatch.setattr(unknown_outcome, "LOOK_AGAIN", timedelta(seconds=0.2))
    simulator.configure(bulk_answer="empty")
    task = Task(simulator, "bulk", timeout=60)
    client = task.client()
    listing, looks = client.list_calls, itertools.count()

    def trickling(**query: Any) -> Any:
        page = listing(**query)
        unlisted = PEOPLE[2:] if next(looks) < 8 else []
        return replace(page, content=tuple(call for call in page.content if call.phone not in unlisted))

    monkeypatch.setattr(client, "list_calls", trickling)
    handle = task.try_(client)
    assert sum(handle["counts"].values()) == len(handle["call_ids"]) == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_a_task_that_does_not_wait_hands_over_the_ids_of_calls_that_are_listed_late(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_outcome, "LOOK_AGAIN", timedelta(seconds=0.2))
    simulator.configure(bulk_answer="empty")
    task = Task(simulator, "bulk", wait_for_completion=False, confirmation_timeout=30)
    client = task.client()
    listing, polls = client.list_calls, itertools.count()

    def late(**query: Any) -> Any:
        page = listing(**query)
        return replace(page, content=()) if next(polls) < 3 else page

    monkeypatch.setattr(client, "list_calls", late)
    assert len(task.try_(client)["call_ids"]) == 5


def test_an_event_that_knows_of_too_few_people_does_not_end_the_wait(simulator: Simulator) -> None:
    """As from the version before, whose triggers waited for the known ids only. One part number is nonsense."""
    task = Task(simulator, "bulk", wait_for_completion=False)
    handle = task.try_()
    task.settings["wait_for_completion"] = True
    event = {
        "status": "over",
        "message": "3 of 3 settled",
        "recipients": 3,
        "settled": 3,
        "in_flight": 0,
        "not_dialed": 0,
        "counts": {"COMPLETED": 3},
        "cancelled": [],
        "missing": [],
        "final": False,
        "found": {"99": ["no-call-of-ours"], "x": ["nor-this"]},
    }
    operator = task.operator()
    result = task.run(operator, lambda context: operator.execute_complete(context, event))
    assert sum(result["counts"].values()) == handle["recipients"] == 5
    assert "NEVER_DIALED" not in result["counts"]


def test_a_person_who_says_it_was_created_has_its_calls_waited_for(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_outcome, "LOOK_AGAIN", timedelta(seconds=0.2))
    simulator.configure(list_lag=2)
    simulator.fault("createBulkCalls", "drop", accept=True)
    task = Task(simulator, "bulk", on_unknown="ask", timeout=60)
    assert isinstance(task.try_(), TaskAwaitingInput)
    handle = task.answer(CREATED)
    assert len(handle["call_ids"]) == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


@KINDS
def test_a_store_that_is_emptied_during_a_pause_makes_no_one_be_called_again(simulator: Simulator, kind: str) -> None:
    task = Task(simulator, kind, deferrable=True, confirmation_timeout=60)
    simulator.configure(list_lag=2)
    simulator.fault(OPERATION[kind], "drop", accept=True)
    assert isinstance(task.try_(), TaskDeferred)
    simulator.wait_until(lambda: task.client().list_calls().content)
    task.store.values.clear()
    operator = task.operator()
    task.tries = 0  # the same try goes on
    task.run(operator, lambda context: operator.resume_submission(context, None))
    assert set(task.times_called.values()) == {1}


def test_an_emptied_store_and_another_agent_make_no_one_be_called_again(simulator: Simulator) -> None:
    task = Task(simulator, "bulk")
    task.try_()
    task.store.values.clear()
    task.settings["agent_id"] = FOLLOW_UP_AGENT_ID
    assert isinstance(task.try_(), VolubileUnknownSubmission)
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_a_first_try_that_failed_before_it_sent_takes_no_other_runs_calls_for_its_own(simulator: Simulator) -> None:
    Task(simulator, "bulk").try_()
    anew = Task(simulator, "bulk")  # that run was deleted, and made anew with its id
    simulator.fault("getAgent", "status", status=400)
    assert isinstance(anew.try_(), VolubileRequestRefused)
    assert anew.try_()["recipients"] == 5
    assert anew.times_called == dict.fromkeys(PEOPLE, 2)


def test_the_handle_tells_what_was_submitted_whatever_the_inputs_say_by_now(simulator: Simulator) -> None:
    task = Task(simulator, "campaign", deferrable=True, redial={"max": 1, "delay": 30, "retry_on": ["NO_ANSWER"]})
    deferred = task.try_()
    assert isinstance(deferred, TaskDeferred)
    simulator.wait_until_quiet(60)
    task.settings |= {"agent_id": FOLLOW_UP_AGENT_ID, "redial": None}
    event = wait(
        task.client(), deferred.trigger.handle, deadline=datetime.now(UTC) + timedelta(seconds=60), poll_interval=0.1
    )
    operator = task.operator()
    handle = task.run(operator, lambda context: operator.execute_complete(context, event))
    assert (handle["agent_id"], handle["redial"]["max"]) == (REMINDER_AGENT_ID, 1)
    assert len(find_calls.find_calls(task.client(), handle, now=datetime.now(UTC))) >= 5


@pytest.mark.parametrize("people", ["", '{"phone": "12"}', None])
def test_a_source_that_is_gone_after_something_was_accepted(
    simulator: Simulator, tmp_path: Path, people: str | None
) -> None:
    source = tmp_path / "people.jsonl"
    source.write_text("\n".join(json.dumps({"phone": phone}) for phone in PEOPLE))
    task = Task(simulator, "bulk", recipients=str(source))
    task.try_()
    source.unlink() if people is None else source.write_text(people)
    told = str(task.try_())
    assert "That try had 5 recipients in 1 requests: 1 were accepted" in told
    assert "This try cannot use what it was given" in told


def test_a_question_tells_all_that_is_needed_to_answer_it(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[str] = []
    monkeypatch.setattr(unknown_outcome, "show_question", lambda _, *, body, **__: bodies.append(body) or True)
    simulator.fault("createCall", "drop", accept=False, skip=2)
    task = Task(simulator, "single", on_unknown="ask")
    assert isinstance(task.try_(), TaskAwaitingInput)
    assert re.search(
        rf"request 3 of 5 \(1 person by agent {REMINDER_AGENT_ID}, sent at [-\d]+ [:\d]+ UTC; "
        r"airflow_ref \w+-3 in their context\)",
        bodies[0],
    )
    assert "Of 5 requests 4 had been accepted" in str(task.answer(STOP, 2))


@pytest.mark.parametrize("cls", [VolubileCreateCampaignOperator, VolubileBulkCallsOperator, VolubileCreateCallOperator])
def test_an_operator_repeats_the_parameters_of_its_base(cls: type[SubmissionOperator]) -> None:
    """They are spelled out for those who type them, and kept in one place for those who read them."""
    own, shared = (
        inspect.signature(each.__init__.__wrapped__).parameters  # type: ignore[misc]
        for each in (cls, SubmissionOperator)
    )
    hidden = {"recipients", "phone_field", "context_fields"} if "phone" in own else set()
    assert shared.keys() - own.keys() == hidden
    assert [name for name in own.keys() & shared.keys() - {"timeout"} if own[name] != shared[name]] == []
    values: dict[str, Any] = {name: object() for name in own.keys() - {"self", "kwargs"}}
    operator = cls(task_id="dial", **values)
    assert {name: getattr(operator, name) for name in values} == values


# --- what reviewers broke ---


@KINDS
def test_a_stopped_task_sends_no_further_request(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """ "Mark failed" was answered; the worker is told with its next heartbeat only, about five seconds later."""
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 1)
    monkeypatch.setattr(submission, "STATE_INTERVAL", 0)
    monkeypatch.setattr(stopping, "is_stopped", lambda ti: len(simulator.submissions()) >= 2)
    task = Task(simulator, kind)
    assert "Stopped while it submitted" in str(task.try_())
    assert len(simulator.submissions()) == 2


def test_the_state_is_asked_for_every_second_of_single_calls(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(stopping, "is_stopped", lambda ti: asked.append(1) or len(asked) > 5)
    Task(simulator, "single").try_()
    assert len(asked) <= 3, "not for each of five calls"


@pytest.mark.parametrize("when", ["a retry", "the end of the wait"])
def test_a_fault_of_the_store_is_no_change_of_the_people(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, when: str
) -> None:
    source = tmp_path / "people.jsonl"
    source.write_text("\n".join(json.dumps({"phone": phone}) for phone in PEOPLE))
    task = Task(simulator, "single", recipients=str(source), outcomes_path=str(tmp_path / "outcomes.csv"))
    if when == "a retry":
        simulator.fault("createCall", "status", status=403, skip=2)  # two are called, and the next try calls the rest
        task.try_()
    reads: list[Any] = []
    read = ObjectStoragePath.read_bytes

    def flaky(path: Any) -> bytes:
        reads.append(path)
        if len(reads) == (1 if when == "a retry" else 2):
            raise OSError("503: slow down")
        return read(path)

    monkeypatch.setattr(ObjectStoragePath, "read_bytes", flaky)
    error = task.try_()
    assert isinstance(error, VolubileUnavailable), error
    assert "cannot be read now (OSError: 503: slow down)" in str(error)
    assert sum(task.try_()["counts"].values()) == 5
    assert task.times_called == dict.fromkeys(PEOPLE, 1)


def test_stop_stays_stop_when_one_pause_fails(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 2)
    simulator.configure(speed=0, lines=1)
    simulator.fault("createCampaign", "drop", accept=False, skip=2)
    task = Task(simulator, "campaign", on_unknown="ask")
    task.try_()
    simulator.fault("updateCampaignStatus", "status", status=409, skip=1)
    answered = task.answer(STOP, 2)
    assert isinstance(answered, VolubileUnknownSubmission), "which is not retried"
    assert "Not everything could be stopped" in str(answered)
    assert sorted(task.campaign_statuses) == ["ACTIVE", "PAUSED"]


def test_a_pause_by_a_person_after_ours_stays(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "CALL_TIME_TOLERANCE", timedelta(0))
    simulator.configure(lines=1)
    task = _stopped_after_one_part(simulator, monkeypatch, deferrable=True)
    (campaign,) = simulator.state()["campaigns"]
    client = task.client()
    before = len(simulator.ledger())
    time.sleep(1.1)  # times are told in seconds
    client.update_campaign_status(campaign["id"], "ACTIVE")
    simulator.configure(speed=3000)
    simulator.wait_until(lambda: len(simulator.ledger()) > before)
    client.update_campaign_status(campaign["id"], "PAUSED")
    task.try_()
    assert task.campaign_statuses[0] == "PAUSED"


@pytest.mark.parametrize("member", ["name", "recipients", "timezone", "agentId"])
def test_extra_fields_hold_nothing_that_the_operator_sends(simulator: Simulator, member: str) -> None:
    task = Task(simulator, "campaign", extra_fields={member: "x"})
    assert f"extra_fields holds {member}, which this operator sends itself" in str(task.try_())
    assert not simulator.submissions()


def _mapped(simulator: Simulator, kind: str, *groups: list[str]) -> list[Task]:
    """A task mapped over lists of people."""
    tasks = [Task(simulator, kind, recipients=people) for people in groups]
    for index, task in enumerate(tasks):
        task.map_index = index
    return tasks


def _cleared_over(tasks: list[Task], *groups: list[str]) -> list[Any]:
    """What tries end with after the run was cleared, and its list has changed. Stores stay with the indexes."""
    tasks += _mapped(tasks[0].simulator, tasks[0].kind, *groups)[len(tasks) :]
    for task, people in zip(tasks, groups, strict=False):
        task.settings["recipients"], task.clear_number = people, 1
        task.max_tries += task.tries
    return [task.try_() for task, _ in zip(tasks, groups, strict=False)]


@pytest.mark.parametrize("kind", ["bulk", "single"])
def test_a_cleared_mapped_task_calls_the_new_person_and_nobody_twice(simulator: Simulator, kind: str) -> None:
    new = "+33639980099"
    tasks = _mapped(simulator, kind, PEOPLE[:2], PEOPLE[2:])
    assert [task.try_()["recipients"] for task in tasks] == [2, 3]
    handles = _cleared_over(tasks, [new], PEOPLE[:2], PEOPLE[2:])
    assert [sum(handle["counts"].values()) for handle in handles] == [1, 2, 3]
    assert tasks[0].times_called == dict.fromkeys([*PEOPLE, new], 1)
    assert [sum(task.try_()["counts"].values()) for task in tasks] == [1, 2, 3], "another try"
    assert tasks[0].times_called == dict.fromkeys([*PEOPLE, new], 1)


def test_a_cleared_mapped_task_refuses_lists_that_were_cut_anew(simulator: Simulator) -> None:
    tasks = _mapped(simulator, "bulk", PEOPLE[:2], PEOPLE[2:])
    assert [task.try_()["recipients"] for task in tasks] == [2, 3]
    refused = _cleared_over(tasks, [*PEOPLE[:1], "+33639980099"], PEOPLE[1:])
    assert "1 of these 2 people were called by this task before its Dag run was cleared" in str(refused[0])
    assert "4 of these 4 people were called" in str(refused[1])
    assert tasks[0].times_called == dict.fromkeys(PEOPLE, 1)


def test_an_emptied_store_of_a_mapped_task_takes_no_calls_of_another_index(simulator: Simulator) -> None:
    first, second = _mapped(simulator, "bulk", PEOPLE[:2], PEOPLE[2:])
    first.try_()
    second.tries = 1  # it left nothing
    assert second.try_()["recipients"] == 3
    second.store.values.clear()
    assert sum(second.try_()["counts"].values()) == 3
    assert second.times_called == dict.fromkeys(PEOPLE, 1)


def test_a_cleared_mapped_campaign_that_may_exist_is_not_created_again(simulator: Simulator) -> None:
    simulator.configure(speed=0, list_lag=3600)  # as if it had not dialled
    tasks = _mapped(simulator, "campaign", PEOPLE[:2])
    tasks[0].settings |= {"wait_for_completion": False}
    tasks[0].try_()
    refused = _cleared_over(tasks, ["+33639980099"], PEOPLE[:2])
    assert all("has no record of these people" in str(error) for error in refused)
    assert len(simulator.state()["campaigns"]) == 1


@KINDS
def test_a_run_made_anew_takes_no_calls_of_the_deleted_one(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its first try dies before it could write anything down."""
    monkeypatch.setattr(find_calls, "CALL_TIME_TOLERANCE", timedelta(0))
    Task(simulator, kind).try_()
    anew = Task(simulator, kind)
    time.sleep(1.1)  # times are told in seconds
    anew.began = datetime.now(UTC)
    anew.tries = 1  # it left nothing
    assert anew.try_()["recipients"] == 5
    assert anew.times_called == dict.fromkeys(PEOPLE, 2)


@KINDS
def test_another_installation_takes_no_calls_for_its_own(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    Task(simulator, kind).try_()
    staging = Task(simulator, kind)
    monkeypatch.setenv("AIRFLOW_VAR_VOLUBILE_INSTALLATION", "staging")
    staging.tries = 1
    assert staging.try_()["recipients"] == 5
    assert staging.times_called == dict.fromkeys(PEOPLE, 2)


def test_an_installation_gets_its_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "Variable", Variables())
    assert installation.installation_id() == installation.installation_id()


@KINDS
def test_an_emptied_store_tells_the_outcomes_of_the_latest_submission(simulator: Simulator, kind: str) -> None:
    task = Task(simulator, kind, allow_resubmit=True)
    task.try_()
    time.sleep(1.1)  # times are told in seconds
    task.max_tries += 1
    second = task.try_()
    assert task.times_called == dict.fromkeys(PEOPLE, 2)
    task.store.values.clear()
    again = task.try_()
    key = "campaigns" if kind == "campaign" else "call_ids"
    names = [each["name"] for each in second[key]] if kind == "campaign" else second[key]
    assert [each["name"] for each in again[key]] == names if kind == "campaign" else set(again[key]) == set(names)
    assert task.times_called == dict.fromkeys(PEOPLE, 2)


@KINDS
def test_waiting_for_the_rate_window_is_no_freeze(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The window stays full for longer than a request may be old."""

    class Full(RateWindow):
        waited = False

        def wait_for_place(self) -> None:
            time.sleep(0.6)
            self.waited = True

        def acquire(self, *, background: bool = False) -> None:
            if not self.waited:
                time.sleep(0.6)
            self.waited = False
            super().acquire(background=background)

    monkeypatch.setattr(sending_parts, "SEND_WITHIN", 0.5)
    task = Task(simulator, kind)
    keys = ApiKeyPair(simulator.primary_key, simulator.secondary_key, name="test")
    assert task.try_(VolubileClient(simulator.url, keys, window=Full(limit=100_000)))["recipients"] == 5


@pytest.mark.parametrize(("timeout", "days"), [(None, 7 + 14), (3600, 0)])
def test_a_campaign_is_waited_for_as_long_as_its_schedule_needs(
    simulator: Simulator, capfd: pytest.CaptureFixture[str], timeout: float | None, days: int
) -> None:
    """Five people, one a day, on weekdays: nobody sets a timeout by counting that."""
    settings = {} if timeout is None else {"timeout": timeout}
    task = Task(simulator, "campaign", batch_size=1, days=["MONDAY", "TUESDAY"], deferrable=True, **settings)
    deferred = task.try_()
    assert isinstance(deferred, TaskDeferred)
    left = datetime.fromisoformat(deferred.trigger.deadline) - datetime.now(UTC)
    assert days <= left.days <= days + 7
    assert ("raise timeout, batch_size or the hours" in "".join(capfd.readouterr())) == (timeout is not None)
