"""The API port: the table of operations, and the steps common to all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from airflow_provider_volubile.simulator import agent_routes, bodies, call_routes, campaign_routes
from airflow_provider_volubile.simulator.auth import SCOPES, Credential
from airflow_provider_volubile.simulator.config import Config
from airflow_provider_volubile.simulator.faults import FaultSpec, Hangup, spoil
from airflow_provider_volubile.simulator.incoming import Incoming, Refused, json_response, parse
from airflow_provider_volubile.simulator.logs import RequestEntry
from airflow_provider_volubile.simulator.render import to_json
from airflow_provider_volubile.simulator.state import State

_REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True)
class Operation:
    """One route of the API, named as in the OpenAPI file."""

    id: str
    method: str
    route: str
    scope: str | None
    handle: Callable[[Incoming], Response]


def issue_token(incoming: Incoming) -> Response:
    scopes = parse(incoming, bodies.TokenRequest).scope
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Refused(400, f"Unsupported scope {unknown[0]!r}" if unknown else "scope must not be empty")
    return json_response(incoming.state.auth.issue(scopes))


def no_such_route(incoming: Incoming) -> Response:
    raise Refused(404, "No such route")


OPERATIONS = (
    Operation("issueToken", "POST", "/v1/auth/token", None, issue_token),
    Operation("listAgents", "GET", "/v1/agents", "agents:read", agent_routes.list_agents),
    Operation("getAgent", "GET", "/v1/agents/{id}", "agents:read", agent_routes.get_agent),
    Operation("updateAgent", "PATCH", "/v1/agents/{id}", "agents:write", agent_routes.update_agent),
    Operation("listCalls", "GET", "/v1/calls", "calls:read", call_routes.list_calls),
    Operation("createCall", "POST", "/v1/calls", "calls:write", call_routes.create_call),
    Operation("getCall", "GET", "/v1/calls/{id}", "calls:read", call_routes.get_call),
    Operation("getRecording", "GET", "/v1/calls/{id}/recording", "calls:read", call_routes.get_recording),
    Operation("getTranscript", "GET", "/v1/calls/{id}/transcript", "calls:read", call_routes.get_transcript),
    Operation("createBulkCalls", "POST", "/v1/bulk/calls", "calls:write", call_routes.create_bulk_calls),
    Operation("createCampaign", "POST", "/v1/campaigns", "campaigns:write", campaign_routes.create_campaign),
    Operation("getCampaign", "GET", "/v1/campaigns/{id}", "campaigns:read", campaign_routes.get_campaign),
    Operation(
        "updateCampaignStatus",
        "POST",
        "/v1/campaigns/{id}/status",
        "campaigns:write",
        campaign_routes.update_campaign_status,
    ),
)


#: Any other path.
UNKNOWN = Operation("unknown", "*", "/{path:path}", None, no_such_route)


def endpoint(state: State, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    """Return the Starlette endpoint of an operation."""

    async def serve(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response()
        headers = request.headers
        credential = state.auth.identify(headers.get("x-api-key"), headers.get("authorization"))
        entry = _log(state, operation, request, credential)
        incoming = Incoming(state, request.path_params, request.query_params, headers, body)
        in_window = not credential.of_account or state.window.take()
        # Take the headers when the request arrives, not when a slow answer leaves.
        rate_headers = state.window.headers()
        try:
            _admit(state, operation, credential, in_window)
        except Refused as refusal:
            answer = error_response(refusal, state.config)
        else:
            try:
                answer = await _answer(operation, incoming, entry)
            except _OvertakenError:
                return Hangup(reset=False)
        answer.headers.update(rate_headers)
        entry.status = None if entry.fault in ("drop", "reset") else answer.status_code
        return answer

    return serve


def error_response(refusal: Refused, config: Config) -> Response:
    """Return an error in the configured form."""
    reason = _REASONS.get(refusal.status, "Error")
    match config.error_body:
        case "json":
            body = to_json({"status": refusal.status, "error": reason, "message": refusal.message})
            return Response(body, refusal.status, refusal.headers, "application/json")
        case "html":
            body = f"<html><body><h1>{refusal.status} {reason}</h1></body></html>".encode()
            return Response(body, refusal.status, refusal.headers, "text/html")
        case _:
            return Response(b"", refusal.status, refusal.headers)


def _log(state: State, operation: Operation, request: Request, credential: Credential) -> RequestEntry:
    state.request_count += 1
    entry = RequestEntry(
        seq=state.request_count,
        wall=state.clock.wall(),
        operation=operation.id,
        method=request.method,
        route=operation.route,
        path=request.url.path,
        query=request.url.query,
        credential=credential.kind,
        scopes=None if credential.scopes is None else sorted(credential.scopes),
    )
    state.requests.append(entry)
    return entry


def _admit(state: State, operation: Operation, credential: Credential, in_window: bool) -> None:
    if credential.problem is not None:
        raise Refused(401, credential.problem)
    if not in_window:
        raise Refused(429, "The rate limit of the account is used up", state.window.retry_after())
    if credential.scopes is not None:
        if operation.id == "issueToken":
            raise Refused(403, "A bearer token cannot be used to get another one")
        if operation.scope is not None and operation.scope not in credential.scopes:
            raise Refused(403, f"The token lacks the scope {operation.scope}")


async def _answer(operation: Operation, incoming: Incoming, entry: RequestEntry) -> Response:
    state = incoming.state
    if state.config.latency:
        await _pause(state, state.config.latency)
    spec = state.faults.draw(operation.id)
    return _handle(operation, incoming) if spec is None else await _faulty(operation, incoming, spec, entry)


def _handle(operation: Operation, incoming: Incoming) -> Response:
    state = incoming.state
    state.engine.run()
    try:
        return operation.handle(incoming)
    except Refused as refusal:
        return error_response(refusal, state.config)


async def _faulty(operation: Operation, incoming: Incoming, spec: FaultSpec, entry: RequestEntry) -> Response:
    """Answer a request that meets a fault."""
    state = incoming.state
    entry.fault = spec.kind
    answer = _handle(operation, incoming) if spec.accept else Response()
    if spec.kind != "rate_limit":
        await _pause(state, spec.seconds or 0)
    if spec.kind == "delay" and not spec.accept:
        answer = _handle(operation, incoming)
    if incoming.submission is not None:
        incoming.submission.answer = f"status {spec.status}" if spec.kind == "status" else spec.kind
    match spec.kind:
        case "status":
            return error_response(Refused(spec.status or 500, "Injected fault"), state.config)
        case "rate_limit":
            refusal = Refused(429, "Injected fault", state.window.retry_after(spec.seconds))
            return error_response(refusal, state.config)
        case _:
            return spoil(spec, answer)


class _OvertakenError(Exception):
    """The simulator was reset while a request waited. The request must not dial any more."""


async def _pause(state: State, seconds: float) -> None:
    engine = state.engine
    await asyncio.sleep(seconds)
    if state.engine is not engine:
        raise _OvertakenError
