"""No one is called twice and no one is forgotten: lost answers, clears, changed inputs. The ledger is the judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator, task

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import Ran, RunDag
from tests.airflow.helpers import REMINDER, Failures

pytestmark = pytest.mark.airflow

OPERATION = {"campaign": "createCampaign", "bulk": "createBulkCalls", "single": "createCall", "call": "createCall"}
PEOPLE = [f"+3363998{number:04d}" for number in range(5)]


@pytest.fixture(autouse=True)
def _fast(simulator: Simulator) -> None:
    simulator.configure(speed=3000, dial_interval=0)


def ways(*ways: str) -> pytest.MarkDecorator:
    """Kinds of submissions, each ``deferred`` or in its ``worker``.

    Once is enough for each: tests/unit/test_submitting.py and the model try every kind both ways, without Airflow.
    """
    pairs = [(kind, where == "deferred") for kind, where in (way.split() for way in ways)]
    return pytest.mark.parametrize(("kind", "deferrable"), pairs, ids=ways)


def dialling(kind: str, people: Any = PEOPLE, **changes: Any) -> BaseOperator:
    """A task that calls people: with a campaign, a bulk request, a request for each of them, or the first one only."""
    settings = {
        "task_id": "dial",
        "agent_id": REMINDER,
        "poll_interval": 0.2,
        "confirmation_timeout": 1,
        "retry_delay": timedelta(0),
    } | changes
    if kind == "campaign":
        return VolubileCreateCampaignOperator(name="Tyres", recipients=people, time_slots=["09:00-12:00"], **settings)
    if kind == "call":
        return VolubileCreateCallOperator(phone=people[0], **settings)
    return VolubileBulkCallsOperator(recipients=people, submit_as=kind, **settings)


def cleared_after(operator: BaseOperator, *steps: Callable[[Any], object]) -> None:
    """Each time ``operator`` has ended, show its handle to the next step and clear it, as a person does."""
    last = operator
    for number, step in enumerate(steps):

        @task(task_id=f"step_{number}", trigger_rule="all_done")
        def clear(step: Callable[[Any], object] = step, **context: Any) -> None:
            from airflow.models.taskinstance import TaskInstance, clear_task_instances
            from airflow.utils.session import create_session
            from sqlalchemy import select

            step(context["ti"].xcom_pull(task_ids=operator.task_id))
            run = context["dag_run"]
            query = select(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id=operator.task_id)
            with create_session() as session:
                clear_task_instances(list(session.scalars(query)), session)

        cleared = clear().operator
        operator >> cleared
        if last is not operator:
            last >> cleared
        last = cleared


def sent(simulator: Simulator, kind: str) -> int:
    """How many requests arrived that would have people called, whatever became of them."""
    return sum(entry["operation"] == OPERATION[kind] for entry in simulator.requests())


def times_called(simulator: Simulator) -> dict[str, int]:
    return dict(Counter(entry["phone"] for entry in simulator.ledger()))


def check(ran: Ran, simulator: Simulator, kind: str, *, calls: int = 1) -> None:
    """The task succeeded, everyone was called so many times, and the handle tells the truth about the last time."""
    assert ran.task("dial").state == "success"
    people = PEOPLE[:1] if kind == "call" else PEOPLE
    assert times_called(simulator) == dict.fromkeys(people, calls)
    latest = simulator.ledger()[-len(people) :]
    handle = ran.xcom("dial")
    assert (handle["recipients"], handle["rejected"]) == (len(people), 0)
    assert handle["counts"] == Counter(entry["status"] for entry in latest)
    if kind == "campaign":
        assert {campaign["name"] for campaign in handle["campaigns"]} == {entry["campaign_name"] for entry in latest}
    else:
        assert set(handle["call_ids"]) == {entry["call_id"] for entry in latest}


# --- lost answers ---


@ways("campaign deferred", "call worker")
def test_what_was_taken_is_found_by_the_next_try(
    run_dag: RunDag, simulator: Simulator, kind: str, deferrable: bool
) -> None:
    simulator.fault(OPERATION[kind], "drop")  # after it took effect
    simulator.fault("listCalls", "malformed")  # and this try finds nothing out
    ran = run_dag(lambda: dialling(kind, deferrable=deferrable, retries=1))
    assert ran.task("dial").try_number == 2
    check(ran, simulator, kind)
    assert sent(simulator, kind) == 1


@ways("campaign deferred", "single worker")
def test_what_is_not_found_fails_without_a_retry_and_says_how_to_go_on(
    run_dag: RunDag, simulator: Simulator, kind: str, deferrable: bool
) -> None:
    taken_before = 1 if kind == "single" else 0
    simulator.fault(OPERATION[kind], "drop", skip=taken_before)
    simulator.configure(list_lag=3600)
    failures = Failures()
    requests = []

    def calls_appear(_: Any) -> None:
        requests.append(sent(simulator, kind))
        simulator.configure(list_lag=0)

    def make() -> None:
        dial = dialling(kind, deferrable=deferrable, retries=3, on_failure_callback=failures)
        cleared_after(dial, calls_appear)

    ran = run_dag(make)
    sent_at_once = 5 if kind == "single" else 1
    assert requests == [sent_at_once], "three retries were left, and none of them sent anything"
    assert ran.task("dial").try_number == 2
    what = "campaign 'Tyres [" if kind == "campaign" else f"request {taken_before + 1} of {5 if taken_before else 1} "
    for said in (
        f"It is not known whether {what}",
        "its answer was lost",
        "no call of it appeared within 1 s of looking. It was not sent again.",
        "Look for it in Volubile's dashboard. Then clear this task, keeping its state: it looks once more",
        "with on_unknown='ask' it asks",
        "with on_unknown='resend' it sends the request again, once",
    ):
        assert said in failures["dial"]
    check(ran, simulator, kind)
    assert sent(simulator, kind) == sent_at_once


@pytest.mark.parametrize("losses", [1, 2])
@ways("bulk deferred")
def test_it_is_sent_again_exactly_once_where_that_is_wanted(
    run_dag: RunDag, simulator: Simulator, kind: str, deferrable: bool, losses: int
) -> None:
    simulator.fault(OPERATION[kind], "drop", accept=False, times=losses)
    failures = Failures()

    def make() -> None:
        dial = dialling(
            kind,
            deferrable=deferrable,
            on_unknown="resend",
            confirmation_timeout=2 - losses,
            retries=3,
            on_failure_callback=failures,
        )
        if losses == 2:
            cleared_after(dial, lambda _: None)

    ran = run_dag(make)
    assert sent(simulator, kind) == 2
    if losses == 1:
        check(ran, simulator, kind)
    else:
        assert (ran.task("dial").state, ran.task("dial").try_number) == ("failed", 2), "the second time it was cleared"
        assert "its answer was lost a second time, and no call" in failures["dial"]
        assert simulator.ledger() == []


# --- clears ---


@ways("campaign worker", "bulk deferred")
def test_a_task_cleared_after_its_success_calls_no_one(
    run_dag: RunDag, simulator: Simulator, capfd: pytest.CaptureFixture[str], kind: str, deferrable: bool
) -> None:
    handles: list[Any] = []
    ran = run_dag(lambda: cleared_after(dialling(kind, deferrable=deferrable), handles.append))
    assert ran.task("dial").try_number == 2
    check(ran, simulator, kind)
    assert handles == [ran.xcom("dial")]
    assert sent(simulator, kind) == 1
    assert "came to its end. Nobody is called again; its handle is returned. To call them again" in "".join(
        capfd.readouterr()
    )


@ways("campaign deferred")
def test_people_are_called_again_on_purpose(run_dag: RunDag, simulator: Simulator, kind: str, deferrable: bool) -> None:
    requests = []
    tasks = []

    def allow(_: Any) -> None:
        requests.append(sent(simulator, kind))
        tasks[0].allow_resubmit = True

    def make() -> None:
        dial = dialling(kind, deferrable=deferrable)
        tasks.append(dial)
        cleared_after(dial, allow)

    check(run_dag(make), simulator, kind, calls=2)
    requests.append(sent(simulator, kind))
    tasks[0].allow_resubmit = False
    another_run = Ran(tasks[0].dag.test())  # its task is cleared once, too
    check(another_run, simulator, kind, calls=4)
    requests.append(sent(simulator, kind))
    assert requests == [1, 2, 3, 4]


# --- changed inputs ---


@ways("bulk deferred", "single worker")
def test_inputs_that_changed_after_something_was_accepted_fail_with_both_counts(
    run_dag: RunDag,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    deferrable: bool,
) -> None:
    monkeypatch.setattr(wire, "MAX_RECIPIENTS", 2)
    simulator.fault(OPERATION[kind], "status", status=403, skip=1)  # the first of several requests is accepted
    failures = Failures()
    failed_with = []
    requests = []
    file = tmp_path / "people.jsonl"

    def write(people: list[str]) -> Callable[[Any], None]:
        def step(_: Any) -> None:
            requests.append(sent(simulator, kind))
            failed_with.append(failures["dial"])
            file.write_text("\n".join(json.dumps({"phone": phone}) for phone in people))

        return step

    file.write_text("\n".join(json.dumps({"phone": phone}) for phone in PEOPLE))

    def make() -> None:
        dial = dialling(kind, str(file), deferrable=deferrable, retries=2, on_failure_callback=failures)
        cleared_after(dial, write([*PEOPLE, "+33639980099"]), write(PEOPLE))

    ran = run_dag(make)
    accepted, before, now = (1, 5, 6) if kind == "single" else (1, 3, 3)
    assert "(403)" in failed_with[0]
    assert (
        f"5 recipients in {before} requests: {accepted} were accepted, 0 may have been, 0 were refused and "
        in (failed_with[1])
    )
    assert f"This try has 6 recipients in {now} requests. Nothing was sent. Restore the earlier input" in failed_with[1]
    assert requests == [2, 2], "with changed inputs nothing was sent, and no retry tried to"
    assert ran.task("dial").try_number == 3
    check(ran, simulator, kind)
    assert sent(simulator, kind) == before + 1


# --- nobody lost ---


@pytest.mark.parametrize("deferrable", [True], ids=["deferred"])
def test_everybody_is_settled_never_dialled_or_rejected(
    run_dag: RunDag, simulator: Simulator, deferrable: bool
) -> None:
    simulator.configure(speed=0, lines=2)  # nobody hangs up
    rows = [*PEOPLE, "12", PEOPLE[0]]

    def cancel() -> None:
        simulator.wait_until(lambda: simulator.request_summary().get("listCalls"))
        (campaign,) = simulator.state()["campaigns"]
        VolubileHook().client().update_campaign_status(campaign["id"], "CANCELLED")
        simulator.configure(speed=3000)

    with ThreadPoolExecutor() as pool:
        cancelled = pool.submit(cancel)
        ran = run_dag(lambda: dialling("campaign", rows, deferrable=deferrable))
        cancelled.result()
    handle = ran.xcom("dial")
    settled = Counter(entry["status"] for entry in simulator.ledger())
    assert handle["counts"] == settled | {"NEVER_DIALED": 3}
    assert sum(handle["counts"].values()) + handle["rejected"] == len(rows)


@pytest.mark.parametrize("deferrable", [True], ids=["deferred"])
def test_people_whose_calls_never_show_up_are_an_error(run_dag: RunDag, simulator: Simulator, deferrable: bool) -> None:
    simulator.configure(bulk_answer="empty", list_lag=3600)
    failures = Failures()
    failed_with = []

    def calls_appear(_: Any) -> None:
        failed_with.append(failures["dial"])
        simulator.configure(list_lag=0)

    def make() -> None:
        dial = dialling("bulk", deferrable=deferrable, retries=2, timeout=5, on_failure_callback=failures)
        cleared_after(dial, calls_appear)

    ran = run_dag(make)
    assert "5 people were accepted, but only 0 of their calls are listed." in failed_with[0]
    assert ran.task("dial").try_number == 2
    check(ran, simulator, "bulk")
    assert sent(simulator, "bulk") == 1
