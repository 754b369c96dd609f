"""The notifier as Airflow's callback of tasks and Dags, against the simulator's ledger."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from airflow.sdk import DAG, get_current_context, task

from airflow_provider_volubile.notifications.call import VolubileCallNotifier
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import Ran, RunDag, store
from tests.airflow.helpers import FOLLOW_UP, INACTIVE, REMINDER

pytestmark = pytest.mark.airflow

PHONE = "+33639980001"


def notifier(**changes: Any) -> VolubileCallNotifier:
    return VolubileCallNotifier(**{"agent_id": REMINDER, "phone": PHONE} | changes)


@task
def fail() -> None:
    raise ValueError("password=hunter2")


@task
def fail_first() -> None:
    if get_current_context()["ti"].try_number == 1:
        raise ValueError("once")


@task
def succeed() -> None:
    pass


def contexts(simulator: Simulator) -> list[Mapping[str, Any]]:
    return [
        {name: value for name, value in entry["context"].items() if name != "airflow_ref"}
        for entry in simulator.ledger()
    ]


def test_the_notifier_calls_once_for_each_event(run_dag: RunDag, simulator: Simulator) -> None:
    notify = notifier(call_context={"message": "{{ ti.task_id }} of {{ dag.dag_id }}", "run_id": "hidden"})

    def make() -> None:
        # Twice as callback: Airflow may report an event from two places.
        fail.override(task_id="broken", on_failure_callback=[notify, notify])()
        succeed.override(task_id="fine", on_success_callback=notify, on_failure_callback=notify)()
        fail_first.override(
            task_id="shaky", retries=1, retry_delay=0, on_retry_callback=notify, on_success_callback=notify
        )()

    ran = run_dag(make)
    dag_id = ran.run.dag_id
    called = {(context["task_id"], context["try_number"]): context["message"] for context in contexts(simulator)}
    assert called == {
        ("broken", "1"): f"broken of {dag_id}",
        ("fine", "1"): f"fine of {dag_id}",
        ("shaky", "1"): f"shaky of {dag_id}",
        ("shaky", "2"): f"shaky of {dag_id}",
    }
    assert simulator.summary()["calls"] == 4
    assert {context["run_id"] for context in contexts(simulator)} == {"hidden"}
    assert "hunter2" not in str(simulator.ledger())


def test_mapped_tasks_and_other_phones_are_separate_events(run_dag: RunDag, simulator: Simulator) -> None:
    @task(on_failure_callback=[notifier(), notifier(phone="06 39 98 00 02", default_region="FR")])
    def fail_with(number: int) -> None:
        raise ValueError(number)

    run_dag(lambda: fail_with.expand(number=[0, 1]))
    called = sorted((entry["phone"], entry["context"]["map_index"]) for entry in simulator.ledger())
    assert called == [(PHONE, "0"), (PHONE, "1"), ("+33639980002", "0"), ("+33639980002", "1")]


def test_a_dag_calls_once_for_a_failed_run(metadata_database: None, connection: str, simulator: Simulator) -> None:
    """With the request that Airflow's scheduler makes and the function with which its Dag processor executes it."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.dag_processing.processor import _execute_dag_callbacks
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with DAG("notifying", schedule=None, params={"on_call": PHONE}) as dag:
        for number in range(3):
            fail.override(task_id=f"fail_{number}")()
    store(dag)
    ran = Ran(dag.test())
    assert ran.state == "failed"
    dag.on_failure_callback = notifier(phone="{{ params.on_call }}")
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    with create_session() as session:
        run = session.get(DagRun, ran.run.id)
        run.dag_model.relative_fileloc = "notifying.py"
        request = run.produce_dag_callback(dag, False, run.get_task_instances(session=session)[-1], "task_failure")
    for _ in range(2):  # as after a crash of the processor
        _execute_dag_callbacks(bag, request, structlog.get_logger())
    (context,) = contexts(simulator)
    assert context == {"dag_id": "notifying", "run_id": run.run_id, "reason": "task_failure", "try_number": "1"}


def test_a_failed_call_is_logged_and_does_not_change_the_task(
    run_dag: RunDag, simulator: Simulator, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "phone": notifier(phone="0639980001"),
        "agent": notifier(agent_id=INACTIVE),
        "connection": notifier(volubile_conn_id="nowhere"),
        "template": notifier(phone="{{ nothing.at.all }}"),
    }
    ran = run_dag(
        lambda: [succeed.override(task_id=name, on_success_callback=callback)() for name, callback in bad.items()]
    )
    assert ran.state == "success"
    assert simulator.ledger() == []
    said = "".join(capfd.readouterr())
    assert "phone (06 ** ** ** 01) does not begin with + and a country code" in said
    assert "is not active" in said
    assert "nowhere" in said
    assert "the notifier failed" in said + caplog.text
    assert "639980001" not in said + caplog.text


def test_a_lost_answer_causes_no_second_call(run_dag: RunDag, simulator: Simulator) -> None:
    simulator.fault("createCall", "drop")
    run_dag(lambda: succeed.override(on_success_callback=[notifier(), notifier()])())
    assert simulator.summary()["calls"] == 1


def test_the_notifier_calls_when_it_cannot_read_the_list(run_dag: RunDag, simulator: Simulator) -> None:
    simulator.fault("listCalls", "status", status=403, times=None)
    run_dag(lambda: succeed.override(on_success_callback=notifier())())
    assert simulator.summary()["calls"] == 1


def test_the_notifier_calls_for_a_deadline_alert(
    connection: str, simulator: Simulator, metadata_database: None
) -> None:
    """As the triggerer does: the context holds the run and the deadline as plain values."""
    run = {"dag_id": "slow", "dag_run_id": "manual"}

    async def alert(deadline: str) -> None:
        await notifier(agent_id=FOLLOW_UP, context={"dag_run": run, "deadline": {"id": deadline}})

    for deadline in ("one", "one", "other"):
        asyncio.run(alert(deadline))
    assert contexts(simulator) == [{"dag_id": "slow", "run_id": "manual"}] * 2
    assert {entry["agent_id"] for entry in simulator.ledger()} == {FOLLOW_UP}


def test_cleared_tasks_and_runs_are_new_events(connection: str, simulator: Simulator) -> None:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)
    run = SimpleNamespace(dag_id="d", run_id="r")
    for try_number in (1, 1, 2):
        ti.try_number = try_number
        notifier()({"ti": ti, "dag_run": run})
        notifier()({"ti": ti, "dag_run": run, "reason": "task_failure"})
    assert simulator.summary()["calls"] == 4
