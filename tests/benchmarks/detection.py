"""How soon it is noticed that calls have ended, and what that costs, against the rivals under the same limit."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from functools import partial
from typing import Any
from unittest.mock import patch

from airflow_provider_volubile.api import rate_window as pacing
from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import LENGTH, LIMIT, RateWindow
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
from airflow_provider_volubile.triggers.campaigns import VolubileCampaignTrigger
from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
from airflow_provider_volubile.waiting import polling as waiting
from airflow_provider_volubile.waiting import shared_poll as polling
from tests.benchmarks import rivals

CONN = "volubile_bench"
POLL_INTERVAL = 5  # seconds; a round of a thousand calls takes a tenth of the window
DEFAULT_INTERVAL = 30  # ours
RIVALS_INTERVAL = 60  # theirs, of every sensor
ENDLESS = 1_000_000  # requests per window, where the window is not what is measured
PEOPLE = 1000  # in a campaign
OURS = ("one task", "a task per call")


@dataclass
class Detected:
    """How long after the end of so many calls each was noticed (seconds), and what it took."""

    calls: int
    lags: list[float]
    requests: int
    refused: int

    @property
    def all_after(self) -> float:
        return max(self.lags) if len(self.lags) == self.calls else float("inf")


@contextmanager
def scaled(scale: float) -> Iterator[None]:
    """Our intervals and windows are so many times shorter than in earnest: our code knows the real ones only."""
    with ExitStack() as changes:
        for module in (waiting, polling):
            for name in ("FIRST_INTERVAL", "SECONDS_PER_REQUEST"):
                if hasattr(module, name):
                    changes.enter_context(patch.object(module, name, getattr(module, name) / scale))
        shorter = partial(pacing.shared_window, length=LENGTH / scale)
        changes.enter_context(patch.object(pacing, "shared_window", shorter))
        yield


def volubile_connection(simulator: Simulator) -> None:
    os.environ[f"AIRFLOW_CONN_{CONN.upper()}"] = json.dumps(
        {"conn_type": "volubile", "host": simulator.url, "password": simulator.primary_key}
    )


def triggers(ids: Sequence[str], tasks: int, poll_interval: float) -> list[WaitTrigger]:
    """Waits for calls, each for as many."""
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


def calls_in_flight(simulator: Simulator, calls: int, tasks: int) -> list[WaitTrigger]:
    """So many waits for so many calls of one agent that have not ended."""
    simulator.reset()
    simulator.configure(limit=ENDLESS, speed=1)
    return triggers(simulator.load_calls(calls, status="IN_PROGRESS"), tasks, POLL_INTERVAL)


def campaign_in_flight(simulator: Simulator, people: int) -> list[WaitTrigger]:
    """One wait for one submission in campaigns of a thousand, everybody on the telephone."""
    simulator.reset()
    simulator.configure(limit=ENDLESS, speed=1, ignore_windows=True, lines=PEOPLE, dial_interval=0)
    simulator.outcomes({"*": ["IN_PROGRESS"]})
    now = datetime.now(UTC)
    client = VolubileClient(simulator.url, ApiKeyPair(simulator.primary_key), window=RateWindow(limit=ENDLESS))
    campaigns = [
        client.create_campaign(
            wire.campaign_body(
                name=f"part {part}",
                agent_id=REMINDER_AGENT_ID,
                start_date=now.date(),
                time_slots=[(time_of_day(9), time_of_day(18))],
                days=["MONDAY"],
                batch_size=PEOPLE,
                recipients=[{"phone": f"+3363998{part * PEOPLE + number:04}"} for number in range(PEOPLE)],
            )
        )
        for part in range(people // PEOPLE)
    ]
    simulator.advance(60)
    return [
        VolubileCampaignTrigger(
            volubile_conn_id=CONN,
            campaigns=[{"id": one.id, "name": one.name or "", "recipients": PEOPLE} for one in campaigns],
            agent_id=REMINDER_AGENT_ID,
            since=now.isoformat(),
            deadline=(now + timedelta(hours=1)).isoformat(),
            poll_interval=POLL_INTERVAL,
        )
    ]


@dataclass(frozen=True)
class Look:
    """One poll round: when it began and ended (monotonic), and the requests that the simulator had meanwhile."""

    began: float
    ended: float
    requests: int


@contextmanager
def looks(simulator: Simulator) -> Iterator[list[Look]]:
    """All rounds of the shared poll, one after the other."""
    found: list[Look] = []
    poll_once = polling.poll_once  # type: ignore[attr-defined]

    def counted(*args: Any, **kwargs: Any) -> Any:
        before, began = simulator.state()["requests"], time.monotonic()
        try:
            return poll_once(*args, **kwargs)
        finally:
            ended = time.monotonic()
            found.append(Look(began, ended, simulator.state()["requests"] - before))

    with patch.object(polling, "poll_once", counted):
        yield found


def cost_of_rounds(simulator: Simulator, waits: Sequence[WaitTrigger], rounds: int = 4) -> list[int]:
    """Requests in each of the first poll rounds. In the very first, not everybody may have joined."""
    volubile_connection(simulator)

    async def some_rounds(found: Sequence[Look]) -> None:
        running = [asyncio.ensure_future(anext(aiter(wait.run()))) for wait in waits]
        while len(found) < rounds:
            await asyncio.sleep(0.1)
            if ended := next((task for task in running if task.done()), None):
                raise RuntimeError(f"A wait ended: {ended.result()}")
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    with scaled(10), looks(simulator) as found:
        asyncio.run(some_rounds(found))
    return [look.requests for look in found]


def cost_of_polls(simulator: Simulator, calls: int) -> int:
    """Requests when each of ``calls`` sensors looks once at its call."""
    simulator.reset()
    simulator.configure(limit=ENDLESS)
    ids = simulator.load_calls(calls, status="IN_PROGRESS")
    for sensor in rivals.sensors_of(simulator, ids):
        sensor.poke({})
    return int(simulator.state()["requests"])


def ours(simulator: Simulator, ids: Sequence[str], *, tasks: int, poll_interval: float) -> list[float]:
    """Our triggers, as the triggerer runs them. Returns the moments (monotonic) at which each call was noticed."""
    volubile_connection(simulator)
    found: list[float] = []

    async def one(trigger: WaitTrigger) -> None:
        async for event in trigger.run():
            assert event.payload["status"] == "over", event.payload
            found.extend([time.monotonic()] * event.payload["settled"])

    async def all_of_them() -> None:
        await asyncio.gather(*(one(trigger) for trigger in triggers(ids, tasks, poll_interval)))

    asyncio.run(all_of_them())
    return found


Wait = Callable[[Simulator, Sequence[str], float], list[float]]


def measure(wait: Wait, *, calls: int, scale: float, warm_up: float) -> Detected:
    """Let ``wait`` wait for ``calls`` calls that all end at one moment, after ``warm_up`` seconds.

    :param wait: is told the moment (monotonic) at which a window opened, too.
    :param scale: the window and the intervals are so much shorter than the real ones.
    """
    with Simulator(limit=LIMIT, window=LENGTH / scale, transcript_delay=0) as simulator:
        simulator.reset()
        opened = time.monotonic()
        ids = simulator.load_calls(calls, status="IN_PROGRESS", ends_within=1800)
        ended: list[float] = []

        def end() -> None:
            ended.append(time.monotonic())
            simulator.advance(3600)

        timer = threading.Timer(warm_up, end)
        timer.start()
        found = wait(simulator, ids, opened)
        timer.join()
        summary = simulator.request_summary()
    return Detected(
        calls,
        [moment - ended[0] for moment in found],
        sum(sum(statuses.values()) for statuses in summary.values()),
        sum(statuses.get("429", 0) for statuses in summary.values()),
    )


def compare(*, calls: int = 1000, scale: float = 10, times: int = 5) -> dict[tuple[str, int], list[Detected]]:
    """Everybody under the same limit, window and intervals ``scale`` times shorter than in earnest.

    :param times: how often ours waits, since it depends on where in the interval the calls end. Rivals need many
        windows, in which that is evened out, and wait once.
    :return: by who waited and with what interval (in seconds, not scaled), from the soonest to the latest.
    """
    give_up = 1200 / scale

    def one_task(interval: float) -> Wait:
        return lambda simulator, ids, _: ours(simulator, ids, tasks=1, poll_interval=interval)

    def task_per_call(interval: float) -> Wait:
        return lambda simulator, ids, _: ours(simulator, ids, tasks=calls, poll_interval=interval)

    def sensors(interval: float) -> Wait:
        return lambda simulator, ids, _: rivals.http_sensors(
            simulator, ids, poke_interval=interval, workers=32, give_up=give_up
        )

    def deferred(interval: float) -> Wait:
        return lambda simulator, ids, _: rivals.http_deferred(
            simulator, ids, poke_interval=interval, retry_delay=1 / scale, give_up=give_up
        )

    def loop(interval: float) -> Wait:
        return lambda simulator, ids, opened: rivals.plain_loop(
            simulator, ids, pause=interval, give_up=give_up, backoff=rivals.retry_after(opened, LENGTH / scale)
        )

    chance = random.Random(1)
    found = {}
    for who, how, intervals in (
        (OURS[0], one_task, (POLL_INTERVAL,)),
        (OURS[1], task_per_call, (POLL_INTERVAL, DEFAULT_INTERVAL)),
        ("HttpSensor per call", sensors, (POLL_INTERVAL, RIVALS_INTERVAL)),
        ("deferred HttpSensor per call", deferred, (POLL_INTERVAL, RIVALS_INTERVAL)),
        ("requests in a loop", loop, (DEFAULT_INTERVAL,)),
    ):
        for interval in intervals:
            # Ours keeps to its interval after four of them. Then the calls end in each fifth of one.
            settled, repeats = (max(60, 4 * interval), times) if who in OURS else (60, 1)
            with scaled(scale):
                runs = [
                    measure(
                        how(interval / scale),
                        calls=calls,
                        scale=scale,
                        warm_up=(settled + (part + chance.random()) / repeats * interval) / scale,
                    )
                    for part in range(repeats)
                ]
            found[who, interval] = sorted(runs, key=lambda detected: detected.all_after)
    return found


if __name__ == "__main__":
    with Simulator() as simulator:
        for tasks in (1, 5000):
            cost = cost_of_rounds(simulator, calls_in_flight(simulator, 10_000, tasks))
            print("requests in the first rounds, 10,000 calls,", tasks, "tasks:", cost, flush=True)
        cost = cost_of_rounds(simulator, campaign_in_flight(simulator, 10_000))
        print("requests in the first rounds, 10,000 people in 10 campaigns:", cost, flush=True)
        print("requests of 200 HttpSensors that look once:", cost_of_polls(simulator, 200), flush=True)
    for (who, interval), runs in compare().items():
        for detected in runs:
            print(
                f"{who:<32} every {interval:>2} s: found {len(detected.lags):>5}, all after {detected.all_after:7.2f} "
                f"s, {detected.requests} requests, {detected.refused} refused"
            )
