"""``python -m tests.chaos``: run a storm of faults over a whole Airflow, and compare its reports with the ledger."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from tests.chaos.run import world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--injections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="replay the sequence of an earlier run")
    parser.add_argument("--database", choices=("auto", "sqlite", "postgres"), default="auto")
    parser.add_argument("--width", type=int, default=24, help="submissions in progress at once")
    parser.add_argument("--parallelism", type=int, default=8, help="tasks that run at once")
    parser.add_argument("--limit", type=float, default=4 * 3600, help="seconds after which no more is injected")
    parser.add_argument("--without-journal", action="store_true", help="switch the journal off: the judge must notice")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--keep", action="store_true", help="keep the folder with databases and logs")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    command = (
        f"python -m tests.chaos --injections {options.injections} --seed {seed} --database {options.database}"
        + " --without-journal" * options.without_journal
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # all processes end with this one
    print(f"Replay with: {command}", flush=True)
    with world(
        seed=seed,
        database=options.database,
        width=options.width,
        parallelism=options.parallelism,
        limit=options.limit,
        keep=options.keep,
        progress=lambda line: print(line, flush=True),
    ) as here:
        storm = here.storm_without_journal if options.without_journal else here.storm
        report = storm(options.injections)
    text = f"$ {command}\n\n{report}"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")
    if options.without_journal:
        return 0 if report.verdict.duplicates else 1
    return 0 if report.verdict.is_good and int(report.tally) >= options.injections else 1


if __name__ == "__main__":
    sys.exit(main())
