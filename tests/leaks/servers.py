"""Services for the tests: one that repeats everything it receives, and a proxy before one that works."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt

_AGENT = re.compile(r"/\d+/v1/agents/[0-9a-f-]+")
AN_ID = "11111111-2222-3333-4444-555555555555"


class Listener(ThreadingHTTPServer):
    """Forward every request to ``service``, and keep the tokens that go over the wire."""

    daemon_threads = True

    def __init__(self, service: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Forward if service else _Repeat)
        self.service = service
        self.tokens: list[str] = []
        self.told: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Echo(Listener):
    """Answer ``/<status>/v1/…`` with that status and texts that repeat the request, its credentials and its numbers.

    A single agent has a proper answer, so that operators get as far as sending people. The service issues tokens too.
    """


def _half_escaped(text: str) -> str:
    """Return JSON whose first half is written as Python does, and whose second half as PHP and Java do."""
    half = len(text) // 2
    end = text[half:].replace("/", r"\/").replace("=", r"\u003d").replace("&", r"\u0026").replace("+", r"\u002B")
    return text[:half] + end


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def write(self, status: int, content: bytes, headers: dict[str, str], reason: str | None = None) -> None:
        self.send_response(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Forward(_Handler):
    def answer(self) -> None:
        service = http.client.HTTPConnection(urlsplit(self.server.service).netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            service.request(self.command, self.path, self.read(), headers)
            response = service.getresponse()
            content = response.read()
        except (http.client.HTTPException, OSError):
            return  # no answer, like the service
        finally:
            service.close()
        if self.path.endswith("/auth/token") and response.status < 300:
            self.server.tokens.append(json.loads(content)["token"])
        own = ("content-length", "connection", "transfer-encoding", "date", "server")
        self.write(response.status, content, {k: v for k, v in response.getheaders() if k.lower() not in own})

    do_GET = do_POST = do_PATCH = answer


class _Repeat(_Handler):
    def answer(self) -> None:
        body = self.read().decode()
        credential = self.headers.get("X-Api-Key") or str(self.headers.get("Authorization"))
        status = int(self.path.split("/")[1])
        told = f"{credential} may not do this: {unquote(self.path)} {body}"
        names = ("message", "error", "title", "name", "status", "phone", "campaign", "summary", "action", "time")
        data: Any = dict.fromkeys(names, told) | {"id": AN_ID, "detail": [told], credential: told}
        if self.path.endswith("/auth/token"):
            # No two tokens are the same.
            claims = {"iss": "echo", "exp": time.time() + 900, "jti": f"{len(self.server.tokens)} {time.time_ns()}"}
            status, data = 200, {"token": jwt.encode(claims, "a secret that is only long enough"), "expiresIn": 900}
            self.server.tokens.append(data["token"])
        elif self.command == "GET" and _AGENT.fullmatch(self.path):
            status, data = 200, {"id": self.path.rpartition("/")[2], "name": told, "type": "OUTBOUND"}
        else:
            self.server.told.append(told)
            if self.path.endswith("/transcript"):
                data = [data | {"actor": told}]
            elif self.command == "GET":
                data = data | {"content": [data], "page": 1, "totalPages": 1}
        headers = {"Content-Type": "application/json", "X-Told": credential}
        self.write(status, _half_escaped(json.dumps(data)).encode(), headers, reason=f"{credential} is heard")

    do_GET = do_POST = do_PATCH = answer
