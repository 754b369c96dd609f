"""Real processes against the simulator's rate window: how much of it they use.

``python -m tests.benchmarks.pacing_processes``         one process and eight, windows of 1.5 s
``python -m tests.benchmarks.pacing_processes 15``      the same with windows of full length
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import requests

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import LENGTH, RateWindow
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.transcripts import export_transcripts
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.waiting.find_calls import CallRef
from tests.benchmarks import rivals

LIMIT = 100
Way = Literal["export", "loop"]


@dataclass(frozen=True)
class Share:
    """What the processes made of the account's windows.

    :param processes: how many there were.
    :param failed: why processes ended without all of their transcripts, if any did.
    :param used: the fewest whole windows that so many transcripts need, over the windows from the start to the end.
    :param speed: the time that the window itself needs for them, over the time they took, with all files written.
    :param refused: 429 over all requests.
    :param spread: the slowest process over the fastest, in time to finish.
    """

    processes: int
    failed: Sequence[str]
    requests: int
    seconds: float
    used: float
    speed: float
    refused: float
    spread: float

    def __str__(self) -> str:
        return (
            f"{self.requests} requests in {self.seconds:.1f} s: {self.used:.1%} of the windows used, "
            f"{self.speed:.1%} of the ideal speed, {self.refused:.2%} refused, slowest/fastest {self.spread:.2f}, "
            f"{len(self.failed)} of {self.processes} failed {'; '.join(self.failed)}"
        )


class Job(NamedTuple):
    """What one process has to fetch.

    :param length: seconds per window.
    :param opened: the moment (monotonic) at which a window opened.
    """

    url: str
    key: str
    calls: Sequence[str]
    length: float
    opened: float


class Done(NamedTuple):
    """When (monotonic) a process began and ended, and what went wrong."""

    begun: float
    ended: float
    failure: str


def both(*, processes: int, work: int, length: float) -> tuple[Share, Share]:
    """This provider's export, and the plain loop.

    One after the other; with windows of full length, in which the machine idles most of the time, side by side, each
    with a simulator of its own.
    """
    ways: tuple[Way, Way] = ("export", "loop")
    with ThreadPoolExecutor(2 if length >= LENGTH else 1) as pool:
        ours, theirs = pool.map(lambda way: measure(way, processes=processes, work=work, length=length), ways)
    return ours, theirs


def measure(way: Way, *, processes: int, work: int, length: float = 1.5, skew: float = 0.0, at: float = 0.5) -> Share:
    """Let processes fetch so many transcripts each, all starting at one moment of a window.

    :param work: transcripts for each process.
    :param length: seconds per window.
    :param skew: seconds between the first and the last process to start.
    :param at: the moment, in parts of a window.
    """
    patience = 60 + skew + 5 * length * processes * work / LIMIT
    with Simulator(limit=LIMIT, window=length) as simulator:
        before = time.monotonic()
        simulator.reset()  # a window opens
        opened = (before + time.monotonic()) / 2
        job = Job(simulator.url, simulator.primary_key, simulator.load_calls(work), length, opened)
        with contextlib.ExitStack() as stack:
            pipes = [stack.enter_context(_started(way, job)) for _ in range(processes)]
            for pipe in pipes:
                _hear(pipe, 120)  # ready, or dead
            number = math.ceil((time.monotonic() + 0.5 - opened) / length)
            begin = opened + (number + at) * length
            for late, pipe in enumerate(pipes):
                with contextlib.suppress(OSError):  # dead
                    pipe.send(begin + skew * late / max(1, processes - 1))
            done = [_hear(pipe, begin + patience - time.monotonic()) for pipe in pipes]
        log = simulator.requests()
    offset = time.time() - time.monotonic()  # of the log's clock
    statuses = Counter(entry["status"] for entry in log)
    needed = math.ceil(statuses[200] / LIMIT)
    last_served = max((entry["wall"] - offset for entry in log if entry["status"] == 200), default=begin)
    windows = (last_served - opened) // length - number + 1
    seconds = max(end.ended for end in done) - begin
    times = [end.ended - end.begun for end in done]
    failed = [end.failure for end in done if end.failure]
    return Share(
        processes=processes,
        failed=failed,
        requests=len(log),
        seconds=seconds,
        used=needed / windows,
        speed=(needed - 1 - at) * length / seconds,
        refused=statuses[429] / max(1, len(log)),
        spread=math.inf if failed else max(times) / min(times),
    )


@contextlib.contextmanager
def _started(way: Way, job: Job) -> Iterator[Connection]:
    """A process that says when it is ready, is told when to begin, and says what became of it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, way, job), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed here
    try:
        yield ours
    finally:
        process.join(5)
        process.kill()
        process.join()


def _hear(pipe: Connection, seconds: float) -> Done:
    """What a process says; one that says nothing, or is dead, has failed."""
    began = time.monotonic()
    with contextlib.suppress(EOFError, OSError):
        if pipe.poll(max(0.0, seconds)):
            said: Done = pipe.recv()
            return said
    return Done(began, time.monotonic(), "no word")


# In processes of their own ---------------------------------------------------------------------------------------


def _work(pipe: Connection, way: Way, job: Job) -> None:
    ways: dict[Way, Callable[[Job, Path], None]] = {"export": _export, "loop": _loop}
    failure = ""
    with tempfile.TemporaryDirectory() as folder:
        store.open_path(folder)  # loads Airflow, as it is wherever a task runs
        pipe.send(Done(0, 0, ""))
        time.sleep(max(0.0, pipe.recv() - time.monotonic()))
        begun = time.monotonic()
        try:
            ways[way](job, Path(folder))
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        pipe.send(Done(begun, time.monotonic(), failure))


def _export(job: Job, folder: Path) -> None:
    """What the operator runs, with the credentials and the calls that it would have found."""
    client = VolubileClient(job.url, ApiKeyPair(job.key), window=RateWindow(length=job.length))
    with client:
        export = Export(store.open_path(str(folder)), "transcripts", {}, key="benchmark")
        report = export_transcripts(
            client,
            export,
            [CallRef(call) for call in job.calls],
            zone=ZoneInfo("UTC"),
            file_format="jsonl",
            texts=True,
            patience=0,
        )
        export.finish(report.counts)
    if report.written != len(job.calls):
        raise RuntimeError(str(report))


def _loop(job: Job, folder: Path) -> None:
    """A plain loop that sleeps on 429."""
    pause = rivals.retry_after(job.opened, job.length)
    with requests.Session() as session, (folder / "transcripts.jsonl").open("w", encoding="utf-8") as file:
        session.headers["X-Api-Key"] = job.key
        for call in job.calls:
            while True:
                answer = session.get(f"{job.url}/v1/calls/{call}/transcript", timeout=30)
                if answer.status_code != 429:
                    break
                time.sleep(pause(answer))
            answer.raise_for_status()
            file.writelines(json.dumps({"call_id": call, **event}) + "\n" for event in answer.json())


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 1.5
    for processes, work, skew in ((1, 2000, 0.0), (8, 256, 0.0), (8, 256, length / 2), (8, 1000, length)):
        print(f"{processes} × {work}, started within {skew:g} s:", flush=True)
        for way in ("export", "loop"):
            print(f"  {way:<7}", measure(way, processes=processes, work=work, length=length, skew=skew), flush=True)
