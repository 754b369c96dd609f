"""Clients of the simulator, without Airflow; and an address where nobody listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.simulator import Simulator


@pytest.fixture
def client(simulator: Simulator) -> VolubileClient:
    """A client that tries again at once."""
    keys = ApiKeyPair(simulator.primary_key, simulator.secondary_key, name="test")
    return VolubileClient(simulator.url, keys, window=RateWindow(limit=100_000), sleep=lambda seconds: None)


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A socket that refuses connections until it listens. It is bound: no other process gets its port meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound
