"""Every request that the client can send, and its table of routes, match the OpenAPI file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_volubile.api import routes, wire
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.api.routes import SCOPES, Route
from tests.contract.openapi_contract import assert_request_valid
from tests.unit.api.stub import Server, answer, start_server

OPENAPI = yaml.safe_load((Path(__file__).parent / "openapi.yaml").read_text())
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
ROUTES = tuple(value for value in vars(routes).values() if isinstance(value, Route))
ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
PHONE = "+33639980142"
PEOPLE = [{"phone": PHONE, "context": {"firstName": "Lucie", "visits": 3}}, {"phone": "+33199001277"}]
CAMPAIGN = wire.campaign_body(
    name="Winter tyres",
    agent_id=AGENT,
    start_date=date(2025, 11, 12),
    time_slots=[(time(9, 30), time(12, 0)), (time(14, 0), time(18, 30))],
    days=["MONDAY", "FRIDAY"],
    batch_size=1000,
    recipients=PEOPLE,
    retry={"max": 2, "delay": 90, "retryOn": ["NO_ANSWER", "VOICE_BOX"]},
    timezone="Europe/Paris",
)


def record(client: VolubileClient, offset: int) -> None:
    with client.open_recording(ID, offset=offset) as recording:
        list(recording.iter_chunks())


CALLS: dict[str, list[Callable[[VolubileClient], Any]]] = {
    "issueToken": [lambda c: c.issue_token("calls:read"), lambda c: c.issue_token(SCOPES)],
    "listAgents": [lambda c: c.list_agents(), lambda c: c.list_agents(3, 7), lambda c: list(c.iter_agents())],
    "getAgent": [lambda c: c.get_agent(AGENT)],
    "updateAgent": [
        lambda c: c.update_agent(AGENT, {"active": False}),
        lambda c: c.update_agent(AGENT, {"name": "x", "active": True, "recordable": True, "archived": False}),
    ],
    "listCalls": [
        lambda c: c.list_calls(),
        lambda c: c.list_calls(sort=None),
        lambda c: list(
            c.iter_calls(
                agent_id=AGENT,
                phone=PHONE,
                campaign="Winter & tyres +1",
                from_date=date(2025, 10, 25),
                to_date=date(2025, 10, 27),
                size=50,
                sort="startTime,ASC",
            )
        ),
    ],
    "getCall": [lambda c: c.get_call(ID)],
    "createCall": [lambda c: c.create_call(AGENT, PEOPLE[0]), lambda c: c.create_call(AGENT, PEOPLE[1])],
    "getRecording": [lambda c: record(c, 0), lambda c: record(c, 100)],
    "getTranscript": [lambda c: c.get_transcript(ID)],
    "createBulkCalls": [
        lambda c: c.create_bulk_calls(AGENT, PEOPLE),
        lambda c: c.create_bulk_calls(AGENT, PEOPLE * 500),
    ],
    "createCampaign": [
        lambda c: c.create_campaign(CAMPAIGN),
        lambda c: c.create_campaign({k: v for k, v in CAMPAIGN.items() if k not in {"timezone", "retry"}}),
    ],
    "getCampaign": [lambda c: c.get_campaign(ID)],
    "updateCampaignStatus": [
        lambda c: c.update_campaign_status(ID, "ACTIVE"),
        lambda c: c.update_campaign_status(ID, "PAUSED"),
        lambda c: c.update_campaign_status(ID, "CANCELLED"),
    ],
}


@pytest.fixture
def server() -> Iterator[Server]:
    server, listener = start_server()
    server.on("POST /v1/auth/token", answer(200, {"token": "a.b.c", "expiresIn": 900}))
    server.on(".*/recording", answer(200, body=b"audio", headers={"Content-Type": "audio/mpeg"}))
    server.on(".*/transcript", answer(200, [{"action": "RING"}]))
    server.on("GET /v1/(agents|calls)", answer(200, {"content": [], "page": 1, "size": 50, "totalPages": 0}))
    server.on("(GET|PATCH) /v1/agents/.*", answer(200, {"id": AGENT}))
    server.on(".*", answer(200, {"id": ID, "status": "PAUSED"}))
    yield server
    listener.close()


@pytest.mark.parametrize("mode", ["key", "bearer"])
@pytest.mark.parametrize("operation", CALLS)
def test_the_client_sends_only_requests_that_the_file_allows(operation: str, mode: str, server: Server) -> None:
    pair = ApiKeyPair("a-key", "another-key")
    client = VolubileClient(
        server.url, BearerTokens(pair) if mode == "bearer" else pair, window=RateWindow(limit=10_000)
    )
    route = next(route for route in ROUTES if route.operation == operation)
    for call in CALLS[operation]:
        server.requests.clear()
        call(client)
        sent = [r for r in server.requests if operation == "issueToken" or r.path != "/v1/auth/token"]
        assert {r.method for r in sent} == {route.method}
        for request in server.requests:
            body = json.loads(request.body) if request.body else None
            assert_request_valid(request.method, request.path, request.query, request.headers, body)


def test_the_table_of_routes_matches_the_file() -> None:
    documented = {
        (operation["operationId"], method.upper(), path, operation["x-scope"])
        for path, item in OPENAPI["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert {(route.operation, route.method, route.path, route.scope) for route in ROUTES} == documented
    assert len(ROUTES) == 13
    assert CALLS.keys() == {route.operation for route in ROUTES}
    scope = OPENAPI["components"]["schemas"]["AuthTokenRequest"]["properties"]["scope"]
    assert set(scope["items"]["enum"]) == SCOPES


def test_the_known_values_match_the_file() -> None:
    schemas = OPENAPI["components"]["schemas"]
    assert set(schemas["CallStatus"]["x-known-values"]) == wire.CALL_STATUSES
    assert tuple(schemas["UpdateCampaignStatusRequest"]["enum"]) == wire.CAMPAIGN_STATUSES
    assert schemas["UpdateAgentRequest"]["properties"].keys() == wire.AGENT_CHANGES.keys()
    assert schemas["CreateCampaignRequest"]["properties"]["recipients"]["maxItems"] == wire.MAX_RECIPIENTS
    assert OPENAPI["components"]["parameters"]["Size"]["schema"]["maximum"] == wire.MAX_PAGE_SIZE


@pytest.mark.parametrize(
    ("schema", "model"),
    [("Agent", "Agent"), ("Call", "Call"), ("Campaign", "Campaign"), ("TranscriptEvent", "TranscriptEvent")],
)
def test_the_models_have_the_members_of_the_file(schema: str, model: str) -> None:
    from airflow_provider_volubile.api import models

    fields = getattr(models, model).model_fields.values()
    names = {field.serialization_alias or field.alias for field in fields}
    assert names == OPENAPI["components"]["schemas"][schema]["properties"].keys()
