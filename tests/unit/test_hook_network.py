"""Certificates, proxies and hosts that are not Volubile, seen through the hook and told to a person."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import VolubileUnavailable
from airflow_provider_volubile.hooks.volubile import VolubileHook
from tests.certificates import make_certificate

PRIMARY, SECONDARY = "primary-key-of-a-test", "secondary-key-of-a-test"
AN_ID = "11111111-2222-3333-4444-555555555555"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy_and_no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bool, str]]:
    """Test a connection to a host."""

    def test(host: str, **extra: Any) -> tuple[bool, str]:
        fields = {"conn_type": "volubile", "host": host, "password": PRIMARY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(fields))
        good, text = VolubileHook("tested").test_connection()
        assert PRIMARY not in text
        assert SECONDARY not in text
        return good, text

    return test


def client(base_url: str = "https://api.volubile.invalid", timeout: float = 5) -> VolubileClient:
    """A client that tries once."""
    keys, once = ApiKeyPair(PRIMARY), RetryBudget(attempts=1)
    return VolubileClient(base_url, keys, window=RateWindow(), timeout=timeout, retry=once)


class Volubile(ThreadingHTTPServer):
    """Answers as the API would, over TLS; remembers the keys it was shown."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys: list[str | None] = []
        self.agents = {key: ["5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"] for key in (PRIMARY, SECONDARY)}
        if context:
            # The handshake belongs to the thread of the request: one that fails must not stop the server.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not like the certificate is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Volubile

    def do_GET(self) -> None:
        key = self.headers.get("X-Api-Key")
        self.server.keys.append(key)
        agents = [{"id": agent_id, "name": "A"} for agent_id in self.server.agents.get(key or "", [])]
        page = {"content": agents, "page": 1, "size": 100, "totalElements": len(agents), "totalPages": 1}
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-RateLimit-Limit", "100")
        self.send_header("X-RateLimit-Remaining", "42")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that only itself vouches for."""
    return make_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls(certificate: Path) -> Iterator[Volubile]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Volubile(context)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def plain() -> Iterator[Volubile]:
    server = Volubile()
    yield server
    server.shutdown()
    server.server_close()


class Proxy:
    """Forwards CONNECT to 127.0.0.1, whatever the name; remembers what it was sent before the tunnel."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heads: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.heads.append(head.decode())
        port = int(head.split()[1].rpartition(b":")[2])
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
    proxy.listener.close()


# --- certificates ---


def test_a_certificate_that_nobody_vouches_for(tls: Volubile, tested: Any) -> None:
    good, text = tested(f"https://localhost:{tls.server_port}")
    assert not good
    assert "its TLS certificate was not accepted" in text
    assert tls.keys == [], "no key was shown to it"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_ones_own(
    variable: str, tls: Volubile, certificate: Path, tested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    good, text = tested(f"https://localhost:{tls.server_port}")
    assert good, text
    assert "42 left" in text
    assert tls.keys == [PRIMARY]


def test_a_bundle_that_does_not_vouch_for_the_host_is_named(
    tls: Volubile, tested: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    good, text = tested(f"https://127.0.0.1:{tls.server_port}")  # the certificate is for localhost
    assert not good
    assert "TLS" in text
    assert f"with the certificates in {certificate}" in text
    assert tls.keys == []


@pytest.mark.parametrize("value", ["", "false", "0", "None"])
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONHTTPSVERIFY"])
def test_verification_is_not_switched_off_by_the_environment(
    variable: str, value: str, tls: Volubile, tested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    good, _ = tested(f"https://localhost:{tls.server_port}")
    assert not good
    assert tls.keys == []


@pytest.mark.parametrize("extra", [{"verify": False}, {"ssl_verify": "false"}, {"check_hostname": False}])
def test_verification_is_not_switched_off_by_the_connection(extra: dict[str, Any], tls: Volubile, tested: Any) -> None:
    good, _ = tested(f"https://localhost:{tls.server_port}", **extra)
    assert not good
    assert tls.keys == []


def test_tls_to_a_host_that_speaks_none(plain: Volubile, tested: Any) -> None:
    good, text = tested(f"https://localhost:{plain.server_port}")
    assert not good
    assert "TLS failed" in text


# --- proxies ---


def test_https_goes_through_the_proxy_and_keys_do_not_stop_there(
    proxy: Proxy, tls: Volubile, certificate: Path, tested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://user:proxy-password@"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    good, text = tested(f"https://localhost:{tls.server_port}")
    assert good, text
    assert tls.keys == [PRIMARY]
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT localhost:{tls.server_port} ")
    assert PRIMARY not in head


def test_no_proxy_is_obeyed(
    proxy: Proxy, tls: Volubile, certificate: Path, tested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    good, text = tested(f"https://localhost:{tls.server_port}")
    assert good, text
    assert proxy.heads == []


def test_plain_http_to_this_machine_goes_through_no_proxy(
    proxy: Proxy, plain: Volubile, tested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    good, text = tested(f"http://127.0.0.1:{plain.server_port}")
    assert good, text
    assert proxy.heads == []


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    tested: Any, deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = deaf.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:proxy-password@127.0.0.1:{port}")
    good, text = tested("")
    assert not good
    assert "the proxy: the connection was refused" in text
    assert f"through the proxy 127.0.0.1:{port}" in text
    assert "proxy-password" not in text


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:proxy/password@127.0.0.1:9",
        "http://user:1/password@127.0.0.1:9",
        "http://user:proxy#password@127.0.0.1:9",
        "http://us[er:proxy-password@127.0.0.1:9",
        "user:proxy-password@127.0.0.1:9",
        "http://proxy:password",
        "http://127.0.0.1:99999",
        "http:/127.0.0.1:9",
        "ftp://127.0.0.1:9",
    ],
)
def test_a_proxy_that_is_no_url_is_told_and_not_shown(proxy: str, tested: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    good, text = tested("")
    assert not good
    assert "the address in HTTPS_PROXY is no URL" in text
    assert "percent-encode its password" in text
    shown = text.replace("user:password@host:port", "")
    assert not any(part in shown for part in ("password@", "127.0.0.1", "user", "[er"))
    with pytest.raises(VolubileUnavailable, match=r"createCall.*HTTPS_PROXY is no URL"):  # certainly not taken
        client().create_call(AN_ID, {"phone": "+33639980142", "context": {}})


def test_a_socks_proxy_needs_a_package(tested: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socks", None)
    good, text = tested("")
    assert not good
    assert "the SOCKS proxy in ALL_PROXY needs the package PySocks" in text


# --- hosts ---


def test_a_scheme_in_capitals(tls: Volubile, certificate: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    found = client(f"HTTPS://localhost:{tls.server_port}").list_agents()
    assert len(found.content) == 1
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("host", [f"{'a' * 70}.example", "..", "a..b", "*.volubile.invalid"])
def test_a_name_that_no_host_can_have(host: str, tested: Any) -> None:
    good, text = tested(f"https://{host}")
    assert not good
    assert "no host can have this name" in text


def test_a_name_that_does_not_exist(tested: Any) -> None:
    good, text = tested("https://api.volubile.invalid")
    assert not good
    assert "api.volubile.invalid could not be reached (the host name could not be resolved)" in text
    assert f"Asked from the machine {socket.gethostname()}" in text


def test_nobody_listens(tested: Any, deaf: socket.socket) -> None:
    good, text = tested(f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert not good
    assert "the connection was refused" in text


def test_two_keys_of_different_accounts_are_no_spare(plain: Volubile, tested: Any) -> None:
    plain.agents[SECONDARY] = ["8c4d1f0a-3e57-4b1d-a7c2-91d6e0b45f21"]
    good, text = tested(f"http://127.0.0.1:{plain.server_port}", secondary_api_key=SECONDARY)
    assert not good
    assert "different accounts" in text
    plain.agents[SECONDARY] = [*plain.agents[PRIMARY], "8c4d1f0a-3e57-4b1d-a7c2-91d6e0b45f21"]  # one was made meanwhile
    good, text = tested(f"http://127.0.0.1:{plain.server_port}", secondary_api_key=SECONDARY)
    assert good, text
    assert plain.keys == [PRIMARY, SECONDARY] * 2
