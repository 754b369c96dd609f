"""Every answer of the simulator matches the OpenAPI file, except where it departs on purpose."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from tests.contract.openapi_contract import assert_request_valid, assert_response_valid, operations
from tests.simulator.raw_api import RawApi, bulk_body, call_body, campaign_body

UNKNOWN_ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
KNOWN_STATUSES = {
    "IN_PROGRESS", "CANCELED", "COMPLETED", "NO_ANSWER", "VOICE_BOX", "UNREACHABLE", "FAILED", "TRANSFERRED",
    "REJECTED", "FAILOVER",
}  # fmt: skip

# A valid request for each operation: body and query.
GOOD: dict[str, tuple[Any, dict[str, str]]] = {
    "issueToken": ({"scope": ["calls:read", "integrations:write"]}, {}),
    "listAgents": (None, {"page": "1", "size": "2", "sort": "name,DESC"}),
    "getAgent": (None, {}),
    "updateAgent": ({"name": "Reminder", "active": True, "recordable": True, "archived": False}, {}),
    "listCalls": (
        None,
        {"agentId": REMINDER_AGENT_ID, "from": "2020-01-01", "to": "2099-12-31", "sort": "created,ASC", "size": "100"},
    ),
    "createCall": (call_body(firstName="Lucie"), {}),
    "getCall": (None, {}),
    "getRecording": (None, {}),
    "getTranscript": (None, {}),
    "createBulkCalls": (bulk_body(3), {}),
    "createCampaign": (
        campaign_body(3, retry={"max": 1, "delay": 5, "retryOn": ["NO_ANSWER"]}, timezone="Europe/Madrid"), {},
    ),
    "getCampaign": (None, {}),
    "updateCampaignStatus": ("PAUSED", {}),
}  # fmt: skip

# Requests that each operation refuses with 400: body, query, path id.
BAD: dict[str, list[tuple[Any, dict[str, str], str | None]]] = {
    "issueToken": [({"scope": ["everything"]}, {}, None), ({}, {}, None), ({"scope": [], "extra": 1}, {}, None)],
    "listAgents": [(None, query, None) for query in ({"page": "0"}, {"size": "101"}, {"sort": "shoe size,ASC"})],
    "getAgent": [(None, {}, "nonsense")],
    "updateAgent": [({"active": "yes"}, {}, None), ({"colour": 1}, {}, None), ({"name": None}, {}, None)],
    "listCalls": [
        (None, query, None)
        for query in (
            {"page": "0"}, {"page": "one"}, {"size": "0"}, {"size": "101"}, {"agentId": "nonsense"},
            {"phone": "0639980142"}, {"from": "2026-01-01"}, {"to": "2026-01-01"}, {"sort": "created"},
            {"sort": "created,UP"}, {"sort": "campaign,ASC"}, {"from": "2026-02-30", "to": "2026-03-01"},
            {"from": "01/02/2026", "to": "2026-03-01"}, {"from": "2026-03-02", "to": "2026-03-01"},
        )
    ],
    "createCall": [
        (call_body("0639980142"), {}, None),
        (call_body() | {"scheduledAt": "2026-01-01"}, {}, None),
        ({"agentId": REMINDER_AGENT_ID}, {}, None),
        ({"agentId": REMINDER_AGENT_ID, "recipient": {"phone": "+33639980142", "context": "Lucie"}}, {}, None),
        (call_body() | {"agentId": UNKNOWN_ID}, {}, None),
        ([], {}, None),
    ],
    "getCall": [(None, {}, "nonsense")],
    "getRecording": [(None, {}, "nonsense")],
    "getTranscript": [(None, {}, "nonsense")],
    "createBulkCalls": [
        (bulk_body(0), {}, None),
        (bulk_body(1001), {}, None),
        (bulk_body(1, agentId="nonsense"), {}, None),
        (bulk_body(1) | {"recipients": [{"number": "+33639980142"}]}, {}, None),
    ],
    "createCampaign": [
        (campaign_body(**changes), {}, None)
        for changes in (
            {"batchSize": 0}, {"batchSize": 1001}, {"batchSize": "10"}, {"batchSize": True}, {"days": []},
            {"days": ["FUNDAY"]}, {"timeSlots": []}, {"startDate": "2026-02-30"}, {"startDate": "2026-W01-1"},
            {"startDate": "9999-12-31"},
            {"timeSlots": [{"startTime": "09:00", "endTime": "10:00"}] * 3}, {"name": None},
            {"timeSlots": [{"startTime": "9:00", "endTime": "10:00"}]}, {"recipients": []},
            {"timeSlots": [{"startTime": "24:00", "endTime": "24:30"}]}, {"retry": {"max": -1}},
            {"timeSlots": [{"startTime": "10:00", "endTime": "10:00"}]}, {"timezone": "Mars/Olympus"},
            {"timeSlots": [{"startTime": "09:00", "endTime": "11:00"}, {"startTime": "10:30", "endTime": "12:00"}]},
            {"recipients": [{"phone": "+33639980142", "name": "Lucie"}]}, {"batch_size": 10},
        )
    ],
    "getCampaign": [(None, {}, "nonsense")],
    "updateCampaignStatus": [
        ({"status": "PAUSED"}, {}, None), ("CANCELED", {}, None), (None, {}, None), ("PAUSED", {}, "nonsense"),
    ],
}  # fmt: skip

# Answers that the file does not describe, but that clients should tolerate.
DEPARTURES = [
    ("createCall", {"call_answer": "empty"}),
    ("createCall", {"call_answer": "204"}),
    ("createBulkCalls", {"bulk_answer": "list"}),
    ("createBulkCalls", {"bulk_answer": "empty"}),
    ("getTranscript", {"transcript_shape": "single"}),
    ("getTranscript", {"transcript_shape": "ndjson"}),
    ("getRecording", {"recording_answer": "json"}),
    ("getRecording", {"recording_answer": "empty"}),
    ("updateAgent", {"patch_answer": "empty"}),
    ("updateAgent", {"patch_answer": "204"}),
    ("getAgent", {"rate_headers": "absent"}),
    ("getAgent", {"rate_headers": "odd"}),
]
CONFORMING = [
    ("createCall", {"call_answer": "no_id"}),
    ("createBulkCalls", {"bulk_answer": "partial"}),
    ("createBulkCalls", {"bulk_answer": "no_ids"}),
    ("getTranscript", {"transcript_size": 100_000}),
    ("getRecording", {"recording_answer": "redirect"}),
    ("getRecording", {"recording_size": 2_000_000}),
    ("listCalls", {"created": "missing"}),
    ("listCalls", {"created_lag": 3600}),
    ("createCampaign", {"campaign_timezone": "ignored"}),
]
ALL = {operation_id: (method, template) for operation_id, method, template, _ in operations()}


class Contract:
    """Send requests, and compare each answer with the file. Keep which answers were seen."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.api = RawApi(simulator)
        self.ids: dict[str, str] = {}

    def prepare(self) -> None:
        """Make one finished call and one campaign, for the routes that need an id."""
        self.simulator.configure(speed=0)
        self.simulator.outcomes({"*": ["COMPLETED"]})
        call_id = self.api.ok("POST", "/v1/calls", call_body(firstName="Lucie"))["id"]
        self.simulator.advance(600)
        campaign_id = self.api.ok("POST", "/v1/campaigns", campaign_body(2))["id"]
        self.ids = {"agents": REMINDER_AGENT_ID, "calls": call_id, "campaigns": campaign_id}

    def path(self, operation_id: str, given: str | None = None) -> str:
        template = ALL[operation_id][1]
        return template.replace("{id}", given or self.ids[template.split("/")[2]]) if "{id}" in template else template

    def send(
        self,
        operation_id: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        *,
        path_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        path = self.path(operation_id, path_id)
        return self.api(ALL[operation_id][0], path, body, params=query or {}, headers=headers)

    def check(self, operation_id: str, answer: requests.Response) -> None:
        path = urlsplit(answer.url).path
        assert_response_valid(ALL[operation_id][0], path, answer.status_code, answer.headers, answer.content)


@pytest.fixture
def contract(simulator: Simulator) -> Contract:
    one = Contract(simulator)
    one.prepare()
    return one


@pytest.mark.parametrize("operation_id", ALL)
def test_the_simulator_answers_good_requests_as_the_file_says(contract: Contract, operation_id: str) -> None:
    body, query = GOOD[operation_id]
    method = ALL[operation_id][0]
    kind = {} if body is None else {"Content-Type": "application/json"}
    assert_request_valid(method, contract.path(operation_id), query, {"X-Api-Key": "key"} | kind, body)
    answer = contract.send(operation_id, body, query)
    assert answer.ok, answer.text
    contract.check(operation_id, answer)


@pytest.mark.parametrize(
    ("operation_id", "body", "query", "path_id"),
    [(operation_id, *case) for operation_id, cases in BAD.items() for case in cases],
)
def test_the_simulator_answers_bad_requests_as_the_file_says(
    contract: Contract, operation_id: str, body: Any, query: dict[str, str], path_id: str | None
) -> None:
    before = len(contract.simulator.submissions())
    headers = {"X-Api-Key": contract.simulator.primary_key, "Content-Type": "application/json"}
    answer = contract.send(operation_id, body, query, path_id=path_id, headers=headers)
    assert answer.status_code == 400, answer.text
    contract.check(operation_id, answer)
    assert len(contract.simulator.submissions()) == before


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b'{"agentId": ', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"agentId":"%s","recipient":{"phone":"+33639980142","context":{"n":NaN}}}', "application/json", 400),
        (b'{"agentId":"%s","recipient":{"phone":"+33639980142"}}', "text/plain", 415),
        (b'{"agentId":"%s","recipient":{"phone":"+33639980142"}}', "application/json; charset=utf-8", 201),
    ],
)
def test_the_simulator_refuses_bodies_that_are_not_json(
    contract: Contract, body: bytes, kind: str, status: int
) -> None:
    headers = {"X-Api-Key": contract.simulator.primary_key, "Content-Type": kind}
    sent = body.replace(b"%s", REMINDER_AGENT_ID.encode())
    answer = requests.post(f"{contract.simulator.url}/v1/calls", data=sent, headers=headers, timeout=30)
    assert answer.status_code == status
    if status != 415:  # the file does not list 415, but allows other statuses
        contract.check("createCall", answer)


@pytest.mark.parametrize("operation_id", [name for name, (_, template) in ALL.items() if "{id}" in template])
def test_the_simulator_answers_404_as_the_file_says(contract: Contract, operation_id: str) -> None:
    body, query = GOOD[operation_id]
    answer = contract.send(operation_id, body, query, path_id=UNKNOWN_ID)
    assert answer.status_code == 404
    contract.check(operation_id, answer)


@pytest.mark.parametrize("operation_id", ALL)
def test_the_simulator_answers_401_403_and_429_as_the_file_says(contract: Contract, operation_id: str) -> None:
    body, query = GOOD[operation_id]
    token = contract.api.token("integrations:read")
    for headers, status in (({}, 401), (token, 403)):
        answer = contract.send(operation_id, body, query, headers=headers)
        assert answer.status_code == status
        contract.check(operation_id, answer)
    contract.simulator.configure(limit=1, window=3600)
    contract.send("listAgents")
    answer = contract.send(operation_id, body, query)
    assert answer.status_code == 429
    contract.check(operation_id, answer)


@pytest.mark.parametrize(("operation_id", "config"), CONFORMING)
def test_configured_answers_match_the_file(contract: Contract, operation_id: str, config: dict[str, Any]) -> None:
    contract.simulator.configure(**config)
    answer = contract.send(operation_id, *GOOD[operation_id])
    assert answer.status_code < 400, answer.text
    contract.check(operation_id, answer)


@pytest.mark.parametrize(("operation_id", "config"), DEPARTURES)
def test_answers_that_clients_should_tolerate_do_not_match_the_file(
    contract: Contract, operation_id: str, config: dict[str, Any]
) -> None:
    contract.simulator.configure(**config)
    answer = contract.send(operation_id, *GOOD[operation_id])
    assert answer.ok, answer.text
    with pytest.raises(AssertionError, match=re.escape(ALL[operation_id][1])):
        contract.check(operation_id, answer)


def test_calls_in_every_status_match_the_file(contract: Contract) -> None:
    contract.simulator.outcomes({})
    contract.simulator.load_calls(100, status="*")
    contract.api.ok("POST", "/v1/bulk/calls", bulk_body(400))
    contract.simulator.advance(20)
    seen = set()
    for page in range(1, 6):
        answer = contract.send("listCalls", None, {"page": str(page), "size": "100"})
        contract.check("listCalls", answer)
        for call in answer.json()["content"]:
            if call["status"] in seen:
                continue
            seen.add(call["status"])
            contract.check("getCall", contract.send("getCall", path_id=call["id"]))
            for operation_id in ("getTranscript", "getRecording"):  # 200 or 404
                contract.check(operation_id, contract.send(operation_id, path_id=call["id"]))
    assert seen == KNOWN_STATUSES


def test_an_illegal_transition_is_answered_as_the_file_says(contract: Contract) -> None:
    contract.check("updateCampaignStatus", contract.send("updateCampaignStatus", "CANCELLED"))
    answer = contract.send("updateCampaignStatus", "ACTIVE")
    assert answer.status_code == 400
    contract.check("updateCampaignStatus", answer)


@pytest.mark.parametrize(("operation_id", "template", "statuses"), [(one[0], *one[2:]) for one in operations()])
def test_the_tests_cover_every_declared_status(operation_id: str, template: str, statuses: set[int]) -> None:
    covered = {200, 201} & statuses | {400, 401, 403, 429}
    if "{id}" in template:
        covered.add(404)
    if operation_id == "getRecording":
        covered.add(302)
    assert statuses == covered
    assert operation_id in GOOD
    assert operation_id in BAD
