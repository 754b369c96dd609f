"""Ten thousand waiting tasks in a real triggerer, beside as many that wait for a moment with Airflow's own trigger.

The metadata database is filled as if a scheduler and workers had deferred the tasks; then ``airflow triggerer`` runs,
and its event loop is watched from within.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_volubile.simulator import Simulator
from tests.benchmarks.detection import CONN, ENDLESS, POLL_INTERVAL, triggers, volubile_connection
from tests.live import LiveAirflow

DAG = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG("waiting", schedule=None):
    BashOperator.partial(task_id="wait").expand(bash_command=["true"] * {tasks})
"""
REPORTS = "VOLUBILE_BENCH_REPORTS"


@dataclass(frozen=True)
class Report:
    """What the triggerer's loop did within a second.

    :param moment: monotonic seconds at its end.
    :param triggers: how many the loop had.
    :param longest: the longest hold-up, in seconds (:class:`tests.benchmarks.loop_watch.LoopWatch`).
    :param longest_collection: the longest garbage collection.
    :param processor: seconds of processor time of the process so far.
    :param memory: bytes of the process.
    """

    moment: float
    triggers: int
    longest: float
    longest_collection: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Waiting:
    """What waiting did to a triggerer.

    :param longest: as in :class:`Report`, while all waited.
    :param longest_collection: likewise.
    :param processor: the share of a core that waiting took.
    :param memory: bytes of the process.
    """

    longest: float
    longest_collection: float
    processor: float
    memory: int


def measure(simulator: Simulator, *, tasks: int = 10_000, seconds: float = 30) -> dict[str, Waiting]:
    """Watch a triggerer for so many seconds while all wait; ours polls every five."""
    simulator.reset()
    simulator.configure(limit=ENDLESS, speed=1)
    volubile_connection(simulator)
    ids = simulator.load_calls(tasks, status="IN_PROGRESS")
    found = {}
    for name in ("airflow", "volubile"):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = _watch(Path(folder), ids if name == "volubile" else None, tasks, seconds)
    return found


def _watch(home: Path, ids: Sequence[str] | None, tasks: int, seconds: float) -> Waiting:
    (home / "dags").mkdir()
    (home / "dags" / "waiting.py").write_text(DAG.format(tasks=tasks))
    (home / "ids.json").write_text(json.dumps(ids))
    reports = home / "reports.jsonl"
    reports.touch()
    airflow = LiveAirflow(
        home,
        home / "dags",
        components=(),
        environment={
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(tasks),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__TRIGGERER__CAPACITY": str(2 * tasks),
            "AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP": "1000",
            f"AIRFLOW_CONN_{CONN.upper()}": os.environ[f"AIRFLOW_CONN_{CONN.upper()}"],
            REPORTS: str(reports),
        },
    )
    airflow.run("db", "migrate")
    airflow.run("dags", "reserialize")
    _role(airflow, "fill", str(tasks)).communicate()

    def told() -> list[Report]:
        lines = reports.read_text().splitlines()
        return [Report(**json.loads(line)) for line in lines if line.endswith("}")]

    with (home / "triggerer.log").open("wb") as log:
        process = _role(airflow, "triggerer", stdout=log, stderr=log, start_new_session=True)
        try:
            _until(lambda: (told() or [None])[-1] and told()[-1].triggers >= tasks, process, home)
            begun = time.monotonic() + 10  # the first round, and what Airflow does with new triggers
            _until(lambda: told()[-1].moment > begun + seconds, process, home)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    waiting = [report for report in told() if report.moment > begun]
    return Waiting(
        longest=max(report.longest for report in waiting),
        longest_collection=max(report.longest_collection for report in waiting),
        processor=(waiting[-1].processor - waiting[0].processor) / (waiting[-1].moment - waiting[0].moment),
        memory=waiting[-1].memory,
    )


def _role(airflow: LiveAirflow, *role: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", __spec__.name, *role], env=airflow.environment, **options)


def _until(condition: Callable[[], object], process: subprocess.Popen[bytes], home: Path, limit: float = 600) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The triggerer did not get there:\n{(home / 'triggerer.log').read_text()[-5000:]}")
        time.sleep(0.5)


# In processes of their own ---------------------------------------------------------------------------------------


def fill(tasks: int) -> None:
    """Write a run of the Dag whose tasks are all deferred."""
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    ids = json.loads((Path(os.environ["AIRFLOW_HOME"]) / "ids.json").read_text())
    later = datetime.now(UTC) + timedelta(hours=2)
    waits = triggers(ids, tasks, POLL_INTERVAL) if ids else [DateTimeTrigger(moment=later) for _ in range(tasks)]
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag("waiting", session=session)
        assert dag is not None
        dag.create_dagrun(
            run_id="r",
            run_after=datetime.now(UTC),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        session.flush()
        deferred = session.query(TaskInstance).all()
        assert len(deferred) == tasks, len(deferred)
        rows = [Trigger.from_object(wait) for wait in waits]
        session.add_all(rows)
        session.flush()
        for ti, row in zip(deferred, rows, strict=True):
            ti.state, ti.trigger_id, ti.next_method = TaskInstanceState.DEFERRED, row.id, "execute_complete"


def triggerer() -> None:
    """Run ``airflow triggerer`` with a watch on its loop."""
    from airflow.__main__ import main
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    TriggerRunner.block_watchdog = watch_loop  # type: ignore[method-assign]
    sys.argv = ["airflow", "triggerer", "--skip-serve-logs"]
    main()


async def watch_loop(runner: Any) -> None:
    """In place of Airflow's own watch, which notices a tenth of a second."""
    import psutil

    from tests.benchmarks.loop_watch import LoopWatch

    process, watch = psutil.Process(), LoopWatch(asyncio.get_running_loop())
    await watch.check()
    with Path(os.environ[REPORTS]).open("a", encoding="utf-8") as reports:  # noqa: ASYNC230
        while not runner.stop:
            watch.reset()
            await asyncio.sleep(1)
            report = Report(
                moment=time.monotonic(),
                triggers=len(runner.triggers),
                longest=watch.longest,
                longest_collection=watch.longest_collection,
                processor=sum(process.cpu_times()[:2]),
                memory=process.memory_info().rss,
            )
            print(json.dumps(asdict(report)), file=reports, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fill", tasks]:
            fill(int(tasks))
        case ["triggerer"]:
            triggerer()
        case _:
            with Simulator() as simulator:
                print(measure(simulator))
