"""Lets everything go wrong that :mod:`.injections` has in store, and does what people do meanwhile."""

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

from airflow_provider_volubile.operators.submission import CREATED, SEND
from airflow_provider_volubile.simulator import Simulator
from tests.chaos.injections import Injection
from tests.chaos.stack import PART_SIZE, Postgres, Stack, Task

KINDS = {"campaign": 7, "bulk": 7, "single": 4}  # people in each submission
OVER = {"success", "failed"}
# A frozen process is believed dead before it goes on: its task's heartbeat times out after 12 s.
FROZEN = 20.0
# While a request may still be on its way nobody can know that it was not taken.
SETTLED = 6.0
DOWN = 1.5


@dataclass
class Tally:
    """What the storm has done so far."""

    injected: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    questions: int = 0

    def __int__(self) -> int:
        return sum(self.injected.values())


class Storm:
    """A run of the chaos suite.

    :param width: submissions that are under way at once.
    """

    def __init__(
        self,
        stack: Stack,
        simulator: Simulator,
        injections: Iterator[Injection],
        *,
        seed: int,
        width: int,
        database: Postgres | None = None,
    ) -> None:
        self.stack = stack
        self.simulator = simulator
        self.injections = injections
        self.chance = random.Random(f"people {seed}")
        self.width = width
        self.database = database
        self.people: dict[tuple[str, str], list[str]] = {}
        self.tally = Tally()
        self._numbers = self._all_numbers()
        self._ordered = 0
        self._orders: dict[str, Injection] = {}
        self._faults: dict[int, Injection] = {}
        self._down: dict[str, float] = {}
        self._frozen: dict[tuple[int, ...], float] = {}
        self._last_thaw = 0.0
        self._stopped: dict[tuple[str, str], float] = {}
        self._mended: Counter[tuple[str, str]] = Counter()

    # The two phases ------------------------------------------------------------------------------------------------

    def rage(self, target: int, *, until: Callable[[], bool] = lambda: False, limit: float) -> None:
        """Inject until so much was delivered, or until something is the case.

        :param limit: seconds after which it ends all the same.
        """
        deadline = time.monotonic() + limit
        while int(self.tally) < target and not until() and time.monotonic() < deadline:
            self._raise_the_dead()
            tasks = self.stack.tasks()
            self._keep_busy(tasks)
            self._look_after(tasks)
            self._count()
            if len(self._orders) + len(self._faults) < self.width:
                self._inject(next(self.injections), tasks)
            time.sleep(0.15)

    def calm(self, *, limit: float) -> dict[tuple[str, str], Task]:
        """Let nothing more go wrong, and see everything to its end."""
        for order in self._orders:
            with contextlib.suppress(FileNotFoundError):
                next(self.stack.orders.glob(f"*/{order}")).unlink()
        self._count()
        self.simulator.clear_faults()
        self._orders.clear()
        self._faults.clear()
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            self._raise_the_dead()
            tasks = self.stack.tasks()
            self._look_after(tasks)
            is_calm = not (self._down or self._frozen or self._stopped)
            if is_calm and all(task.state in OVER for task in tasks.values()) and not self._mend(tasks):
                return tasks
            time.sleep(0.5)
        return self.stack.tasks()

    # Work ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _all_numbers() -> Iterator[str]:
        for prefix in ("+3363998", "+3319900"):
            for number in range(10_000):
                yield f"{prefix}{number:04d}"

    def _keep_busy(self, tasks: dict[tuple[str, str], Task]) -> None:
        open_tasks = sum(task.state not in OVER for task in tasks.values())
        if open_tasks > self.width or not self.stack.is_up("api-server"):
            return
        run_id = f"run{self.tally.runs:04d}"
        folder = self.stack.people / run_id
        if not folder.exists():
            folder.mkdir()
            for kind, count in KINDS.items():
                for mode in ("sync_fail", "sync_ask", "deferred_fail", "deferred_ask"):
                    phones = [next(self._numbers) for _ in range(count)]
                    rows = [json.dumps({"phone": phone, "firstName": "Lucie"}) for phone in phones]
                    (folder / f"{kind}_{mode}.jsonl").write_text("\n".join(rows))
                    self.people[run_id, f"{kind}_{mode}"] = phones
        if self.stack.begin(run_id) or any(key[0] == run_id for key in self.stack.tasks()):
            self.tally.runs += 1

    # Harm ------------------------------------------------------------------------------------------------------------

    def _inject(self, injection: Injection, tasks: dict[tuple[str, str], Task]) -> None:
        match injection.group:
            case "network":
                number = self.simulator.fault(injection.where, injection.what, **injection.details)
                self._faults[number] = injection
            case "task":
                folder = self.stack.orders / injection.where
                folder.mkdir(exist_ok=True)
                self._ordered += 1
                order = f"{self._ordered:06d}-{injection.what}"
                (folder / order).touch()
                self._orders[order] = injection
            case "worker":
                if supervisors := self.stack.supervisors():
                    with contextlib.suppress(psutil.Error):
                        self.chance.choice(supervisors).kill()
                        self.tally.injected[injection.label] += 1
            case "component":
                self._kill(injection)
            case "people":
                self._meddle(injection, tasks)

    def _kill(self, injection: Injection) -> None:
        if self._down:
            return  # with everything down nothing would happen that could go wrong
        if injection.where == "database":
            assert self.database is not None
            self.database.kill()
        else:
            self.stack.kill(injection.where, with_children=" with " in injection.what)
        self._down[injection.where] = time.monotonic() + DOWN
        self.tally.injected[injection.label] += 1

    def _meddle(self, injection: Injection, tasks: dict[tuple[str, str], Task]) -> None:
        """Somebody clears a task, whatever it is doing, or stops one and thinks better of it."""
        states = {"deferred"} if injection.what != "clear" else {"success", "running", "deferred", "awaiting_input"}
        candidates = [task for task in tasks.values() if task.state in states and task.key not in self._stopped]
        if not candidates:
            return
        task = self.chance.choice(candidates)
        if injection.what == "clear":
            done = self.stack.clear(task)
        elif done := self.stack.fail(task):
            self._stopped[task.key] = time.monotonic() + self.chance.uniform(0, 6)
        if done:
            self.tally.injected[injection.label] += 1

    def _count(self) -> None:
        """See which orders were carried out."""
        for fault in self.simulator.faults():
            if fault["applied"] and (injection := self._faults.pop(fault["id"], None)):
                self.tally.injected[injection.label] += 1
        for path in (self.stack.orders / "taken").iterdir():
            number, what, task, supervisor = path.name.split("-")
            injection = self._orders.pop(f"{number}-{what}", None)
            if injection is None:
                continue
            self.tally.injected[injection.label] += 1
            if what == "freeze":
                self._frozen[int(task), int(supervisor)] = time.monotonic() + FROZEN

    # Help ------------------------------------------------------------------------------------------------------------

    def _raise_the_dead(self) -> None:
        """Start again what was killed a while ago, and let the frozen go on."""
        now = time.monotonic()
        for component, until in list(self._down.items()):
            if now >= until:
                if component == "database" and self.database is not None:
                    self.database.start()
                else:
                    self.stack.start(component)
                    self.stack.reap()
                del self._down[component]
        for component in self.stack.components:  # some end by themselves when the database is away
            if component not in self._down and not self.stack.is_up(component):
                self._down[component] = now + DOWN
        for processes, until in list(self._frozen.items()):
            if now >= until:
                for pid in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                del self._frozen[processes]
                self._last_thaw = now
        if "database" in self._down:
            time.sleep(max(0, self._down["database"] - now))
            self._raise_the_dead()

    def _look_after(self, tasks: dict[tuple[str, str], Task]) -> None:
        """Do what people do: think better of it, and answer questions."""
        now = time.monotonic()
        for key, until in list(self._stopped.items()):
            if now >= until and self.stack.clear(tasks[key]):
                del self._stopped[key]
        if not self._frozen and now - self._last_thaw > SETTLED:
            for task in tasks.values():
                if task.state == "awaiting_input":
                    self._answer(task)

    def _answer(self, task: Task) -> None:
        """Answer as somebody who has looked in the dashboard."""
        question = self.stack.question(task)
        if question is None:
            return
        campaign_id = ""
        if name := re.search(r"campaign '([^']+)'", question):
            created = [s for s in self.simulator.submissions() if s["name"] == name[1]]
            campaign_id = created[0]["campaign_id"] if created and self.chance.random() < 0.5 else ""
        else:
            number = int(re.search(r"request (\d+) of", question)[1])  # type: ignore[index]
            size = 1 if task.task_id.startswith("single") else PART_SIZE
            part = set(self.people[task.key][(number - 1) * size : number * size])
            created = [entry for entry in self.simulator.ledger() if entry["phone"] in part]  # type: ignore[misc]
        if self.stack.answer(task, CREATED if created else SEND, campaign_id):
            self.tally.questions += 1

    def _mend(self, tasks: dict[tuple[str, str], Task]) -> bool:
        """Somebody reads why tasks failed and clears them; those that stay unknown are left after the second time."""
        mended = False
        for task in tasks.values():
            if task.state == "failed" and self._mended[task.key] < 2 and self.stack.clear(task):
                self._mended[task.key] += 1
                mended = True
        return mended
