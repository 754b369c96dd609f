"""Many requests at once, as many as the latency asks for."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileUnavailable,
)
from airflow_provider_volubile.fetching import FAILURES_IN_A_ROW, fetch_all, requests_at_a_time


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


@pytest.mark.parametrize(
    ("latencies", "requests"),
    [([], 1), ([0.02, 0.03], 1), ([0.15], 1), ([0.5], 4), ([1.0], 7), ([0.1] * 20 + [15.0] * 5, 1)],
)
def test_as_many_requests_as_fill_the_window_at_that_latency(latencies, requests):
    """100 requests per 15 s; a few waits for the next window say nothing about the latency."""
    assert requests_at_a_time(latencies) == requests


def test_slow_answers_are_asked_for_in_parallel():
    service = Service(latency=0.5)
    list(fetch_all(service, range(12)))
    assert service.most > 1


def test_never_more_than_allowed():
    service = Service(latency=0.5)
    list(fetch_all(service, range(8), most_workers=2))
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
    assert [item for item, result in found.items() if result is error] == [1, 4, 7]
    assert found[8] == 8


def test_refused_credentials_stop_everything():
    asked = []

    def fetch(item):
        asked.append(item)
        raise VolubileAuthError("401")

    with pytest.raises(VolubileAuthError):
        list(fetch_all(fetch, range(1000)))
    assert len(asked) < 20


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
