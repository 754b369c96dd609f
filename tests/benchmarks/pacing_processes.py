"""Real processes against the simulator's rate window: how much of it they use.

``python -m tests.benchmarks.pacing_processes``         one process and eight, windows of 1.5 s
``python -m tests.benchmarks.pacing_processes 15``      the same with windows of full length
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

from airflow_provider_volubile.api.pacing import RateWindow
from airflow_provider_volubile.simulator import Simulator

LIMIT = 100


@dataclass(frozen=True)
class Share:
    """What the processes made of the account's windows.

    :param used: the share of the windows but the last, in which the work may end.
    :param speed: the time that the window itself needs for as many requests, over the time they took.
    :param refused: 429 over all requests.
    :param spread: the slowest process over the fastest, in time to finish.
    """

    requests: int
    seconds: float
    used: float
    speed: float
    refused: float
    spread: float

    def __str__(self) -> str:
        return (
            f"{self.requests} requests in {self.seconds:.1f} s: {self.used:.1%} of the windows used, "
            f"{self.speed:.1%} of the ideal speed, {self.refused:.2%} refused, slowest/fastest {self.spread:.2f}"
        )


def measure(
    *, processes: int, work: int, length: float = 1.5, threads: int = 4, skew: float = 0.0, at: float = 0.5
) -> Share:
    """Let processes fetch so many transcripts each, all starting at one moment of a window.

    :param work: transcripts for each process.
    :param length: seconds per window.
    :param threads: of each process.
    :param skew: seconds between the first and the last process to start.
    :param at: the moment, in parts of a window.
    """
    with Simulator(limit=LIMIT, window=length) as simulator:
        calls = simulator.load_calls(work, status="COMPLETED")
        opening = _next_opening(simulator)
        context = multiprocessing.get_context("spawn")
        results = context.SimpleQueue()
        # Long enough for eight interpreters to start on a small machine.
        begin = opening + length * (math.ceil((3 + 0.7 * processes) / length) + at)
        workers = [
            context.Process(
                target=_work,
                args=(simulator.url, simulator.primary_key, calls, threads, length, results),
                kwargs={"begin": begin + skew * number / max(1, processes - 1)},
            )
            for number in range(processes)
        ]
        for worker in workers:
            worker.start()
        ended = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        log = [entry for entry in simulator.requests() if entry["operation"] == "getTranscript"]
    first, last = min(begun for begun, _ in ended), max(done for _, done in ended)
    times = [done - begun for begun, done in ended]
    statuses = Counter(entry["status"] for entry in log)
    opening += time.time() - time.monotonic()  # the log's clock
    served = Counter(int((entry["wall"] - opening) // length) for entry in log if entry["status"] == 200)
    over = range(min(served), max(served))
    ideal = (math.ceil(statuses[200] / LIMIT) - 1) * length - at * length
    return Share(
        requests=len(log),
        seconds=last - first,
        used=sum(served[window] for window in over) / len(over) / LIMIT,
        speed=ideal / (last - first),
        refused=statuses[429] / len(log),
        spread=max(times) / min(times),
    )


def _next_opening(simulator: Simulator) -> float:
    """Watch a window open; return when (monotonic)."""
    with requests.Session() as session:
        session.headers["X-Api-Key"] = simulator.primary_key
        before = LIMIT
        while True:
            left = int(session.get(f"{simulator.url}/v1/agents").headers["X-RateLimit-Remaining"])
            if left > before:
                return time.monotonic()
            before = left
            time.sleep(0.02)


def _work(url: str, key: str, calls: list[str], threads: int, length: float, results: Any, *, begin: float) -> None:
    time.sleep(max(0.0, begin - time.monotonic()))
    begun = time.monotonic()
    _fetch(url, key, calls, threads, RateWindow(length=length))
    results.put((begun, time.monotonic()))


def _fetch(url: str, key: str, calls: Sequence[str], threads: int, window: RateWindow) -> None:
    open_calls = iter(calls)

    def thread() -> None:
        with requests.Session() as session:
            session.headers["X-Api-Key"] = key
            for call in open_calls:
                while _get(session, f"{url}/v1/calls/{call}/transcript", window) == 429:
                    pass

    with ThreadPoolExecutor(threads) as pool:
        for running in [pool.submit(thread) for _ in range(threads)]:
            running.result()


def _get(session: requests.Session, url: str, window: RateWindow) -> int:
    window.acquire()
    sent_at = time.monotonic()
    try:
        answer = session.get(url, timeout=30)
    except BaseException:
        window.abandon()
        raise
    window.observe(answer.status_code, answer.headers, sent_at=sent_at, received_at=time.monotonic())
    return answer.status_code


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 1.5
    for processes, work, skew in ((1, 2000, 0.0), (8, 250, 0.0), (8, 250, length / 2), (8, 1000, length)):
        print(f"{processes} × {work}, started within {skew:g} s:", flush=True)
        print("  ", measure(processes=processes, work=work, length=length, skew=skew), flush=True)
