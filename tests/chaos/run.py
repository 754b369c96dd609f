"""One run of the chaos suite, and its report."""

from __future__ import annotations

import contextlib
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_volubile.simulator import Simulator
from tests.chaos.injections import sequence
from tests.chaos.judge import Verdict, duplicates, judge
from tests.chaos.stack import Postgres, Stack
from tests.chaos.storm import Storm, Tally


@dataclass
class Report:
    """What a run injected and what came of it."""

    tally: Tally
    verdict: Verdict
    database: str
    seconds: float

    def __str__(self) -> str:
        groups: Counter[str] = Counter()
        for label, count in self.tally.injected.items():
            groups[label.partition(":")[0]] += count
        verdict = self.verdict
        lines = [f"{'injected':<64}{'times':>6}", "-" * 70]
        lines += [f"{label:<64}{count:>6}" for label, count in sorted(self.tally.injected.items())]
        lines += ["-" * 70, f"{'all':<64}{int(self.tally):>6}", ""]
        facts = {
            "injections": f"{int(self.tally)} ({', '.join(f'{group} {n}' for group, n in sorted(groups.items()))})",
            "of these kills and freezes": groups["task"] + groups["worker"] + groups["component"],
            "submissions": verdict.submissions,
            "people in them": verdict.people,
            "called": verdict.called,
            "called twice": len(verdict.duplicates),
            "lost": len(verdict.lost),
            "rejected and reported": verdict.rejected,
            "not called and reported with an unknown outcome": verdict.unreported,
            "unknown outcomes reported at the end": len(verdict.unknown),
            "questions answered by a person": self.tally.questions,
            "wrong reports": len(verdict.wrong_reports),
            "other failures": len(verdict.unexpected),
            "tasks at the end": ", ".join(f"{state} {count}" for state, count in sorted(verdict.states.items())),
            "database": self.database,
            "seconds": f"{self.seconds:.0f}",
            "python": platform.python_version(),
        }
        lines += [f"{name:<50}{value}" for name, value in facts.items()]
        for title, texts in (
            ("called twice", verdict.duplicates),
            ("lost", verdict.lost),
            ("wrong reports", verdict.wrong_reports),
            ("other failures", verdict.unexpected),
        ):
            lines += [f"\n{title}:", *texts[:10]] if texts else []
        return "\n".join(lines)


def run(
    *,
    injections: int,
    seed: int,
    database: str = "auto",
    width: int = 24,
    parallelism: int = 8,
    limit: float = 3600,
    calm_limit: float = 600,
    without_journal: bool = False,
    keep: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Run a storm to its end and judge it.

    :param injections: how many to deliver. With ``without_journal`` it ends with the first duplicate.
    :param limit: seconds after which no more is injected.
    :param calm_limit: seconds for everything to come to its end afterwards.
    """
    if database == "auto":
        database = "postgres" if Postgres.is_available() else "sqlite"
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="volubile-chaos-"))
    folder.chmod(0o755)  # the database server runs as somebody else
    home = folder / "airflow"
    home.mkdir()
    try:
        with contextlib.ExitStack() as opened:
            # Calls take seconds, so that tasks are there to be hit; the list is a little behind.
            simulator = opened.enter_context(
                Simulator(seed=seed, speed=60, ignore_windows=True, limit=1_000_000, list_lag=0.5)
            )
            postgres = opened.enter_context(Postgres(folder / "postgres")) if database == "postgres" else None
            stack = opened.enter_context(
                Stack(
                    home,
                    simulator,
                    database=postgres.url if postgres else None,
                    parallelism=parallelism,
                    without_journal=without_journal,
                )
            )
            progress(f"Airflow is up after {time.monotonic() - began:.0f} s, in {home}")
            storm = Storm(
                stack,
                simulator,
                sequence(seed, with_database=postgres is not None),
                seed=seed,
                width=width,
                database=postgres,
            )
            told = [0.0]

            def enough() -> bool:
                if time.monotonic() - told[0] > 30:
                    told[0] = time.monotonic()
                    states = Counter(str(task.state) for task in stack.tasks().values())
                    progress(
                        f"{time.monotonic() - began:6.0f} s: {int(storm.tally)} injections, "
                        f"{len(duplicates(simulator))} called twice, tasks {dict(states)}"
                    )
                return without_journal and bool(duplicates(simulator))

            storm.rage(injections, until=enough, limit=limit)
            if without_journal:
                verdict = Verdict(submissions=len(storm.people), duplicates=duplicates(simulator))
            else:
                progress(f"{time.monotonic() - began:6.0f} s: the storm is over")
                verdict = judge(stack, simulator, storm.people, storm.calm(limit=calm_limit))
            return Report(storm.tally, verdict, database, time.monotonic() - began)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
