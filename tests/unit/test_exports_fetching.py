"""Many requests at once, in a bounded pool."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileUnavailable,
)
from airflow_provider_volubile.exports import fetching
from airflow_provider_volubile.exports.fetching import FAILURES_IN_A_ROW, WORKERS, fetch_all
from tests.benchmarks.pacing_world import Server, World


class Service:
    """Counts how many requests are being answered at a time."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.asked: list[int] = []
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self.lock:
            self.asked.append(item)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.latency)
        with self.lock:
            self.now -= 1
        return item * 2


def test_every_item_comes_back_once_with_its_result():
    assert sorted(fetch_all(Service(), range(500))) == [(item, item * 2) for item in range(500)]


class Simulation:
    """Exports in virtual time: their threads, the window and the server; a test is over in no time."""

    def __init__(self, monkeypatch, **server):
        self.world = World()
        self.server = Server(self.world, phase=4.0, **server)
        self.random = random.Random(1)
        self.bed = set()
        self.exports = []
        monkeypatch.setattr(fetching, "ThreadPoolExecutor", lambda *args, **options: self)
        monkeypatch.setattr(fetching, "wait", self.wait)

    def sleep(self, seconds):
        self.world.sleep(seconds, self.bed)

    def submit(self, work, item):
        future = Future()

        def run():
            future.set_result(work(item))
            self.world.wake(self.bed)

        self.world.start(run)
        return future

    def shutdown(self, **options):
        pass

    def wait(self, futures, **options):
        while not (done := {future for future in futures if future.done()}):
            self.sleep(60)
        return SimpleNamespace(done=done)

    def export(self, items: int, latency: Callable[[], float], *, busy: float = 0.0, **options: int):
        """Begin one; what becomes of it stands in the answer."""
        seen = SimpleNamespace(most=0, most_held=0, done=0, refused=0)
        self.exports.append(seen)
        window = RateWindow(clock=self.world.clock, sleep=self.sleep, rng=random.Random(len(self.exports)))
        at_work = held = 0

        def fetch(item):
            nonlocal at_work, held
            at_work, held = at_work + 1, held + 1
            seen.most, seen.most_held = max(seen.most, at_work), max(seen.most_held, held)
            status = 429
            while status == 429:
                window.acquire()
                self.world.wake(self.bed)
                sent_at = self.world.now
                self.world.sleep(latency())
                status, headers = self.server.ask()
                window.observe(status, headers, sent_at=sent_at, received_at=self.world.now)
                self.world.wake(self.bed)
                if status == 429:
                    seen.refused += 1
                    self.world.sleep(float(headers["Retry-After"]))
            at_work -= 1
            return item

        def consume():
            nonlocal held
            for _ in fetch_all(fetch, range(items), **options):
                self.world.sleep(busy)
                held -= 1
                seen.done += 1

        self.world.start(consume)
        return seen

    def used(self):
        """The share of all full windows that was used."""
        full = range(min(self.server.served) + 2, max(self.server.served))
        return sum(self.server.served.get(number, 0) for number in full) / len(full) / self.server.limit


@pytest.mark.parametrize(("slow", "busy"), [(0.0, 0.0), (0.0, 0.1), (0.1, 0.0), (0.2, 0.0), (0.2, 0.14)])
def test_an_export_fills_the_window_whatever_some_answers_and_their_use_take(monkeypatch, slow, busy):
    simulation = Simulation(monkeypatch)
    seen = simulation.export(1_000, lambda: 2.0 if simulation.random.random() < slow else 0.135, busy=busy)
    simulation.world.run()
    assert seen.done == 1_000
    assert simulation.used() >= 0.97


@pytest.mark.parametrize("latency", [0.03, 0.5])
def test_exports_that_share_a_window_fill_it_and_are_hardly_refused(monkeypatch, latency):
    simulation = Simulation(monkeypatch)
    exports = [simulation.export(120, lambda: latency * simulation.random.uniform(0.7, 1.3)) for _ in range(8)]
    simulation.world.run()
    assert simulation.used() >= 0.95
    assert sum(seen.refused for seen in exports) <= 0.02 * 8 * 120


def test_what_is_fetched_and_not_yet_used_counts(monkeypatch):
    """A recording takes its length on disk until it is stored: as many as allowed, with the one being stored."""
    simulation = Simulation(monkeypatch)
    seen = simulation.export(100, lambda: 1.0, busy=3.0, workers=4)
    simulation.world.run()
    assert seen.most_held == 4


def test_the_next_items_are_asked_for_while_a_result_is_in_use():
    service = Service()
    results = fetch_all(service, range(10))
    next(results)
    deadline = time.monotonic() + 60
    while len(service.asked) < WORKERS and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(service.asked) == WORKERS
    results.close()


def test_slow_answers_are_asked_for_in_parallel():
    service = Service(latency=0.5)
    list(fetch_all(service, range(12)))
    assert service.most > 1


def test_never_more_than_allowed():
    service = Service(latency=0.5)
    list(fetch_all(service, range(8), workers=2))
    assert service.most == 2


def test_items_are_taken_as_they_are_needed():
    service = Service()
    taken = []
    results = fetch_all(service, (taken.append(item) or item for item in range(1000)))
    for _ in range(10):
        next(results)
    assert len(taken) < 30
    results.close()
    assert len(service.asked) < 30


@pytest.mark.parametrize("error", [VolubileNotFound("gone"), VolubileProtocolError("odd"), VolubileUnavailable("5xx")])
def test_an_error_of_one_item_is_its_result(error):
    def fetch(item):
        if item % 3 == 1:
            raise error
        return item

    found = dict(fetch_all(fetch, range(9)))
    assert {item for item, result in found.items() if result is error} == {1, 4, 7}
    assert found[8] == 8


def test_refused_credentials_stop_everything():
    asked = []

    def fetch(item):
        asked.append(item)
        raise VolubileAuthError("401")

    with pytest.raises(VolubileAuthError):
        list(fetch_all(fetch, range(1000)))
    assert len(asked) < 20


def test_what_was_being_fetched_when_everything_stops_is_handed_over():
    """Whether it ends after the refusal or together with it: what was paid for is not thrown away."""
    refused = threading.Event()

    def fetch(item):
        if item == 6:
            refused.set()
            raise VolubileAuthError("401")
        if item == 5:
            assert refused.wait(60)
        time.sleep(0.3)  # so long that several are asked for at a time
        return item

    found = []
    with pytest.raises(VolubileAuthError):
        found.extend(item for item, _ in fetch_all(fetch, range(1000)))
    assert {0, 1, 2, 3, 4, 5} <= set(found)
    assert len(found) < 20


def test_a_service_that_is_down_is_not_asked_to_the_end():
    asked = []

    def fetch(item):
        asked.append(item)
        raise VolubileUnavailable("503")

    with pytest.raises(VolubileUnavailable):
        list(fetch_all(fetch, range(1000)))
    assert FAILURES_IN_A_ROW <= len(asked) < 20


def test_nothing_to_fetch():
    assert list(fetch_all(Service(), [])) == []
