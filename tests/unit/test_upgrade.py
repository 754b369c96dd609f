"""A campaign may wait for a week, across an upgrade: what an earlier version left is understood by this one.

``data/`` holds what waiting tasks of earlier versions left in Airflow's database; ``record_waits.py`` recorded it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize

from airflow_provider_volubile.calling import stopping
from airflow_provider_volubile.calling.unknown_outcome import CREATED
from airflow_provider_volubile.simulator import Simulator
from tests.live import connection_json
from tests.unit.fakes import Store, Variables, context
from tests.unit.record_waits import DATA, OPERATORS, PEOPLE, SEED, SENSORS, WAYS

RECORDS = {
    f"{path.stem.removeprefix('waits-')}: {name}": record
    for path in sorted(DATA.glob("waits-*.json"))
    for name, record in json.loads(path.read_text("utf-8")).items()
}
SUBMISSIONS = {name: record for name, record in RECORDS.items() if "handle" not in record}


@pytest.fixture(scope="module")
def service() -> Iterator[Simulator]:
    with Simulator(seed=SEED, ignore_windows=True, limit=100_000) as simulator:
        yield simulator


@pytest.fixture
def simulator(service: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    service.reset()
    service.configure(speed=3000, dial_interval=0)
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", connection_json(service))
    monkeypatch.setattr(stopping, "Variable", Variables())
    return service


def dial_as_then(simulator: Simulator, record: Mapping[str, Any]) -> None:
    """Send what the earlier version had sent. The same requests get the same ids from the simulator."""
    for request in record["sent"]:
        answer = requests.post(
            simulator.url + request["path"],
            json=request["body"],
            headers={"X-Api-Key": simulator.primary_key},
            timeout=30,
        )
        assert answer.ok, answer.text
    simulator.wait_until_quiet()


def fire(trigger: Mapping[str, Any] | None) -> Any:
    """The event of a stored trigger; None for a pause, which is not waited for, and for a question."""
    if trigger is None:
        return None
    instance = import_string(trigger["path"])(**deserialize(trigger["kwargs"]))
    if hasattr(instance, "moment"):
        return None

    async def first() -> Any:
        return (await anext(instance.run())).payload

    return asyncio.run(asyncio.wait_for(first(), 60))


def resume(operator: Any, store: Store, record: Mapping[str, Any]) -> Any:
    """Go on as Airflow does, through whatever this version waits for next."""
    method, kwargs, trigger = record["method"], record["kwargs"], record.get("trigger")
    while True:
        event = {"chosen_options": [CREATED], "params_input": {}} if method == "answered" else fire(trigger)
        ExecutorSafeguard.tracker.set(operator)
        try:
            return operator.resume_execution(method, {"event": event, **kwargs}, context(store))
        except TaskDeferred as left:
            path, trigger_kwargs = left.trigger.serialize()
            trigger = {"path": path, "kwargs": json.loads(json.dumps(trigger_kwargs, default=str))}
            method, kwargs = left.method_name, left.kwargs or {}


def operator_of(name: str, record: Mapping[str, Any]) -> Any:
    kind, _, way = name.partition(": ")[2].partition(" ")
    return SENSORS[kind](record["handle"]) if "handle" in record else OPERATORS[kind](**WAYS[way])


def check(simulator: Simulator, name: str, handle: Any) -> None:
    """Everyone is in the handle's counts, and was called by one request."""
    people = PEOPLE[:1] if ": call " in name else PEOPLE
    assert sum(handle["counts"].values()) == handle["recipients"] == len(people)
    first_attempts = Counter(entry["phone"] for entry in simulator.ledger() if entry["attempt"] == 1)
    assert first_attempts == dict.fromkeys(people, 1)


@pytest.mark.parametrize("name", RECORDS)
def test_a_task_that_waited_before_the_upgrade_goes_on(simulator: Simulator, name: str) -> None:
    record = RECORDS[name]
    dial_as_then(simulator, record)
    handle = resume(operator_of(name, record), Store(record["store"]), record)
    check(simulator, name, handle)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_task_cleared_after_the_upgrade_calls_nobody_again(simulator: Simulator, name: str) -> None:
    record = SUBMISSIONS[name]
    dial_as_then(simulator, record)
    operator = operator_of(name, record)
    operator.deferrable = False
    ExecutorSafeguard.tracker.set(operator)
    check(simulator, name, operator.execute(context(Store(record["store"]), try_number=2)))


def test_a_journal_of_an_unknown_version_is_refused(simulator: Simulator) -> None:
    record = RECORDS["97b675b: bulk waits"]
    head = record["store"]["volubile_submission"] | {"version": 99}
    operator = OPERATORS["bulk"](deferrable=False)
    ExecutorSafeguard.tracker.set(operator)
    with pytest.raises(Exception, match="Another version of this provider"):
        operator.execute(context(Store(record["store"] | {"volubile_submission": head}), try_number=2))
    assert simulator.ledger() == []
