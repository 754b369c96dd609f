"""Tasks wait for a minute of wall time with tokens that live for two seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_volubile.simulator import Simulator
from tests.live import connection_json, live_airflow

LIFE = 2  # seconds
WAIT = 60  # seconds, in which every task has to wait
DAGS = Path(__file__).parent / "token_dags"


@dataclass
class Waited:
    """The results of the wait.

    :param tasks: task instances, as the REST API shows them.
    :param seconds: time from the moment when all tasks waited until the first call ended.
    :param requests: requests that the service received in that time.
    """

    tasks: list[dict[str, Any]]
    seconds: float
    requests: list[dict[str, Any]]

    @property
    def failed(self) -> int:
        """Tasks that failed, or needed another try."""
        return sum(task["state"] != "success" or task["try_number"] != 1 for task in self.tasks)

    def report(self) -> str:
        """Return the figures as text."""
        tokens = sum(request["operation"] == "issueToken" for request in self.requests)
        refused = sum(request["status"] == 401 for request in self.requests)
        return f"""\
tokens     of {LIFE} s, in {self.seconds:.0f} s of waiting by the clock: {len(self.tasks)} tasks, {self.failed} failed
           {tokens} tokens for {len(self.requests) - tokens} requests, {refused} of them refused
"""


def wait_with_short_tokens(folder: Path) -> Waited:
    """Let the tasks of a whole Airflow wait.

    :param folder: an empty folder.
    """
    with Simulator(seed=7, speed=0, ignore_windows=True, limit=100_000, token_life=LIFE) as simulator:
        environment = {"AIRFLOW_CONN_VOLUBILE_DEFAULT": connection_json(simulator, auth="bearer")}
        with live_airflow(folder, DAGS, simulator, environment=environment) as airflow:
            run = airflow.trigger("waits")

            def tasks() -> list[dict[str, Any]]:
                answer = airflow.api("GET", f"/dags/waits/dagRuns/{run}/taskInstances")
                return list(answer["task_instances"])

            def waiting() -> bool:
                return sorted(task["state"] or "" for task in tasks()) == ["deferred", "deferred", "running", "running"]

            airflow.wait_until(lambda: len(simulator.submissions()) == 4 and waiting(), 180)
            since = simulator.requests()[-1]["seq"]
            began = time.monotonic()
            while time.monotonic() < began + WAIT:
                assert waiting(), tasks()
                time.sleep(1)
            seconds, requests = time.monotonic() - began, simulator.requests(since=since)
            simulator.configure(speed=600)
            airflow.wait_for("waits", run)
            return Waited(tasks(), seconds, requests)
