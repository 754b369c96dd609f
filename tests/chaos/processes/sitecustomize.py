"""Loaded by every process of the Airflow under test (through ``PYTHONPATH``): the package itself knows nothing of it.

It lets a task's process die at the boundaries of a submission when a file in ``$CHAOS_ORDERS/<boundary>`` orders it;
the file's name ends with what to do. Taking an order is a rename, so that each is carried out once.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time

ORDERS = os.environ.get("CHAOS_ORDERS", "")


def pass_by(boundary):
    """A task's process comes to a boundary of its submission."""
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


def carry_out(what):
    task, supervisor = os.getpid(), os.getppid()
    match what:
        case "task":
            os.kill(task, signal.SIGKILL)
        case "supervisor":  # the task lives on as an orphan
            os.kill(supervisor, signal.SIGKILL)
        case "both":
            os.kill(supervisor, signal.SIGKILL)
            os.kill(task, signal.SIGKILL)
        case "freeze":  # as if the machine were suspended; the storm lets it go on later
            os.kill(supervisor, signal.SIGSTOP)
            os.kill(task, signal.SIGSTOP)
        case "term":  # as a worker that is shut down
            os.kill(task, signal.SIGTERM)
            time.sleep(0.1)


def around(before, function, after):
    def wrapper(*args, **kwargs):
        if before:
            pass_by(before)
        result = function(*args, **kwargs)
        if after:
            pass_by(after)
        return result

    return wrapper


def set_boundaries(submission):
    """Called when the operators' module was loaded."""
    from airflow_provider_volubile import dialling
    from airflow_provider_volubile.api import transport, wire
    from airflow_provider_volubile.submissions import SubmissionJournal as Journal

    # Small requests, so that a submission has several.
    wire.MAX_RECIPIENTS = int(os.environ["CHAOS_PART_SIZE"])

    Journal.begin = around("before-begin", Journal.begin, "before-send")
    Journal.accept_all = around("before-accept", Journal.accept_all, "after-accept")
    Journal.complete = around("before-complete", Journal.complete, "after-complete")
    Journal.miss = around(None, Journal.miss, "after-miss")
    Operator = submission.SubmissionOperator
    Operator._wait = around("before-wait", Operator._wait, None)

    sending = []
    for dialler in (dialling.CampaignDialler, dialling.BulkDialler, dialling.SingleDialler):

        def send(self, number, part, original=dialler.send):
            sending.append(number)
            try:
                return original(self, number, part)
            finally:
                sending.pop()

        dialler.send = send

    class Body(transport._Body):
        def __iter__(self):
            yield from super().__iter__()
            if sending:  # it was handed to the network; the answer is still to come
                pass_by("before-answer")

    transport._Body = Body

    if os.environ.get("CHAOS_WITHOUT_JOURNAL"):
        forget(Operator, dialling)


def forget(operator, dialling):
    """Switch the protection off: every try begins with an empty store and looks for nothing."""
    check = operator._check_parameters

    def forgetful(self):
        from airflow.sdk import get_current_context

        get_current_context()["task_state_store"].clear()
        check(self)

    operator._check_parameters = forgetful
    dialling.CampaignDialler.traces = dialling.CallDialler.traces = lambda *_: False


def preload(_):
    """What tasks import anyway is imported once, by whoever forks them: tests are many and processors few."""
    import phonenumbers  # noqa: F401
    import requests  # noqa: F401
    from airflow.providers.standard.triggers import temporal  # noqa: F401

    from airflow_provider_volubile.api import client  # noqa: F401
    from airflow_provider_volubile.operators import calls, campaigns  # noqa: F401


class WhenLoaded(importlib.abc.MetaPathFinder):
    """Calls a function once a module was loaded."""

    def __init__(self, name, function):
        self.name, self.function = name, function

    def find_spec(self, fullname, path, target=None):
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            self.function(module)

        spec.loader.exec_module = exec_module
        return spec


if ORDERS:
    sys.meta_path.insert(0, WhenLoaded("airflow_provider_volubile.operators.submission", set_boundaries))
    if "scheduler" in sys.orig_argv:
        sys.meta_path.insert(0, WhenLoaded("airflow.executors.local_executor", preload))
