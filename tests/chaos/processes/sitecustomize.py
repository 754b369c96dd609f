"""Every process of the Airflow under test loads this module through ``PYTHONPATH``. The package does not know of it.

It kills or freezes a task's process at a boundary of its submission when a file in ``$CHAOS_ORDERS/<boundary>`` orders
this; the file's name ends with the action. A process takes an order by renaming the file, so each order is carried out
once. The module also writes the end of each request that dials to ``$CHAOS_TRAIL``, for the judge
(``tests/chaos/trail.py``).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

ORDERS = os.environ.get("CHAOS_ORDERS", "")


def pass_by(boundary: str) -> None:
    """Carry out an order at a boundary of a submission, if there is one."""
    waiting = os.path.join(ORDERS, boundary)
    try:
        orders = sorted(os.listdir(waiting))
    except FileNotFoundError:
        return
    for order in orders:
        number, what = order.split("-")
        taken = os.path.join(ORDERS, "taken", f"{number}-{what}-{os.getpid()}-{os.getppid()}")
        try:
            os.rename(os.path.join(waiting, order), taken)
        except FileNotFoundError:
            continue  # another process was faster
        carry_out(what)
        return


def carry_out(what: str) -> None:
    task, supervisor = os.getpid(), living_supervisor()
    match what:
        case "kill":
            send_signal(signal.SIGKILL, task)
        case "orphan":  # the task lives on without its supervisor
            send_signal(signal.SIGKILL, supervisor)
        case "both":
            send_signal(signal.SIGKILL, supervisor, task)
        case "freeze":  # like a suspended machine; the storm lets the process go on later
            send_signal(signal.SIGSTOP, supervisor, task)
        case "terminate":  # like a worker that is shut down
            send_signal(signal.SIGTERM, task)
            time.sleep(0.1)


def living_supervisor() -> int | None:
    """Return the parent's process id, or None if the parent died and another process adopted this one."""
    parent = os.getppid()
    try:
        return parent if os.readlink(f"/proc/{parent}/cwd") == os.getcwd() else None
    except OSError:
        return None


def send_signal(number: int, *processes: int | None) -> None:
    for process in processes:
        if process is not None:
            os.kill(process, number)


def witness(part: int, how: str, at: float | None = None) -> None:
    """Write a line of the trail, with the present time by default."""
    from airflow.sdk import get_current_context

    ti = get_current_context()["ti"]
    at = time.time() if at is None else at
    line = {"run": ti.run_id, "task": ti.task_id, "part": part, "pid": os.getpid(), "at": at, "how": how}
    trail = os.open(os.environ["CHAOS_TRAIL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(trail, json.dumps(line).encode() + b"\n")
    os.close(trail)


def is_refused(error: BaseException) -> bool:
    """Whether Airflow answered that it recorded nothing. After any other error it may have recorded."""
    detail = getattr(getattr(error, "error", None), "detail", None) or {}
    return 400 <= (detail.get("status_code") or 0) < 500


def around(before: str | None, function: Callable[..., Any], after: str | None) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before:
            pass_by(before)
        result = function(*args, **kwargs)
        if after:
            pass_by(after)
        return result

    return wrapper


def written(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method with which the journal records the end of requests: of its first argument, or of all."""

    def wrapper(self: Any, *parts: Any, **details: Any) -> None:
        function(self, *parts, **details)
        for part in parts[0] if parts and isinstance(parts[0], Mapping) else parts:
            if isinstance(part, int):
                witness(part, "written")

    return wrapper


def set_boundaries(submission: Any) -> None:
    """Wrap the submission's functions. Called when the operators' module was loaded."""
    from urllib3.connection import HTTPConnection

    from airflow_provider_volubile.api import wire
    from airflow_provider_volubile.calling import kinds, sending_parts
    from airflow_provider_volubile.calling.journal import SubmissionJournal as Journal

    # Make requests small, so that a submission has several.
    wire.MAX_RECIPIENTS = int(os.environ["CHAOS_PART_SIZE"])
    sending_parts.SEND_WITHIN = float(os.environ["CHAOS_SEND_WITHIN"])

    begin = Journal.begin

    def witnessed(self: Any, part: int, **details: Any) -> None:
        # A process frozen at the boundary has begun before it: its time to send runs meanwhile.
        began = time.time()
        pass_by("before-begin")
        witness(part, "begin", began)
        try:
            begin(self, part, **details)
        except BaseException as error:
            witness(part, "not begun" if is_refused(error) else "begin lost")
            raise

    Journal.begin = around(None, witnessed, "before-send")
    Journal.accept_all = around("before-accept", written(Journal.accept_all), "after-accept")
    Journal.refuse = written(Journal.refuse)  # type: ignore[method-assign]
    Journal.release = written(Journal.release)  # type: ignore[method-assign]
    Journal.complete = around("before-complete", Journal.complete, "after-complete")
    Journal.miss = around(None, Journal.miss, "after-miss")
    Operator = submission.SubmissionOperator
    Operator._wait = around("before-wait", Operator._wait, None)

    sending: list[int] = []
    for kind in (kinds.Campaigns, kinds.Calls, kinds.SingleCalls):

        def send(
            self: Any, client: Any, journal: Any, number: int, part: Any, *, not_after: float, original: Any = kind.send
        ) -> Sequence[str]:
            sending.append(number)
            try:
                ids: Sequence[str] = original(self, client, journal, number, part, not_after=not_after)
            except BaseException as error:
                witness(number, type(error).__name__)
                raise
            finally:
                sending.pop()
            witness(number, "accepted")
            return ids

        kind.send = send  # type: ignore[method-assign]

    request = HTTPConnection.request

    def handed_over(self: Any, *args: Any, **kwargs: Any) -> None:
        request(self, *args, **kwargs)
        if sending:  # it was handed to the network; the answer is still to come
            pass_by("before-answer")

    HTTPConnection.request = handed_over  # type: ignore[method-assign]

    set_forgetfulness(Operator)


def set_forgetfulness(operator: Any) -> None:
    """Let the storm switch the journal off: every try begins with an empty store and looks for no calls."""
    check = operator._check_parameters

    def is_forgetful() -> bool:
        return os.path.exists(os.path.join(ORDERS, "forget"))

    def forgetful_check(self: Any) -> None:
        from airflow.sdk import get_current_context

        if is_forgetful():
            get_current_context()["task_state_store"].clear()
        check(self)

    operator._check_parameters = forgetful_check
    recover = operator._recover

    def forgetful_recover(self: Any, *arguments: Any, **details: Any) -> None:
        if not is_forgetful():
            recover(self, *arguments, **details)

    operator._recover = forgetful_recover


def preload(_: Any) -> None:
    """Import the modules of tasks once, in the process that forks them, to save processor time."""
    for module in (
        "phonenumbers",
        "requests",
        "airflow.providers.standard.triggers.temporal",
        "airflow.sdk.execution_time.hitl",
        "airflow_provider_volubile.calling.sending_parts",
        "airflow_provider_volubile.hooks.volubile",
        "airflow_provider_volubile.operators.calls",
        "airflow_provider_volubile.operators.campaigns",
        "airflow_provider_volubile.triggers.calls",
        "airflow_provider_volubile.triggers.campaigns",
        "airflow_provider_volubile.waiting.polling",
    ):
        importlib.import_module(module)


class WhenLoaded(importlib.abc.MetaPathFinder):
    """Call a function once a module was loaded."""

    def __init__(self, name: str, function: Callable[[ModuleType], None]) -> None:
        self.name, self.function = name, function

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self.function(module)

        spec.loader.exec_module = exec_module
        return spec


if ORDERS:
    sys.meta_path.insert(0, WhenLoaded("airflow_provider_volubile.operators.submission", set_boundaries))
    if "scheduler" in sys.orig_argv:
        sys.meta_path.insert(0, WhenLoaded("airflow.executors.local_executor", preload))
