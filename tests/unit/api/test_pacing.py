"""One client of the rate window: what it lets through, in virtual time unless a test is about threads."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from airflow_provider_volubile.api.headers import retry_after
from airflow_provider_volubile.api.rate_window import RateWindow, shared_window
from tests.benchmarks import pacing_fuzz
from tests.benchmarks.pacing_world import Client, Headers, Server, World


class Hand:
    """A window whose requests, answers and time a test moves by hand. Waiting only passes time."""

    def __init__(self, **options: object) -> None:
        self.now = 1_000.0
        self.window = RateWindow(clock=lambda: self.now, sleep=self._sleep, rng=random.Random(1), **options)  # type: ignore[arg-type]

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def waits(self, *, background: bool = False) -> float:
        """Acquire; return the seconds that it took."""
        before = self.now
        self.window.acquire(background=background)
        return self.now - before

    def answer(self, left: int | None, *, status: int = 200, sent_at: float | None = None, **headers: str) -> None:
        """Answer a request, sent just now unless told otherwise."""
        sent_at = self.now if sent_at is None else sent_at
        self.now += 0.1
        told = {} if left is None else told_headers(100, left)
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        self.window.observe(status, told | extra, sent_at=sent_at, received_at=self.now)

    def ask(self, left: int | None, **answer: object) -> float:
        """Acquire and answer; return the wait."""
        waited = self.waits()
        self.answer(left, **answer)  # type: ignore[arg-type]
        return waited


def told_headers(limit: int, left: int) -> Headers:
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(left)}


def run(
    work: int,
    *,
    phase: float = 4.0,
    threads: int = 4,
    latency: float = 0.1,
    lost: float = 0.0,
    clock_rate: float = 1.0,
    **server: object,
) -> tuple[Server, Client]:
    """Let one client do some work. The server's first window is ``phase`` seconds old."""
    world = World()
    target = Server(world, phase=phase, **server)  # type: ignore[arg-type]
    client = Client(
        world, target, seed=1, work=work, threads=threads, latency=latency, lost=lost, clock_rate=clock_rate
    )
    world.run()
    assert client.served == work
    return target, client


# Knowing nothing


def test_the_first_request_goes_at_once_and_the_others_wait_for_its_answer() -> None:
    _, client = run(work=5, threads=5, latency=1.0)
    first, *others = client.sent_at
    assert first == 1_000.0
    assert min(others) >= first + 0.7  # the shortest latency there is


def test_a_first_request_that_never_ends_holds_nobody_up_for_long() -> None:
    hand = Hand()
    hand.waits()
    assert 0 < hand.waits() <= 1


@pytest.mark.parametrize("phase", [0.0, 5.0, 9.9])
@pytest.mark.parametrize("threads", [1, 8])
def test_alone_every_place_of_every_window_is_used(phase: float, threads: int) -> None:
    server, client = run(work=1_000, phase=phase, threads=threads, latency=0.03)
    assert set(server.served.values()) == {100}
    assert client.refused <= 3


def test_a_window_that_opens_in_the_middle_of_a_burst_is_seen() -> None:
    server, client = run(work=500, phase=14.5)
    first, *full, last = server.served.values()
    assert first < 30, "the first window was half a second from its end"
    assert set(full) == {100}
    assert last == 500 - 400 - first
    assert client.refused <= 1


def test_a_spent_window_is_waited_for_no_longer_than_it_takes() -> None:
    server, client = run(work=600, phase=9.0)
    assert client.longest_wait <= server.length + 1


# Others


def test_each_request_makes_room_for_those_of_the_others() -> None:
    """Between two answers of mine the remainder falls by five: with four left, another is not worth trying."""
    hand = Hand()
    for left in range(99, 0, -5):
        assert hand.ask(left) < 2
    assert hand.waits() > 2, "the last answer left four"


def test_what_others_left_is_used_to_the_end_by_a_client_alone() -> None:
    hand = Hand()
    for left in (3, 2, 1):
        assert hand.ask(left) == 0
    assert hand.ask(0) == 0
    assert hand.waits() > 2


def test_a_client_in_company_takes_its_time() -> None:
    hand = Hand()
    alone = [hand.ask(left) for left in range(99, 89, -1)]
    company = [hand.ask(left) for left in range(88, 48, -4)]
    assert sum(alone) == 0
    assert sum(company) > 0.3


def test_requests_in_flight_are_counted() -> None:
    hand = Hand()
    hand.ask(2)
    assert hand.waits() == 0
    assert hand.waits() == 0
    assert hand.waits() > 0.5, "two are left, and two under way"


def test_a_request_without_an_answer_counts_as_spent_until_the_next_window() -> None:
    hand = Hand()
    hand.ask(2)
    hand.waits()
    hand.window.abandon()
    assert hand.ask(1) == 0, "the server has not counted it yet, and may"
    assert hand.ask(99) > 1
    assert [hand.ask(left) for left in range(98, -1, -1)] == [0] * 99


def test_lost_answers_do_not_stop_anyone() -> None:
    server, client = run(work=700, lost=0.1)
    assert client.longest_wait <= server.length + 1


# Threads of one client


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    world = World()
    server = Server(world, phase=3.0)
    clients = [Client(world, server, seed=seed, work=10**9, threads=6) for seed in range(3)]
    world.run(300)
    world.close()
    assert max(client.longest_wait for client in clients) <= 2 * server.length


# Reserve


def test_a_background_thread_that_waits_for_its_reserve_is_in_nobodys_way() -> None:
    world = World()
    window = RateWindow(clock=world.clock, sleep=lambda seconds: world.sleep(seconds, bed))
    bed: set[object] = set()
    went: list[str] = []

    def ask(name: str, left: int, background: bool) -> None:
        window.acquire(background=background)
        world.wake(bed)  # type: ignore[arg-type]
        went.append(name)
        sent_at = world.now
        world.sleep(0.1)
        window.observe(200, told_headers(100, left), sent_at=sent_at, received_at=world.now)
        world.wake(bed)  # type: ignore[arg-type]

    world.start(lambda: ask("first", 9, False))
    world.start(lambda: ask("poll", 99, True), 1)
    world.start(lambda: ask("second", 8, False), 2)
    world.start(lambda: ask("third", 7, False), 3)
    world.run()
    assert went == ["first", "second", "third", "poll"]


def test_background_work_leaves_a_reserve_and_the_foreground_takes_it() -> None:
    hand = Hand(reserve=10)
    hand.ask(12)
    assert hand.waits(background=True) == 0
    hand.answer(11)
    assert hand.waits(background=True) == 0
    hand.answer(10)
    for left in range(9, -1, -1):
        assert hand.ask(left) == 0
    assert hand.waits(background=True) > 1


@pytest.mark.parametrize(("limit", "background"), [(1, 1), (5, 5), (10, 9), (20, 18), (100, 90)])
def test_of_a_small_limit_the_reserve_is_a_tenth(limit: int, background: int) -> None:
    world = World()
    server = Server(world, phase=2.0, limit=limit)
    Client(world, server, seed=1, work=10**9, background=True)
    world.run(300)
    world.close()
    assert list(server.served.values())[3:-1] == [background] * (len(server.served) - 4)


def test_background_work_goes_on_in_the_next_window() -> None:
    hand = Hand(reserve=10)
    hand.ask(10)
    assert 5 < hand.waits(background=True) <= 15.2


# Order


def test_an_older_answer_that_comes_late_is_no_new_window() -> None:
    hand = Hand()
    hand.ask(5)
    hand.waits()
    first = hand.now
    hand.waits()
    hand.answer(3)
    hand.answer(4, sent_at=first)
    assert hand.window.remaining == 3
    assert [hand.ask(left) for left in (2, 1, 0)] == [0, 0, 0]
    assert hand.waits() > 1


def test_an_answer_from_the_window_before_says_nothing_about_this_one() -> None:
    hand = Hand()
    hand.ask(99)
    hand.waits()
    sent_at = hand.now
    hand.now += 15.5
    assert hand.ask(99) == 0
    hand.answer(0, sent_at=sent_at)
    assert hand.window.remaining == 99


# Headers


ODDITIES: Mapping[str, Callable[[int, int], Headers]] = {
    "absent": lambda limit, left: {},
    "text": lambda limit, left: {"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "plenty"},
    "negative": lambda limit, left: told_headers(-5, -1),
    "more than the limit": lambda limit, left: told_headers(limit, limit + 1 + left),
    "limit of nothing": lambda limit, left: told_headers(0, 0),
    "with a policy": lambda limit, left: {
        "X-RateLimit-Limit": f"{limit}, {limit};w=15",
        "X-RateLimit-Remaining": f"{left}, {left}",
    },
    "with a fraction": lambda limit, left: told_headers(limit, left) | {"X-RateLimit-Remaining": f"{left}.0"},
    "always the same": lambda limit, left: told_headers(limit, 50),
    "always full": lambda limit, left: told_headers(limit, limit),
    "always nothing": lambda limit, left: told_headers(limit, 0),
    "what was used instead of what is left": lambda limit, left: told_headers(limit, limit - left - 1),
    "ever more, and never nothing": lambda limit, left: told_headers(limit, 5 + (limit - left) // 2),
    "one, beside what is left": lambda limit, left: told_headers(1, left),
    "more than there can be": lambda limit, left: told_headers(999_999_999, 999_999_999),
    "a limit of one now and then": lambda limit, left: told_headers(limit if left % 10 else 1, left),
    "nothing in the beginning": lambda limit, left: told_headers(limit, left if left < 96 else 0),
    "endless": lambda limit, left: {"X-RateLimit-Limit": "9" * 9_999, "X-RateLimit-Remaining": "9" * 9_999},
    "empty": lambda limit, left: {"X-RateLimit-Limit": "", "X-RateLimit-Remaining": ""},
}


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("phase", [0.0, 7.0])
def test_headers_that_make_no_sense_leave_a_budget_of_our_own(oddity: str, phase: float) -> None:
    server, client = run(work=500, phase=phase, rate_headers=ODDITIES[oddity])
    assert client.refused <= 25
    assert max(server.served) - min(server.served) <= 6


@pytest.mark.parametrize(
    "oddity", ["always nothing", "what was used instead of what is left", "one, beside what is left"]
)
def test_who_sends_little_is_not_deceived_for_long_either(oddity: str) -> None:
    server, client = run(work=1_000, threads=1, rate_headers=ODDITIES[oddity])
    assert client.refused <= 20
    assert max(server.served) - min(server.served) <= 11 + 3


def test_headers_that_make_sense_again_are_believed_again() -> None:
    """Then others come: who does not believe the headers is refused for as long as the others find room."""
    world = World()
    wrong = True
    server = Server(world, phase=4.0, rate_headers=lambda limit, left: told_headers(limit, 0 if wrong else left))
    client = Client(world, server, seed=1, work=10**9)
    world.run(90)
    assert client.served >= 500, "it counts for itself"
    wrong = False
    world.run(30)
    for seed in (2, 3, 4):
        Client(world, server, seed=seed, work=10**9)
    world.run(60)
    refused, number = sum(server.refused.values()), max(server.served)
    world.run(150)
    world.close()
    assert all(server.served[n] >= 95 for n in range(number + 1, number + 9))
    assert sum(server.refused.values()) - refused <= 10


def test_windows_that_others_use_up_are_no_reason_to_disbelieve() -> None:
    """They leave one request of each window, for an hour; one request more asks whether that is true."""
    world = World()
    server = Server(world, phase=0.0)

    def greedy() -> None:
        while True:
            for _ in range(99):
                server.ask()
            world.sleep(15.0)

    world.start(greedy)
    client = Client(world, server, seed=1, work=10**9, threads=1, after=1.0)
    world.run(3600)
    world.close()
    assert client.served >= 0.9 * 240
    assert client.refused <= 250


def test_headers_that_come_and_go() -> None:
    def sometimes(limit: int, left: int) -> Headers:
        return told_headers(limit, left) if left % 3 else {}

    server, client = run(work=500, rate_headers=sometimes)
    assert client.refused <= 5
    assert max(server.served) - min(server.served) <= 7


@pytest.mark.parametrize(("limit", "work"), [(1, 8), (7, 50), (40, 300), (250, 1_500)])
def test_another_limit_is_learned(limit: int, work: int) -> None:
    server, client = run(work=work, limit=limit)
    assert client.refused <= 4
    assert max(server.served) - min(server.served) <= math.ceil(work / limit) + 1


def test_a_limit_that_changes_is_followed() -> None:
    world = World()
    server = Server(world, phase=3.0)
    client = Client(world, server, seed=1, work=1_000)
    world.run(40)
    server.limit = 30
    world.run()
    assert client.served == 1_000
    assert client.refused <= 10
    numbers = sorted(server.served)
    assert {server.served[number] for number in numbers[4:-1]} == {30}


# Refusals


@pytest.mark.parametrize("retry", ["ceil", "floor", "date", "none", "0", "-3", "1", "99999", "soon", "nan", "inf"])
@pytest.mark.parametrize("on_first", [False, True])
def test_whatever_a_refusal_says_there_is_no_spinning_and_no_standing_still(retry: str, on_first: bool) -> None:
    """The account's windows are used up by somebody else for a minute, and free again after."""
    world = World()
    server = Server(world, phase=4.0, retry=retry, on_first=on_first)

    def greedy() -> None:
        while world.now < 1_060:
            for _ in range(100):
                server.ask()
            world.sleep(0.2)

    world.start(greedy)
    client = Client(world, server, seed=1, work=250, after=1.0)
    world.run()
    assert client.served == 250
    assert client.refused <= 100, "one or two in a second, while nothing was free"
    assert client.done_at <= 1_060 + (60 if retry != "99999" else 180), "four windows for each such refusal"


def test_a_refusal_is_obeyed() -> None:
    hand = Hand()
    assert hand.ask(0, status=429, Retry_After="9") == 0
    assert 8 <= hand.waits() <= 10


def test_a_refusal_may_come_from_a_window_that_opened_since_and_was_used_up_by_others() -> None:
    """The first answer came late in its window; the next one opened within a second of it."""
    hand = Hand()
    hand.ask(50)
    hand.now = 1_006
    hand.ask(0, status=429, Retry_After="10")
    assert 8.9 <= hand.waits() <= 10.1


def test_a_refusal_after_a_try_in_the_middle_of_the_doubt_tells_when_to_come_back() -> None:
    hand = Hand()
    hand.ask(1)
    hand.ask(0)
    assert hand.waits() == pytest.approx(7.5, abs=0.2)
    hand.answer(0, status=429, Retry_After="8")
    assert hand.waits() == pytest.approx(7.5, abs=0.6), "no later than one length after the first answer"


@pytest.mark.parametrize(("told", "waited"), [("17", 17), ("60", 60), ("61", 60), ("86400", 60), ("9" * 300, 60)])
@pytest.mark.parametrize("left", [None, 0, 49])
def test_a_refusal_that_tells_to_wait_for_more_than_a_window_is_obeyed_for_four_at_most(
    told: str, waited: float, left: int | None
) -> None:
    hand = Hand()
    hand.ask(50)
    hand.waits()
    late = hand.now
    hand.ask(left, status=429, Retry_After=told)
    hand.answer(48, sent_at=late)
    assert hand.waits() == pytest.approx(waited, abs=0.2)
    hand.answer(99)
    assert hand.waits() == 0


def test_a_request_waits_no_longer_than_a_refusal_asked_and_one_window() -> None:
    """The short form of ``python -m tests.benchmarks.pacing_fuzz``; the seeds 882 and 1591 once took hours."""
    worst = pacing_fuzz.worst(1_600)
    assert worst.seconds <= worst.allowed, worst


def test_the_refusals_of_several_threads_are_one() -> None:
    hand = Hand()
    hand.ask(99)
    sent = []
    for _ in range(4):
        hand.waits()
        sent.append(hand.now)
    for sent_at in sent:
        hand.answer(0, status=429, sent_at=sent_at, Retry_After="5")
    assert 3 <= hand.waits() <= 6


def test_a_refusal_for_another_reason_than_the_window_is_waited_out() -> None:
    hand = Hand()
    hand.ask(57)
    assert hand.ask(56, status=429, Retry_After="3") == 0
    assert 2 <= hand.ask(55) <= 3
    assert hand.waits() == 0


def test_errors_tell_what_is_left_like_any_answer() -> None:
    hand = Hand()
    hand.ask(1, status=500)
    hand.ask(0, status=404)
    assert hand.waits() > 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "-2"}, 0),
        (
            {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:50 GMT"},
            9,
        ),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "tomorrow"}, None),
        ({"Retry-After": "Fri, 31 Dec 1999"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: Headers, seconds: float | None) -> None:
    assert retry_after(headers) == seconds


# Time


@pytest.mark.parametrize("jump", [3.0, 7.5, 14.9, 100_003.0])
def test_a_clock_that_jumps_is_caught_up_with(jump: float) -> None:
    """As after suspending: the server's windows and ours no longer agree."""
    world = World()
    server = Server(world, phase=2.0)
    client = Client(world, server, seed=1, work=10**9)
    world.run(50)
    client.clock_ahead = jump
    world.run(45)
    refused, number = client.refused, max(server.served)
    world.run(150)
    assert client.refused - refused <= 5
    assert all(server.served.get(n, 0) >= 95 for n in range(number + 1, number + 9))
    world.close()


@pytest.mark.parametrize("rate", [0.9999, 1.0001])
def test_clocks_that_drift_apart_cost_next_to_nothing(rate: float) -> None:
    """200 windows, with a second in three hours between the two clocks."""
    server, client = run(work=20_000, threads=2, latency=0.2, clock_rate=rate)
    assert client.refused <= 20
    assert sum(served == 100 for served in server.served.values()) >= 195


def test_after_a_long_rest_the_first_request_goes_at_once() -> None:
    hand = Hand()
    for left in (1, 0):
        hand.ask(left)
    hand.now += 10_000
    assert hand.ask(99) <= 0.5


# Threads and processes


def test_a_waiting_thread_goes_on_when_another_ones_answer_shows_a_new_window() -> None:
    now = 0.0
    window = RateWindow(length=600, clock=lambda: now)
    window.acquire()
    window.observe(200, told_headers(100, 2), sent_at=now, received_at=now)
    window.acquire()
    window.acquire()
    now = 2.0
    window.observe(200, told_headers(100, 0), sent_at=1.0, received_at=2.0)
    waiting = threading.Thread(target=window.acquire, daemon=True)
    waiting.start()
    while not window._queue:
        time.sleep(0.001)
    now = 4.0
    window.observe(200, told_headers(100, 99), sent_at=3.0, received_at=4.0)
    waiting.join(timeout=60)
    assert not waiting.is_alive()


def test_threads_share_one_window_in_real_time() -> None:
    """Real threads, clock and condition; how long it takes does not matter."""
    limit, length, work, threads = 20, 0.25, 200, 8
    lock = threading.Lock()
    opened, used, refused = time.monotonic(), 0, 0
    window = RateWindow(limit=limit, length=length)

    def ask() -> tuple[int, Headers]:
        nonlocal opened, used, refused
        with lock:
            now = time.monotonic()
            if now >= opened + length:
                opened += (now - opened) // length * length
                used = 0
            if used >= limit:
                refused += 1
                return 429, told_headers(limit, 0)
            used += 1
            return 200, told_headers(limit, limit - used)

    served = []

    def thread() -> None:
        for _ in range(work // threads):
            status = 429
            while status == 429:
                window.acquire()
                sent_at = time.monotonic()
                status, headers = ask()
                window.observe(status, headers, sent_at=sent_at, received_at=time.monotonic())
            with lock:
                served.append(status)

    running = [threading.Thread(target=thread, daemon=True) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join(timeout=120)
    assert served == [200] * work
    assert refused <= work / 4


def test_one_window_per_account_in_a_process() -> None:
    one, same, other = shared_window("test-a"), shared_window("test-a"), shared_window("test-b")
    assert one is same
    assert one is not other


def test_a_forked_child_begins_anew() -> None:
    """Its parent's locks may be held, and its requests under way, by threads that the child does not have."""
    inherited = shared_window("test-fork")
    inherited._changed.acquire()
    child = os.fork()
    if child == 0:
        fresh = shared_window("test-fork")
        fresh.acquire()
        os._exit(0 if fresh is not inherited else 1)
    inherited._changed.release()
    assert os.waitpid(child, 0)[1] == 0
    assert shared_window("test-fork") is inherited
