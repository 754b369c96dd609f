"""How soon it is noticed that calls have ended, and what that costs, against the rivals under the same limit."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from airflow_provider_volubile import waiting
from airflow_provider_volubile.api import pacing
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.triggers import polling
from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
from tests.benchmarks import rivals

CONN = "volubile_bench"
POLL_INTERVAL = 5  # seconds; a round of a thousand calls takes a tenth of the window


@dataclass
class Detected:
    """How long after the end of the calls each was noticed (seconds), and what it took."""

    lags: list[float]
    requests: int
    refused: int

    @property
    def all_after(self) -> float:
        return max(self.lags, default=float("inf"))


def volubile_connection(simulator: Simulator) -> None:
    os.environ[f"AIRFLOW_CONN_{CONN.upper()}"] = json.dumps(
        {"conn_type": "volubile", "host": simulator.url, "password": simulator.primary_key}
    )


def triggers(ids: Sequence[str], tasks: int, poll_interval: float) -> list[VolubileCallsTrigger]:
    share = len(ids) // tasks
    now = datetime.now(UTC)
    return [
        VolubileCallsTrigger(
            volubile_conn_id=CONN,
            call_ids=ids[at : at + share],
            since=(now - timedelta(hours=1, minutes=1)).isoformat(),
            deadline=(now + timedelta(hours=1)).isoformat(),
            poll_interval=poll_interval,
        )
        for at in range(0, len(ids), share)
    ]


def cost_of_a_round(simulator: Simulator, calls: int, tasks: int) -> float:
    """Requests in one poll round with ``calls`` in flight, waited for by ``tasks`` deferred tasks."""
    simulator.reset()
    simulator.configure(limit=1_000_000, speed=1)
    volubile_connection(simulator)
    ids = simulator.load_calls(calls, status="IN_PROGRESS")

    async def waiting() -> float:
        running = [asyncio.create_task(anext(aiter(trigger.run()))) for trigger in triggers(ids, tasks, 5)]
        while True:
            await asyncio.sleep(0.2)
            poll = polling.shared_poll(CONN, lambda: None)  # type: ignore[arg-type, return-value]
            if poll.rounds >= 2:
                break
        rounds = poll.rounds
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0.1)
        return sum(simulator.request_summary()["listCalls"].values()) / max(poll.rounds, rounds)

    return asyncio.run(waiting())


def ours(simulator: Simulator, ids: Sequence[str], *, tasks: int, poll_interval: float) -> list[float]:
    """Our triggers, as the triggerer runs them. Returns the moments (monotonic) at which each call was noticed."""
    volubile_connection(simulator)
    found: list[float] = []

    async def one(trigger: VolubileCallsTrigger) -> None:
        async for event in trigger.run():
            assert event.payload["status"] == "over", event.payload
            found.extend([time.monotonic()] * event.payload["settled"])

    async def all_of_them() -> None:
        await asyncio.gather(*(one(trigger) for trigger in triggers(ids, tasks, poll_interval)))

    asyncio.run(all_of_them())
    return found


def measure(
    wait: Callable[[Simulator, Sequence[str]], list[float]], *, calls: int, scale: float, warm_up: float
) -> Detected:
    """Let ``wait`` wait for ``calls`` calls that all end at one moment, after ``warm_up`` seconds.

    :param scale: the window and the intervals are so much shorter than the real ones.
    """
    with Simulator(limit=100, window=15 / scale, transcript_delay=0) as simulator:
        ids = simulator.load_calls(calls, status="IN_PROGRESS", ends_within=1800)
        ended: list[float] = []

        def end() -> None:
            ended.append(time.monotonic())
            simulator.advance(3600)

        timer = threading.Timer(warm_up, end)
        timer.start()
        found = wait(simulator, ids)
        timer.join()
        summary = simulator.request_summary()
    return Detected(
        [moment - ended[0] for moment in found],
        sum(sum(statuses.values()) for statuses in summary.values()),
        sum(statuses.get("429", 0) for statuses in summary.values()),
    )


def compare(*, calls: int = 1000, scale: float = 10, times: int = 5) -> dict[str, list[Detected]]:
    """Everybody under the same limit, window and intervals ``scale`` times shorter than in earnest.

    The rivals keep the interval they have by default: a shorter one only has more of their requests refused.

    :param times: how often ours waits, since it depends on where in the interval the calls end. Rivals need many
        windows, in which that is evened out, and wait once.
    :return: for each, from the soonest to the latest.
    """
    # These know the real window only.
    pacing.shared_window = partial(pacing.shared_window, length=15 / scale)  # type: ignore[assignment]
    waiting.FIRST_INTERVAL = polling.FIRST_INTERVAL = 2 / scale
    waiting.SECONDS_PER_REQUEST = polling.SECONDS_PER_REQUEST = 0.3 / scale
    logging.getLogger("airflow.providers.http.hooks.http").setLevel(logging.CRITICAL)
    give_up = 1200 / scale
    ways: dict[str, Callable[[Simulator, Sequence[str]], list[float]]] = {
        "this provider, one task": lambda simulator, ids: ours(
            simulator, ids, tasks=1, poll_interval=POLL_INTERVAL / scale
        ),
        "this provider, a task per call": lambda simulator, ids: ours(
            simulator, ids, tasks=calls, poll_interval=POLL_INTERVAL / scale
        ),
        "HttpSensor per call": lambda simulator, ids: rivals.http_sensors(
            simulator, ids, poke_interval=60 / scale, workers=32, give_up=give_up
        ),
        "deferred HttpSensor per call": lambda simulator, ids: rivals.http_deferred(
            simulator, ids, poke_interval=60 / scale, give_up=give_up
        ),
        "requests in a loop": lambda simulator, ids: rivals.plain_loop(
            simulator, ids, pause=30 / scale, give_up=give_up, backoff=rivals.retry_after
        ),
    }
    chance = random.Random(1)
    return {
        who: sorted(
            (
                # Between one minute and one more interval, so that the calls end anywhere between two polls
                measure(wait, calls=calls, scale=scale, warm_up=(60 + chance.random() * POLL_INTERVAL) / scale)
                for _ in range(times if who.startswith("this") else 1)
            ),
            key=lambda detected: detected.all_after,
        )
        for who, wait in ways.items()
    }


if __name__ == "__main__":
    with Simulator() as simulator:
        for tasks in (1, 5000):
            print("requests per round, 10,000 calls,", tasks, "tasks:", cost_of_a_round(simulator, 10_000, tasks))
    for who, runs in compare().items():
        for detected in runs:
            print(
                f"{who:<32} found {len(detected.lags):>5}, all after {detected.all_after:7.2f} s, "
                f"{detected.requests} requests, {detected.refused} refused"
            )
