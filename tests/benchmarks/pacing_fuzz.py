"""Random answers against one rate window: no request waits longer than a 429 asked, and one window more.

``python -m tests.benchmarks.pacing_fuzz``              300,000 sequences of 20 requests, some minutes
``python -m tests.benchmarks.pacing_fuzz 1000 7``       1,000 sequences from seed 7
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_volubile.api.headers import retry_after
from airflow_provider_volubile.api.rate_window import LENGTH, RateWindow

REQUESTS = 20
TOLERANCE = 0.05 * LENGTH  # seconds for which the window waits for an answer under way

LIMITS = (0, 1, 2, 7, 10, 40, 99, 100, 101, 250, 999_999_999)
RETRY_AFTER = ("0", "1", "5", "14", "15", "16", "17", "60", "61", "3600", "-3", "nan", "inf", "soon", "1.5", "")
NONSENSE = ("", "many", "-1", "1.0", "9" * 40, "100, 100;w=15")


class Wait(NamedTuple):
    """One wait of a request.

    :param seconds: how long it was.
    :param allowed: how long it may have been.
    :param seed: repeats the sequence that it is from.
    """

    seconds: float
    allowed: float
    seed: int


@dataclass
class Clock:
    now: float = 1_000.0

    def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            raise AssertionError(f"a sleep of {seconds} seconds: the window spins")
        self.now += seconds


def worst(sequences: int, seed: int = 0) -> Wait:
    """The wait that exceeds what it may be by most, or comes closest to it."""
    waits = (_one(number) for number in range(seed, seed + sequences))
    return max(waits, key=lambda wait: wait.seconds - wait.allowed)


def _one(seed: int) -> Wait:
    """Send and answer requests at random; several may be under way, and answers may pass each other."""
    rng = random.Random(seed)
    clock = Clock()
    window = RateWindow(clock=lambda: clock.now, sleep=clock.sleep, rng=random.Random(seed + 1))
    limits = rng.sample(LIMITS, rng.randint(1, 3))
    asked_until = clock.now
    worst = Wait(0.0, LENGTH, seed)
    sent: list[float] = []
    for _ in range(REQUESTS):
        begun = clock.now
        window.acquire(background=rng.random() < 0.2)
        wait = Wait(clock.now - begun, max(0.0, asked_until - begun) + LENGTH + TOLERANCE, seed)
        worst = max(worst, wait, key=lambda wait: wait.seconds - wait.allowed)
        sent.append(clock.now)
        clock.now += rng.choice((0.0, 0.01, 0.5))
        while sent and rng.random() < 0.7:
            sent_at = sent.pop(rng.randrange(len(sent)))
            clock.now += rng.choice((0.0, 0.05, 0.3, 3.0))
            if rng.random() < 0.05:
                window.abandon()
                continue
            headers = _headers(rng, limits)
            status = rng.choice((200, 200, 200, 200, 429, 500))
            window.observe(status, headers, sent_at=sent_at, received_at=clock.now)
            if status == 429:
                asked_until = max(asked_until, clock.now + (retry_after(headers) or 0.0))
        if rng.random() < 0.1:
            clock.now += rng.choice((1.0, 7.5, 14.9, 15.1, 40.0, 1_000.0))
    return worst


def _headers(rng: random.Random, limits: list[int]) -> dict[str, str]:
    headers = {}
    limit = rng.choice(limits)
    if rng.random() < 0.9:
        headers["X-RateLimit-Limit"] = str(limit) if rng.random() < 0.95 else rng.choice(NONSENSE)
        left = rng.choice((0, 1, rng.randint(0, limit), rng.randint(0, limit), max(0, limit - 1), limit + 1))
        headers["X-RateLimit-Remaining"] = str(left) if rng.random() < 0.95 else rng.choice(NONSENSE)
    if rng.random() < 0.5:
        headers["Retry-After"] = rng.choice(RETRY_AFTER)
    return headers


if __name__ == "__main__":
    found = worst(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else worst(300_000)
    print(f"longest wait beyond what was asked: {found}")
    sys.exit(found.seconds > found.allowed)
