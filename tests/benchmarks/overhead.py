"""What the client adds to a request, a Dag with our operators to parsing, and the metadata to every component."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import requests

from airflow_provider_volubile.api import transport
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.simulator import Simulator

ROOT = Path(__file__).parents[2]

STANDARD_DAG = """
from airflow.sdk import ObjectStoragePath, Param, dag, task
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator

@dag(schedule=None, params={"people": Param("", type="string"), "output": Param("", type="string")})
def standard():
    campaign = BashOperator(task_id="call_people", bash_command="{{ params.people }}")
    transcripts = PythonOperator(task_id="export_transcripts", python_callable=print, op_args=[campaign.output])

    @task
    def count_outcomes(submission): ...

    transcripts >> count_outcomes(campaign.output)

standard()
"""

PARSE = """
import sys, time
from airflow.dag_processing.dagbag import DagBag
began = time.process_time()
bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(time.process_time() - began, time.process_time())
"""

PROVIDER_INFO = """
import sys, time
import airflow.providers
from importlib.metadata import entry_points
package = sys.argv[1]
for module in [name for name in sys.modules if name.startswith(package)]:
    del sys.modules[module]  # which Airflow has loaded
(entry,) = (entry for entry in entry_points(group="apache_airflow_provider") if entry.value.startswith(package + "."))
began = time.perf_counter()
assert entry.load()()["package-name"]
print(time.perf_counter() - began)
"""


def of_the_client(simulator: Simulator, rounds: int = 7, each: int = 400) -> tuple[float, float]:
    """Processor seconds for a transcript: with bare ``requests`` (and its JSON read), and through the client.

    The two take turns, so that both meet the same machine. Both look up proxies and the like for each request, as they
    do over https; to this machine alone the client does without.
    """
    simulator.reset()
    simulator.configure(limit=10_000_000)
    ids = simulator.load_calls(each)
    session = requests.Session()
    session.headers["X-Api-Key"] = simulator.primary_key
    client = VolubileClient(simulator.url, ApiKeyPair(simulator.primary_key), window=RateWindow(limit=10_000_000))

    def bare(call_id: str) -> None:
        session.get(f"{simulator.url}/v1/calls/{call_id}/transcript", timeout=30).json()

    def ours(call_id: str) -> None:
        client.get_transcript(call_id)

    def seconds(fetch: Callable[[str], None]) -> float:
        began = time.process_time()
        for call_id in ids:
            fetch(call_id)
        return (time.process_time() - began) / each

    reads_environment = property(lambda _: True, lambda _, value: None)
    with mock.patch.object(transport._Session, "trust_env", reads_environment, create=True):
        seconds(bare), seconds(ours)  # both warm
        pairs = [(seconds(bare), seconds(ours)) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def of_parsing(folder: Path, rounds: int = 15) -> dict[str, tuple[float, float]]:
    """Processor seconds to parse the example campaign, and the same Dag of standard operators.

    All modules are compiled beforehand, as they are wherever Airflow has run once.

    :return: for each, what the parse itself took in a process that has Airflow loaded, and the whole process.
    """
    standard = folder / "standard.py"
    standard.write_text(STANDARD_DAG)
    took: dict[str, list[tuple[float, float]]] = {"standard": [], "volubile": []}
    for number in range(rounds + 1):
        for name, path in (("standard", standard), ("volubile", ROOT / "dags" / "volubile_campaign.py")):
            parse, whole = _printed(PARSE, str(path), folder)
            if number:  # the first compiles
                took[name].append((parse, whole))
    return {
        name: (statistics.median(p for p, _ in times), statistics.median(w for _, w in times))
        for name, times in took.items()
    }


def of_provider_info(folder: Path, rounds: int = 5) -> tuple[float, float]:
    """Seconds to load the module and call it, in a process that has Airflow loaded: ours, and the HTTP provider's."""
    took: dict[str, list[float]] = {"airflow_provider_volubile": [], "airflow.providers.http": []}
    for number in range(rounds + 1):
        for package, times in took.items():
            (seconds,) = _printed(PROVIDER_INFO, package, folder)
            if number:  # the first compiles
                times.append(seconds)
    ours, theirs = map(statistics.median, took.values())
    return ours, theirs


def _printed(script: str, argument: str, folder: Path) -> list[float]:
    """The numbers a script prints last, in a process of its own with compiled modules."""
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    command = [sys.executable, "-c", script, argument]
    done = subprocess.run(command, env=compiled, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    import tempfile

    with Simulator() as simulator:
        plain, client = of_the_client(simulator)
        print(f"client {client * 1e6:.0f} µs, requests {plain * 1e6:.0f} µs, ratio {client / plain:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        print(of_parsing(Path(folder)))
        print(of_provider_info(Path(folder)))
