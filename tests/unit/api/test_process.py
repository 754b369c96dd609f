"""What a client costs a process that lives for weeks: connections, memory, forks."""

from __future__ import annotations

import gc
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import requests
import urllib3
import urllib3.util.connection
from airflow.sdk._shared.secrets_masker import secrets_masker
from airflow.sdk.log import mask_secret

from airflow_provider_volubile.api import auth
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.sending import RetryBudget

API = "https://api.eu.volubile.ai"
ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
CALL = {"id": ID, "status": "COMPLETED"}


def masked_values() -> int:
    """How many values Airflow's log masker keeps."""
    return len(secrets_masker._secrets_masker().patterns)


def test_5000_tokens_leave_memory_as_it_is(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bearer mode a triggerer asks for a token every few minutes, for weeks."""
    client = VolubileClient(API, BearerTokens(ApiKeyPair("a-key-of-a-test")), window=window, on_secret=mask_secret)
    issued = 0

    def send(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        nonlocal issued
        body = json.dumps(CALL)
        if request.method == "POST":
            issued += 1
            body = json.dumps({"token": f"{issued:0227}", "expiresIn": 900})
        response = requests.Response()
        response.status_code = 200
        response.raw = urllib3.HTTPResponse(io.BytesIO(body.encode()), preload_content=False)
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)

    def mint(times: int) -> None:
        for _ in range(times):
            for slot in auth._slots.values():
                slot.renew_at = 0  # some minutes pass
            client.get_call(ID)
            window.observed.clear()
            window.background.clear()

    mint(1000)
    masked = masked_values()
    before = psutil.Process().memory_info().rss
    mint(4000)
    after = psutil.Process().memory_info().rss
    assert issued == 5000
    assert masked_values() == masked
    assert after - before < 8 * 2**20, "bytes"


def in_a_fork(function: Callable[[], None]) -> int:
    """Run a function in a forked child; return its exit code, -1 when it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def test_a_forked_child_uses_no_connection_of_its_parent(server: Any, tell: Any, client: VolubileClient) -> None:
    """Both would write into one connection, and read each other's answers."""
    server.on("GET .*", tell.answer(200, CALL))
    client.get_call(ID)
    assert in_a_fork(lambda: client.get_call(ID) and None) == 0
    client.get_call(ID)
    first, forked, again = (request.connection for request in server.requests)
    assert first == again != forked


def test_a_fork_while_a_token_is_asked_for_does_not_hang_the_child(
    server: Any, tell: Any, make_client: Any, pair: ApiKeyPair
) -> None:
    gate = threading.Event()
    asked = 0

    def issue(conn: Any, request: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            gate.wait(60)
        return bool(tell.answer(200, {"token": "a.b.c", "expiresIn": 900})(conn, request))

    server.on("POST /v1/auth/token", issue)
    server.on(".*", tell.answer(200, CALL))
    client = make_client(BearerTokens(pair), timeout=60)
    thread = threading.Thread(target=client.get_call, args=(ID,), daemon=True)
    thread.start()
    while not asked:
        time.sleep(0.01)
    code = in_a_fork(lambda: client.get_call(ID) and None)
    gate.set()
    thread.join(30)
    assert code == 0


def test_connections_that_the_network_forgot_cost_one_attempt(
    server: Any, tell: Any, make_client: Any, pauses: list[float]
) -> None:
    """A NAT drops what was idle, without a word: each of them would take a timeout."""
    barrier = threading.Barrier(4)
    forgotten = threading.Event()

    def act(conn: Any, request: Any) -> bool:
        if forgotten.is_set() and request.connection <= 4:
            return bool(tell.silence()(conn, request))
        if not forgotten.is_set():
            barrier.wait(20)
        return bool(tell.answer(200, CALL)(conn, request))

    server.on("GET .*", act)
    client = make_client(timeout=(5, 1))
    threads = [threading.Thread(target=client.get_call, args=(ID,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.connections == 4
    forgotten.set()
    assert client.get_call(ID).id == ID
    assert len(pauses) == 1


def test_connections_are_kept_alive_by_tcp(
    server: Any, tell: Any, client: VolubileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    create = urllib3.util.connection.create_connection

    def note(*args: Any, **options: Any) -> socket.socket:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(urllib3.util.connection, "create_connection", note)
    server.on("GET .*", tell.answer(200, CALL))
    client.get_call(ID)
    assert made[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_dropped_clients_leave_no_connection_behind(server: Any, tell: Any, make_client: Any, pair: ApiKeyPair) -> None:
    """Without waiting for the collector: in a triggerer it may run once in hours."""
    server.on("POST /v1/auth/token", tell.answer(200, {"token": "a.b.c", "expiresIn": 900}))
    server.on(".*", tell.answer(200, CALL))

    def open_connections() -> int:
        return sum(bool(one.raddr) and one.raddr.port == server.port for one in psutil.Process().net_connections("tcp"))

    gc.collect()
    gc.disable()
    try:
        before = open_connections()
        for _ in range(50):
            make_client(BearerTokens(pair)).get_call(ID)
        assert open_connections() - before <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("environment", "url", "why"),
    [
        ({"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}, "https://localhost:1", "ca.pem"),
        ({"HTTPS_PROXY": "http://proxy:port"}, "https://localhost:1", "no URL of a proxy"),
        ({}, f"https://{'a' * 70}.example", "no host can have this name"),
    ],
)
def test_a_permanent_fault_is_tried_once(
    environment: dict[str, str],
    url: str,
    why: str,
    make_client: Any,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=why):
        make_client(base_url=url, retry=RetryBudget(attempts=5)).get_call(ID)
    assert pauses == []


def test_a_background_client_s_token_is_asked_for_in_the_foreground(
    server: Any, tell: Any, make_client: Any, pair: ApiKeyPair, window: Any
) -> None:
    """Foreground requests may wait for this very token."""
    server.on("POST /v1/auth/token", tell.answer(200, {"token": "a.b.c", "expiresIn": 900}))
    server.on(".*", tell.answer(200, CALL))
    make_client(BearerTokens(pair), background=True).get_call(ID)
    assert window.background == [False, True]
