"""``make bench``: one command, one table and a plot, every figure beside its rival in the same run.

Windows and intervals are ten times shorter than in earnest (100 requests per 1.5 s); ``--full`` measures the use of the
window at its full length, too. The table goes to ``docs/_static/benchmarks.csv``, the plot to ``docs/img/``.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="volubile-bench-"))
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

from airflow_provider_volubile.simulator import Simulator
from tests.benchmarks import detection, overhead, pacing_processes, triggerer, triggerer_process

DOCS = Path(__file__).parents[2] / "docs"
SCALE = 10


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :param must: what the measure has to reach, in words; empty where there is only something to tell.
    :param reached: whether it did; None where nothing was asked.
    """

    measure: str
    ours: str
    rival: str
    ratio: str
    must: str
    reached: bool | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--full", action="store_true", help="also with windows of 15 s (ten minutes more)")
    full = parser.parse_args().full
    rows: list[Row] = []

    def add(*values: object) -> None:
        row = Row(*values)  # type: ignore[arg-type]
        rows.append(row)
        print(f"{row.measure:<58} {row.ours:<26} {row.rival:<40} {row.ratio:<9} {row.must}", flush=True)

    print(f"{'measure':<58} {'this provider':<26} {'beside it':<40} {'ratio':<9} must")
    with Simulator() as simulator:
        for tasks in (1, 5000):
            cost = detection.cost_of_a_round(simulator, 10_000, tasks)
            add(
                f"requests per poll round, 10,000 calls, {tasks:,} tasks",
                f"{cost:.1f}",
                "10000 (one poll per call)",
                f"{10_000 / cost:.0f} ×",
                "≤ 101",
                cost <= 101,
            )
        bare, client = overhead.of_the_client(simulator)
        add(
            "processor time of a request",
            f"{client * 1e6:.0f} µs",
            f"{bare * 1e6:.0f} µs (requests)",
            f"{client / bare:.2f} ×",
            "≤ 1.3 ×",
            client <= 1.3 * bare,
        )
    for length in (15 / SCALE, *((15.0,) if full else ())):
        one = pacing_processes.measure(processes=1, work=2000, length=length)
        add(
            f"share of the window, 2,000 transcripts, 1 process, {length:g} s",
            f"{one.used:.1%}",
            "100 % (the window itself)",
            f"{one.used:.3f}",
            "≥ 97 %",
            one.used >= 0.97,
        )
        eight = pacing_processes.measure(processes=8, work=250, length=length)
        add(
            f"the same with 8 processes at once, {length:g} s",
            f"{eight.used:.1%}",
            "100 % (the window itself)",
            f"{eight.used:.3f}",
            "≥ 95 %",
            eight.used >= 0.95,
        )
        add("… refused (429)", f"{eight.refused:.2%}", "", "", "≤ 1 %", eight.refused <= 0.01)
        add("… slowest over fastest process", f"{eight.spread:.2f} ×", "", "", "≤ 1.5 ×", eight.spread <= 1.5)
    runs = detection.compare(scale=SCALE)
    detected = {who: ordered[len(ordered) // 2] for who, ordered in runs.items()}
    soon = detected["this provider, a task per call"].all_after
    for who, found in detected.items():
        if who.startswith("this"):
            add(
                f"1,000 ended calls all noticed: {who.removeprefix('this provider, ')}",
                f"{found.all_after:.2f} s",
                f"{runs[who][-1].all_after:.2f} s (the latest of {len(runs[who])}; this is the median)",
                "",
                "",
                None,
            )
        else:
            add(
                f"… {who}",
                f"{soon:.2f} s",
                f"{found.all_after:.1f} s, {found.refused / found.requests:.0%} refused",
                f"{found.all_after / soon:.0f} ×",
                "≥ 20 × sooner" if who.endswith("HttpSensor per call") else "",
                found.all_after >= 20 * soon if who.endswith("HttpSensor per call") else None,
            )
    with Simulator() as simulator:
        health = triggerer.measure(simulator)
    add(
        "10,000 triggers: longest the event loop is held up",
        f"{health.longest_block * 1000:.0f} ms",
        f"{health.longest_collection * 1000:.0f} ms (Python's garbage collector)",
        "",
        "≤ 50 ms",
        health.longest_block <= 0.05,
    )
    add("… memory of a waiting trigger", f"{health.memory / 1024:.1f} KiB", "", "", "", None)
    add("… from the end of all calls to the last resumed", f"{health.lag:.0f} s", "", "", "", None)
    with Simulator() as simulator:
        waiting = triggerer_process.measure(simulator)
    theirs, ours = waiting["airflow"], waiting["volubile"]
    add(
        "10,000 tasks wait in a real triggerer: longest hold-up",
        f"{ours.longest * 1000:.0f} ms",
        f"{theirs.longest * 1000:.0f} ms (DateTimeTrigger)",
        "",
        "≤ 50 ms",
        ours.longest <= 0.05,
    )
    add("… share of a core", f"{ours.processor:.0%}", f"{theirs.processor:.0%} (DateTimeTrigger)", "", "", None)
    add(
        "… memory of the process",
        f"{ours.memory / 2**20:.0f} MiB",
        f"{theirs.memory / 2**20:.0f} MiB (DateTimeTrigger)",
        "",
        "",
        None,
    )
    with tempfile.TemporaryDirectory() as folder:
        parsing = overhead.of_parsing(Path(folder))
    (standard, standard_whole), (volubile, volubile_whole) = parsing["standard"], parsing["volubile"]
    add(
        "parsing the example Dag, whole process",
        f"{volubile_whole:.2f} s",
        f"{standard_whole:.2f} s (standard operators)",
        f"{volubile_whole / standard_whole:.2f} ×",
        "≤ 1.2 ×",
        volubile_whole <= 1.2 * standard_whole,
    )
    add(
        "… with Airflow already loaded",
        f"{volubile * 1000:.0f} ms",
        f"{standard * 1000:.0f} ms (standard operators)",
        f"{volubile / standard:.2f} ×",
        "≤ 1.2 ×",
        volubile <= 1.2 * standard,
    )
    write(rows)
    plot(detected)
    missed = [row.measure for row in rows if row.reached is False]
    print("\nAll reached." if not missed else "\nNot reached: " + "; ".join(missed))
    return 0


def write(rows: list[Row]) -> None:
    with (DOCS / "_static" / "benchmarks.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["Measure", "This provider", "Beside it", "Ratio", "Must reach", "Reached"])
        for row in rows:
            reached = {True: "yes", False: "no", None: ""}[row.reached]
            table.writerow([row.measure, row.ours, row.rival, row.ratio, row.must, reached])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    (DOCS / "_static" / "benchmarks.txt").write_text(
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {machine}.\n", encoding="utf-8"
    )


def plot(detected: dict[str, detection.Detected]) -> None:
    """Calls noticed over time, for everybody."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for who, found in detected.items():
        lags = sorted(max(lag, 0.0) for lag in found.lags)
        axes.plot([0, *lags], range(len(lags) + 1), label=who, linewidth=2 if who.startswith("this") else 1.3)
    axes.set_xlabel(f"seconds since all calls ended (window and intervals {SCALE} × shorter than in earnest)")
    axes.set_ylabel("calls noticed")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(DOCS / "img" / "benchmark-detection.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
