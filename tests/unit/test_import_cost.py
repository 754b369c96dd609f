"""What a Dag file costs when it is parsed: Airflow does so every few minutes, in a new process each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PACKAGE = "airflow_provider_volubile"
# What Airflow asks of a task before it runs: its class, its parameters, and nothing that sends, waits or writes.
PARSED = {
    "_airflow",
    "calling",
    "calling.handles",
    "exceptions",
    "hooks",
    "hooks.volubile",
    "operators",
    "operators.agents",
    "operators.base",
    "operators.calls",
    "operators.campaigns",
    "operators.exports",
    "operators.submission",
    "sensors",
    "sensors.calls",
    "sensors.campaigns",
    "sensors.wait_sensor",
    "tasks",
}
HEAVY = {"fsspec", "jwt", "phonenumbers", "pyarrow", "requests", "tenacity", "zoneinfo"}


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """All modules that importing every operator and sensor adds to those of Airflow's own base classes."""
    script = f"""
import sys
from airflow.sdk import BaseOperator, BaseSensorOperator, Context, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowFailException
before = set(sys.modules)
from {PACKAGE}.operators import agents, calls, campaigns, exports
from {PACKAGE}.sensors import calls, campaigns
print(*sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_parsing_loads_what_describes_a_task_and_nothing_that_runs_it(loaded: set[str]) -> None:
    ours = {name.removeprefix(f"{PACKAGE}.") for name in loaded if name.startswith(f"{PACKAGE}.")}
    assert ours <= PARSED


def test_parsing_loads_no_library_that_airflow_does_not_load_anyway(loaded: set[str]) -> None:
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
