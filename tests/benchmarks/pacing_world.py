"""Many clients of one rate window in virtual time: a seed decides everything, and a window costs milliseconds.

Run it for a table of what pacing reaches in many circumstances: ``python -m tests.benchmarks.pacing_world``.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate

from airflow_provider_volubile.api.rate_window import RateWindow


class World:
    """Virtual time. Threads started by :meth:`start` run one at a time, and time passes only while all sleep."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._number = itertools.count()
        self._due: list[tuple[float, int, _Nap]] = []
        self._turn = threading.Lock()  # of the thread that called `run`
        self._turn.acquire()
        self._until = math.inf
        self._over = False
        self._failure: BaseException | None = None

    def clock(self) -> float:
        return self.now

    def start(self, what: Callable[[], None], after: float = 0.0) -> None:
        nap = _Nap()

        def thread() -> None:
            nap.turn.acquire()
            try:
                if not self._over:
                    what()
            except _OverError:
                pass
            except BaseException as failure:
                self._failure = failure
            self._pass_on()

        self._lie_down(nap, after)
        threading.Thread(target=thread, daemon=True).start()

    def sleep(self, seconds: float, bed: set[_Nap] | None = None) -> None:
        """Sleep, or until the bed is shaken by :meth:`wake`."""
        nap = _Nap()
        self._lie_down(nap, seconds)
        if bed is not None:
            bed.add(nap)
        self._pass_on()
        nap.turn.acquire()
        if bed is not None:
            bed.discard(nap)
        if self._over:
            raise _OverError

    def wake(self, bed: set[_Nap]) -> None:
        for nap in bed:
            self._lie_down(nap, 0)
        bed.clear()

    def run(self, seconds: float = math.inf) -> None:
        """Let time pass, to the end of all threads unless told how long."""
        self._until = self.now + seconds
        self._pass_on()
        self._turn.acquire()
        if self._failure:
            raise self._failure
        if seconds != math.inf:
            self.now = self._until

    def close(self) -> None:
        """End the threads that still run."""
        self._over = True
        self.run()

    def _lie_down(self, nap: _Nap, seconds: float) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._number), nap))

    def _pass_on(self) -> None:
        while self._due and self._due[0][0] <= self._until and self._failure is None:
            due, _, nap = heapq.heappop(self._due)
            if nap.asleep:
                nap.asleep = False
                self.now = max(self.now, due)
                nap.turn.release()
                return
        self._turn.release()


class _Nap:
    def __init__(self) -> None:
        self.asleep = True
        self.turn = threading.Lock()
        self.turn.acquire()


class _OverError(BaseException):
    pass


Headers = dict[str, str]
Answer = tuple[int, Headers]


class Server:
    """Counts requests in fixed windows, and keeps the score.

    :param on_first: a window begins with the first request after the last one, not at a fixed time.
    :param retry: how a 429 tells when to come back: ``ceil`` or ``floor`` (seconds), ``date``, ``none``, or a text
        for all.
    :param rate_headers: changes the headers that tell what is left.
    """

    def __init__(
        self,
        world: World,
        *,
        limit: int = 100,
        length: float = 15.0,
        phase: float = 0.0,
        on_first: bool = False,
        retry: str = "ceil",
        rate_headers: Callable[[int, int], Headers] | None = None,
    ) -> None:
        self.limit = limit
        self.length = length
        self.opened = -math.inf if on_first else world.now - phase
        self.served: dict[int, int] = {}  # windows by their number
        self.refused: dict[int, int] = {}
        self._world = world
        self._on_first = on_first
        self._retry = retry
        self._rate_headers = rate_headers or _rate_headers
        self._number = 0

    def ask(self) -> Answer:
        now = self._world.now
        passed = (now - self.opened) // self.length if self.opened > -math.inf else 1
        if passed >= 1:
            self.opened = now if self._on_first else self.opened + passed * self.length
            self._number += int(passed)
        served = self.served.get(self._number, 0)
        if served < self.limit:
            self.served[self._number] = served + 1
            return 200, self._rate_headers(self.limit, self.limit - served - 1)
        self.refused[self._number] = self.refused.get(self._number, 0) + 1
        return 429, {**self._rate_headers(self.limit, 0), **self._retry_after(self.opened + self.length - now)}

    def _retry_after(self, seconds: float) -> Headers:
        match self._retry:
            case "ceil":
                return {"Retry-After": str(math.ceil(seconds))}
            case "floor":
                return {"Retry-After": str(int(seconds))}
            case "date":  # its clock is an hour behind ours
                now = 1_700_000_000 + self._world.now - 3600
                return {"Retry-After": formatdate(math.ceil(now + seconds)), "Date": formatdate(int(now))}
            case "none":
                return {}
            case text:
                return {"Retry-After": text}


def _rate_headers(limit: int, left: int) -> Headers:
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(left)}


@dataclass
class Client:
    """A process: some threads that share one window.

    :param work: requests to be served.
    :param latency: seconds from a request to its answer, give or take.
    :param every: seconds that each thread rests after an answer.
    :param lost: the share of requests that get no answer.
    :param clock_rate: seconds of its clock in a second.
    :param clock_ahead: seconds by which its clock has jumped.
    """

    world: World
    server: Server
    seed: int
    work: int
    threads: int = 4
    latency: float = 0.1
    after: float = 0.0
    every: float = 0.0
    background: bool = False
    lost: float = 0.0
    clock_rate: float = 1.0
    clock_ahead: float = 0.0
    served: int = 0
    refused: int = 0
    sent_at: list[float] = field(default_factory=list)
    begun_at: float = 0.0
    done_at: float = math.nan
    longest_wait: float = 0.0
    _bed: set[_Nap] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._open = self.work
        self.begun_at = self.world.now + self.after
        self.window = RateWindow(
            length=self.server.length,
            clock=self.clock,
            sleep=lambda seconds: self.world.sleep(seconds / self.clock_rate, self._bed),
            rng=random.Random(self.seed + 1),
        )
        for _ in range(self.threads):
            self.world.start(self._thread, self.after)

    def clock(self) -> float:
        return self.world.now * self.clock_rate + self.clock_ahead

    def _thread(self) -> None:
        while self._open:
            self._open -= 1
            while not self._request():
                pass
            self.served += 1
            if self.every:
                self.world.sleep(self.every * self._rng.uniform(0.5, 1.5))
        self.done_at = self.world.now

    def _request(self) -> bool:
        asked_at = self.world.now
        self.window.acquire(background=self.background)
        self.world.wake(self._bed)
        self.sent_at.append(self.world.now)
        self.longest_wait = max(self.longest_wait, self.world.now - asked_at)
        sent_at = self.clock()
        self._travel()
        status, headers = self.server.ask()
        self._travel()
        if self._rng.random() < self.lost:
            self.window.abandon()
            return False
        self.window.observe(status, headers, sent_at=sent_at, received_at=self.clock())
        self.world.wake(self._bed)
        self.refused += status == 429
        return status != 429

    def _travel(self) -> None:
        self.world.sleep(self.latency / 2 * self._rng.uniform(0.7, 1.5))


@dataclass
class Result:
    """What became of a run.

    :param used: the share of the windows used, from the first full to the last full one.
    :param speed: time that the window itself needs for as many requests, over the time they took.
    :param refused: the share of all requests.
    :param spread: the slowest client over the fastest: time to finish, or, in a run cut short, work done.
    """

    used: float
    speed: float
    refused: float
    spread: float
    longest_wait: float
    seconds: float


def race(
    clients: int,
    work: int | None = None,
    *,
    seed: int,
    windows: float = 10,
    warm_up: float = 4,
    threads: Sequence[int] = (4,),
    latency: Sequence[float] = (0.1,),
    within: float = 0.5,
    clock_jump: float = 0.0,
    **server: object,
) -> Result:
    """Let clients compete, each with so much work; without work, for so many windows after a warm-up.

    :param within: seconds within which they all start.
    :param threads: of each client in turn, as is ``latency`` in seconds.
    :param clock_jump: seconds by which the clocks of the clients jump after the warm-up, which then begins anew.
    """
    rng = random.Random(seed)
    world = World()
    length = float(server.get("length", 15.0))  # type: ignore[arg-type]
    target = Server(world, phase=rng.random() * length, **server)  # type: ignore[arg-type]
    first_opening = target.opened if target.opened > -math.inf else world.now
    all_clients = [
        Client(
            world,
            target,
            seed=1000 * seed + number,
            work=10**9 if work is None else work,
            threads=threads[number % len(threads)],
            latency=latency[number % len(latency)],
            after=rng.random() * within,
        )
        for number in range(clients)
    ]
    begun = min(client.begun_at for client in all_clients)
    if work is None:
        world.run(warm_up * length)
        if clock_jump:
            for client in all_clients:
                client.clock_ahead += clock_jump
            world.run(warm_up * length)
        before = [client.served for client in all_clients]
        from_number = max(target.served)
        refused = sum(target.refused.values())
        world.run(windows * length)
        done = [client.served - count for client, count in zip(all_clients, before, strict=True)]
        spread = max(done) / max(1, min(done))
        total = sum(done)
        speed = total / windows / target.limit
        full = range(from_number + 1, max(target.served))
    else:
        world.run()
        times = [client.done_at - client.begun_at for client in all_clients]
        spread = max(times) / min(times)
        refused = 0
        total = work * clients
        ideal = first_opening + (math.ceil(total / target.limit) - 1) * length - begun
        speed = ideal / (max(client.done_at for client in all_clients) - begun)
        full = range(min(target.served) + 1, max(target.served))
    used = sum(target.served.get(number, 0) for number in full) / len(full) / target.limit if len(full) else 1.0
    refusals = sum(target.refused.values()) - refused
    longest_wait = max(client.longest_wait for client in all_clients)
    world.close()
    return Result(used, speed, refusals / (total + refusals), spread, longest_wait, world.now - begun)


CIRCUMSTANCES: Mapping[str, dict[str, object]] = {
    "1 × 2,000 requests": {"clients": 1, "work": 2000},
    "1 × 2,000, one thread": {"clients": 1, "work": 2000, "threads": (1,)},
    "8 × 256, started together": {"clients": 8, "work": 256},
    "8, started at any time": {"clients": 8, "within": 15.0},
    "8 unequal ones": {"clients": 8, "within": 15.0, "threads": (1, 2, 4, 8), "latency": (0.05, 0.2)},
    "8, no Retry-After": {"clients": 8, "within": 15.0, "retry": "none"},
    "8, Retry-After rounded down": {"clients": 8, "within": 15.0, "retry": "floor"},
    "8, windows of 1.5 s": {"clients": 8, "within": 1.5, "length": 1.5, "latency": (0.01,)},
    "8, windows on demand": {"clients": 8, "within": 15.0, "on_first": True},
    "2": {"clients": 2, "within": 15.0},
    "16": {"clients": 16, "within": 15.0},
    "30": {"clients": 30, "within": 15.0},
    "100": {"clients": 100, "within": 15.0},
}


def rows(seeds: int) -> Iterator[str]:
    yield f"{'':30} {'used':>6} {'speed':>6} {'429':>6} {'spread':>7}   (mean, and the worst) of {seeds} seeds"
    for name, circumstance in CIRCUMSTANCES.items():
        results = [race(seed=seed, **circumstance) for seed in range(seeds)]  # type: ignore[arg-type]

        def mean(what: str, results: list[Result] = results) -> float:
            return sum(getattr(result, what) for result in results) / len(results)

        yield (
            f"{name:30} {mean('used'):6.1%} {mean('speed'):6.1%} {mean('refused'):6.2%} {mean('spread'):7.2f}"
            f"   ({min(r.used for r in results):.1%} {min(r.speed for r in results):.1%}"
            f" {max(r.refused for r in results):.2%} {max(r.spread for r in results):.2f})"
        )


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(row, flush=True)
