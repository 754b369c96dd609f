"""The Airflow under test: its processes, its database, and the actions of people."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import requests
import sqlalchemy
import tenacity

from airflow_provider_volubile.simulator import Simulator
from tests.live import LiveAirflow, connection_json, free_port

HERE = Path(__file__).parent
DAG = "chaos"
JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
PART_SIZE = 3
CONFIRMATION = 4  # seconds
CLIENT_TIMEOUT = 2  # seconds
# A process that stood still for longer after it recorded a request, such as a frozen one, does not send it.
SEND_WITHIN = 10.0
HUNG = 30  # seconds without a heartbeat

# Airflow notices a dead process within seconds.
IMPATIENT = {
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "4",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "3",
}


@dataclass(frozen=True)
class Task:
    """A row of Airflow's table of task instances."""

    run_id: str
    task_id: str
    state: str | None
    try_number: int

    @property
    def key(self) -> tuple[str, str]:
        return self.run_id, self.task_id


class Stack(LiveAirflow):
    """An Airflow whose processes the storm may kill."""

    def __init__(
        self,
        home: Path,
        simulator: Simulator,
        *,
        database: str | None,
        parallelism: int,
    ) -> None:
        self.orders = home / "orders"
        self.people = home / "people"
        self.trail = home / "trail"
        (self.orders / "taken").mkdir(parents=True)
        self.people.mkdir()
        environment = IMPATIENT | {
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW_CONN_VOLUBILE_DEFAULT": connection_json(simulator, timeout=CLIENT_TIMEOUT),
            "AIRFLOW_CONN_VOLUBILE_BEARER": connection_json(simulator, timeout=CLIENT_TIMEOUT, auth="bearer"),
            "CHAOS_ORDERS": str(self.orders),
            "CHAOS_PEOPLE": str(self.people),
            "CHAOS_TRAIL": str(self.trail),
            "CHAOS_PART_SIZE": str(PART_SIZE),
            "CHAOS_SEND_WITHIN": str(SEND_WITHIN),
            "CHAOS_CONFIRMATION": str(CONFIRMATION),
            "PYTHONPATH": os.pathsep.join([str(HERE / "processes"), str(HERE.parents[1])]),
            # The storm starts processes again and again: they must not compile modules each time.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        super().__init__(home, HERE / "dags", database=database, environment=environment)
        self.engine = sqlalchemy.create_engine(self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        self._token: dict[str, str] = {}

    def __enter__(self) -> Stack:
        super().__enter__()
        return self

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()  # what a storm has left may wait for ever for something that was killed
        super().stop()
        for process in self._everybody():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.engine.dispose()

    def forget(self) -> None:
        """Switch the journal off, to show that the storm notices."""
        (self.orders / "forget").touch()

    # Processes -----------------------------------------------------------------------------------------------------

    def start(self, component: str) -> None:
        # Only our processes have this working folder. Some hide their command and environment.
        with contextlib.chdir(self.home):
            super().start(component)

    def kill(self, component: str, *, with_children: bool) -> None:
        """Kill -9 a component, alone or with all its child processes."""
        process = self.processes[component]
        children = self._descendants(process.pid) if with_children else []
        process.kill()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()

    def is_up(self, component: str) -> bool:
        process = self.processes.get(component)
        return process is not None and process.poll() is None

    def hung(self) -> list[str]:
        """Return running components without a heartbeat, as a liveness probe finds them.

        A scheduler that ends because its database is down may wait forever for workers of its LocalExecutor: these
        wait for a process to read their results.
        """
        rows = self.rows("select job_type, max(latest_heartbeat) from job group by job_type")
        beats = {job: datetime.fromisoformat(str(beat)) for job, beat in rows}
        limit = datetime.now(UTC) - timedelta(seconds=HUNG)
        found = []
        for component, job in JOBS.items():
            with contextlib.suppress(psutil.Error, KeyError):
                started = psutil.Process(self.processes[component].pid).create_time()
                beat = beats[job] if beats[job].tzinfo else beats[job].replace(tzinfo=UTC)
                if self.is_up(component) and max(beat, datetime.fromtimestamp(started, UTC)) < limit:
                    found.append(component)
        return found

    def supervisors(self) -> list[psutil.Process]:
        """Return workers that run a task now: the parents of task processes."""
        found = []
        for process in self._everybody():
            with contextlib.suppress(psutil.Error):
                if "LocalExecutor" in " ".join(process.cmdline()) and process.children():
                    found.append(process)
        return found

    def reap(self) -> None:
        """Kill the remaining processes of a dead scheduler: its log server, and workers without a task.

        They hold its connections open, so the database keeps its locks, and the next scheduler would wait for them.
        """
        everybody = list(self._everybody())
        ours = {process.pid for process in everybody}
        for process in everybody:
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                is_left = "LocalExecutor" in title or "serve-logs" in title
                # A task that was just forked still has the name of its parent, which is one of ours.
                if is_left and process.ppid() not in ours and not process.children():
                    process.kill()

    def _everybody(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(self.home):
                    yield process

    def _descendants(self, pid: int) -> list[psutil.Process]:
        try:
            return psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            return []

    # What the database says ------------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[Any]:
        """Return the rows of a query, in which ``:dag`` is our Dag."""
        for attempt in tenacity.Retrying(  # the database may restart or be locked
            retry=tenacity.retry_if_exception_type(sqlalchemy.exc.OperationalError),
            stop=tenacity.stop_after_delay(60),
            wait=tenacity.wait_fixed(0.5),
            reraise=True,
        ):
            with attempt, self.engine.connect() as connection:
                found = [tuple(row) for row in connection.execute(sqlalchemy.text(query), {"dag": DAG})]
        return found

    def tasks(self) -> dict[tuple[str, str], Task]:
        rows = self.rows("select run_id, task_id, state, try_number from task_instance where dag_id = :dag")
        return {(row[0], row[1]): Task(*row) for row in rows}

    def handles(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the return values of tasks."""
        rows = self.rows("select run_id, task_id, value from xcom where dag_id = :dag and key = 'return_value'")
        return {
            (run_id, task_id): json.loads(value) if isinstance(value, str) else value for run_id, task_id, value in rows
        }

    def log_of(self, task: Task) -> str:
        """Return the log of the last try of a task."""
        folder = self.home / "logs" / f"dag_id={DAG}" / f"run_id={task.run_id}" / f"task_id={task.task_id}"
        logs = [path for path in folder.glob("attempt=*.log") if ".trigger." not in path.name]
        # The last try need not be the newest file: a process frozen at an earlier try may have gone on later.
        last = max(logs, key=lambda path: int(path.stem.removeprefix("attempt=")), default=None)
        return last.read_text(errors="replace") if last else ""

    # What people do --------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the REST API; return None if the API is down or refuses."""
        try:
            if not self._token:
                told = requests.get(f"{self.url}/auth/token", timeout=10)
                self._token = {"Authorization": f"Bearer {told.json()['access_token']}"}
            answer = requests.request(
                method, f"{self.url}/api/v2/dags/{DAG}{path}", headers=self._token, json=body, timeout=10
            )
        except (requests.RequestException, ValueError, KeyError):
            return None
        return answer.json() if answer.ok else None

    def begin(self, run_id: str) -> bool:
        return self.ask("POST", "/dagRuns", {"dag_run_id": run_id, "logical_date": None}) is not None

    def clear(self, task: Task) -> bool:
        body = {
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            "dag_run_id": task.run_id,
            "task_ids": [task.task_id],
        }
        return self.ask("POST", "/clearTaskInstances", body) is not None

    def fail(self, task: Task) -> bool:
        path = f"/dagRuns/{task.run_id}/taskInstances/{task.task_id}"
        return self.ask("PATCH", path, {"new_state": "failed"}) is not None

    def question(self, task: Task) -> str | None:
        """Return the question that a task asks."""
        found = self.ask("GET", f"/dagRuns/{task.run_id}/taskInstances/{task.task_id}/-1/hitlDetails")
        return found["body"] if found and not found["response_received"] else None

    def answer(self, task: Task, option: str, campaign_id: str) -> bool:
        path = f"/dagRuns/{task.run_id}/taskInstances/{task.task_id}/-1/hitlDetails"
        return self.ask("PATCH", path, {"chosen_options": [option], "params_input": {"id": campaign_id}}) is not None


class Postgres:
    """A PostgreSQL server in its own folder, which the storm may kill."""

    # Debian's folder of the server's programs, which is not on the PATH.
    BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql+psycopg2://chaos@127.0.0.1:{self.port}/chaos"
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def is_available(cls) -> bool:
        drivers = all(importlib.util.find_spec(name) for name in ("psycopg2", "asyncpg"))
        if not drivers or not (cls.BINARIES / "initdb").exists():
            return False
        with contextlib.suppress(KeyError):
            return os.geteuid() != 0 or bool(pwd.getpwnam("postgres"))
        return False

    def __enter__(self) -> Postgres:
        self.folder.mkdir(parents=True)
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", "data", "-U", "chaos", "--auth=trust", "--encoding=UTF8", "--no-sync")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "chaos", "chaos")
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [str(self.BINARIES / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-k", ""]
        with (self.folder.parent / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"],
                cwd=self.folder,
                user=self._user,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(300):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q")
                return
            time.sleep(0.1)
        raise TimeoutError("PostgreSQL does not start")

    def kill(self) -> None:
        """Kill -9 the whole server."""
        if self._process is not None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            self._process.wait()
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.BINARIES / program), *arguments],
            cwd=self.folder,
            user=self._user,
            check=True,
            capture_output=True,
        )
