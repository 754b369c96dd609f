"""Keys and tokens: which credentials are accepted, and for which routes."""

from __future__ import annotations

import json
import time

import jwt
import pytest

from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator

from .raw_api import RawApi, call_body, campaign_body

UNKNOWN_ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
SCOPED = [
    ("GET", "/v1/agents", None, "agents:read"),
    ("GET", f"/v1/agents/{REMINDER_AGENT_ID}", None, "agents:read"),
    ("PATCH", f"/v1/agents/{REMINDER_AGENT_ID}", {"active": True}, "agents:write"),
    ("GET", "/v1/calls", None, "calls:read"),
    ("POST", "/v1/calls", call_body(), "calls:write"),
    ("GET", f"/v1/calls/{UNKNOWN_ID}", None, "calls:read"),
    ("GET", f"/v1/calls/{UNKNOWN_ID}/recording", None, "calls:read"),
    ("GET", f"/v1/calls/{UNKNOWN_ID}/transcript", None, "calls:read"),
    ("POST", "/v1/bulk/calls", {}, "calls:write"),
    ("POST", "/v1/campaigns", campaign_body(), "campaigns:write"),
    ("GET", f"/v1/campaigns/{UNKNOWN_ID}", None, "campaigns:read"),
    ("POST", f"/v1/campaigns/{UNKNOWN_ID}/status", "PAUSED", "campaigns:write"),
]
ALL_SCOPES = [f"{area}:{right}" for area in ("calls", "campaigns", "agents") for right in ("read", "write")]


def test_both_keys_work_until_they_are_revoked(simulator: Simulator, api: RawApi) -> None:
    def status(key: str) -> int:
        return api("GET", "/v1/agents", headers={"X-Api-Key": key}).status_code

    assert status(simulator.primary_key) == status(simulator.secondary_key) == 200
    simulator.revoke_key("primary")
    assert (status(simulator.primary_key), status(simulator.secondary_key)) == (401, 200)
    simulator.restore_key("primary")
    assert status(simulator.primary_key) == 200
    assert status("sim-primary-key-9999") == 401
    assert [entry["credential"] for entry in simulator.requests()] == [
        "primary", "secondary", "primary", "secondary", "primary", "bad",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}, {"X-Api-Key": ""}],
    ids=["nothing", "unknown token", "another scheme", "empty key"],
)
def test_requests_without_a_valid_credential_are_refused(api: RawApi, headers: dict[str, str]) -> None:
    for method, path, body, _ in SCOPED:
        assert api(method, path, body, headers=headers).status_code == 401
    assert api("POST", "/v1/auth/token", {"scope": ["calls:read"]}, headers=headers).status_code == 401


@pytest.mark.parametrize(("method", "path", "body", "scope"), SCOPED)
def test_each_route_needs_only_its_own_scope(
    simulator: Simulator, api: RawApi, method: str, path: str, body: object, scope: str
) -> None:
    assert api(method, path, body, headers=api.token(scope)).status_code not in (401, 403)
    others = api.token(*[other for other in ALL_SCOPES if other != scope])
    assert api(method, path, body, headers=others).status_code == 403
    entry = simulator.requests()[-1]
    assert entry["credential"] == "token"
    assert scope not in entry["scopes"]


def test_a_token_holds_its_scopes_and_lifetime(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(token_life=120)
    issued = api.ok("POST", "/v1/auth/token", {"scope": ["calls:read", "agents:read"]})
    assert (issued["expiresIn"], issued["tokenType"]) == (120, "Bearer")
    assert jwt.get_unverified_header(issued["token"])["alg"] == "HS256"
    claims = jwt.decode(issued["token"], options={"verify_signature": False})
    assert claims.keys() == {"iss", "sub", "scope", "iat", "exp", "jti"}
    assert claims["scope"] == "calls:read agents:read"
    assert claims["exp"] - claims["iat"] == 120
    assert abs(claims["iat"] - time.time()) < 60


def test_a_token_cannot_request_another_token(api: RawApi) -> None:
    headers = api.token(*ALL_SCOPES)
    assert api("POST", "/v1/auth/token", {"scope": ["calls:read"]}, headers=headers).status_code == 403


@pytest.mark.parametrize("body", [{"scope": ["calls:everything"]}, {"scope": []}, {"scope": "calls:read"}, {}, []])
def test_unsupported_scopes_are_refused(api: RawApi, body: object) -> None:
    assert api("POST", "/v1/auth/token", body).status_code == 400


def test_tokens_expire_and_can_be_revoked(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(token_life=0.2)
    short = api.token("agents:read")
    simulator.configure(token_life=900)
    long = api.token("agents:read")
    simulator.wait_until(lambda: api("GET", "/v1/agents", headers=short).status_code == 401)
    assert api("GET", "/v1/agents", headers=long).status_code == 200
    assert simulator.revoke_tokens() == 2
    assert api("GET", "/v1/agents", headers=long).status_code == 401


def test_a_token_expires_by_wall_time(simulator: Simulator, api: RawApi) -> None:
    headers = api.token("agents:read")
    simulator.advance(86400)
    assert api("GET", "/v1/agents", headers=headers).status_code == 200


def test_tokens_can_claim_anything(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(token_claims={"exp": 10**18, "iat": None, "sub": {"odd": []}}, token_expires_in=-5)
    issued = api.ok("POST", "/v1/auth/token", {"scope": ["agents:read"]})
    claims = jwt.api_jws.decode_complete(issued["token"], options={"verify_signature": False})["payload"]
    assert issued["expiresIn"] == -5
    shown = json.loads(claims)
    assert shown["exp"] == 10**18
    assert "iat" not in shown
    headers = {"Authorization": f"Bearer {issued['token']}"}
    assert api("GET", "/v1/agents", headers=headers).status_code == 200, "what counts is its true life"
    simulator.configure(token_format="opaque")
    opaque = api.ok("POST", "/v1/auth/token", {"scope": ["agents:read"]})["token"]
    with pytest.raises(jwt.DecodeError):
        jwt.decode(opaque, options={"verify_signature": False})
    assert api("GET", "/v1/agents", headers={"Authorization": f"Bearer {opaque}"}).status_code == 200
