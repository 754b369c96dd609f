"""Deliver the injections of :mod:`.injections`, and act as people do meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from airflow_provider_volubile.simulator import Simulator
from tests.chaos.injections import BOUNDARIES, COMPONENTS, DEATHS, DIALLING, Injection, sequence
from tests.chaos.stack import PART_SIZE, SEND_WITHIN, Postgres, Stack, Task
from tests.chaos.trail import Key, read_trail

KINDS = {"campaign": 7, "bulk": 7, "single": 4}  # people in each submission
MODES = ("sync_fail", "sync_ask", "deferred_fail", "deferred_ask")
OVER = {"success", "failed"}
# The answers as Airflow's UI shows them.
CREATED = "It was created"
SEND = "It was not created: send it"
# Airflow takes a frozen process for dead before it goes on: its task's heartbeat times out first.
FROZEN = 20.0
DOWN = 1.5
# Seconds in which a queued task should have begun.
STUCK = 60.0
# Most injections that wait at one boundary or route.
DEPTH = 3


@dataclass
class Tally:
    """Counts of the storm so far."""

    injected: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    questions: int = 0

    def add(self, injection: Injection) -> None:
        self.injected[injection.label] += 1
        self.places[injection.where] += 1

    def __int__(self) -> int:
        return sum(self.injected.values())

    @property
    def untouched(self) -> set[str]:
        """Boundaries, components and dialling routes without an injection so far."""
        return {place for place in (*BOUNDARIES, *COMPONENTS, *DIALLING) if not self.places[place]}


class Storm:
    """One storm over a running Airflow.

    :param name: prefix of the ids of its Dag runs.
    :param numbers: numbers that were never called before.
    :param width: submissions in progress at once.
    """

    def __init__(
        self,
        stack: Stack,
        simulator: Simulator,
        database: Postgres | None,
        numbers: Iterator[str],
        *,
        name: str,
        seed: int,
        width: int,
    ) -> None:
        self.stack = stack
        self.simulator = simulator
        self.database = database
        self.name = name
        self.chance = random.Random(f"people {seed}")
        self.width = width
        self.people: dict[Key, list[str]] = {}
        self.tally = Tally()
        self.cuts: list[float] = []  # see Evidence
        self.told = 0.0
        self._injections = sequence(seed, with_database=database is not None)
        self._numbers = numbers
        self._runs = 0
        self._ordered = 0
        self._later: list[Injection] = []
        self._orders: dict[str, Injection] = {}
        self._faults: dict[int, Injection] = {}
        self._down: dict[str, float] = {}
        self._frozen: dict[tuple[int, ...], float] = {}
        self._stopped: dict[Key, float] = {}
        self._probed = 0.0
        self._queued: dict[tuple[str, str, int], float] = {}

    # The two phases ------------------------------------------------------------------------------------------------

    def rage(self, target: int, *, until: Callable[[], bool] = lambda: False, limit: float) -> None:
        """Inject until a number of injections was delivered, with one at every place, or until a condition holds.

        Towards the end, only inject at places without an injection so far, so that tasks reach these places.


        :param limit: seconds after which it ends in any case.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and not until():
            self._raise_the_dead()
            tasks = self.tasks()
            self._keep_busy(tasks)
            self._look_after(tasks)
            self._count()
            if int(self.tally) >= target:
                if not self.tally.untouched:
                    break
                self._withdraw(self.tally.untouched)
            if not self._down:  # while Airflow is down, tasks do nothing
                self._inject_next(tasks, self.tally.untouched if int(self.tally) >= target else None)
            time.sleep(0.2)

    def calm(self, *, limit: float) -> dict[Key, Task]:
        """Inject nothing more, and wait until all tasks have ended."""
        self._withdraw(set())
        deadline = time.monotonic() + limit
        mended: set[Key] = set()
        while time.monotonic() < deadline:
            self._raise_the_dead()
            tasks = self.tasks()
            self._look_after(tasks)
            if not (self._down or self._frozen or self._stopped):
                failed = [task for task in tasks.values() if task.state == "failed" and task.key not in mended]
                mended.update(task.key for task in failed if self.stack.clear(task))
                if not failed and all(task.state in OVER for task in tasks.values()):
                    break
            time.sleep(0.5)
        return self.tasks()

    def tasks(self) -> dict[Key, Task]:
        return {key: task for key, task in self.stack.tasks().items() if key in self.people}

    # Work ------------------------------------------------------------------------------------------------------------

    def _keep_busy(self, tasks: dict[Key, Task]) -> None:
        open_tasks = sum(task.state not in OVER for task in tasks.values())
        if open_tasks > self.width or not self.stack.is_up("api-server"):
            return
        run_id = f"{self.name}{self._runs:04d}"
        folder = self.stack.people / run_id
        if not folder.exists():
            folder.mkdir()
            for kind, count in KINDS.items():
                for mode in MODES:
                    phones = [next(self._numbers) for _ in range(count)]
                    rows = [json.dumps({"phone": phone, "firstName": "Lucie"}) for phone in phones]
                    (folder / f"{kind}_{mode}.jsonl").write_text("\n".join(rows))
                    self.people[run_id, f"{kind}_{mode}"] = phones
        # The answer may be lost with the API server.
        if self.stack.begin(run_id) or any(key[0] == run_id for key in self.stack.tasks()):
            self._runs += 1

    # Harm ------------------------------------------------------------------------------------------------------------

    def _inject_next(self, tasks: dict[Key, Task], places: set[str] | None) -> None:
        """Inject the next injection whose place has room. It waits there for the next task.

        :param places: inject only at these places, if given.
        """
        waiting = Counter(injection.where for injection in (*self._orders.values(), *self._faults.values()))
        if waiting.total() >= self.width:
            return
        self._later.append(next(self._injections))
        for injection in self._later:
            if waiting[injection.where] < DEPTH and (places is None or injection.where in places):
                self._later.remove(injection)
                self._inject(injection, tasks)
                return

    def _withdraw(self, places: set[str]) -> None:
        """Withdraw the injections that no task has met, except at these places."""
        for order, injection in self._orders.items():
            if injection.where not in places:
                with contextlib.suppress(FileNotFoundError):
                    (self.stack.orders / injection.where / order).unlink()
        self._count()
        self._orders = {order: injection for order, injection in self._orders.items() if injection.where in places}
        if any(injection.where not in places for injection in self._faults.values()):
            self.simulator.clear_faults()
            self._faults.clear()

    def _inject(self, injection: Injection, tasks: dict[Key, Task]) -> None:
        match injection.group:
            case "network":
                number = self.simulator.fault(injection.where, injection.what, **injection.details)
                self._faults[number] = injection
            case "task":
                folder = self.stack.orders / injection.where
                folder.mkdir(exist_ok=True)
                self._ordered += 1
                order = f"{self.name}{self._ordered:06d}-{DEATHS[injection.what]}"
                (folder / order).touch()
                self._orders[order] = injection
            case "worker":
                if supervisors := self.stack.supervisors():
                    with contextlib.suppress(psutil.Error):
                        self.chance.choice(supervisors).kill()
                        self.tally.add(injection)
            case "component":
                self._kill(injection)
            case "people":
                self._meddle(injection, tasks)

    def _kill(self, injection: Injection) -> None:
        if injection.where == "database":
            assert self.database is not None
            self.database.kill()
        else:
            self.stack.kill(injection.where, with_children=" with " in injection.what)
        if injection.where in ("database", "api-server"):
            self.cuts.append(time.time())
        self._down[injection.where] = time.monotonic() + DOWN
        self.tally.add(injection)

    def _meddle(self, injection: Injection, tasks: dict[Key, Task]) -> None:
        """Clear a task in any state, or stop a task and clear it later, as people do."""
        states = {"deferred"} if injection.what != "clear" else OVER | {"running", "deferred", "awaiting_input"}
        candidates = [task for task in tasks.values() if task.state in states and task.key not in self._stopped]
        if injection.what != "clear":  # a stop pauses only campaigns, which then go on
            candidates = [task for task in candidates if task.key[1].startswith("campaign")] or candidates
        if not candidates:
            return
        task = self.chance.choice(candidates)
        if injection.what == "clear":
            done = self.stack.clear(task)
        elif done := self.stack.fail(task):
            self._stopped[task.key] = time.monotonic() + self.chance.uniform(0, 6)
        if done:
            self.tally.add(injection)

    def _count(self) -> None:
        """Check which orders were carried out."""
        for fault in self.simulator.faults():
            if fault["applied"] and (injection := self._faults.pop(fault["id"], None)):
                self.tally.add(injection)
        for path in (self.stack.orders / "taken").iterdir():
            number, what, task, supervisor = path.name.split("-")
            injection = self._orders.pop(f"{number}-{what}", None)
            if injection is None:
                continue
            self.tally.add(injection)
            if what == "freeze":
                self._frozen[int(task), int(supervisor)] = time.monotonic() + FROZEN

    # Help ------------------------------------------------------------------------------------------------------------

    def _raise_the_dead(self) -> None:
        """Restart components some time after they were killed, and let frozen processes go on."""
        now = time.monotonic()
        for component, until in list(self._down.items()):
            if now >= until:
                if component == "database" and self.database is not None:
                    self.database.start()
                else:
                    self.stack.start(component)
                del self._down[component]
        for component in self.stack.components:  # some end by themselves when the database is down
            if component not in self._down and not self.stack.is_up(component):
                self._down[component] = now + DOWN
        if now > self._probed + 5 and not self._down:
            self._probed = now
            for component in self.stack.hung():
                self.stack.kill(component, with_children=True)
            if self._is_stuck(now):
                self.stack.kill("scheduler", with_children=True)
        for processes, until in list(self._frozen.items()):
            if now >= until:
                for pid in processes:
                    # Another process may have its id by now.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGCONT)
                del self._frozen[processes]
        self.stack.reap()
        if "database" in self._down:
            time.sleep(max(0, self._down["database"] - now))
            self._raise_the_dead()

    def _is_stuck(self, now: float) -> bool:
        """Whether a task has stayed queued for long.

        If a worker is killed before it begins its task, a LocalExecutor waits forever for this task.
        """
        queued = {(*key, task.try_number) for key, task in self.tasks().items() if task.state == "queued"}
        self._queued = {task: self._queued.get(task, now) for task in queued}
        if not any(now - since > STUCK for since in self._queued.values()):
            return False
        self._queued.clear()
        return True

    def _look_after(self, tasks: dict[Key, Task]) -> None:
        """Act as people do: clear stopped tasks, and answer questions."""
        now = time.monotonic()
        for key, until in list(self._stopped.items()):
            if now >= until and self.stack.clear(tasks[key]):
                del self._stopped[key]
        for task in tasks.values():
            if task.state == "awaiting_input":
                self._answer(task)

    def _answer(self, task: Task) -> None:
        """Answer like a person who checked the dashboard, once the request cannot be in transit any more."""
        question = self.stack.question(task)
        if question is None:
            return
        named = re.search(r"campaign '[^']*-(\d+)\]'|request (\d+) of", question)
        assert named is not None, question
        part = int(named[1] or named[2]) - 1
        senders = [a for a in read_trail(self.stack.trail) if (a.key, a.part) == (task.key, part)]
        if any(sender.may_still_send(SEND_WITHIN) for sender in senders) or self._is_dialling():
            return
        campaign_id = ""
        if name := re.search(r"campaign '([^']+)'", question):
            created = [entry["campaign_id"] for entry in self.simulator.submissions() if entry["name"] == name[1]]
            campaign_id = created[0] if created and self.chance.random() < 0.5 else ""
        else:
            size = 1 if task.task_id.startswith("single") else PART_SIZE
            people = set(self.people[task.key][part * size : (part + 1) * size])
            created = [entry["call_id"] for entry in self.simulator.ledger() if entry["phone"] in people]
        if self.stack.answer(task, CREATED if created else SEND, campaign_id):
            self.tally.questions += 1

    def _is_dialling(self) -> bool:
        """Whether the service still handles a request that dials."""
        return any(
            request["operation"] in DIALLING and request["status"] is None and request["fault"] not in ("drop", "reset")
            for request in self.simulator.requests()
        )
