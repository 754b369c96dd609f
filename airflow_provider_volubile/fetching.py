"""Many requests at once: just enough to use the account's rate window, and no more."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from statistics import median
from typing import TypeVar

from airflow_provider_volubile.api.pacing import LENGTH, LIMIT
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileRateLimitError,
    VolubileUnavailable,
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MOST_WORKERS = 16
# So many items in a row that the service could not answer: it is down, and the rest would fare no better.
FAILURES_IN_A_ROW = 5


def fetch_all(
    fetch: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    most_workers: int = MOST_WORKERS,
    failures_in_a_row: float = FAILURES_IN_A_ROW,
) -> Iterator[tuple[ItemT, ResultT | VolubileError]]:
    """Fetch items in parallel, in the order in which they are done.

    The rate window allows about seven requests per second; using it up takes that rate times the latency
    requests at a time (Little's law): one thread while answers take 150 ms, seven when they take a second.
    Items are taken, and results kept, only as far as they are being worked on.

    :param fetch: called with an item in a thread of its own; the client paces its requests.
    :param failures_in_a_row: so many items that could not be had mean that the service is down.
    :return: pairs of an item and its result, or the error that concerns this item alone.
    :raises VolubileError: an error that concerns everyone: refused credentials, or a service that is down.
    """
    latencies: deque[float] = deque(maxlen=32)

    def timed(item: ItemT) -> ResultT:
        start = time.monotonic()
        try:
            return fetch(item)
        finally:
            latencies.append(time.monotonic() - start)

    remaining = iter(items)
    running: dict[Future[ResultT], ItemT] = {}
    failures = 0
    pool = ThreadPoolExecutor(most_workers, thread_name_prefix="volubile-fetch")
    try:
        while True:
            room = min(most_workers, requests_at_a_time(latencies)) - len(running)
            for item in islice(remaining, max(room, 0)):
                running[pool.submit(timed, item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    result: ResultT | VolubileError = future.result()
                    failures = 0
                except (VolubileRateLimitError, VolubileUnavailable) as error:
                    failures += 1
                    if failures >= failures_in_a_row:
                        raise
                    result = error
                except VolubileAuthError:
                    raise
                except VolubileError as error:
                    failures = 0
                    result = error
                yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def requests_at_a_time(latencies: Iterable[float]) -> int:
    """How many requests at a time fill the window. The median: a few long waits for a window say nothing."""
    known = list(latencies)
    return max(1, math.ceil(median(known) * LIMIT / LENGTH)) if known else 1
