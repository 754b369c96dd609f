"""A server that answers exactly as told, down to the bytes, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What arrived; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Action = Callable[[socket.socket, Request], bool]
"""Answers on the socket; returns whether the connection stays open."""


@dataclass
class Server:
    """Answers each route with what was queued for it by :meth:`on`, the last entry again and again."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _scripts: dict[str, list[Action]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, route: str, *actions: Action) -> None:
        """``route`` is a method and a regular expression for the path: ``GET /v1/calls/.*``."""
        self._scripts[route] = list(actions)

    def forget(self, route: str) -> None:
        del self._scripts[route]

    def asked(self, route: str) -> list[Request]:
        return [r for r in self.requests if re.fullmatch(route, f"{r.method} {r.path}")]

    def action(self, request: Request) -> Action:
        with self._lock:
            self.requests.append(request)
            for route, actions in self._scripts.items():
                if re.fullmatch(route, f"{request.method} {request.path}"):
                    return actions.pop(0) if len(actions) > 1 else actions[0]
        return answer(404, {"message": "no script for this route"})


def answer(
    status: int = 200,
    data: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    length: int | None = None,
    keep: bool = True,
) -> Action:
    """A complete answer; ``length`` announces another one than it has."""

    def act(conn: socket.socket, request: Request) -> bool:
        content = body if body is not None else b"" if data is None else json.dumps(data).encode()
        fields = {"Content-Type": "application/json", **(headers or {})}
        if status != 204:
            fields["Content-Length"] = str(len(content) if length is None else length)
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        conn.sendall(head.encode() + b"\r\n" + content)
        return keep and length is None

    return act


def reset(conn: socket.socket, request: Request) -> bool:
    """Read the request, then break the connection without a word."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def close(conn: socket.socket, request: Request) -> bool:
    """Read the request, then close."""
    return False


def garbage(conn: socket.socket, request: Request) -> bool:
    """Answer something that is no HTTP."""
    conn.sendall(b"\x00\x01 hello\r\n\r\n")
    return False


def silence(seconds: float = 30) -> Action:
    """Read the request and say nothing until the client leaves."""

    def act(conn: socket.socket, request: Request) -> bool:
        conn.settimeout(seconds)
        with suppress(OSError):
            conn.recv(1)
        return False

    return act


def broken_body(status: int = 200) -> Action:
    """Announce more than is sent."""
    return answer(status, body=b'{"id": "a', length=5000)


def drip(first: bytes, drop: bytes = b" ", *, kind: str = "application/json") -> Action:
    """Begin a body and let it drip until the client leaves."""

    def act(conn: socket.socket, request: Request) -> bool:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 1000000\r\n\r\n"
        conn.sendall(head.encode() + first)
        with suppress(OSError):
            while True:
                conn.sendall(drop)
                time.sleep(0.02)
        return False

    return act


def trickle(first: bytes, drop: bytes, pause: float = 0.02) -> Action:
    """Send bytes as they are, then some more again and again until the client leaves."""

    def act(conn: socket.socket, request: Request) -> bool:
        conn.sendall(first)
        with suppress(OSError):
            while True:
                conn.sendall(drop)
                time.sleep(pause)
        return False

    return act


def endless(chunk: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Action:
    """A body without an end."""

    def act(conn: socket.socket, request: Request) -> bool:
        fields = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        conn.sendall(head.encode())
        with suppress(OSError):
            while True:
                conn.sendall(chunk)
        return False

    return act


def _serve(server: Server, listener: socket.socket) -> None:
    while True:
        try:
            conn, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        threading.Thread(target=_talk, args=(server, conn, server.connections), daemon=True).start()


def _talk(server: Server, conn: socket.socket, number: int) -> None:
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = conn.makefile("rb")
        try:
            while request := _request(stream, number):
                if not server.action(request)(conn, request):
                    return
        except OSError:
            return


def _request(stream: Any, connection: int) -> Request | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (field_line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = field_line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    parts = urlsplit(line[1])
    query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return Request(line[0], parts.path, query, headers, body, connection)


def start_server() -> tuple[Server, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=600)
    server = Server(port=listener.getsockname()[1])
    threading.Thread(target=_serve, args=(server, listener), daemon=True).start()
    return server, listener
