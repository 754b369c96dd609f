"""Bare requests to Volubile's API, and bodies to send, without the provider's client, which has its own tests."""

from __future__ import annotations

from typing import Any

import requests

from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator

JSON = dict[str, Any]


class RawApi:
    """Send one request at a time, with the primary key by default. Follow no redirect."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def __call__(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> requests.Response:
        sent = {"X-Api-Key": self.simulator.primary_key} if headers is None else headers
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                self.simulator.url + path,
                json=json,
                params=params,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
            )

    def ok(self, method: str, path: str, json: Any = None, **details: Any) -> Any:
        """Send a request, assert that it succeeds, and return the decoded body."""
        answer = self(method, path, json, **details)
        assert answer.ok, answer.text
        return answer.json()

    def token(self, *scopes: str) -> dict[str, str]:
        """Return the headers of a request with a new token."""
        issued = self.ok("POST", "/v1/auth/token", {"scope": list(scopes)})
        return {"Authorization": f"Bearer {issued['token']}"}

    def listed(self, **filters: Any) -> list[JSON]:
        """Return the calls of the first page."""
        content: list[JSON] = self.ok("GET", "/v1/calls", params=filters)["content"]
        return content


def phones(count: int, start: int = 0) -> list[str]:
    return [f"+3363998{number:04}" for number in range(start, start + count)]


def call_body(phone: str = "+33639980142", **context: str) -> JSON:
    return {"agentId": REMINDER_AGENT_ID, "recipient": {"phone": phone, "context": context}}


def bulk_body(count: int, **changes: Any) -> JSON:
    recipients = [{"phone": phone} for phone in phones(count)]
    return {"agentId": REMINDER_AGENT_ID, "recipients": recipients} | changes


def campaign_body(count: int = 0, **changes: Any) -> JSON:
    """Return a campaign from 9:00 to 12:00 on weekdays, from the beginning of 2026."""
    body: JSON = {
        "name": "Winter tyres",
        "agentId": REMINDER_AGENT_ID,
        "startDate": "2026-01-01",
        "timeSlots": [{"startTime": "09:00", "endTime": "12:00"}],
        "batchSize": 1000,
        "days": ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"],
    }
    if count:
        body["recipients"] = [{"phone": phone, "context": {"firstName": "Lucie"}} for phone in phones(count)]
    return body | changes
