"""``make demo`` and ``make airflow``: run a campaign end to end on real Airflow, or serve it for a person."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from airflow_provider_volubile.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
DAG = "volubile_campaign"
# Log lines that show a task's progress. The rest of Airflow's output goes to a file only.
PROGRESS = re.compile(r"settled|accepted|rejected|redial|transcripts|paused|Cancelled|ERROR", re.IGNORECASE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo")
    parser.add_argument("--serve", action="store_true", help="start Airflow and leave it running")
    parser.add_argument("--port", type=int, default=8080, help="port of Airflow, with --serve (%(default)s)")
    parser.add_argument("--home", type=Path, help="folder for all files (.airflow with --serve, else .demo)")
    given = parser.parse_args()
    serve, home = given.serve, given.home or ROOT / (".airflow" if given.serve else ".demo")
    if not (serve or given.home):  # never delete a folder that the user named
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    # A demonstration must end soon and must dial at any hour of the day.
    with Simulator(speed=120 if serve else 600, seed=7, ignore_windows=True) as simulator:
        environment = airflow_environment(home, simulator, given.port)
        say(f"Preparing Airflow's metadata database (SQLite) in {home}")
        run_quietly(["airflow", "db", "migrate"], environment, home / "migrate.log")
        if serve:
            say(f"Starting Airflow at http://localhost:{given.port} (simulator at {simulator.url}); Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                return subprocess.call([airflow(), "standalone"], env=environment)
            return 0
        say(f"Running the Dag {DAG} against the simulator at {simulator.url}")
        if not run_dag(environment, home / "run.log"):
            say(f"The Dag failed; see {home / 'run.log'}")
            return 1
        show_results(home / "output", simulator)
    return 0


def airflow() -> str:
    return str(Path(sys.executable).parent / "airflow")


def airflow_environment(home: Path, simulator: Simulator, port: int) -> dict[str, str]:
    """Return the environment of an Airflow that sees only the example Dags and the simulator."""
    connection = {
        "conn_type": "volubile",
        "host": simulator.url,
        "password": simulator.primary_key,
        "extra": {"secondary_api_key": simulator.secondary_key},
    }
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{port}/execution/",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW_CONN_VOLUBILE_DEFAULT": json.dumps(connection),
        "VOLUBILE_OUTPUT": f"file://{home / 'output'}",
        # `airflow standalone` starts its components by their name.
        "PATH": os.pathsep.join((str(Path(airflow()).parent), os.environ.get("PATH", os.defpath))),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | settings


def run_quietly(command: list[str], environment: dict[str, str], log: Path) -> None:
    with log.open("w") as file:
        result = subprocess.run([airflow(), *command[1:]], env=environment, stdout=file, stderr=file, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")


def run_dag(environment: dict[str, str], log: Path) -> bool:
    """Run the Dag, show its progress, and keep the whole log."""
    command = [airflow(), "dags", "test", DAG]
    began = time.monotonic()
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if PROGRESS.search(line) and "Triggered" not in line:
                message = re.sub(r"\x1b\[[0-9;]*m", "", line)
                message = re.sub(r"^\S+ \[\w+\s*\] |\s+\[[\w.]+\].*$", "", message).strip()
                print(f"  {time.monotonic() - began:5.1f} s  {message[:150]}", flush=True)
    return process.returncode == 0


def show_results(output: Path, simulator: Simulator) -> None:
    outcomes = next(output.rglob("outcomes.jsonl.gz"))
    with gzip.open(outcomes, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    print(f"\n{'outcome':<14}{'people':>8}{'attempts':>10}")
    for status in sorted({row["status"] for row in rows}):
        same = [row for row in rows if row["status"] == status]
        print(f"{status:<14}{len(same):>8}{sum(row['attempts'] for row in same):>10}")
    print(f"{'all':<14}{len(rows):>8}{sum(row['attempts'] for row in rows):>10}")
    ledger = simulator.summary()
    print(f"\nThe simulator dialled {ledger['people']} people in {ledger['calls']} calls.\n\nFiles:")
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        print(f"  {path}  ({path.stat().st_size} bytes)")


def say(text: str) -> None:
    print(f"» {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
