"""Airflow in a folder of its own, before anything imports it; and the simulator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Airflow reads these once, at import.
HOME = os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="volubile-airflow-")
for name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN"))]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": os.path.join(HOME, "dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    # Airflow's Variable, for operators that run without Airflow.
    "AIRFLOW_VAR_VOLUBILE_INSTALLATION": "tests",
}
os.makedirs(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], exist_ok=True)

from hypothesis import settings  # noqa: E402

from airflow_provider_volubile.simulator import Simulator  # noqa: E402
from tests.database import copy_database  # noqa: E402

# The machine decides no verdict: neither its speed nor its luck.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def metadata_database() -> None:
    copy_database(Path(HOME))


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    """A simulator as new: calls take a moment, campaigns dial at once, and the rate window is no hindrance."""
    simulator_process.reset()
    simulator_process.configure(speed=600, ignore_windows=True, limit=100_000)
    return simulator_process
