"""Audio as bytes, behind redirects or behind links; resumed; and never a credential on another host."""

from __future__ import annotations

import dataclasses
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import responses

from airflow_provider_volubile.api import recordings, transport
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.api.routes import GET_RECORDING
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileUnavailable,
)
from tests.certificates import make_certificate

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
AUDIO = bytes(range(256)) * 1000


def read(client: Any, **options: Any) -> tuple[Any, bytes]:
    with client.open_recording(ID, **options) as recording:
        return recording, b"".join(recording.iter_chunks())


def audio(tell: Any, body: bytes = AUDIO, status: int = 200, **headers: str) -> Any:
    return tell.answer(status, body=body, headers={"Content-Type": "audio/mpeg", **headers})


def ranged(tell: Any) -> Any:
    """A server that can resume."""

    def act(conn: Any, request: Any) -> bool:
        wanted = request.headers.get("range")
        if wanted is None:
            return bool(audio(tell)(conn, request))
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        content = {"Content-Range": f"bytes {start}-{len(AUDIO) - 1}/{len(AUDIO)}"}
        return bool(audio(tell, AUDIO[start:], 206, **content)(conn, request))

    return act


def test_bytes(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", audio(tell))
    recording, content = read(client)
    assert content == AUDIO
    assert (recording.content_type, recording.length, recording.offset) == ("audio/mpeg", len(AUDIO), 0)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert "range" not in server.requests[0].headers


def test_resuming(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", ranged(tell))
    recording, content = read(client, offset=1000)
    assert server.requests[0].headers["range"] == "bytes=1000-"
    assert content == AUDIO[1000:]
    assert (recording.length, recording.offset) == (len(AUDIO), 1000)


def test_a_server_that_cannot_resume_begins_anew(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", audio(tell))
    recording, content = read(client, offset=1000)
    assert (recording.offset, content) == (0, AUDIO)


def test_another_part_than_was_asked_for_is_an_error(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", audio(tell, b"x", 206, **{"Content-Range": "bytes 500-500/501"}))
    with pytest.raises(VolubileProtocolError, match="another part"):
        read(client, offset=1000)


def test_an_offset_beyond_the_end(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(416))
    with pytest.raises(VolubileRequestRefused) as error:
        read(client, offset=10**9)
    assert error.value.status == 416
    with pytest.raises(VolubileInputError, match="negative"):
        client.open_recording(ID, offset=-1)


def test_a_recording_that_breaks_off_says_where(server: Any, tell: Any, client: Any) -> None:
    server.on(
        "GET .*", tell.answer(200, body=AUDIO[:70_000], length=len(AUDIO), headers={"Content-Type": "audio/mpeg"})
    )
    got: list[bytes] = []
    with client.open_recording(ID) as recording, pytest.raises(VolubileUnavailable, match="after 70000 bytes"):
        got.extend(recording.iter_chunks())
    assert b"".join(got) == AUDIO[:70_000]
    server.on("GET .*", ranged(tell))
    assert AUDIO[:70_000] + read(client, offset=70_000)[1] == AUDIO


def test_a_recording_that_breaks_off_at_once(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, body=b"", length=5, headers={"Content-Type": "audio/mpeg"}))
    with pytest.raises(VolubileUnavailable, match="after 0 bytes"):
        read(client)


@pytest.mark.parametrize("status", [204, 200])
def test_a_call_that_was_not_recorded(status: int, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", audio(tell, b"", status))
    with pytest.raises(VolubileNotFound, match="no recording"):
        read(client)
    server.on("GET .*", tell.answer(404, {"message": "Recording not found"}))
    with pytest.raises(VolubileNotFound, match="Recording not found"):
        read(client)
    server.on("GET .*", tell.answer(200, body=b""))
    with pytest.raises(VolubileNotFound, match="no recording"):
        read(client)


def test_without_a_length(server: Any, tell: Any, client: Any) -> None:
    def act(conn: Any, request: Any) -> bool:
        conn.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        return False

    server.on("GET .*", act)
    recording, content = read(client)
    assert (recording.length, content) == (None, b"hello")


# --- redirects and links ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("mode", ["key", "bearer"])
def test_a_redirect_to_storage_carries_no_credential(
    status: int, mode: str, server: Any, other_server: Any, tell: Any, make_client: Any, pair: Any, window: Any
) -> None:
    server.on("POST /v1/auth/token", tell.answer(200, {"token": "a-secret-token", "expiresIn": 900}))
    server.on("GET .*", tell.answer(status, headers={"Location": other_server.url + "/a/b.mp3?signature=abc"}))
    other_server.on("GET .*", audio(tell))
    client = make_client(BearerTokens(pair) if mode == "bearer" else pair)
    assert read(client)[1] == AUDIO
    (request,) = other_server.requests
    assert request.query == {"signature": "abc"}
    assert not {"x-api-key", "authorization", "cookie"} & request.headers.keys()
    assert not [value for value in request.headers.values() if "secret" in value or "key" in value]
    assert window.acquired == len(server.requests), "storage is not the account's window"


def test_a_redirect_within_the_api_carries_the_key(server: Any, tell: Any, client: Any, pair: Any, window: Any) -> None:
    server.on("GET /v1/calls/.*", tell.answer(302, headers={"Location": "/files/b.mp3"}))
    server.on("GET /files/b.mp3", audio(tell))
    assert read(client)[1] == AUDIO
    assert server.requests[1].headers["x-api-key"] == pair.primary
    assert window.acquired == 2


def test_the_range_is_asked_of_the_storage(server: Any, other_server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(302, headers={"Location": other_server.url + "/b.mp3"}))
    other_server.on("GET .*", ranged(tell))
    assert read(client, offset=1000)[1] == AUDIO[1000:]


@pytest.mark.parametrize("shape", [{"url": ...}, {"link": ...}, {"downloadUrl": ...}, {"href": ...}, ...])
def test_a_link_in_json(shape: Any, server: Any, other_server: Any, tell: Any, client: Any) -> None:
    link = other_server.url + "/b.mp3"
    data = link if shape is ... else dict.fromkeys(shape, link)
    server.on("GET .*", tell.answer(200, data))
    other_server.on("GET .*", audio(tell))
    assert read(client)[1] == AUDIO
    assert "x-api-key" not in other_server.requests[0].headers


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"url": 5}', b"nonsense", b'"', b"[" * 10**5, b'{"url": "' + b"x" * 2**21]
)
def test_json_without_a_link(body: bytes, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, body=body))
    with pytest.raises(VolubileProtocolError, match="getRecording"):
        read(client)


@pytest.mark.parametrize(
    "target",
    [
        "http://storage.example/secret-path?signature=abc",
        "ftp://storage.example/secret-path",
        "file:///etc/passwd",
        "gopher://storage.example",
        "https://user:hidden@storage.example/secret-path",
        "http://169.254.169.254/secret-path",
        "https://",
        "https://[::1",
        "https://storage.example:port/secret-path",
        "javascript:alert(1)",
        "https:///secret-path",
    ],
)
@pytest.mark.parametrize("how", ["redirect", "link"])
def test_targets_that_are_not_followed(how: str, target: str, server: Any, tell: Any, client: Any) -> None:
    server.on(
        "GET .*",
        tell.answer(302, headers={"Location": target}) if how == "redirect" else tell.answer(200, {"url": target}),
    )
    with pytest.raises(VolubileProtocolError, match="only https is") as error:
        read(client)
    for hidden in ("secret-path", "abc", "hidden"):
        assert hidden not in str(error.value)
    assert len(server.requests) == 1


def test_an_api_elsewhere_cannot_send_us_to_this_machine() -> None:
    with pytest.raises(VolubileProtocolError, match=r"127\.0\.0\.1"):
        recordings._checked_hop("https://api.example/x", "http://127.0.0.1:9/y", "https://api.example", 302)
    hop = recordings._checked_hop("https://api.example/x", "https://storage.example/y#part", "https://api.example", 302)
    assert hop == "https://storage.example/y"


API = "https://api.eu.volubile.ai"
PRIVATE = ["127.0.0.1", "10.1.2.3", "172.16.0.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
PRIVATE += ["[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:10.1.2.3]", "[2002:7f00:1::]"]


def mocked_client(**options: Any) -> VolubileClient:
    once = RetryBudget(attempts=3)
    return VolubileClient(
        API, ApiKeyPair("a-key-of-a-test"), window=RateWindow(), sleep=lambda _: None, retry=once, **options
    )


@pytest.mark.parametrize("host", PRIVATE)
@responses.activate
def test_a_link_to_a_private_address_is_refused(host: str) -> None:
    responses.get(f"{API}/v1/calls/{ID}/recording", status=302, headers={"Location": f"https://{host}/b.mp3"})
    responses.get(f"https://{host}/b.mp3", body=b"audio", content_type="audio/mpeg")
    with pytest.raises(VolubileProtocolError, match=r"private address.*private_storage"):
        read(mocked_client())
    assert read(mocked_client(private_storage=True))[1] == b"audio"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """An https server under a name that resolves to this machine; what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "audio/mpeg")
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"audio")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://localhost:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("hops", [1, 2])
@responses.activate
def test_a_name_that_resolves_to_a_private_address_is_refused(hops: int, storage: tuple[str, list[str]]) -> None:
    url, asked = storage
    first = f"{url}/b.mp3" if hops == 1 else "https://storage.example/a"
    responses.get(f"{API}/v1/calls/{ID}/recording", status=302, headers={"Location": first})
    responses.get("https://storage.example/a", status=302, headers={"Location": f"{url}/b.mp3"})
    responses.add_passthru(url)
    with pytest.raises(VolubileProtocolError, match=r"its address 127\.0\.0\.1 is private.*private_storage"):
        read(mocked_client())
    assert asked == [], "not even a request"
    assert read(mocked_client(private_storage=True))[1] == b"audio"


def test_a_connection_that_was_made_for_the_api_is_judged_anew_for_a_link(storage: tuple[str, list[str]]) -> None:
    """The pool keeps connections by host: one made without the rule must not serve a link that is under it."""
    url, asked = storage
    connection = transport.Transport(5)
    message = transport.Message(GET_RECORDING, f"{url}/b.mp3")
    assert connection.exchange(message, None).status == 200
    with pytest.raises(transport.ConnectionFault, match="is private"):
        connection.exchange(dataclasses.replace(message, public_only=True), None)
    assert len(asked) == 1


@responses.activate
def test_storage_that_leads_back_to_the_api_gets_no_key_there() -> None:
    """It would choose what our key asks for."""
    back = f"{API}/v1/campaigns/{ID}"
    responses.get(f"{API}/v1/calls/{ID}/recording", status=302, headers={"Location": "https://storage.example/a"})
    responses.get("https://storage.example/a", status=302, headers={"Location": back})
    responses.get(back, body=b"audio", content_type="audio/mpeg")
    assert read(mocked_client())[1] == b"audio"
    assert [call.request.headers.get("X-Api-Key") for call in responses.calls] == ["a-key-of-a-test", None, None]


@responses.activate
def test_the_limits_of_storage_are_not_the_account_s(window: Any, pair: ApiKeyPair) -> None:
    limits = {"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0", "Retry-After": "1"}
    responses.get(f"{API}/v1/calls/{ID}/recording", status=302, headers={"Location": "https://storage.example/a"})
    responses.get("https://storage.example/a", status=429, headers=limits)
    client = VolubileClient(API, pair, window=window, sleep=lambda _: None, retry=RetryBudget(attempts=3))
    with pytest.raises(VolubileUnavailable, match=r"storage\.example is not available, it answered 429"):
        read(client)
    assert client.rate_limit is None
    assert window.observed == [302]
    assert window.in_flight == 0


@pytest.mark.parametrize("status", [302, 308])
def test_the_body_of_a_redirect_is_bounded_too(
    status: int, server: Any, other_server: Any, tell: Any, client: Any
) -> None:
    location = {"Location": other_server.url + "/b.mp3"}
    server.on("GET .*", tell.endless(b"x" * 2**20, status=status, headers=location))
    other_server.on("GET .*", audio(tell))
    assert read(client)[1] == AUDIO
    with pytest.raises(VolubileProtocolError, match="redirect to"):
        client.get_call(ID)


def test_a_redirect_loop_ends(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(302, headers={"Location": "/v1/again"}))
    with pytest.raises(VolubileProtocolError, match="more than 3 redirects"):
        read(client)
    assert len(server.requests) == 4


def test_three_redirects_are_followed(server: Any, tell: Any, client: Any) -> None:
    for number in range(3):
        here = "/v1/calls/.*" if number == 0 else f"/hop/{number}"
        server.on(f"GET {here}", tell.answer(302, headers={"Location": f"/hop/{number + 1}"}))
    server.on("GET /hop/3", audio(tell))
    assert read(client)[1] == AUDIO


def test_a_redirect_to_nowhere(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(302))
    with pytest.raises(VolubileProtocolError, match="nowhere"):
        read(client)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, VolubileRequestRefused), (401, VolubileRequestRefused), (404, VolubileNotFound), (503, VolubileUnavailable)],
)
def test_what_storage_refuses(
    status: int, error: type[VolubileError], server: Any, other_server: Any, tell: Any, client: Any
) -> None:
    server.on("GET .*", tell.answer(302, headers={"Location": other_server.url + "/b.mp3?signature=abc"}))
    other_server.on("GET .*", tell.answer(status, body=b"<Error>signature=abc</Error>"))
    with pytest.raises(error, match=r"127\.0\.0\.1") as caught:
        read(client)
    assert "abc" not in str(caught.value)


def test_storage_that_fails_once_is_asked_again(server: Any, other_server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.reset, tell.answer(302, headers={"Location": other_server.url + "/b.mp3"}))
    other_server.on("GET .*", tell.answer(503), audio(tell))
    assert read(client)[1] == AUDIO


def test_a_recording_that_drips_ends(server: Any, tell: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STREAM_SECONDS", 0.3)

    server.on("GET .*", tell.drip(b"a", b"a", kind="audio/wav"))
    with pytest.raises(VolubileUnavailable, match="took longer than"):
        read(client)


def test_nothing_is_printed_of_a_recording(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", audio(tell, b"audio"))
    with client.open_recording(ID) as recording:
        assert repr(recording) == "Recording(content_type='audio/mpeg', length=5, offset=0)"


def test_200_megabytes_pass_through_a_few(server: Any, tell: Any) -> None:
    block, blocks = b"\x55" * 2**20, 200

    def act(conn: Any, request: Any) -> bool:
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n" % (blocks * 2**20))
        for _ in range(blocks):
            conn.sendall(block)
        return True

    server.on("GET .*", act)
    script = f"""
import json, resource
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
client = VolubileClient({server.url!r}, ApiKeyPair("k"), window=RateWindow())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with client.open_recording("x") as recording:
    size = sum(len(chunk) for chunk in recording.iter_chunks())
print(json.dumps([size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    size, grown = json.loads(done.stdout)
    assert size == blocks * 2**20
    assert grown < 20, "MiB"
