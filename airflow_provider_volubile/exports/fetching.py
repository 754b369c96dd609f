"""Many requests at once, in a bounded pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileRateLimitError,
    VolubileUnavailable,
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# They use up 100 requests per 15 s as long as an answer takes less than 0.9 s. The client holds them to the rate
# window, which other exports may share: more threads would be refused more often (429).
WORKERS = 6
# So many items in a row without an answer, or forbidden (403), are no accident: the rest would fail too.
FAILURES_IN_A_ROW = 5
MAY_CONCERN_ALL = (VolubileAuthError, VolubileRateLimitError, VolubileUnavailable)


def fetch_all(
    fetch: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    workers: int = WORKERS,
    failures_in_a_row: float = FAILURES_IN_A_ROW,
) -> Iterator[tuple[ItemT, ResultT | VolubileError]]:
    """Fetch items in parallel, in the order in which they are done.

    :param fetch: called with an item in a thread of its own; the client paces its requests.
    :param workers: so many items at most are fetched, or wait for the caller to take them, or are in the caller's use.
    :param failures_in_a_row: so many items without an answer, or forbidden, end the export.
    :return: pairs of an item and its result, or the error that concerns this item alone.
    :raises VolubileError: an error that concerns everyone: refused credentials, or a service that is down. The items
        that were being fetched are handed over first.
    """
    remaining = iter(items)
    running: dict[Future[ResultT], ItemT] = {}
    failures = 0
    fatal: VolubileError | None = None
    pool = ThreadPoolExecutor(workers, thread_name_prefix="volubile-fetch")
    try:
        while True:
            if fatal is None:
                for item in islice(remaining, workers - len(running)):
                    running[pool.submit(fetch, item)] = item
            if not running:
                break
            future = wait(running, return_when=FIRST_COMPLETED).done.pop()
            item = running.pop(future)
            result: ResultT | VolubileError
            try:
                result = future.result()
                failures = 0
            except VolubileError as error:
                result = error
                failures = failures + 1 if isinstance(error, MAY_CONCERN_ALL) else 0
                if failures >= failures_in_a_row or (isinstance(error, VolubileAuthError) and error.status != 403):
                    fatal = fatal or error
                    continue
            yield item, result
        if fatal:
            raise fatal
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
