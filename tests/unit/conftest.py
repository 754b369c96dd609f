"""Clients of the simulator, without Airflow."""

from __future__ import annotations

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.pacing import RateWindow
from airflow_provider_volubile.simulator import Simulator


@pytest.fixture
def client(simulator: Simulator) -> VolubileClient:
    keys = ApiKeyPair(simulator.primary_key, simulator.secondary_key, name="test")
    return VolubileClient(simulator.url, keys, window=RateWindow(limit=100_000))
