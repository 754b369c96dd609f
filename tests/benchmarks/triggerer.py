"""Ten thousand waiting triggers in one event loop: how long it is ever held up, and what each costs in memory."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass

import psutil

from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.triggers import polling
from tests.benchmarks.detection import CONN, triggers, volubile_connection


@dataclass
class Health:
    """What ``tasks`` waiting triggers did to their loop.

    :param longest_block: the longest time the loop worked before anything else could run, in seconds of its thread's
        processor time: other programs on the machine, and Python's collector, do not count.
    :param longest_collection: the longest garbage collection meanwhile, in the same seconds.
    :param memory: bytes for each trigger.
    :param lag: from the end of all calls until the last trigger had fired, in seconds.
    :param cpu: seconds of processor time of the whole process for each poll round.
    """

    tasks: int
    longest_block: float
    longest_collection: float
    memory: float
    lag: float
    cpu: float


class Collections:
    """Counts the time of Python's garbage collector."""

    def __init__(self) -> None:
        self.total = self.longest = self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            took = time.thread_time() - self._began
            self.total += took
            self.longest = max(self.longest, took)


async def watch_loop(blocks: list[float], collections: Collections) -> None:
    """Note how long the loop's thread works between two turns of this task."""
    while True:
        before, collected = time.thread_time(), collections.total
        await asyncio.sleep(0)
        blocks.append(time.thread_time() - before - (collections.total - collected))
        await asyncio.sleep(0.001)


def measure(simulator: Simulator, tasks: int = 10_000, rounds: int = 3) -> Health:
    simulator.reset()
    simulator.configure(limit=1_000_000, speed=1)
    volubile_connection(simulator)
    ids = simulator.load_calls(tasks, status="IN_PROGRESS", ends_within=1800)
    process = psutil.Process()
    collections = Collections()
    gc.callbacks.append(collections)

    def used() -> float:
        return sum(process.cpu_times()[:2])

    async def scenario() -> Health:
        blocks: list[float] = []
        made = triggers(ids, tasks, 5)
        gc.collect()
        gc.freeze()  # what was there before is not ours to walk through
        collections.longest = 0.0
        before = process.memory_info().rss
        watcher = asyncio.create_task(watch_loop(blocks, collections))
        running = []
        for number, trigger in enumerate(made):
            running.append(asyncio.create_task(anext(aiter(trigger.run()))))
            if number % 25 == 0:  # a triggerer creates them one by one
                await asyncio.sleep(0)
        poll = polling.shared_poll(CONN, lambda: None)  # type: ignore[arg-type, return-value]
        while poll.rounds < 1:
            await asyncio.sleep(0.1)
        cpu = used()
        while poll.rounds < 1 + rounds:
            await asyncio.sleep(0.1)
        cpu = (used() - cpu) / rounds
        memory = (process.memory_info().rss - before) / tasks
        await asyncio.to_thread(simulator.advance, 3600)
        ended = time.monotonic()
        await asyncio.gather(*running)
        lag = time.monotonic() - ended
        watcher.cancel()
        return Health(tasks, max(blocks), collections.longest, memory, lag, cpu)

    try:
        return asyncio.run(scenario())
    finally:
        gc.callbacks.remove(collections)
        gc.unfreeze()


if __name__ == "__main__":
    with Simulator() as simulator:
        print(measure(simulator))
