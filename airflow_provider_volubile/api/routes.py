"""Every route of the API, and the one place that says which requests may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

#: Where an account's API keys are made (https://docs.volubile.ai/api-reference/authentication).
DASHBOARD = "https://eu.volubile.ai/integrations/api"

#: All scopes a token can have (https://docs.volubile.ai/api-reference/auth/create-token).
SCOPES = frozenset(
    f"{kind}:{right}" for kind in ("calls", "campaigns", "agents", "integrations") for right in ("read", "write")
)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the `table of routes and scopes <https://docs.volubile.ai/api-reference/authentication>`__.

    :param operation: what errors and logs call it.
    :param scope: what a bearer token must hold; None where only an API key is accepted.
    :param repeatable: whether sending it twice does no more than sending it once. What dials is not.
    """

    operation: str
    method: str
    path: str
    scope: str | None
    repeatable: bool


ISSUE_TOKEN = Route("issueToken", "POST", "/v1/auth/token", None, repeatable=True)
LIST_AGENTS = Route("listAgents", "GET", "/v1/agents", "agents:read", repeatable=True)
GET_AGENT = Route("getAgent", "GET", "/v1/agents/{id}", "agents:read", repeatable=True)
UPDATE_AGENT = Route("updateAgent", "PATCH", "/v1/agents/{id}", "agents:write", repeatable=True)
LIST_CALLS = Route("listCalls", "GET", "/v1/calls", "calls:read", repeatable=True)
GET_CALL = Route("getCall", "GET", "/v1/calls/{id}", "calls:read", repeatable=True)
CREATE_CALL = Route("createCall", "POST", "/v1/calls", "calls:write", repeatable=False)
GET_RECORDING = Route("getRecording", "GET", "/v1/calls/{id}/recording", "calls:read", repeatable=True)
GET_TRANSCRIPT = Route("getTranscript", "GET", "/v1/calls/{id}/transcript", "calls:read", repeatable=True)
CREATE_BULK_CALLS = Route("createBulkCalls", "POST", "/v1/bulk/calls", "calls:write", repeatable=False)
CREATE_CAMPAIGN = Route("createCampaign", "POST", "/v1/campaigns", "campaigns:write", repeatable=False)
GET_CAMPAIGN = Route("getCampaign", "GET", "/v1/campaigns/{id}", "campaigns:read", repeatable=True)
UPDATE_CAMPAIGN_STATUS = Route(
    "updateCampaignStatus", "POST", "/v1/campaigns/{id}/status", "campaigns:write", repeatable=True
)
