"""What people would use instead, against the same simulator: the common HTTP provider, and a plain loop."""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import requests
from airflow.providers.http.hooks.http import HttpAsyncHook
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.http.triggers.http import HttpSensorTrigger

from airflow_provider_volubile.api.rate_window import LENGTH
from airflow_provider_volubile.api.wire import FINAL_CALL_STATUSES
from airflow_provider_volubile.simulator import Simulator


def http_connection(simulator: Simulator) -> None:
    """The connection ``http_default`` of the rivals."""
    os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps(
        {"conn_type": "http", "host": simulator.url, "extra": {"X-Api-Key": simulator.primary_key}}
    )


def sensors_of(simulator: Simulator, calls: Sequence[str]) -> list[HttpSensor]:
    """One ``HttpSensor`` per call; 429 counts as "not yet"."""
    http_connection(simulator)
    return [
        HttpSensor(
            task_id=f"call_{number}",
            endpoint=f"v1/calls/{call_id}",
            response_check=lambda response: response.json()["status"] in FINAL_CALL_STATUSES,
            response_error_codes_allowlist=["404", "429"],
        )
        for number, call_id in enumerate(calls)
    ]


def http_sensors(
    simulator: Simulator, calls: Sequence[str], *, poke_interval: float, workers: int, give_up: float
) -> list[float]:
    """One ``HttpSensor`` per call in reschedule mode, ``workers`` slots.

    :return: the moments (monotonic) at which each call was found to have ended.
    """
    sensors = sensors_of(simulator, calls)
    due = [(time.monotonic(), number) for number in range(len(sensors))]
    lock = threading.Lock()
    found: list[float] = []
    until = time.monotonic() + give_up

    def worker() -> None:
        while time.monotonic() < until and len(found) < len(sensors):
            with lock:
                task = heapq.heappop(due) if due and due[0][0] <= time.monotonic() else None
            if task is None:
                time.sleep(0.005)
                continue
            if sensors[task[1]].poke({}):
                found.append(time.monotonic())
            else:
                with lock:
                    heapq.heappush(due, (time.monotonic() + poke_interval, task[1]))

    with ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            pool.submit(worker)
    return found


def http_deferred(
    simulator: Simulator, calls: Sequence[str], *, poke_interval: float, retry_delay: float, give_up: float
) -> list[float]:
    """One deferred ``HttpSensor`` per call. It can only wait for a 404 to go away, so it waits for the transcript.

    :param retry_delay: the hook's, in seconds; 1 by default.
    """
    http_connection(simulator)
    found: list[float] = []

    class Trigger(HttpSensorTrigger):
        def _get_async_hook(self) -> HttpAsyncHook:
            return HttpAsyncHook(method=self.method, http_conn_id=self.http_conn_id, retry_delay=retry_delay)

    async def one(call_id: str) -> None:
        trigger = Trigger(endpoint=f"v1/calls/{call_id}/transcript", poke_interval=poke_interval)
        async for _ in trigger.run():
            found.append(time.monotonic())

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(one(call_id)) for call_id in calls]
        await asyncio.wait(tasks, timeout=give_up)
        for task in tasks:
            task.cancel()

    asyncio.run(all_of_them())
    return found


def plain_loop(
    simulator: Simulator,
    calls: Sequence[str],
    *,
    pause: float,
    give_up: float,
    backoff: Callable[[requests.Response], float],
) -> list[float]:
    """``requests`` in a loop over all calls that have not ended, sleeping on 429 as told."""
    session = requests.Session()
    session.headers["X-Api-Key"] = simulator.primary_key
    waiting = list(calls)
    found: list[float] = []
    until = time.monotonic() + give_up
    while waiting and time.monotonic() < until:
        for call_id in list(waiting):
            answer = session.get(f"{simulator.url}/v1/calls/{call_id}", timeout=30)
            while answer.status_code == 429 and time.monotonic() < until:
                time.sleep(backoff(answer))
                answer = session.get(f"{simulator.url}/v1/calls/{call_id}", timeout=30)
            if answer.ok and answer.json()["status"] in FINAL_CALL_STATUSES:
                waiting.remove(call_id)
                found.append(time.monotonic())
        time.sleep(pause)
    return found


def retry_after(opened: float, length: float) -> Callable[[requests.Response], float]:
    """What a 429 says, in whole seconds; with shorter windows, in shorter seconds.

    :param opened: the moment (monotonic) at which a window opened.
    :param length: seconds per window.
    """
    second = length / LENGTH

    def pause(answer: requests.Response) -> float:
        if second == 1:
            return int(answer.headers["Retry-After"])
        return math.ceil((length - (time.monotonic() - opened) % length) / second) * second

    return pause
