"""A whole Airflow (API server, scheduler, Dag processor, triggerer), each in a process of its own, to look at."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import requests

from airflow_provider_volubile.simulator import Simulator
from tests.database import AIRFLOW, copy_home

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
FINISHED = ("success", "failed")
#: A plugin that saves time: tasks are forked from the scheduler, and then need not import these modules.
WARM = """
import sys
if "scheduler" in sys.argv:
    import airflow.providers.standard.decorators.python, airflow.providers.standard.operators.empty
    import airflow.sdk.execution_time.task_runner, phonenumbers
    import airflow_provider_volubile.api.client, airflow_provider_volubile.operators.agents
    import airflow_provider_volubile.operators.campaigns, airflow_provider_volubile.operators.exports
    import airflow_provider_volubile.notifications.call, airflow_provider_volubile.sensors.calls
    import airflow_provider_volubile.sensors.campaigns
"""


def free_port() -> int:
    """A port that nothing uses, and that no other connection of this machine gets by chance before it is used."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # below those that systems give away
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def connection_json(simulator: Simulator, **extra: Any) -> str:
    """The connection to a simulator, for ``AIRFLOW_CONN_VOLUBILE_DEFAULT``."""
    return json.dumps(
        {
            "conn_type": "volubile",
            "host": simulator.url,
            "password": simulator.primary_key,
            "extra": {"secondary_api_key": simulator.secondary_key, **extra},
        }
    )


class LiveAirflow:
    """Start it with a ``with`` statement; everything ends with the block.

    :param home: an empty folder for the database, the logs and the configuration.
    :param dags: the folder of Dags.
    :param database: SQLAlchemy URL of the metadata database; SQLite in ``home`` by default.
    :param environment: further variables of the processes.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        database: str | None = None,
        environment: dict[str, str] | None = None,
        components: Sequence[str] = COMPONENTS,
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.components = components
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self.environment = clean | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "of no worth, for a test on this machine only, and long enough for HS512",
            "AIRFLOW__API__SECRET_KEY": "of no worth, for a test on this machine only",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # the files do not change
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database or f"sqlite:///{home}/airflow.db",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            **(environment or {}),
        }

    def __enter__(self) -> LiveAirflow:
        copy_home(self.home)
        if not self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("sqlite:"):
            self.run("db", "migrate")
        plugins = self.home / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "warm.py").write_text(WARM)
        try:
            for component in self.components:
                self.start(component)
            self.wait_until(self.is_healthy, 120)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str) -> str:
        """Run an ``airflow`` command; return what it printed."""
        result = subprocess.run([AIRFLOW, *command], env=self.environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"airflow {' '.join(command)}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
        return result.stdout

    def start(self, component: str) -> None:
        """Start a component in a session of its own, so that it can be killed with all its children."""
        with (self.home / f"{component}.log").open("ab") as log:
            self.processes[component] = subprocess.Popen(
                [AIRFLOW, component],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()

    def is_healthy(self) -> bool:
        try:
            health = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            return False
        checked = {"scheduler", "triggerer", "dag-processor"} & set(self.components)
        return all((health.get(name.replace("-", "_")) or {}).get("status") == "healthy" for name in checked)

    def token(self) -> str:
        """Return a token for the REST API."""
        answer = requests.post(f"{self.url}/auth/token", json={}, timeout=30)
        if answer.status_code >= 400:
            answer = requests.get(f"{self.url}/auth/token", timeout=30)
        return str(answer.json()["access_token"])

    def api(self, method: str, path: str, **request: Any) -> Any:
        """Ask the REST API; return the JSON of its answer."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        for seconds in (1, 2, 4, 8, None):
            answer = requests.request(method, f"{self.url}/api/v2{path}", headers=headers, timeout=60, **request)
            if answer.status_code != 500 or seconds is None:
                break
            # SQLite may be locked on a busy machine. Nothing is kept of what failed for that.
            time.sleep(seconds)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run of a Dag, as soon as it is known; return the run's id."""

        def known() -> bool:
            with contextlib.suppress(AssertionError):
                self.api("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
                return True
            return False

        self.wait_until(known, 120)
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def state(self, dag_id: str, run_id: str, task_id: str | None = None) -> str | None:
        """State of a run, or of one of its tasks."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}" + (f"/taskInstances/{task_id}" if task_id else "")
        state: str | None = self.api("GET", path)["state"]
        return state

    def wait_for(self, dag_id: str, run_id: str, task_id: str | None = None, *states: str, timeout: float = 180) -> str:
        """Wait for a state; by default for the end."""
        wanted = states or FINISHED
        self.wait_until(lambda: self.state(dag_id, run_id, task_id) in wanted, timeout)
        return str(self.state(dag_id, run_id, task_id))

    def wait_until(self, condition: Callable[[], object], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not within {timeout:g} s; logs:\n{self.tails()}")
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            if dead:
                raise RuntimeError(f"{', '.join(dead)} ended by itself; logs:\n{self.tails()}")
            time.sleep(0.3)

    def tails(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.home.glob("*.log"))
        )


@contextlib.contextmanager
def live_airflow(home: Path, dags: Path, simulator: Simulator, **settings: Any) -> Iterator[LiveAirflow]:
    """A whole Airflow whose default connection leads to ``simulator``."""
    environment = {"AIRFLOW_CONN_VOLUBILE_DEFAULT": connection_json(simulator)} | settings.pop("environment", {})
    with LiveAirflow(home, dags, environment=environment, **settings) as airflow:
        yield airflow
