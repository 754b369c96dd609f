"""Injected faults: real failures on the connection between a client and the service."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from airflow_provider_volubile.simulator import chance

#: Key of the connection's transport in the ASGI scope.
TRANSPORT = "simulator.transport"

Kind = Literal[
    "drop",
    "reset",
    "status",
    "delay",
    "rate_limit",
    "malformed",
    "empty",
    "truncated",
    "html",
    "redirect",
    "huge",
]

#: Kinds whose requests take effect by default.
_ACCEPTING = frozenset({"drop", "malformed", "empty", "truncated", "html", "huge"})


class FaultSpec(BaseModel):
    """A fault to inject into the answers of one operation, or of all."""

    model_config = ConfigDict(extra="forbid")

    operation: str = Field(description="operationId, `getMedia` for the media port, or `*` for every operation.")
    kind: Kind = Field(
        description="`drop` and `reset` close the connection (FIN, RST) without an answer; `status` answers "
        "another status; `delay` makes the answer late; `rate_limit` answers 429; `malformed`, `empty`, "
        "`truncated`, `html` and `huge` spoil the body; `redirect` redirects to `location`."
    )
    times: int | None = Field(1, ge=1, description="How often, null for always.")
    skip: int = Field(0, ge=0, description="How many requests to let through first.")
    probability: float = Field(1, gt=0, le=1, description="How likely each request is hit; the draw is seeded.")
    accept: bool | None = Field(
        None,
        description="Whether the request takes effect first. By default only for `drop` and spoilt bodies.",
    )
    status: int | None = Field(
        None, ge=200, le=599, description="For `status` (500), `redirect` (302) and spoilt bodies (as it was)."
    )
    seconds: float | None = Field(
        None,
        ge=0,
        description="Wall seconds before the fault: `delay` 1, others none. For `rate_limit`, the Retry-After.",
    )
    location: str | None = Field(None, description="Target of `redirect`.")
    bytes: int = Field(10_000_000, ge=1, description="Size of a `huge` body.")

    @model_validator(mode="after")
    def _complete(self) -> FaultSpec:
        if self.kind == "redirect" and not self.location:
            raise ValueError("a redirect needs a location")
        if self.accept is None:
            self.accept = self.kind in _ACCEPTING
        if self.kind == "status" and self.status is None:
            self.status = 500
        if self.kind == "delay" and self.seconds is None:
            self.seconds = 1
        return self


class Fault:
    """An ordered fault, and how often requests met it."""

    def __init__(self, number: int, spec: FaultSpec) -> None:
        self.number = number
        self.spec = spec
        self.seen = 0
        self.applied = 0

    def show(self) -> dict[str, Any]:
        return {"id": self.number, **self.spec.model_dump(), "seen": self.seen, "applied": self.applied}


class FaultBoard:
    """All active faults. A request meets the oldest one that fits it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._faults: list[Fault] = []
        self._ordered = 0

    def add(self, spec: FaultSpec) -> Fault:
        self._ordered += 1
        fault = Fault(self._ordered, spec)
        self._faults.append(fault)
        return fault

    def show(self) -> list[dict[str, Any]]:
        return [fault.show() for fault in self._faults]

    def clear(self) -> None:
        self._faults.clear()

    def draw(self, operation: str) -> FaultSpec | None:
        """Return the fault that this request to an operation meets, or None."""
        for fault in self._faults:
            spec = fault.spec
            if spec.operation not in ("*", operation) or fault.applied == spec.times:
                continue
            fault.seen += 1
            if fault.seen <= spec.skip:
                continue
            if chance.fraction(self._seed, "fault", fault.number, fault.seen) < spec.probability:
                fault.applied += 1
                return spec
        return None


def spoil(spec: FaultSpec, answer: Response) -> Response:
    """Return the answer to send instead of the proper one.

    :param answer: the proper answer, or one without content if the request did not take effect.
    """
    status = spec.status or answer.status_code
    headers = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    match spec.kind:
        case "drop" | "reset":
            return Hangup(reset=spec.kind == "reset")
        case "redirect":
            return Response(status_code=spec.status or 302, headers=headers | {"Location": spec.location or ""})
        case "malformed":
            return Response(b'{"id": "5b0f3c52-8a0e', status, headers, "application/json")
        case "empty":
            return Response(b"", status, headers, "application/json")
        case "html":
            return Response(b"<html><body><h1>Service</h1></body></html>", status, headers, "text/html")
        case "huge":
            return StreamingResponse(_endless_json(spec.bytes), status, headers, "application/json")
        case "truncated":
            return _Truncated(answer, status)
        case _:
            return answer


async def _endless_json(size: int) -> AsyncIterator[bytes]:
    yield b'{"content":"'
    for start in range(0, size, 65536):
        yield b"x" * min(65536, size - start)
    yield b'"}'


class Hangup(Response):
    """Close the connection without an answer, as if the server or a proxy had died."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _close(scope[TRANSPORT], receive, reset=self._reset)


class _Truncated(Response):
    """Announce the whole body, send half of it, and close the connection."""

    def __init__(self, answer: Response, status: int) -> None:
        body = bytes(getattr(answer, "body", b"")) or b"x" * 4096
        super().__init__(body, status, answer.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await _close(scope[TRANSPORT], receive, reset=False)


async def _close(transport: asyncio.Transport, receive: Receive, *, reset: bool) -> None:
    if reset:
        connection = transport.get_extra_info("socket")
        if connection is not None:  # no lingering: closing sends RST instead of FIN
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
