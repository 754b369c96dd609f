"""Many clients of one window, with nothing shared but the server, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.pacing_world import Client, Server, World, race

pytestmark = pytest.mark.slow

SEEDS = range(3)

CIRCUMSTANCES: Mapping[str, dict[str, object]] = {
    "started together": {"clients": 8, "work": 256, "within": 0.5},
    "started at any time": {"clients": 8, "within": 15.0},
    "unequal": {"clients": 8, "within": 15.0, "threads": (1, 2, 4, 8), "latency": (0.05, 0.2)},
    "two": {"clients": 2, "within": 15.0},
    "sixteen": {"clients": 16, "within": 15.0},
    "no Retry-After": {"clients": 8, "within": 15.0, "retry": "none"},
    "Retry-After rounded down": {"clients": 8, "within": 15.0, "retry": "floor"},
    "Retry-After always 0": {"clients": 8, "within": 15.0, "retry": "0"},
    "windows of 1.5 s": {"clients": 8, "within": 0.5, "length": 1.5, "latency": (0.02,), "warm_up": 8},
    "slow answers": {"clients": 8, "within": 0.5, "latency": (1.0,), "warm_up": 8},
    "clocks that jump": {"clients": 8, "within": 15.0, "clock_jump": 1_234.5},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_clients_share_a_window_fully_and_fairly_and_hardly_one_is_refused(name: str, seed: int) -> None:
    result = race(seed=seed, **CIRCUMSTANCES[name])  # type: ignore[arg-type]
    assert result.used >= 0.97
    assert result.refused <= 0.02
    assert result.spread <= (2.5 if name == "Retry-After rounded down" else 1.5)
    assert result.longest_wait <= 60


@pytest.mark.parametrize("seed", SEEDS)
def test_far_more_clients_than_a_window_serves_fast_use_it_up_and_none_starves(seed: int) -> None:
    result = race(100, seed=seed, within=15.0, windows=20)
    assert result.used >= 0.97
    assert result.spread <= 4
    assert result.longest_wait <= 150


def test_who_comes_late_gets_a_share() -> None:
    """Four clients have worked for ten windows when the fifth starts, in the middle of a spent window."""
    world = World()
    server = Server(world, phase=3.0)
    old = [Client(world, server, seed=seed, work=10**9) for seed in range(4)]
    late = Client(world, server, seed=9, work=10**9, after=157.0)
    world.run(157 + 60)
    before = late.served
    world.run(150)
    world.close()
    assert 150 <= late.served - before <= 250, "a fifth of ten windows is 200"
    assert min(client.served for client in old) > 200


def test_a_client_that_ends_leaves_its_share_to_the_others() -> None:
    world = World()
    server = Server(world, phase=3.0)
    stays = Client(world, server, seed=1, work=10**9)
    Client(world, server, seed=2, work=150)
    world.run(150)
    number = max(server.served)
    world.run(75)
    world.close()
    assert all(server.served[n] == 100 for n in range(number + 1, number + 5))
    assert stays.refused <= 5


def test_an_export_and_polls_do_not_starve_each_other() -> None:
    world = World()
    server = Server(world, phase=3.0)
    export = Client(world, server, seed=1, work=10**9)
    polls = Client(world, server, seed=2, work=20, threads=1, every=30.0, background=True)
    world.run(900)
    world.close()
    assert polls.served == 20
    assert polls.longest_wait <= 2 * server.length
    assert export.served >= 0.97 * 60 * 100 - 20


def test_a_client_that_obeys_nothing_leaves_the_others_the_rest() -> None:
    """Somebody else's program sends 60 requests at every opening, as fast as it can."""
    world = World()
    server = Server(world, phase=0.0)

    def rude() -> None:
        while True:
            for _ in range(60):
                server.ask()
                world.sleep(0.01)
            world.sleep(15.0 - 0.6)

    world.start(rude)
    clients = [Client(world, server, seed=seed, work=10**9, after=1.0) for seed in range(4)]
    world.run(150)
    before = [client.served for client in clients]
    refused = sum(client.refused for client in clients)
    world.run(300)
    world.close()
    done = [client.served - count for client, count in zip(clients, before, strict=True)]
    assert sum(done) >= 0.9 * 20 * 40
    assert max(done) <= 1.7 * min(done)
    assert sum(client.refused for client in clients) - refused <= 40


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    clients=st.integers(1, 6),
    work=st.integers(1, 150),
    seed=st.integers(0, 10**6),
    threads=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    latency=st.lists(st.sampled_from([0.01, 0.1, 0.5, 2.0]), min_size=1, max_size=3),
    within=st.floats(0, 30),
    limit=st.integers(10, 120),
    retry=st.sampled_from(["ceil", "floor", "date", "none", "0", "3600"]),
    on_first=st.booleans(),
)
def test_whatever_the_circumstances_all_work_gets_done_in_time(
    clients: int, work: int, limit: int, **circumstances: object
) -> None:
    world_allows = clients * work / limit * 15
    result = race(clients, work, limit=limit, **circumstances)  # type: ignore[arg-type]
    assert result.seconds <= 2 * world_allows + 150
    # Without a Retry-After each client asks again and again whether the window has opened.
    assert result.refused <= (0.5 if circumstances["retry"] in ("none", "0") else 0.4)
