"""The client under the two libraries that users mock ``requests`` with."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import requests_mock
import responses
from responses import matchers

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.exceptions import VolubileNotFound, VolubileUnavailable, VolubileUnknownOutcome

API = "https://api.eu.volubile.ai"
ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
RECIPIENT = {"phone": "+33639980142", "context": {"firstName": "Lucie"}}
SENT = {"agentId": ID, "recipient": RECIPIENT}
PAGE = {"content": [{"id": ID, "status": "COMPLETED"}], "page": 1, "size": 100, "totalElements": 1, "totalPages": 1}


def volubile(credentials: Any = None) -> VolubileClient:
    pair = ApiKeyPair("a-key-of-a-test")
    return VolubileClient(
        API, BearerTokens(pair) if credentials == "bearer" else pair, window=RateWindow(), sleep=lambda _: None
    )


# --- responses ---


@responses.activate
def test_responses_mocks_reads_and_headers() -> None:
    responses.get(
        f"{API}/v1/calls",
        json=PAGE,
        headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "99"},
        match=[matchers.header_matcher({"X-Api-Key": "a-key-of-a-test"})],
    )
    client = volubile()
    assert [call.id for call in client.iter_calls()] == [ID]
    assert client.rate_limit == (100, 99)


@responses.activate
def test_responses_matches_the_json_that_dials() -> None:
    responses.post(f"{API}/v1/calls", json={"id": ID}, status=201, match=[matchers.json_params_matcher(SENT)])
    assert volubile().create_call(ID, RECIPIENT).id == ID
    responses.assert_call_count(f"{API}/v1/calls", 1)


@responses.activate
def test_responses_mocks_the_token_and_the_audio() -> None:
    responses.post(f"{API}/v1/auth/token", json={"token": "a.b.c", "expiresIn": 900})
    responses.get(
        f"{API}/v1/calls/{ID}/recording",
        body=b"RIFF",
        content_type="audio/wav",
        match=[matchers.header_matcher({"Authorization": "Bearer a.b.c"})],
    )
    with volubile("bearer").open_recording(ID) as recording:
        assert b"".join(recording.iter_chunks()) == b"RIFF"


@responses.activate
def test_responses_mocks_faults_and_refusals() -> None:
    responses.get(f"{API}/v1/calls/{ID}", status=503)
    responses.get(f"{API}/v1/calls/{ID}", json={"id": ID})
    responses.get(f"{API}/v1/agents/{ID}", status=404, json={"message": "no such agent"})
    client = volubile()
    assert client.get_call(ID).id == ID
    with pytest.raises(VolubileNotFound, match="no such agent"):
        client.get_agent(ID)


# --- requests-mock ---


def test_requests_mock_mocks_reads_and_what_dials(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.get(f"{API}/v1/calls", json=PAGE)
    dialled = requests_mock.post(f"{API}/v1/calls", json={"id": ID}, status_code=201)
    client = volubile()
    assert [call.id for call in client.iter_calls()] == [ID]
    assert client.create_call(ID, RECIPIENT).id == ID
    assert dialled.call_count == 1
    assert dialled.last_request.json() == SENT
    assert dialled.last_request.headers["X-Api-Key"] == "a-key-of-a-test"


def test_requests_mock_mocks_the_token_and_the_audio(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.post(f"{API}/v1/auth/token", json={"token": "d.e.f", "expiresIn": 900})
    requests_mock.get(f"{API}/v1/calls/{ID}/recording", content=b"RIFF", headers={"Content-Type": "audio/wav"})
    with volubile("bearer").open_recording(ID) as recording:
        assert b"".join(recording.iter_chunks()) == b"RIFF"


# --- both: a mocked fault counts as a real one would ---


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (requests.ConnectTimeout(), VolubileUnavailable),
        (requests.ReadTimeout(), VolubileUnknownOutcome),
        (requests.ConnectionError(), VolubileUnknownOutcome),
    ],
)
def test_a_mocked_fault_of_what_dials_is_classified(fault: Exception, expected: type[Exception]) -> None:
    with responses.RequestsMock() as mocked:
        mocked.post(f"{API}/v1/calls", body=fault)
        with pytest.raises(expected):
            volubile().create_call(ID, RECIPIENT)
    with requests_mock.Mocker() as mocked:
        mocked.post(f"{API}/v1/calls", exc=fault)
        with pytest.raises(expected):
            volubile().create_call(ID, RECIPIENT)
