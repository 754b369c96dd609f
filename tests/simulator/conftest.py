"""The simulator under test, reached as any client would."""

from __future__ import annotations

import pytest

from airflow_provider_volubile.simulator import Simulator

from .raw_api import RawApi


@pytest.fixture
def frozen(simulator: Simulator) -> Simulator:
    """A simulator whose telephones stand still until the clock is advanced."""
    simulator.configure(speed=0)
    return simulator


@pytest.fixture
def api(simulator: Simulator) -> RawApi:
    return RawApi(simulator)
