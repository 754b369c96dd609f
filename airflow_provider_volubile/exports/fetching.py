"""Many requests at once: just enough to use the account's rate window, and no more."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from statistics import fmean
from typing import TypeVar

from airflow_provider_volubile.api.rate_window import LENGTH, LIMIT, this_thread
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
    requests at a time (Little's law): one while answers take 150 ms, seven when they take a second; and one more
    for the result that the caller is busy with. Whoever shares the window needs fewer. Items are taken, and
    results kept, only as far as they are being worked on.

    :param fetch: called with an item in a thread of its own; the client paces its requests.
    :param failures_in_a_row: so many items that could not be had mean that the service is down.
    :return: pairs of an item and its result, or the error that concerns this item alone.
    :raises VolubileError: an error that concerns everyone: refused credentials, or a service that is down. What was
        being fetched by then is paid for, and handed over before.
    """
    latencies: deque[float] = deque(maxlen=32)
    rate = LIMIT / LENGTH

    def timed(item: ItemT) -> ResultT:
        nonlocal rate
        this_thread.begin()
        start = time.monotonic()
        try:
            return fetch(item)
        finally:
            # More threads would not end a wait for the window, they would wait as well.
            worked = time.monotonic() - start - this_thread.waited
            latencies.append(max(0.0, worked) / max(1, this_thread.requests))
            rate = this_thread.rate or rate

    remaining = iter(items)
    running: dict[Future[ResultT], ItemT] = {}
    failures = 0
    everyones: VolubileError | None = None
    pool = ThreadPoolExecutor(most_workers, thread_name_prefix="volubile-fetch")

    def submit(most: int) -> None:
        if everyones:
            return
        at_work = sum(not future.done() for future in running)
        room = min(most - len(running), requests_at_a_time(latencies, rate) - at_work)
        for item in islice(remaining, max(room, 0)):
            running[pool.submit(timed, item)] = item

    try:
        while True:
            submit(most_workers)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    result: ResultT | VolubileError = future.result()
                    failures = 0
                except VolubileError as error:
                    result = error
                    unanswered = isinstance(error, VolubileRateLimitError | VolubileUnavailable)
                    failures = failures + 1 if unanswered else 0
                    if failures >= failures_in_a_row or isinstance(error, VolubileAuthError):
                        everyones = everyones or error
                        continue
                submit(most_workers - 1)  # the caller is busy with one, for who knows how long
                yield item, result
        if everyones:
            raise everyones
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def requests_at_a_time(latencies: Iterable[float], rate: float) -> int:
    """How many requests at a time fill the window: one at first, and one more for each answer until there are enough.

    :param latencies: recent ones, in seconds. Their mean counts: what is slow now and then keeps a thread, too.
    :param rate: requests per second.
    """
    known = list(latencies)
    return min(len(known), math.ceil(fmean(known) * rate)) + 1 if known else 1
