"""Where requests may go, what may come back, and that nothing hangs or fills the memory."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_volubile.api import transport
from airflow_provider_volubile.api.addresses import check_base_url, origin
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.transport import describe
from airflow_provider_volubile.exceptions import (
    VolubileInputError,
    VolubileProtocolError,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from tests.certificates import make_certificate

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
CALL = {"id": ID, "status": "COMPLETED"}
RECIPIENT = {"phone": "+33639980142", "context": {}}


# --- addresses ---


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.eu.volubile.ai", "https://api.eu.volubile.ai"),
        ("https://api.eu.volubile.ai/", "https://api.eu.volubile.ai"),
        (" https://gateway.example:8443/volubile/ ", "https://gateway.example:8443/volubile"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        ("http://LOCALHOST:8765", "http://LOCALHOST:8765"),
    ],
)
def test_addresses_that_may_be_asked(url: str, base: str) -> None:
    assert check_base_url(url) == base


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://api.eu.volubile.ai", "use https"),
        ("http://10.0.0.1", "use https"),
        ("http://localhost.example", "use https"),
        ("http://127.0.0.1.example", "use https"),
        ("http://0.0.0.0", "use https"),
        ("ftp://api.eu.volubile.ai", "use https"),
        ("//api.eu.volubile.ai", "use https"),
        ("api.eu.volubile.ai", "not a URL"),
        ("", "not a URL"),
        ("https://", "not a URL"),
        ("https://x.example:port", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://user:hidden@x.example", "user or password"),
        ("https://hidden@x.example", "user or password"),
        ("https://x.example?key=hidden", "query"),
        ("https://x.example/#hidden", "query or fragment"),
        ("https://x.example/v1", "before '/v1'"),
        ("https://x.example/a b", "space"),
        ("https://x.example\\@evil.example", "."),
        ("https://x.exa\nmple", "space"),
    ],
)
def test_addresses_that_may_not(url: str, why: str) -> None:
    with pytest.raises(VolubileInputError, match=why) as error:
        check_base_url(url)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), (1, 0), "5"])
def test_a_timeout_that_is_none(timeout: Any, pair: ApiKeyPair, window: Any) -> None:
    with pytest.raises(VolubileInputError, match="timeout"):
        VolubileClient("https://x.example", pair, window=window, timeout=timeout)


def test_tls_verification_has_no_switch() -> None:
    import inspect

    for thing in (VolubileClient.__init__, transport.Transport.__init__):
        assert not {"verify", "session", "cert", "insecure"} & set(inspect.signature(thing).parameters)


def test_origin_is_scheme_host_and_port() -> None:
    assert origin("https://X.example/a") == origin("https://x.example:443/b")
    assert origin("https://x.example") != origin("https://x.example:444")
    assert origin("https://x.example") != origin("http://x.example:443")


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "a/b", "a%2Fb", "../agents", "a?b", "a#b", "é", "a b", "x" * 65, "a\n", None, "+33639980142"]
)
def test_an_id_cannot_leave_its_place_in_the_path(bad: Any, client: VolubileClient, server: Any) -> None:
    asks: list[Callable[[], Any]] = [
        lambda: client.get_call(bad),
        lambda: client.get_agent(bad),
        lambda: client.update_agent(bad, {"active": True}),
        lambda: client.get_campaign(bad),
        lambda: client.update_campaign_status(bad, "PAUSED"),
        lambda: client.get_transcript(bad),
        lambda: client.open_recording(bad),
        lambda: client.create_call(bad, RECIPIENT),
        lambda: client.create_bulk_calls(bad, [RECIPIENT]),
        lambda: client.list_calls(agent_id=bad) if bad is not None else client.get_call(bad),
    ]
    for ask in asks:
        with pytest.raises(VolubileInputError, match="not an id") as error:
            ask()
        assert "39980142" not in str(error.value)
    assert server.requests == []


# --- the environment of requests ---


def test_plain_http_to_this_machine_ignores_proxies(
    server: Any, other_server: Any, tell: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy it would not stay on this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other_server.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.on("GET .*", tell.answer(200, CALL))
    client.get_call(ID)
    assert other_server.requests == []


def test_https_goes_through_the_proxy_of_the_environment_and_no_key_with_it(
    other_server: Any, tell: Any, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", other_server.url)
    other_server.on("CONNECT .*", tell.answer(407, headers={"Proxy-Authenticate": "Basic"}))
    client = make_client(base_url="https://api.eu.volubile.ai")
    with pytest.raises(VolubileUnavailable, match=r"proxy.*407"):
        client.get_call(ID)
    assert {request.method for request in other_server.requests} == {"CONNECT"}
    assert all("x-api-key" not in request.headers for request in other_server.requests)
    with pytest.raises(VolubileUnavailable, match="createCall"):  # certainly not taken
        client.create_call(ID, RECIPIENT)


@pytest.fixture
def tls_server(tmp_path: Path, server: Any) -> tuple[str, Path]:
    """A TLS entrance to the server, with a certificate for localhost that only its own CA file vouches for."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def pump() -> None:
        while True:
            try:
                raw, _ = listener.accept()
                conn = context.wrap_socket(raw, server_side=True)
            except OSError:
                continue
            with conn, socket.create_connection(("127.0.0.1", server.port)) as upstream:
                upstream.settimeout(0.2)
                conn.settimeout(0.2)
                while True:
                    try:
                        if not (data := conn.recv(2**16)):
                            break
                        upstream.sendall(data)
                    except TimeoutError:
                        pass
                    except OSError:
                        break
                    try:
                        conn.sendall(upstream.recv(2**16))
                        break
                    except TimeoutError:
                        continue

    threading.Thread(target=pump, daemon=True).start()
    return f"https://localhost:{listener.getsockname()[1]}", certificate


@pytest.mark.parametrize("operation", ["get_call", "create_call"])
def test_a_certificate_nobody_vouches_for_is_refused_and_nothing_was_sent(
    operation: str, tls_server: tuple[str, Path], server: Any, make_client: Any
) -> None:
    client = make_client(base_url=tls_server[0])
    with pytest.raises(VolubileUnavailable, match=r"certificate was not accepted .*self.signed"):
        client.get_call(ID) if operation == "get_call" else client.create_call(ID, RECIPIENT)
    assert server.requests == []


def test_a_ca_bundle_of_the_environment_is_used(
    tls_server: tuple[str, Path], server: Any, tell: Any, make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, certificate = tls_server
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.on("GET .*", tell.answer(200, CALL))
    assert make_client(base_url=url).get_call(ID).id == ID


def test_netrc_adds_nothing(
    tls_server: tuple[str, Path],
    server: Any,
    tell: Any,
    make_client: Any,
    pair: ApiKeyPair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, certificate = tls_server
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.on("GET .*", tell.answer(200, CALL))
    make_client(base_url=url).get_call(ID)
    headers = server.requests[0].headers
    assert "authorization" not in headers
    assert headers["x-api-key"] == pair.primary


def test_a_ca_bundle_that_is_not_there_is_named(make_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(VolubileUnavailable, match=r"/nowhere/ca\.pem"):
        make_client(base_url="https://localhost:1").get_call(ID)


def test_a_host_name_that_does_not_resolve(make_client: Any) -> None:
    with pytest.raises(VolubileUnavailable, match="could not be resolved"):
        make_client(base_url="https://nowhere.invalid").create_call(ID, RECIPIENT)


def test_cookies_are_not_kept(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, CALL, headers={"Set-Cookie": "session=1; Path=/"}))
    client.get_call(ID)
    client.get_call(ID)
    assert "cookie" not in server.requests[1].headers


# --- bodies ---


@pytest.mark.parametrize("operation", ["get_call", "get_transcript", "list_calls"])
def test_an_endless_body_is_an_error(operation: str, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.endless(b" " * 2**20))
    ask = getattr(client, operation)
    with pytest.raises(VolubileProtocolError, match=r"larger than (32|64) MiB"):
        ask() if operation == "list_calls" else ask(ID)


def test_a_bomb_is_measured_unpacked(server: Any, tell: Any) -> None:
    """A gigabyte of spaces in a megabyte of gzip: refused, in a process that may not grow."""
    bomb = gzip.compress(b" " * 2**26, 9) * 16
    assert len(bomb) < 2**21
    server.on("GET .*", tell.answer(200, body=bomb, headers={"Content-Encoding": "gzip"}))
    script = f"""
import resource
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
client = VolubileClient({server.url!r}, ApiKeyPair("k"), window=RateWindow())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    client.get_call("x")
except Exception as error:
    print(type(error).__name__, "larger than 32 MiB" in str(error))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    kind, grown = done.stdout.strip().splitlines()
    assert kind == "VolubileProtocolError True"
    assert int(grown) < 150, "MiB"


@pytest.mark.parametrize("shape", ["page", "object", "transcript", "error"])
def test_a_small_answer_of_many_values_fills_no_memory(shape: str, server: Any, tell: Any) -> None:
    """Three million calls in 63 KiB of gzip, in a process that may not grow."""
    many = b'{"id":1},' * 3_400_000 + b'{"id":1}]'
    body = {
        "page": b'{"page":1,"content":[' + many + b"}",
        "object": b'{"id":"x","extracted":[' + many + b"}",
        "transcript": b"[" + many,
        "error": b'{"errors":[' + many + b"}",
    }[shape]
    assert len(body) < transport.JSON_LIMIT
    packed = gzip.compress(body, 9)
    assert len(packed) < 2**17
    server.on(
        "GET .*", tell.answer(400 if shape == "error" else 200, body=packed, headers={"Content-Encoding": "gzip"})
    )
    ask = {"page": "list_calls(sort=None)", "transcript": 'get_transcript("x")'}.get(shape, 'get_call("x")')
    script = f"""
import resource
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
client = VolubileClient({server.url!r}, ApiKeyPair("k"), window=RateWindow())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    client.{ask}
except Exception as error:
    print(type(error).__name__, "holds more than" in str(error))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    kind, grown = done.stdout.strip().splitlines()
    assert kind == ("VolubileRequestRefused False" if shape == "error" else "VolubileProtocolError True")
    assert int(grown) < 60, "MiB"


def test_the_largest_answer_that_is_read_takes_bounded_memory(server: Any, tell: Any) -> None:
    count = transport.VALUES_LIMIT // 2 - 10
    body = b'{"page":1,"content":[' + b'{"id":1},' * (count - 1) + b'{"id":1}]}'
    server.on("GET .*", tell.answer(200, body=gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    script = f"""
import resource
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
client = VolubileClient({server.url!r}, ApiKeyPair("k"), window=RateWindow())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    client.list_calls(sort=None)
except Exception as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    text, grown = done.stdout.strip().splitlines()
    assert f"{count} items" in text
    assert int(grown) < 250, "MiB"


def test_a_page_with_more_items_than_asked_for_is_an_error(server: Any, tell: Any, client: Any) -> None:
    page = {"content": [{"id": str(n)} for n in range(11)], "page": 1, "size": 11, "totalElements": 11, "totalPages": 1}
    server.on("GET .*", tell.answer(200, page))
    for ask in (client.list_calls, client.list_agents):
        assert len(ask(size=11).content) == 11
        with pytest.raises(VolubileProtocolError, match="holds 11 items, more than the 10 that were asked for"):
            ask(size=10)


def test_a_body_that_drips_ends(server: Any, tell: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BODY_SECONDS", 0.3)
    server.on("GET .*", tell.drip(b'{"id": "'))
    began = time.monotonic()
    with pytest.raises(VolubileProtocolError, match="took longer than"):
        client.get_call(ID)
    assert time.monotonic() - began < 60


def test_answers_that_come_before_the_answer_are_passed_over(server: Any, tell: Any, client: Any) -> None:
    def act(conn: Any, request: Any) -> bool:
        conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)
        return bool(tell.answer(200, CALL)(conn, request))

    server.on("GET .*", act)
    assert [client.get_call(ID).id for _ in range(2)] == [ID, ID]
    assert server.connections == 1


@pytest.mark.parametrize("status", [102, 103, 199])
def test_an_informational_answer_is_passed_over_and_the_next_answer_is_the_right_one(
    status: int, server: Any, tell: Any, client: Any
) -> None:
    """http.client takes a 103 for the answer; the true one then waits in the connection for the next request."""

    def act(conn: Any, request: Any) -> bool:
        conn.sendall(b"HTTP/1.1 %d Early Hints\r\nLink: </a.css>\r\n\r\n" % status * 2)
        return bool(tell.answer(200, {"id": request.path.rpartition("/")[2]})(conn, request))

    server.on("GET .*", act)
    assert [client.get_call(name).id for name in ("a", "b", "c")] == ["a", "b", "c"]
    assert server.connections == 1


def test_a_switch_of_protocols_ends_the_connection(server: Any, tell: Any, client: Any) -> None:
    def switch(conn: Any, request: Any) -> bool:
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        return True

    server.on("GET .*", switch, tell.answer(200, {"id": "b"}))
    server.on("POST .*", switch)
    assert client.get_call("b").id == "b"
    assert server.connections == 2
    with pytest.raises(VolubileUnknownOutcome, match="101"):
        client.create_call(ID, RECIPIENT)


def test_an_answer_about_another_object_is_an_error(server: Any, tell: Any, client: Any) -> None:
    server.on(".*", tell.answer(200, {"id": "another", "status": "PAUSED"}))
    for ask in (
        lambda: client.get_call(ID),
        lambda: client.get_agent(ID),
        lambda: client.get_campaign(ID),
        lambda: client.update_agent(ID, {"active": False}),
        lambda: client.update_campaign_status(ID, "PAUSED"),
    ):
        with pytest.raises(VolubileProtocolError, match="is about another object"):
            ask()
    server.on(".*", tell.answer(200, {"id": ID.upper()}))
    assert client.get_call(ID).id == ID.upper(), "ids are UUIDs, whose case does not matter"


def test_a_dripping_answer_to_what_dials_was_a_yes(
    server: Any, tell: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BODY_SECONDS", 0.3)
    server.on("POST .*", tell.drip(b'{"id": "'))
    assert client.create_call(ID, RECIPIENT).id is None
    assert client.create_bulk_calls(ID, [RECIPIENT]) == []
    with pytest.raises(VolubileUnknownOutcome, match="was accepted") as error:
        client.create_campaign({"name": "Winter tyres"})
    assert error.value.accepted
    assert len(server.requests) == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_broken_compression_is_asked_for_again(encoding: str, server: Any, tell: Any, client: Any) -> None:
    server.on(
        "GET .*",
        tell.answer(200, body=b"not compressed at all", headers={"Content-Encoding": encoding}),
        tell.answer(200, body=gzip.compress(json.dumps(CALL).encode()), headers={"Content-Encoding": "gzip"}),
    )
    assert client.get_call(ID).id == ID


# --- threads ---


def test_threads_share_a_client_and_few_connections(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, CALL))
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(25):
                assert client.get_call(ID).id == ID
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(server.requests) == 200
    assert server.connections <= 8
    client.close()
    client.get_call(ID)


def test_a_pool_of_short_lived_threads_reuses_connections(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, CALL))
    for _ in range(10):
        thread = threading.Thread(target=client.get_call, args=(ID,))
        thread.start()
        thread.join()
    assert server.connections == 1


# --- texts ---


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "TLS failed"),
        (ConnectionResetError(104, "reset"), "the connection was reset"),
        (OSError(113, "x"), os.strerror(113)),
        (OSError("a proxy said no to +33639980142"), r"a proxy said no to +33 6 ** ** ** 42"),
        (RuntimeError("+33639980142"), "the connection failed, RuntimeError"),
    ],
)
def test_faults_are_described_without_what_libraries_say(error: Exception, text: str) -> None:
    assert describe(error, (1, 2)).startswith(text)
