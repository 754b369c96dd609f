"""Ten thousand waiting triggers in one event loop, from their start until they fire, beside Airflow's own.

How long the loop is ever held up, what each trigger costs in memory, and how soon the last task is resumed.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.triggers.base import BaseTrigger

from airflow_provider_volubile.api.rate_window import LENGTH, LIMIT
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.waiting import polling as waiting
from tests.benchmarks.detection import POLL_INTERVAL, looks, triggers, volubile_connection
from tests.benchmarks.loop_watch import LoopWatch

MOMENT = 30.0  # seconds that Airflow's own triggers wait


@dataclass(frozen=True)
class Health:
    """What waiting triggers did to their loop.

    :param longest: the longest hold-up, in seconds (:class:`LoopWatch`).
    :param longest_collection: the longest garbage collection.
    :param memory: bytes for each trigger.
    """

    longest: float
    longest_collection: float
    memory: float


@dataclass(frozen=True)
class Lag:
    """How soon the last task is resumed when all calls end right after a look, which is the worst moment.

    :param seconds: from the end of all calls until the last trigger had fired.
    :param interval: the poll interval in force: that of the tasks, or what so many calls may cost the account.
    :param own: seconds from the beginning of the look that found the end: to read all calls, and to tell everybody.
    """

    seconds: float
    interval: float
    own: float


class _Running:
    """Triggers that run in one loop, as a triggerer creates them: one by one."""

    def __init__(self) -> None:
        self.watch = LoopWatch(asyncio.get_running_loop())
        self._process = psutil.Process()
        self._tasks: list[asyncio.Task[None]] = []
        self._fired = 0
        self._all_fired = asyncio.Event()

    async def start(self, made: Sequence[BaseTrigger]) -> None:
        await self.watch.check()
        gc.collect()
        gc.freeze()  # what was there before is not for the triggers' collections to walk through
        await asyncio.sleep(0)
        self.watch.reset()
        self._before = self._process.memory_info().rss
        for number, trigger in enumerate(made, 1):
            self._tasks.append(asyncio.create_task(self._run(trigger, len(made))))
            if number % 25 == 0:
                await asyncio.sleep(0)

    async def _run(self, trigger: BaseTrigger, of: int) -> None:
        async for _ in trigger.run():
            self._fired += 1
        if self._fired == of:
            self._all_fired.set()

    def memory(self) -> float:
        """Bytes for each."""
        used: int = self._process.memory_info().rss - self._before
        return used / len(self._tasks)

    async def end(self) -> None:
        """Wait until all have fired."""
        try:
            await self._all_fired.wait()
            await asyncio.sleep(0)
        finally:
            self.watch.close()
            gc.unfreeze()


def of_airflow(tasks: int = 10_000) -> Health:
    """Triggers that wait for a moment."""

    async def scenario() -> Health:
        running = _Running()
        moment = datetime.now(UTC) + timedelta(seconds=MOMENT)
        await running.start([DateTimeTrigger(moment=moment) for _ in range(tasks)])
        memory = running.memory()
        await running.end()
        return Health(running.watch.longest, running.watch.longest_collection, memory)

    return asyncio.run(scenario())


def of_ours(simulator: Simulator, tasks: int = 10_000) -> tuple[Health, Lag]:
    """Triggers that wait for a call each, with the account's window and intervals of full length."""
    simulator.reset()
    simulator.configure(limit=LIMIT, window=LENGTH, speed=1)
    volubile_connection(simulator)
    ids = simulator.load_calls(tasks, status="IN_PROGRESS", ends_within=1800)

    async def scenario() -> tuple[Health, Lag]:
        running = _Running()
        with looks(simulator) as rounds:
            await running.start(triggers(ids, tasks, POLL_INTERVAL))
            while len(rounds) < 2:  # in the first, not everybody may have joined
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)  # everybody is told
            memory = running.memory()
            interval = max(POLL_INTERVAL, rounds[-1].requests * getattr(waiting, "SECONDS_PER_REQUEST", 0.3))
            await asyncio.to_thread(simulator.advance, 3600)
            ended = time.monotonic()
            await running.end()
            resumed = time.monotonic()
        health = Health(running.watch.longest, running.watch.longest_collection, memory)
        return health, Lag(resumed - ended, interval, resumed - rounds[-1].began)

    return asyncio.run(scenario())


if __name__ == "__main__":
    print(of_airflow())
    with Simulator() as simulator:
        print(*of_ours(simulator), sep="\n")
