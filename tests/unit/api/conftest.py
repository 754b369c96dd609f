"""A client, the server it talks to, and a rate window that only counts."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from airflow_provider_volubile.api import auth
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.sending import RetryBudget
from tests.unit.api import stub
from tests.unit.api.stub import Server, start_server

_number = itertools.count()


class Window:
    """A rate window without a limit that counts."""

    def __init__(self) -> None:
        self.acquired = 0
        self.observed: list[int] = []
        self.abandoned = 0
        self.background: list[bool] = []
        self._lock = threading.Lock()

    def wait_for_place(self) -> None:
        pass

    def acquire(self, *, background: bool = False) -> None:
        with self._lock:
            self.acquired += 1
            self.background.append(background)

    def observe(self, status: int, headers: Mapping[str, str], *, sent_at: float, received_at: float) -> None:
        assert sent_at <= received_at <= time.monotonic()
        with self._lock:
            self.observed.append(status)

    def abandon(self) -> None:
        with self._lock:
            self.abandoned += 1

    @property
    def in_flight(self) -> int:
        return self.acquired - len(self.observed) - self.abandoned


@pytest.fixture
def server() -> Iterator[Server]:
    server, listener = start_server()
    yield server
    listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
    listener.close()


@pytest.fixture
def other_server() -> Iterator[Server]:
    """Another host, as far as credentials are concerned."""
    server, listener = start_server()
    yield server
    listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
    listener.close()


@pytest.fixture
def window() -> Window:
    return Window()


@pytest.fixture
def pair() -> ApiKeyPair:
    number = next(_number)
    return ApiKeyPair(f"primary-key-{number}", f"secondary-key-{number}", name="volubile_test")


@pytest.fixture
def pauses() -> list[float]:
    """How long the client wanted to wait between attempts; it does not."""
    return []


@pytest.fixture
def make_client(server: Server, window: Window, pair: ApiKeyPair, pauses: list[float]) -> Callable[..., VolubileClient]:
    def make(credentials: Any = None, **options: Any) -> VolubileClient:
        options.setdefault("timeout", 5)
        options.setdefault("retry", RetryBudget(attempts=3))
        return VolubileClient(
            options.pop("base_url", server.url),
            credentials or pair,
            window=options.pop("window", window),
            sleep=options.pop("sleep", pauses.append),
            **options,
        )

    return make


@pytest.fixture
def client(make_client: Callable[..., VolubileClient]) -> VolubileClient:
    return make_client()


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    auth._working.clear()
    auth._slots.clear()
    yield
    auth._working.clear()
    auth._slots.clear()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxies and certificates of the machine that runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(7)


@pytest.fixture
def tell() -> Any:
    """What a server can do, for tests to use: ``tell.answer(200, {...})``, ``tell.reset``…"""

    return stub
