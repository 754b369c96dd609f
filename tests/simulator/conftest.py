"""The simulator under test, and a bare client of it."""

from __future__ import annotations

import pytest

from airflow_provider_volubile.simulator import Simulator

from .raw_api import RawApi


@pytest.fixture
def frozen(simulator: Simulator) -> Simulator:
    """A simulator whose simulated time stands still until the test advances it."""
    simulator.configure(speed=0)
    return simulator


@pytest.fixture
def api(simulator: Simulator) -> RawApi:
    return RawApi(simulator)
