"""No sequence of crashes, retries, clears and lost answers calls anyone twice, and nobody is forgotten.

The real operators and journal run against a model of the service that knows the truth. Hypothesis decides
what happens: where a process dies, which answers are lost before or after the request was taken, how late calls show
up in the list, what people do. Time is the model's own. The same machine with a protection switched off must find
somebody who is called twice, or the machine could not fail.
"""

from __future__ import annotations

import itertools
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.models import AcceptedCall, Agent, Call, Campaign, Page
from airflow_provider_volubile.calling import journal as submissions
from airflow_provider_volubile.calling import kinds, sending_parts, stopping, unknown_outcome
from airflow_provider_volubile.calling.journal import PENDING, SubmissionJournal
from airflow_provider_volubile.calling.unknown_outcome import CREATED, SEND, STOP
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputsChanged,
    VolubileNotFound,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
    VolubileUnknownSubmission,
)
from airflow_provider_volubile.operators import submission
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.submission import SubmissionOperator
from airflow_provider_volubile.waiting import find_calls, polling
from airflow_provider_volubile.waiting.poll_round import poll_once
from airflow_provider_volubile.waiting.polling import Wait
from tests.unit import fakes

AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
PHONES = [f"+3363998{n:04d}" for n in range(5)]
#: What the list of people may look like: the same, shorter, in another order, longer.
INPUTS = [PHONES, PHONES[:4], PHONES[::-1], [*PHONES, "+33639980099"]]
#: Another task of Airflow, and somebody who knows nothing of it.
CONTEXTS_OF_OTHERS = [{"name": "Lucie", "airflow_ref": "0123456789abcdef-1"}, {"name": "Lucie"}]
CONFIRMATION_TIMEOUT = 300
CALL_LENGTH = timedelta(seconds=60)
# Longer than looking lasts: calls may also show up when nobody looks for them any more.
LAGS = (0, 0, 30, 200, 1000)
START = datetime(2025, 11, 24, 9, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process was killed."""


class CalledTwice(AssertionError):
    """What must never happen."""


class ModelTime(datetime):
    """``datetime`` whose present is the model's."""

    present: ClassVar[datetime] = START

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return ModelTime.present.astimezone(tz)

    @staticmethod
    def sleep(seconds: float) -> None:
        ModelTime.present += timedelta(seconds=seconds)


class Store(fakes.Store):
    """The process may die before and after it writes."""

    def __init__(self, die: Callable[[], None]) -> None:
        super().__init__()
        self._die = die

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._die()
        super().set(key, value, retention=retention)
        self._die()


class Service:
    """Volubile: it knows who was called, and may be slow to show it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, str | None, datetime]] = []  # call, campaign, when it shows up in the list
        self.campaigns: dict[str, str] = {}
        #: Calls of the same people that somebody else had this agent place.
        self.others: list[Call] = []
        #: Calls before this one were called again on purpose.
        self.since = 0
        self._ids = itertools.count(1)

    def take(self, people: Sequence[Any], lag: int, campaign: str | None = None) -> list[str]:
        now = ModelTime.present
        ids = []
        for person in people:
            body = wire.recipient_body(person)
            call = Call(
                id=f"call-{next(self._ids)}",
                agentId=AGENT,
                phone=body["phone"],
                type="OUTBOUND",
                status="COMPLETED",
                created=now,
                context=body["context"],
            )
            self.calls.append((call, campaign, now + timedelta(seconds=lag)))
            ids.append(call.id)
        if counts := {phone: n for phone, n in self.dialled.items() if n > 1}:
            raise CalledTwice(counts)
        return ids

    def others_call(self, phone: str, context: dict[str, str]) -> None:
        self.others.append(
            Call(
                id=f"other-{next(self._ids)}",
                agentId=AGENT,
                phone=phone,
                type="OUTBOUND",
                status="COMPLETED",
                created=ModelTime.present,
                context=context,
            )
        )

    @property
    def dialled(self) -> Counter[str]:
        return Counter(str(call.phone) for call, _, _ in self.calls[self.since :])


class Client:
    """A client of the model: the network may lose what it carries, and the process may die meanwhile."""

    def __init__(self, service: Service, world: World) -> None:
        self._service = service
        self._world = world

    def get_agent(self, agent_id: str) -> Agent:
        return Agent(id=agent_id, name="Model", type="OUTBOUND", active=True)

    def wait_for_place(self) -> None:
        pass

    def create_campaign(self, request: dict[str, Any], *, not_after: float) -> Campaign:
        def take(lag: int) -> Campaign:
            identifier = f"campaign-{len(self._service.campaigns) + 1}"
            self._service.campaigns[identifier] = request["name"]
            self._service.take(request["recipients"], lag, request["name"])
            return Campaign(id=identifier, name=request["name"], status="ACTIVE")

        campaign: Campaign
        campaign, told = self._send(take)
        if not told:
            raise VolubileUnknownOutcome("accepted, but its id is not told", accepted=True)
        return campaign

    def create_bulk_calls(self, agent_id: str, people: Sequence[Any], *, not_after: float) -> list[AcceptedCall]:
        ids, told = self._send(lambda lag: self._service.take(people, lag))
        return [AcceptedCall(id=call_id) for call_id in ids[: None if told else 1]]

    def create_call(self, agent_id: str, person: Any, *, not_after: float) -> AcceptedCall:
        ids, told = self._send(lambda lag: self._service.take([person], lag))
        return AcceptedCall(id=ids[0] if told else None)

    def _send(self, take: Callable[[int], Any]) -> tuple[Any, bool]:
        weather = self._world.weather
        fate = weather.fates.pop(0) if weather.fates else "answered"
        if fate == "refused":
            raise VolubileRequestRefused("refused", status=400, reason="not callable")
        if fate == "unavailable":
            raise VolubileUnavailable("not a byte was sent")
        self._world.may_die()
        if fate == "lost":
            raise VolubileUnknownOutcome("lost on the way there")
        answer = take(weather.lags.pop(0) if weather.lags else 0)
        self._world.may_die()
        if fate == "taken":
            raise VolubileUnknownOutcome("lost on the way back")
        return answer, fate != "untold"

    def list_calls(self, *, page: int, size: int, **filters: Any) -> Page[Call]:
        if self._world.weather.list_fails:
            self._world.weather.list_fails -= 1
            raise VolubileUnavailable("the list failed")
        now = ModelTime.present
        everything = [*self._service.calls, *((call, None, now) for call in self._service.others)]
        shown = [
            call if now - (call.created or now) >= CALL_LENGTH else call.model_copy(update={"status": "IN_PROGRESS"})
            for call, campaign, visible in sorted(everything, key=lambda entry: entry[0].created or now, reverse=True)
            if visible <= now
            and filters.get("campaign") in (None, campaign)
            and filters.get("phone") in (None, call.phone)
        ]
        content = tuple(shown[(page - 1) * size : page * size])
        return Page(content, page=page, received=len(content))

    def get_call(self, call_id: str) -> Call:
        found = [call for call in self.list_calls(page=1, size=sys.maxsize).content if call.id == call_id]
        if not found:
            raise VolubileNotFound("not listed yet")
        return found[0]

    def get_campaign(self, campaign_id: str) -> Campaign:
        return Campaign(id=campaign_id, name=self._service.campaigns[campaign_id], status="ACTIVE")


FATES = ["answered", "lost", "taken", "untold", "refused", "unavailable"]


@dataclass
class Weather:
    """What goes wrong in one process: nothing, when it is all used up.

    :param dies_in: it is killed after so many steps.
    :param fates: what becomes of each request that dials.
    :param lags: how long the calls of each take to show up in the list, in seconds.
    :param list_fails: how many looks fail.
    """

    dies_in: int | None = None
    fates: list[str] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    list_fails: int = 0


WEATHER = st.builds(
    Weather,
    dies_in=st.none() | st.integers(0, 2) | st.integers(0, 24),
    fates=st.lists(st.sampled_from(FATES), max_size=4),
    lags=st.lists(st.sampled_from(LAGS), max_size=4),
    list_fails=st.sampled_from([0, 0, 0, 1]),
)


class World(RuleBasedStateMachine):
    """One task of one Dag run, from its first try to its end."""

    #: Whether the store loses everything between two tries.
    forgets = False
    here: ClassVar[World]
    question: str | None
    #: Whether reports are held against the truth: only with all protections on.
    tells_the_truth = True

    @initialize(
        kind=st.sampled_from(["campaign", "bulk", "single"]),
        on_unknown=st.sampled_from(["fail", "ask"]),
        deferrable=st.booleans(),
        allow_resubmit=st.booleans(),
    )
    def begin(self, kind: str, on_unknown: str, deferrable: bool, allow_resubmit: bool) -> None:
        World.here, self.question = self, None
        ModelTime.present = START
        self.weather = Weather()
        self.kind, self.on_unknown, self.deferrable = kind, on_unknown, deferrable
        self.allow_resubmit = allow_resubmit
        self.service = Service()
        self.store = Store(self.may_die)
        self.people = PHONES
        self.state = "scheduled"
        self.tries, self.max_tries = 0, 3
        self.stopped: TaskDeferred | TaskAwaitingInput | None = None
        self.failure: BaseException | None = None

    # What the machine may do ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.state == "scheduled")
    @rule(weather=WEATHER)
    def a_try_begins(self, weather: Weather) -> None:
        self.tries += 1
        if self.forgets:
            self.store.values.clear()
        self._process(weather, lambda operator, context: operator.execute(context))

    @precondition(lambda self: self.state == "deferred")
    @rule(weather=WEATHER)
    def it_resumes(self, weather: Weather) -> None:
        deferred = self.stopped
        assert isinstance(deferred, TaskDeferred)
        if deferred.method_name == "resume_submission":
            moment = datetime.fromtimestamp(deferred.trigger.moment.timestamp(), UTC)
            ModelTime.present = max(ModelTime.present, moment)
            self._process(
                weather,
                lambda operator, context: getattr(operator, deferred.method_name)(context, event=None),
            )
        elif event := self._trigger_fires():
            self._process(weather, lambda operator, context: operator.execute_complete(context, event))

    @rule(seconds=st.sampled_from([1, 20, 60, 299, 1000]))
    def time_passes(self, seconds: int) -> None:
        ModelTime.sleep(seconds)

    @precondition(lambda self: self.state in ("failed", "success", "deferred", "awaiting"))
    @rule()
    def somebody_clears_it(self) -> None:
        # Also after a failure: the worker may have died right after the end (docs/reliability.rst).
        journal = SubmissionJournal.resume(self.store)
        if self.allow_resubmit and journal is not None and journal.head.completed is not None:
            self.service.since = len(self.service.calls)
        self.state = "scheduled"
        self.max_tries = self.tries + 3

    @precondition(lambda self: self.state in ("deferred", "awaiting"))
    @rule()
    def somebody_marks_it_failed(self) -> None:
        self.state, self.failure = "failed", None

    @precondition(lambda self: self.state == "awaiting")
    @rule(weather=WEATHER, stops=st.booleans(), names_it=st.booleans(), looked_early=st.booleans())
    def somebody_answers(self, weather: Weather, stops: bool, names_it: bool, looked_early: bool = False) -> None:
        """Somebody says what is the case, or what was: before the calls showed up."""
        waiting_for = self.stopped
        assert isinstance(waiting_for, TaskAwaitingInput)
        parts = self._parts(self._submitted())
        visible = {call.phone for call, _, visible in self.service.calls if visible <= ModelTime.present}
        created = [
            number
            for number in self._asked_about()
            if any(self.service.dialled[person] for person in parts[number])
            and not (looked_early and visible & set(parts[number]))
        ]
        is_mixed = 0 < len(created) < len(self._asked_about())
        can_name = names_it and self.kind == "campaign"
        id_of = {name: identifier for identifier, name in self.service.campaigns.items()}
        journal = self._journal()
        event = {
            # One answer is about all requests: when they differ, only the ids of campaigns can tell them apart.
            "chosen_options": [
                STOP if stops or (is_mixed and not can_name) else SEND if is_mixed or not created else CREATED
            ],
            "params_input": {"id": ", ".join(id_of[str(journal[each].name)] for each in created) if can_name else ""},
        }
        kwargs = waiting_for.kwargs or {}
        self._process(weather, lambda operator, context: operator.answered(context, event, **kwargs))

    @rule(phone=st.sampled_from(PHONES), context=st.sampled_from(CONTEXTS_OF_OTHERS))
    def somebody_else_calls(self, phone: str, context: dict[str, str]) -> None:
        self.service.others_call(phone, context)

    @rule(people=st.sampled_from(INPUTS))
    def the_input_changes(self, people: list[str]) -> None:
        self.people = people

    def _asked_about(self) -> list[int]:
        """The requests that the question on the screen names."""
        named = re.findall(r"campaign '[^']*-(\d+)\]'|request (\d+) of", self.question or "")
        assert named, self.question
        return [int(campaign or request) - 1 for campaign, request in named]

    def shows(self, body: str) -> bool:
        """As Airflow's UI does: the first question of a task stays, whatever is asked later."""
        self.question = self.question or body
        return self.question == body

    # How it does it --------------------------------------------------------------------------------------------------

    def may_die(self) -> None:
        if self.weather.dies_in is not None:
            self.weather.dies_in -= 1
            if self.weather.dies_in < 0:
                raise Crash

    def _process(self, weather: Weather, step: Callable[[SubmissionOperator, Any], Any]) -> None:
        self.weather = weather
        operator = self._operator()
        ExecutorSafeguard.tracker.set(operator)
        context = {
            "ti": SimpleNamespace(
                dag_id="dag",
                run_id="run",
                task_id="call",
                map_index=-1,
                id=self.tries,
                try_number=self.tries,
                max_tries=self.max_tries,
            ),
            "dag_run": SimpleNamespace(run_after=START - timedelta(seconds=1)),
            "task_state_store": self.store,
        }
        self.stopped = self.failure = None
        try:
            handle = step(operator, context)
        except TaskDeferred as deferred:
            self.state, self.stopped = "deferred", deferred
        except TaskAwaitingInput as question:
            self.state, self.stopped = "awaiting", question
        except AirflowFailException as failure:
            self.state, self.failure = "failed", failure.__cause__
        except (Crash, VolubileError):
            self.state = "scheduled"  # retries never run out here
        except IndexError:
            assert not self.tells_the_truth  # changed inputs have fewer parts than the journal
            self.state = "scheduled"
        else:
            self.state = "success"
            if self.tells_the_truth:
                self._check(handle)
        finally:
            self.weather = Weather()

    def _operator(self, people: list[str] | None = None) -> SubmissionOperator:
        settings: dict[str, Any] = {
            "task_id": "call",
            "agent_id": AGENT,
            "recipients": [{"phone": phone, "name": "Lucie"} for phone in people or self.people],
            "on_unknown": self.on_unknown,
            "confirmation_timeout": CONFIRMATION_TIMEOUT,
            "deferrable": self.deferrable,
            "allow_resubmit": self.allow_resubmit,
        }
        operator: SubmissionOperator
        if self.kind == "campaign":
            operator = VolubileCreateCampaignOperator(name="Tyres", time_slots=["08:00-20:00"], **settings)
        else:
            operator = VolubileBulkCallsOperator(submit_as=self.kind, **settings)  # type: ignore[arg-type]
        operator.__dict__["hook"] = SimpleNamespace(client=lambda: Client(self.service, self))
        return operator

    def _trigger_fires(self) -> Any:
        """What the triggerer would tell after one round, if it had something to tell."""
        deferred = self.stopped
        assert isinstance(deferred, TaskDeferred)
        waiting = Wait.of(deferred.trigger.handle, wait_for="ended", poll_interval=30)
        poll_once(self._operator().hook.client(), waiting.watches, now=ModelTime.present)
        waiting.update(ModelTime.present)
        is_late = datetime.fromisoformat(deferred.trigger.deadline) <= ModelTime.present
        return waiting.event() if waiting.error or waiting.is_over or is_late else None

    def _journal(self) -> SubmissionJournal:
        journal = SubmissionJournal.resume(self.store)
        assert journal is not None
        return journal

    def _parts(self, people: list[str]) -> list[list[str]]:
        size = 1 if self.kind == "single" else wire.MAX_RECIPIENTS
        return [people[start : start + size] for start in range(0, len(people), size)]

    def _submitted(self) -> list[str]:
        """The input that the journal is about."""
        for people in INPUTS:
            operator = self._operator(people)
            kind = operator.make_kind()
            try:
                SubmissionJournal.open(
                    self.store,
                    prefixes=lambda: submissions.prefixes("dag", "run", "call", "tests"),
                    kind=kind.kind,
                    agent_id=AGENT,
                    parts=kind.cut(operator._read_recipients().accepted),
                    now=ModelTime.present,
                    settings=kind.settings,
                )
            except VolubileInputsChanged:
                continue
            return people
        raise AssertionError("no input fits the journal")

    def _check(self, handle: Any) -> None:
        """The handle of a success tells the truth, and everybody is accounted for."""
        calls = self.service.calls[self.service.since :]
        dialled, people = self.service.dialled, self._submitted()
        assert set(dialled) <= set(people)
        assert handle["recipients"] == len(dialled)
        assert handle["recipients"] + handle["rejected"] == len(people)
        assert handle["counts"] == {"COMPLETED": len(dialled)}
        if self.kind == "campaign":
            assert {campaign["name"] for campaign in handle["campaigns"]} == {name for _, name, _ in calls}
        else:
            assert sorted(handle["call_ids"]) == sorted(call.id for call, _, _ in calls)

    def teardown(self) -> None:
        """When nothing goes wrong any more, everybody is called or somebody is told who may not have been."""
        if not hasattr(self, "state") or not self.tells_the_truth:
            return
        journal = SubmissionJournal.resume(self.store)
        if journal is not None and any(record != PENDING for record in journal):
            self.people = self._submitted()
        for _ in range(40):
            ModelTime.sleep(1000)
            match self.state:
                case "success":
                    return
                case "scheduled":
                    self.a_try_begins(Weather())
                case "deferred":
                    self.it_resumes(Weather())
                case "awaiting":
                    self.somebody_answers(Weather(), stops=False, names_it=True)
                case "failed" if isinstance(self.failure, VolubileUnknownSubmission) and self.on_unknown != "resend":
                    self.somebody_clears_it()
                    self.a_try_begins(Weather())
                    if self.state == "failed" and isinstance(self.failure, VolubileUnknownSubmission):
                        self._check_unknown()
                        return
                case "failed":
                    self.somebody_clears_it()
        raise AssertionError(f"It never ends: {self.state}, {self.failure!r}")

    def _check_unknown(self) -> None:
        """What is reported as unknown was really not taken, and what was not sent was not either."""
        assert isinstance(self.failure, VolubileUnknownSubmission)
        for part, record in zip(self._parts(self.people), self._journal(), strict=True):
            times = {self.service.dialled[person] for person in part}
            assert times == ({1} if record.state == "accepted" else {0})


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The modules under test live in the model's time, and cut people in parts of two."""
    for module in (submission, sending_parts, kinds, find_calls, polling):
        monkeypatch.setattr(module, "datetime", ModelTime)
    for module in (submission, polling):
        monkeypatch.setattr(module, "time", ModelTime)
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 2)
    monkeypatch.setattr(unknown_outcome, "show_question", lambda ti_id, *, body, **_: World.here.shows(body))
    monkeypatch.setattr(stopping, "resume_campaigns", lambda client, campaigns: None)
    monkeypatch.setattr(stopping, "stop_campaigns", lambda hook, campaigns, action: None)
    logging.disable()
    monkeypatch.setattr(SubmissionOperator, "log", logging.getLogger(__name__))
    # Three records a block, so that blocks matter.
    monkeypatch.setattr(submissions, "IDS_PER_BLOCK", 3)
    yield monkeypatch
    logging.disable(logging.NOTSET)


QUICK = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_no_sequence_calls_anyone_twice_or_forgets_anyone(model: pytest.MonkeyPatch) -> None:
    run_state_machine_as_test(World, settings=QUICK)


def _forgetting_store(model: pytest.MonkeyPatch) -> None:
    model.setattr(World, "forgets", True)
    model.setattr(find_calls, "find_reference", lambda *_, **__: None)


def _not_written_before_sending(model: pytest.MonkeyPatch) -> None:
    def begin(journal: SubmissionJournal, part: int, *, now: datetime, name: str | None = None) -> None:
        """Only remembered in the process."""
        journal._records[part] = submissions.PartRecord("in_flight", now, name=name)

    model.setattr(SubmissionJournal, "begin", begin)


def _in_flight_is_sent_again(model: pytest.MonkeyPatch) -> None:
    load = submissions.PartRecord.load.__func__  # type: ignore[attr-defined]

    def forgetful(cls: type, value: Any) -> Any:
        record = load(cls, value)
        return PENDING if record.state == "in_flight" else record

    model.setattr(submissions.PartRecord, "load", classmethod(forgetful))


def _changed_inputs_are_sent(model: pytest.MonkeyPatch) -> None:
    model.setattr(submissions, "fingerprint", lambda *_: "the same")


@pytest.mark.slow
@pytest.mark.parametrize(
    "switch_off",
    [
        _forgetting_store,
        _not_written_before_sending,
        _in_flight_is_sent_again,
        _changed_inputs_are_sent,
    ],
    ids=lambda function: function.__name__.strip("_"),
)
def test_without_a_protection_somebody_is_called_twice(
    model: pytest.MonkeyPatch, switch_off: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The machine can fail: it finds a second call as soon as one part of the journal is switched off."""
    switch_off(model)
    model.setattr(World, "tells_the_truth", False)
    searching = settings(QUICK, max_examples=1000, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises(CalledTwice):
        run_state_machine_as_test(World, settings=searching)


def _dies_between_the_end_and_its_report() -> None:
    world = World()
    world.begin(kind="single", on_unknown="fail", deferrable=True, allow_resubmit=True)
    world.a_try_begins(Weather())
    world.time_passes(60)
    world.it_resumes(Weather(dies_in=1))
    assert world._journal().head.completed is not None
    assert world.state == "scheduled"
    world.a_try_begins(Weather())
    assert world.state == "success"
    world.somebody_clears_it()
    world.a_try_begins(Weather())
    assert len(world.service.calls) == 2 * len(PHONES)


def test_a_retry_after_the_end_is_no_clear(model: pytest.MonkeyPatch) -> None:
    """``allow_resubmit`` calls everyone again when somebody clears the task, and never because a worker died."""
    _dies_between_the_end_and_its_report()


def test_taking_a_retry_for_a_clear_is_found_out(model: pytest.MonkeyPatch) -> None:
    opened = SubmissionJournal.open.__func__  # type: ignore[attr-defined]

    def careless(cls: Any, /, store: Store, **kwargs: Any) -> Any:
        return opened(cls, store, **{**kwargs, "max_tries": -1})

    model.setattr(SubmissionJournal, "open", classmethod(careless))
    with pytest.raises(CalledTwice):
        _dies_between_the_end_and_its_report()


def _a_second_question_would_be_needed() -> World:
    """Three requests are lost, so that no more are sent; then a fourth one is taken, and listed very late."""
    world = World()
    world.begin(kind="single", on_unknown="ask", deferrable=False, allow_resubmit=False)
    world.a_try_begins(Weather(fates=["lost"] * 3))
    assert world.state == "awaiting"
    assert "(2 requests after them were not sent)" in (world.question or "")
    fates, lags = ["answered"] * 3 + ["taken"], [0, 0, 0, 1000]
    world.somebody_answers(Weather(fates=fates, lags=lags), stops=False, names_it=False)
    if world.state == "awaiting":
        world.somebody_answers(Weather(), stops=False, names_it=False, looked_early=True)
    return world


def test_nobody_is_asked_about_a_request_that_the_question_does_not_name(model: pytest.MonkeyPatch) -> None:
    world = _a_second_question_would_be_needed()
    assert isinstance(world.failure, VolubileUnknownSubmission)
    assert "request 4 of 5" in str(world.failure)
    assert "nobody is asked about this one" in str(world.failure)


def _somebody_answers_late(kind: str) -> World:
    """Somebody looked before the calls showed up, and has the request sent after they did."""
    world = World()
    world.begin(kind=kind, on_unknown="ask", deferrable=False, allow_resubmit=False)
    world.a_try_begins(Weather(fates=["taken"], lags=[1000]))
    assert world.state == "awaiting"
    world.time_passes(1000)
    world.somebody_answers(Weather(), stops=False, names_it=False, looked_early=True)
    return world


@pytest.mark.parametrize("kind", ["campaign", "bulk", "single"])
def test_an_outdated_answer_sends_nothing_again(model: pytest.MonkeyPatch, kind: str) -> None:
    assert _somebody_answers_late(kind).state == "success"


@pytest.mark.parametrize("kind", ["campaign", "bulk", "single"])
def test_sending_again_without_a_look_is_found_out(model: pytest.MonkeyPatch, kind: str) -> None:
    model.setattr(SubmissionJournal, "resend", lambda journal, *parts: journal.release(*parts))
    with pytest.raises(CalledTwice):
        _somebody_answers_late(kind)


def _a_call_of_others_is_there() -> World:
    """A request is lost on its way, and somebody else has the same people called meanwhile."""
    world = World()
    world.begin(kind="bulk", on_unknown="fail", deferrable=False, allow_resubmit=False)
    for phone in PHONES:
        world.somebody_else_calls(phone, CONTEXTS_OF_OTHERS[1])
    world.a_try_begins(Weather(fates=["lost"]))
    return world


def test_calls_of_others_are_not_taken_for_ours(model: pytest.MonkeyPatch) -> None:
    assert isinstance(_a_call_of_others_is_there().failure, VolubileUnknownSubmission)


def test_taking_calls_of_others_for_ours_is_found_out(model: pytest.MonkeyPatch) -> None:
    def careless(client: Client, *wanted: Any, **filters: Any) -> Any:
        def without_contexts(**query: Any) -> Page[Call]:
            page = client.list_calls(**query)
            return replace(page, content=tuple(call.model_copy(update={"context": {}}) for call in page.content))

        return find_calls.find_our_calls(SimpleNamespace(list_calls=without_contexts), *wanted, **filters)  # type: ignore[arg-type]

    model.setattr(kinds, "find_our_calls", careless)
    with pytest.raises(AssertionError):
        _a_call_of_others_is_there()


def test_taking_an_answer_for_that_to_another_question_is_found_out(model: pytest.MonkeyPatch) -> None:
    model.setattr(unknown_outcome, "show_question", lambda ti_id, *, body, **_: World.here.shows(body) or True)
    with pytest.raises(CalledTwice):
        _a_second_question_would_be_needed()
