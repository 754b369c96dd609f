"""``make bench``: one command, one table and a plot, every figure beside its rival in the same run.

Windows and intervals are ten times shorter than in earnest (100 requests per 1.5 s) where the table does not say
otherwise. ``--full`` measures the use of windows of full length as well, into a table of its own, which later runs
without it leave alone. The tables go to ``docs/_static``, the plot to ``docs/img``. The exit status is 1 when something
was not reached.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import tempfile
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="volubile-bench-"))
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")  # rivals complain of every 429

from airflow_provider_volubile.api.rate_window import LENGTH
from airflow_provider_volubile.simulator import Simulator
from tests.benchmarks import detection, overhead, pacing_processes, triggerer, triggerer_process
from tests.benchmarks.detection import DEFAULT_INTERVAL, OURS, POLL_INTERVAL, RIVALS_INTERVAL

DOCS = Path(__file__).parents[2] / "docs"
SCALE = 10
POLLED = 200  # sensors whose requests are counted


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


class Table:
    """Rows that are printed as they come.

    :param name: of the files in ``docs/_static``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self._show(Row("Measure", "This provider", "Beside it", "Ratio", "Must reach", None))

    def add(
        self, measure: str, ours: str, rival: str, ratio: str = "", must: str = "", *, reached: bool | None = None
    ) -> None:
        self.rows.append(Row(measure, ours, rival, ratio, must, reached))
        self._show(self.rows[-1])

    def _show(self, row: Row) -> None:
        said = {True: "yes", False: "NO", None: ""}[row.reached]
        print(f"{row.measure:<62} {row.ours:<32} {row.rival:<52} {row.ratio:<9} {row.must:<16} {said}", flush=True)

    @property
    def missed(self) -> list[str]:
        return [row.measure for row in self.rows if row.reached is False]

    def write(self) -> None:
        with (DOCS / "_static" / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["Measure", "This provider", "Beside it", "Ratio", "Must reach", "Reached"])
            for row in self.rows:
                table.writerow([*astuple(row)[:-1], {True: "yes", False: "no", None: ""}[row.reached]])
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        (DOCS / "_static" / f"{self.name}.txt").write_text(
            f"Measured on {datetime.now(UTC):%Y-%m-%d} on {machine}.\n", encoding="utf-8"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--full", action="store_true", help="also with windows of 15 s (ten minutes more)")
    full = parser.parse_args().full
    tables = [Table("benchmarks")]
    (table,) = tables
    rounds(table)
    requests(table)
    shares(table, LENGTH / SCALE)
    noticing(table)
    loop(table)
    real_triggerer(table)
    imports(table)
    table.write()
    if full:
        tables.append(full_length())
    missed = [measure for table in tables for measure in table.missed]
    print("\nAll reached." if not missed else "\nNot reached: " + "; ".join(missed))
    return 1 if missed else 0


def full_length() -> Table:
    """Measure the use of windows of full length, and write that down."""
    table = Table("benchmarks_full")
    shares(table, LENGTH)
    table.write()
    return table


def rounds(table: Table, calls: int = 10_000) -> None:
    with Simulator() as simulator:
        polls = detection.cost_of_polls(simulator, POLLED)
        for waits, who in (
            (detection.calls_in_flight(simulator, calls, 1), "1 task"),
            (detection.calls_in_flight(simulator, calls, calls // 2), f"{calls // 2:,} tasks"),
            (detection.campaign_in_flight(simulator, calls), f"1 task, {calls // detection.PEOPLE} campaigns"),
        ):
            costs = detection.cost_of_rounds(simulator, waits)
            theirs = calls * polls / POLLED
            table.add(
                f"requests per poll round, {calls:,} calls, {who}",
                f"{costs[-1]} (the first rounds: {', '.join(map(str, costs[:-1]))})",
                f"{theirs:.0f} (computed: {polls} for {POLLED} HttpSensors)",
                f"{theirs / costs[-1]:.0f} ×",
                f"≤ {-(-calls // 100) + 1}",
                reached=costs[-1] <= -(-calls // 100) + 1,
            )


def requests(table: Table) -> None:
    with Simulator() as simulator:
        bare, client = overhead.of_the_client(simulator)
    table.add(
        "processor time of a request",
        f"{client * 1e6:.0f} µs",
        f"{bare * 1e6:.0f} µs (requests)",
        f"{client / bare:.2f} ×",
        "≤ 1.3 ×",
        reached=client <= 1.3 * bare,
    )


def shares(table: Table, length: float, transcripts: int = 2048) -> None:
    """One process and eight, beside plain loops that do the same."""
    (one, plain), (eight, plains) = (
        pacing_processes.both(processes=processes, work=transcripts // processes, length=length) for processes in (1, 8)
    )

    def used(share: pacing_processes.Share) -> str:
        return f"{share.used:.1%} ({share.speed:.1%} of its speed)"

    def of_loops(what: str) -> str:
        return f"{what} (requests in a loop)"

    table.add(
        f"share of windows of {length:g} s, {transcripts:,} transcripts, 1 process",
        used(one),
        of_loops(used(plain)),
        f"{one.used / plain.used:.2f} ×",
        "≥ 97 %",
        reached=one.used >= 0.97,
    )
    table.add("… refused (429)", f"{one.refused:.2%}", of_loops(f"{plain.refused:.2%}"))
    table.add(
        f"the same, windows of {length:g} s, with 8 processes at once",
        used(eight),
        of_loops(used(plains)),
        f"{eight.used / plains.used:.2f} ×",
        "≥ 95 %",
        reached=eight.used >= 0.95,
    )
    table.add(
        "… refused (429)",
        f"{eight.refused:.2%}",
        of_loops(f"{plains.refused:.2%}"),
        f"{eight.refused / plains.refused:.2f} ×" if plains.refused else "",
        "≤ 1 %",
        reached=eight.refused <= 0.01,
    )
    table.add(
        "… slowest over fastest process",
        f"{eight.spread:.2f} ×",
        of_loops(f"{plains.spread:.2f} ×"),
        "",
        "≤ 1.5 ×",
        reached=eight.spread <= 1.5,
    )
    failed, theirs = [*one.failed, *eight.failed], [*plain.failed, *plains.failed]
    table.add(
        "… failed tasks of all 9",
        "; ".join([str(len(failed)), *failed]),
        of_loops("; ".join([str(len(theirs)), *theirs])),
        "",
        "0",
        reached=not failed,
    )


def noticing(table: Table, calls: int = 1000) -> None:
    runs = detection.compare(calls=calls, scale=SCALE)
    middle = {key: ordered[len(ordered) // 2] for key, ordered in runs.items()}
    for (who, interval), found in runs.items():
        if who in OURS:
            table.add(
                f"{calls:,} ended calls all noticed: {who}, {_every(interval)}",
                f"{middle[who, interval].all_after:.2f} s",
                f"{found[-1].all_after:.2f} s (the latest of {len(found)}; this is the median)",
            )
    soon, usual = (middle["a task per call", interval].all_after for interval in (POLL_INTERVAL, DEFAULT_INTERVAL))
    for who in ("HttpSensor per call", "deferred HttpSensor per call"):
        both = [(middle[who, interval], interval) for interval in (POLL_INTERVAL, RIVALS_INTERVAL)]
        best, interval = min(both, key=lambda found: found[0].all_after)
        table.add(
            f"… {who}, the better of every {POLL_INTERVAL} and {RIVALS_INTERVAL} s",
            f"{soon:.2f} s ({_every(POLL_INTERVAL)})",
            f"{best.all_after:.1f} s, {best.refused / best.requests:.0%} refused ({_every(interval)})",
            f"{best.all_after / soon:.0f} ×",
            "≥ 20 × sooner",
            reached=best.all_after >= 20 * soon,
        )
        default = middle[who, RIVALS_INTERVAL]
        table.add(
            f"… {who}, both with their defaults",
            f"{usual:.2f} s ({_every(DEFAULT_INTERVAL)})",
            f"{default.all_after:.1f} s, {default.refused / default.requests:.0%} refused ({_every(RIVALS_INTERVAL)})",
            f"{default.all_after / usual:.0f} ×",
        )
    plain = middle["requests in a loop", DEFAULT_INTERVAL]
    table.add(
        "… requests in a loop",
        f"{soon:.2f} s ({_every(POLL_INTERVAL)})",
        f"{plain.all_after:.1f} s, {plain.refused / plain.requests:.0%} refused",
        f"{plain.all_after / soon:.0f} ×",
    )
    plot(
        {
            f"{'this provider, ' if who in OURS else ''}{who}, {_every(interval)}": found
            for (who, interval), found in middle.items()
        }
    )


def _every(interval: int) -> str:
    return f"every {interval} s"


def loop(table: Table, tasks: int = 10_000) -> None:
    theirs = triggerer.of_airflow(tasks)
    with Simulator() as simulator:
        ours, lag = triggerer.of_ours(simulator, tasks)
    table.add(
        f"{tasks:,} triggers start, wait and fire: longest hold-up",
        _hold_up(ours.longest, ours.longest_collection),
        f"{_hold_up(theirs.longest, theirs.longest_collection)} (DateTimeTrigger)",
        f"{ours.longest / theirs.longest:.2f} ×",
        "≤ 50 ms",
        reached=ours.longest <= 0.05,
    )
    table.add(
        "… memory of a waiting trigger",
        f"{ours.memory / 1024:.1f} KiB",
        f"{theirs.memory / 1024:.1f} KiB (DateTimeTrigger)",
    )
    must = lag.interval + lag.own
    table.add(
        "… from the end of all calls to the last resumed, windows of 15 s",
        f"{lag.seconds:.1f} s",
        f"{must:.1f} s ({lag.interval:g} s poll interval, {lag.own:.1f} s to read {tasks:,} calls and tell)",
        "",
        "≤ that",
        reached=lag.seconds <= must,
    )


def real_triggerer(table: Table) -> None:
    with Simulator() as simulator:
        waiting = triggerer_process.measure(simulator)
    theirs, ours = waiting["airflow"], waiting["volubile"]
    table.add(
        "10,000 tasks wait in a real triggerer: longest hold-up",
        _hold_up(ours.longest, ours.longest_collection),
        f"{_hold_up(theirs.longest, theirs.longest_collection)} (DateTimeTrigger)",
        f"{ours.longest / theirs.longest:.2f} ×",
        "≤ 50 ms",
        reached=ours.longest <= 0.05,
    )
    table.add("… share of a core", f"{ours.processor:.0%}", f"{theirs.processor:.0%} (DateTimeTrigger)")
    table.add(
        "… memory of the process",
        f"{ours.memory / 2**20:.0f} MiB",
        f"{theirs.memory / 2**20:.0f} MiB (DateTimeTrigger)",
    )


def _hold_up(longest: float, collection: float) -> str:
    return f"{longest * 1000:.0f} ms; collecting garbage {collection * 1000:.0f} ms"


def imports(table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parsing = overhead.of_parsing(Path(folder))
        info, their_info = overhead.of_provider_info(Path(folder))
    (standard, standard_whole), (volubile, volubile_whole) = parsing["standard"], parsing["volubile"]
    table.add(
        "parsing the example Dag, whole process",
        f"{volubile_whole:.2f} s",
        f"{standard_whole:.2f} s (standard operators)",
        f"{volubile_whole / standard_whole:.2f} ×",
        "≤ 1.2 ×",
        reached=volubile_whole <= 1.2 * standard_whole,
    )
    table.add(
        "… with Airflow already loaded",
        f"{volubile * 1000:.0f} ms",
        f"{standard * 1000:.0f} ms (standard operators)",
        f"{volubile / standard:.2f} ×",
        "≤ 1.2 ×",
        reached=volubile <= 1.2 * standard,
    )
    table.add(
        "get_provider_info, with the import of its module",
        f"{info * 1000:.2f} ms",
        f"{their_info * 1000:.2f} ms (HTTP provider)",
        f"{info / their_info:.2f} ×",
        "< 5 ms",
        reached=info < 0.005,
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
