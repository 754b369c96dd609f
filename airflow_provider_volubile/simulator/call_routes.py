"""The routes of calls, single and in bulk, their transcripts and recordings."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from airflow_provider_volubile.simulator import bodies
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.config import CALL_SORTS
from airflow_provider_volubile.simulator.incoming import (
    PHONE,
    UUID,
    Incoming,
    Refused,
    days,
    dialling_agent,
    json_response,
    no_body,
    page_response,
    paging,
    parse,
    path_id,
    sorting,
)
from airflow_provider_volubile.simulator.media import presigned_url, recording_response
from airflow_provider_volubile.simulator.render import call_json, stretched, to_json, transcript_events


def create_call(incoming: Incoming) -> Response:
    state = incoming.state
    body = parse(incoming, bodies.CreateCall)
    agent = dialling_agent(state, body.agentId)
    incoming.submission = state.submit("createCall", agent["id"], 1)
    call = state.engine.dial(
        agent,
        body.recipient.phone,
        body.recipient.context,
        source="call",
        submission=incoming.submission.seq,
    )
    match state.config.call_answer:
        case "id":
            return json_response({"id": call.id}, 201)
        case "no_id":
            return json_response({}, 201)
        case "empty":
            return no_body(201)
        case _:
            return no_body(204)


def create_bulk_calls(incoming: Incoming) -> Response:
    state = incoming.state
    body = parse(incoming, bodies.CreateBulkCalls)
    agent = dialling_agent(state, body.agentId)
    incoming.submission = state.submit("createBulkCalls", agent["id"], len(body.recipients))
    calls = [
        state.engine.dial(
            agent,
            recipient.phone,
            recipient.context,
            source="bulk",
            submission=incoming.submission.seq,
            recipient_index=index,
        )
        for index, recipient in enumerate(body.recipients)
    ]
    shown = [{"id": call.id, "phone": call.phone} for call in calls]
    match state.config.bulk_answer:
        case "calls":
            return json_response({"calls": shown}, 201)
        case "list":
            return json_response(shown, 201)
        case "partial":
            return json_response({"calls": shown[::2]}, 201)
        case "no_ids":
            return json_response({"calls": [{"phone": call.phone} for call in calls]}, 201)
        case _:
            return no_body(201)


def list_calls(incoming: Incoming) -> Response:
    state, query = incoming.state, incoming.query
    config = state.config
    page, size = paging(query)
    prop, descending = sorting(incoming, CALL_SORTS, config.default_sort)
    agent_id, phone = query.get("agentId"), query.get("phone")
    if agent_id is not None and not UUID.fullmatch(agent_id):
        raise Refused(400, "agentId is not a UUID")
    if phone is not None and not PHONE.fullmatch(phone):
        raise Refused(400, f"phone {phone!r} is not in E.164 form (send + as %2B)")
    since, before = days(query, config.zone)
    by_creation = config.date_filter == "created"
    wall = state.clock.wall()
    shown_before = wall - config.list_lag if config.list_lag else math.inf
    found, start, stop = state.engine.calls.select(
        agent_id=agent_id and agent_id.lower(),
        campaign=query.get("campaign"),
        phone=phone,
        created_from=since - config.created_lag if by_creation else -math.inf,
        created_before=min(before - config.created_lag if by_creation else math.inf, shown_before),
    )
    if not by_creation:
        found = [call for call in found[start:stop] if since <= call.start_wall < before]
        start, stop = 0, len(found)
    if prop != "created":
        found = sorted(found[start:stop], key=lambda call: _sort_key(call, prop))
        start, stop = 0, len(found)
    first, last = (page - 1) * size, page * size
    if descending:
        chosen = found[max(stop - last, start) : max(stop - first, start)][::-1]
    else:
        chosen = found[min(start + first, stop) : min(start + last, stop)]
    shown = [call_json(call, config, state.options.seed, wall) for call in chosen]
    return page_response(shown, page, size, stop - start)


def get_call(incoming: Incoming) -> Response:
    state = incoming.state
    call = _call(incoming)
    body = call_json(call, state.config, state.options.seed, state.clock.wall())
    return Response(body, media_type="application/json")


def get_transcript(incoming: Incoming) -> Response:
    state = incoming.state
    call = _call(incoming)
    if call.transcript_at is None or call.transcript_at > state.engine.now:
        raise Refused(404, "Transcript not found")
    events = transcript_events(call, state.options.seed)
    shape, size = state.config.transcript_shape, state.config.transcript_size
    if shape == "single":
        return json_response(next(event for event in events if "message" in event))
    opening, comma, closing = (b"[", b",", b"]") if shape == "array" else (b"", b"\n", b"\n")
    kind = "application/json" if shape == "array" else "application/x-ndjson"
    if size is None:
        return Response(opening + comma.join(map(to_json, events)) + closing, media_type=kind)

    async def stream() -> AsyncIterator[bytes]:
        block = opening
        for number, piece in enumerate(stretched(events, size)):
            block += comma + piece if number else piece
            if len(block) > 65536:
                yield block
                block = b""
        yield block + closing

    return StreamingResponse(stream(), media_type=kind)


def get_recording(incoming: Incoming) -> Response:
    state = incoming.state
    call = _call(incoming)
    if not call.recorded:
        raise Refused(404, "Recording not found")
    match state.config.recording_answer:
        case "bytes":
            return recording_response(state, call, incoming.headers.get("range"))
        case "redirect":
            return Response(status_code=302, headers={"Location": presigned_url(state, call)})
        case "json":
            return json_response({"url": presigned_url(state, call)})
        case _:
            return no_body(200)


def _call(incoming: Incoming) -> Call:
    call = incoming.state.engine.calls.get(path_id(incoming))
    if call is None:
        raise Refused(404, "Call not found")
    return call


def _sort_key(call: Call, prop: str) -> tuple[bool, Any]:
    value: Any
    match prop:
        case "startTime":
            value = call.start_wall
        case "endTime":
            value = call.ended_wall
        case "agentId":
            value = call.agent_id
        case _:
            value = getattr(call, prop)
    return value is not None, value
