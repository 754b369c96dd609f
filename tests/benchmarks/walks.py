"""How far a value travels: the functions and modules of this package that four walks pass through.

``python -m tests.benchmarks.walks`` runs each walk once against the simulator, through public names only, and counts
the distinct functions of the package that were entered in any thread, and their modules. Comprehensions and lambdas
are counted with the function they stand in. The same script counts older versions: put their tree on ``PYTHONPATH``.
``--names`` lists the functions.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="volubile-walks-"))
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("AIRFLOW_VAR_VOLUBILE_INSTALLATION", "walks")

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred

import airflow_provider_volubile
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.exports import VolubileExportTranscriptsOperator
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator

PACKAGE = str(Path(airflow_provider_volubile.__file__).parent) + os.sep
PEOPLE = [f"+336399800{number:02d}" for number in range(3)]

# A comprehension, generator expression or lambda at the end of a qualified name.
INNER = re.compile(r"(\.<locals>)?\.<(listcomp|setcomp|dictcomp|genexpr|lambda)>.*")

Functions = dict[tuple[str, str], None]


@contextmanager
def counted(into: Functions) -> Iterator[None]:
    """Note the functions of this package that are entered within, in this thread and in those it starts."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in seen:
            return
        seen.add(code)
        if not code.co_filename.startswith(PACKAGE) or code.co_name == "<module>":
            return
        module = code.co_filename.removeprefix(PACKAGE)
        if module.startswith("simulator" + os.sep):
            return
        into[module, INNER.sub("", code.co_qualname)] = None

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


class Store:
    """A task state store in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.values[key] = json.dumps(value)


def run(operator: Any, method: str = "execute", **arguments: Any) -> Any:
    """Run a step of an operator as a task would."""
    ExecutorSafeguard.tracker.set(operator)
    instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id=operator.task_id, map_index=-1, id="1", try_number=1, max_tries=3
    )
    context = {
        "ti": instance,
        "task_instance": instance,
        "task_state_store": operator.__dict__.setdefault("_walk_store", Store()),
        "dag_run": SimpleNamespace(run_after=datetime.now(UTC)),
    }
    return getattr(operator, method)(context, **arguments)


def recipients_to_result(folder: Path) -> Callable[[], object]:
    operator = VolubileCreateCampaignOperator(
        task_id="dial",
        name="Tyres",
        agent_id=REMINDER_AGENT_ID,
        recipients=PEOPLE,
        time_slots=["09:00-12:00"],
        poll_interval=0.2,
        deferrable=False,
        outcomes_path=str(folder / "outcomes.jsonl.gz"),
    )
    return lambda: run(operator)


def token(folder: Path) -> Callable[[], object]:
    os.environ["AIRFLOW_CONN_VOLUBILE_TOKEN"] = connection(auth="bearer")
    return lambda: VolubileHook("volubile_token").client().get_agent(REMINDER_AGENT_ID)


def status_to_deferred_task(folder: Path) -> Callable[[], object]:
    operator = VolubileBulkCallsOperator(
        task_id="dial", agent_id=REMINDER_AGENT_ID, recipients=PEOPLE, poll_interval=0.2, deferrable=True
    )
    try:
        run(operator)
    except TaskDeferred as deferred:
        trigger, method = deferred.trigger, deferred.method_name
    else:
        raise AssertionError("the task did not defer")

    async def first_event() -> Any:
        return (await anext(aiter(trigger.run()))).payload

    return lambda: run(operator, method, event=asyncio.run(first_event()))


def transcript_to_parquet(folder: Path) -> Callable[[], object]:
    dial = VolubileBulkCallsOperator(
        task_id="dial",
        agent_id=REMINDER_AGENT_ID,
        recipients=PEOPLE,
        poll_interval=0.2,
        wait_for="transcript",
        deferrable=False,
    )
    export = VolubileExportTranscriptsOperator(
        task_id="export", calls=run(dial), output_path=str(folder / "transcripts"), file_format="parquet"
    )
    return lambda: run(export)


WALKS = {
    "recipients to the result": recipients_to_result,
    "a token": token,
    "a status to a deferred task": status_to_deferred_task,
    "a transcript to Parquet": transcript_to_parquet,
}


def connection(**extra: Any) -> str:
    host, port = SIMULATOR.url.removeprefix("http://").split(":")
    value = {"conn_type": "volubile", "host": f"http://{host}", "port": int(port), "password": SIMULATOR.primary_key}
    return json.dumps(value | {"extra": extra})


def import_everything() -> None:
    """Modules are imported when they are needed. What an import runs is no part of a walk."""
    for module in pkgutil.walk_packages([PACKAGE], f"{airflow_provider_volubile.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> None:
    import_everything()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'walk':<30} {'functions':>9} {'modules':>8}")
        for name, prepare in WALKS.items():
            functions: Functions = {}
            walk = prepare(Path(folder))
            with counted(functions):
                walk()
            modules = {module for module, _ in functions}
            print(f"{name:<30} {len(functions):>9} {len(modules):>8}")
            if "--names" in sys.argv:
                print(*(f"    {module}: {function}" for module, function in functions), sep="\n")


if __name__ == "__main__":
    with Simulator(seed=7, speed=3000, dial_interval=0, ignore_windows=True, limit=100_000) as SIMULATOR:
        os.environ["AIRFLOW_CONN_VOLUBILE_DEFAULT"] = connection()
        main()
