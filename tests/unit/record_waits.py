"""Records what waiting tasks leave in Airflow's database: journal, trigger, and how they go on.

Before a release, ``python -m tests.unit.record_waits 1.2.3`` writes ``data/waits-1.2.3.json``; test_upgrade.py lets
every later version resume it. The record of 97b675b is what version 0.1.0's first code left.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskAwaitingInput, TaskDeferred
from airflow.sdk.serde import serialize

from airflow_provider_volubile.calling import unknown_outcome
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor
from airflow_provider_volubile.sensors.campaigns import VolubileCampaignSensor
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from tests.live import connection_json
from tests.unit.fakes import Store, context

DATA = Path(__file__).parent / "data"
SEED = 7  # the simulator derives ids from it: the same requests in the same order get the same ids
PEOPLE = [f"+3363998{number:04d}" for number in range(5)]
# Twenty years: whoever resumes a record, whenever, is in time.
LONG = 20 * 365 * 86_400
DIALS = {"createCampaign", "createBulkCalls", "createCall"}


SETTINGS: dict[str, Any] = {
    "task_id": "dial",
    "agent_id": REMINDER_AGENT_ID,
    "poll_interval": 0.2,
    "timeout": LONG,
    "deferrable": True,
}
SENSOR: dict[str, Any] = {"task_id": "wait", "poke_interval": 0.2, "timeout": LONG, "deferrable": True}


def campaign(**changes: Any) -> Any:
    return VolubileCreateCampaignOperator(
        **SETTINGS
        | {
            "name": "Tyres",
            "recipients": PEOPLE,
            "time_slots": ["09:00-12:00"],
            "redial": {"max": 1, "delay": 90, "retry_on": ["NO_ANSWER"]},
        }
        | changes
    )


def bulk(**changes: Any) -> Any:
    return VolubileBulkCallsOperator(**SETTINGS | {"recipients": PEOPLE} | changes)


def single(**changes: Any) -> Any:
    return bulk(submit_as="single", **changes)


def call(**changes: Any) -> Any:
    return VolubileCreateCallOperator(**SETTINGS | {"phone": PEOPLE[0], "call_context": {"name": "Lucie"}} | changes)


def campaign_sensor(handle: Any) -> Any:
    return VolubileCampaignSensor(campaign=handle, **SENSOR)


def calls_sensor(handle: Any) -> Any:
    return VolubileCallsSensor(calls=handle, **SENSOR)


OPERATORS = {"campaign": campaign, "bulk": bulk, "single": single, "call": call}
SENSORS = {"campaign": campaign_sensor, "bulk": calls_sensor}
# How tasks come to wait: for their people; before another look for a lost request or for calls that no answer named;
# for a person's answer.
WAYS: dict[str, dict[str, Any]] = {
    "waits": {},
    "looks again": {"confirmation_timeout": LONG},
    "asks": {"confirmation_timeout": 0, "on_unknown": "ask"},
}


@contextmanager
def sent() -> Iterator[list[dict[str, Any]]]:
    """The requests that dial, in their order."""
    found: list[dict[str, Any]] = []
    send = requests.adapters.HTTPAdapter.send

    def record(self: Any, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        path = "/v1/" + str(request.url).partition("/v1/")[2]
        if request.method == "POST" and request.body and "/token" not in path:
            body: Any = request.body
            found.append({"path": path, "body": json.loads(body if isinstance(body, bytes | str) else b"".join(body))})
        return send(self, request, *args, **kwargs)

    requests.adapters.HTTPAdapter.send = record  # type: ignore[method-assign]
    try:
        yield found
    finally:
        requests.adapters.HTTPAdapter.send = send  # type: ignore[method-assign]


def ended(operator: Any, store: Store) -> Any:
    """What a task returned, or why it went away."""
    ExecutorSafeguard.tracker.set(operator)
    try:
        return operator.execute(context(store))
    except (TaskDeferred, TaskAwaitingInput) as left:
        return left


def record_of(operator: Any, store: Store, requests_sent: list[dict[str, Any]]) -> dict[str, Any]:
    left = ended(operator, store)
    found = {"sent": requests_sent, "store": store.values, "method": left.method_name, "kwargs": left.kwargs or {}}
    if isinstance(left, TaskDeferred):
        path, kwargs = left.trigger.serialize()
        found["trigger"] = {"path": path, "kwargs": serialize(kwargs)}
    return found


def main(version: str) -> None:
    unknown_outcome.show_question = lambda *_, **__: True  # nobody sees the question
    records: dict[str, Any] = {}
    with Simulator(seed=SEED, ignore_windows=True, limit=100_000) as simulator:
        os.environ["AIRFLOW_CONN_VOLUBILE_DEFAULT"] = connection_json(simulator)
        os.environ["AIRFLOW_VAR_VOLUBILE_INSTALLATION"] = "records"
        for kind, make in OPERATORS.items():
            for way, settings in WAYS.items():
                simulator.reset()
                simulator.configure(speed=0)
                if way != "waits":
                    simulator.configure(list_lag=3600)
                    for operation in DIALS:
                        simulator.fault(operation, "drop")
                with sent() as requests_sent:
                    records[f"{kind} {way}"] = record_of(make(**settings), Store(), requests_sent)
        for kind, sensor in SENSORS.items():
            simulator.reset()
            simulator.configure(speed=0)
            with sent() as requests_sent:
                handle = ended(OPERATORS[kind](wait_for_completion=False), Store())
                records[f"{kind} sensor waits"] = record_of(sensor(handle), Store(), requests_sent) | {"handle": handle}
    DATA.mkdir(exist_ok=True)
    (DATA / f"waits-{version}.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
