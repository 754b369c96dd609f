"""The object storage beside the API: recordings behind presigned links, on a separate port."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from airflow_provider_volubile.simulator import recording
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.faults import spoil
from airflow_provider_volubile.simulator.logs import MediaRequest
from airflow_provider_volubile.simulator.state import State


def presigned_url(state: State, call: Call) -> str:
    """Return a link to the recording of a call. It expires and needs no credential."""
    expires = math.ceil(state.clock.wall() + state.config.recording_link_life)
    path = f"/recordings/{call.id}.wav"
    return f"{state.media_url}{path}?expires={expires}&signature={_signature(state, path, expires)}"


def recording_response(state: State, call: Call, range_header: str | None) -> Response:
    """Return the audio, or the part of it that a ``Range: bytes=N-[M]`` header asks for."""
    size = state.config.recording_size
    headers = {"Content-Length": str(size), "Accept-Ranges": "bytes"}
    start, stop, status = 0, size, 200
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", range_header or "")
    if asked:
        start, stop, status = int(asked[1]), min(int(asked[2] or size - 1) + 1, size), 206
        if start >= stop:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Length"] = str(stop - start)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    pieces = recording.wav(state.options.seed, call.id, size, start, stop)
    if stop - start <= 1_000_000:
        return Response(b"".join(pieces), status, headers, "audio/wav")

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return StreamingResponse(stream(), status, headers, "audio/wav")


def media_app(state: State) -> Starlette:
    """Return the application of the media port."""

    async def get_media(request: Request) -> Response:
        state.engine.run()
        spec = state.faults.draw("getMedia")
        answer = _answer(state, request)
        if spec is not None:
            answer = spoil(spec, answer)
        state.media_requests.append(
            MediaRequest(
                state.clock.wall(),
                request.method,
                request.url.path,
                sorted(request.headers),
                answer.status_code,
            )
        )
        return answer

    return Starlette(routes=[Route("/{path:path}", get_media, methods=["GET"])])


def _answer(state: State, request: Request) -> Response:
    path = request.url.path
    named = re.fullmatch(r"/recordings/([0-9a-f-]{36})\.wav", path)
    call = state.engine.calls.get(named[1]) if named else None
    if call is None:
        return Response("no such object", 404)
    expires = request.query_params.get("expires", "")
    signature = request.query_params.get("signature", "")
    if not hmac.compare_digest(signature, _signature(state, path, expires)):
        return Response("signature does not match", 403)
    if state.clock.wall() > int(expires):
        return Response("link has expired", 403)
    return recording_response(state, call, request.headers.get("range"))


def _signature(state: State, path: str, expires: object) -> str:
    secret = f"volubile simulator media {state.options.seed}".encode()
    return hmac.new(secret, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()
