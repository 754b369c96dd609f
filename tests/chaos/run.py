"""An Airflow and a simulator for storms, and the report of a storm."""

from __future__ import annotations

import contextlib
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_volubile.simulator import Simulator
from tests.chaos.injections import BOUNDARIES
from tests.chaos.judge import Evidence, Verdict, duplicates, judge
from tests.chaos.stack import Postgres, Stack
from tests.chaos.storm import Storm, Tally
from tests.chaos.trail import read_trail

Progress = Callable[[str], None]


@dataclass
class Report:
    """The injections of a storm, and its results."""

    tally: Tally
    verdict: Verdict
    database: str
    seconds: float

    def __str__(self) -> str:
        groups: Counter[str] = Counter()
        for label, count in self.tally.injected.items():
            groups[label.partition(":")[0]] += count
        verdict = self.verdict
        lines = [f"{'injected':<70}{'times':>6}", "-" * 76]
        lines += [f"{label:<70}{count:>6}" for label, count in sorted(self.tally.injected.items())]
        lines += ["-" * 76, f"{'all':<70}{int(self.tally):>6}", ""]
        facts = {
            "injections": f"{int(self.tally)} ({', '.join(f'{group} {n}' for group, n in sorted(groups.items()))})",
            "of these kills and freezes": groups["task"] + groups["worker"] + groups["component"],
            "boundaries of a submission that were hit": sum(self.tally.places[place] > 0 for place in BOUNDARIES),
            "submissions": verdict.submissions,
            "people in them": verdict.people,
            "called": verdict.called,
            "called twice": len(verdict.duplicates),
            "lost": len(verdict.lost),
            "rejected, as injected and reported": verdict.rejected,
            "not called, with an unknown outcome before them reported": verdict.left,
            "unknown outcomes reported at the end": len(verdict.unknown),
            "questions answered by a person": self.tally.questions,
            "wrong reports": len(verdict.wrong_reports),
            "other failures": len(verdict.unexpected),
            "tasks at the end": ", ".join(f"{state} {count}" for state, count in sorted(verdict.states.items())),
            "database": self.database,
            "seconds": f"{self.seconds:.0f}",
            "python": platform.python_version(),
        }
        lines += [f"{name:<60}{value}" for name, value in facts.items()]
        for title, texts in (
            ("called twice", verdict.duplicates),
            ("lost", verdict.lost),
            ("wrong reports", verdict.wrong_reports),
            ("other failures", verdict.unexpected),
        ):
            lines += [f"\n{title}:", *texts[:10]] if texts else []
        return "\n".join(lines)


class World:
    """A whole Airflow, its database, and the simulator.

    :param width: submissions in progress at once.
    :param limit: seconds after which a storm injects nothing more.
    :param calm_limit: seconds in which all tasks must end after a storm.
    """

    def __init__(
        self,
        folder: Path,
        simulator: Simulator,
        stack: Stack,
        database: Postgres | None,
        *,
        seed: int,
        width: int,
        limit: float,
        calm_limit: float,
        progress: Progress,
    ) -> None:
        self.folder = folder
        self._simulator = simulator
        self._stack = stack
        self._database = database
        self._seed = seed
        self._width = width
        self._limit = limit
        self._calm_limit = calm_limit
        self._progress = progress
        self._numbers = iter(f"{prefix}{number:04d}" for prefix in ("+3363998", "+3319900") for number in range(10_000))

    def storm(self, injections: int) -> Report:
        """Run a storm until it delivered a number of injections, and judge its results."""
        began = time.monotonic()
        storm = self._new("storm")
        storm.rage(injections, until=lambda: self._told(storm, began), limit=self._limit)
        self._progress(f"{time.monotonic() - began:6.0f} s: the storm is over, {int(storm.tally)} injections")
        tasks = storm.calm(limit=self._calm_limit)
        self._simulator.wait_until_quiet(120)
        evidence = Evidence(
            people=storm.people,
            tasks=tasks,
            handles=self._stack.handles(),
            logs={key: self._stack.log_of(task) for key, task in tasks.items() if task.state != "success"},
            attempts=read_trail(self._stack.trail),
            ledger=self._simulator.ledger(),
            requests=self._simulator.requests(),
            submissions=self._simulator.submissions(),
            cuts=storm.cuts,
        )
        return self._report(storm, judge(evidence), began)

    def storm_without_journal(self, injections: int) -> Report:
        """Switch the journal off permanently, and run a storm until a person is called twice."""
        began = time.monotonic()
        self._stack.forget()
        storm = self._new("forgetful")

        def called_twice() -> list[str]:
            return duplicates(self._simulator.ledger(), storm.people)

        storm.rage(injections, until=lambda: self._told(storm, began) or bool(called_twice()), limit=self._limit)
        return self._report(storm, Verdict(submissions=len(storm.people), duplicates=called_twice()), began)

    def _new(self, name: str) -> Storm:
        return Storm(
            self._stack, self._simulator, self._database, self._numbers, name=name, seed=self._seed, width=self._width
        )

    def _report(self, storm: Storm, verdict: Verdict, began: float) -> Report:
        database = "PostgreSQL" if self._database else "SQLite"
        return Report(storm.tally, verdict, database, time.monotonic() - began)

    def _told(self, storm: Storm, began: float) -> bool:
        """Print the progress of a storm from time to time."""
        now = time.monotonic()
        if now - storm.told > 30:
            storm.told = now
            states = Counter(str(task.state) for task in storm.tasks().values())
            twice = len(duplicates(self._simulator.ledger(), storm.people))
            self._progress(
                f"{now - began:6.0f} s: {int(storm.tally)} injections, {twice} called twice, tasks {dict(states)}"
            )
        return False


@contextlib.contextmanager
def world(
    *,
    seed: int,
    database: str = "auto",
    width: int = 24,
    parallelism: int = 8,
    limit: float = 3600,
    calm_limit: float = 600,
    keep: bool = False,
    progress: Progress = lambda line: None,
) -> Iterator[World]:
    """Start Airflow, database and simulator. They stop when the ``with`` block ends.

    :param database: ``sqlite``, ``postgres``, or ``auto``: PostgreSQL if its server and drivers are installed.
    """
    began = time.monotonic()
    with_postgres = database == "postgres" or (database == "auto" and Postgres.is_available())
    folder = Path(tempfile.mkdtemp(prefix="volubile-chaos-"))
    folder.chmod(0o755)  # the database server runs as another user
    home = folder / "airflow"
    home.mkdir()
    try:
        with contextlib.ExitStack() as opened:
            # Calls take seconds, so that injections find waiting tasks. The call list lags a little.
            simulator = opened.enter_context(
                Simulator(seed=seed, speed=60, ignore_windows=True, limit=1_000_000, list_lag=0.5)
            )
            postgres = opened.enter_context(Postgres(folder / "postgres")) if with_postgres else None
            stack = opened.enter_context(
                Stack(home, simulator, database=postgres.url if postgres else None, parallelism=parallelism)
            )
            progress(f"Airflow is up after {time.monotonic() - began:.0f} s, in {home}")
            yield World(
                folder,
                simulator,
                stack,
                postgres,
                seed=seed,
                width=width,
                limit=limit,
                calm_limit=calm_limit,
                progress=progress,
            )
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
