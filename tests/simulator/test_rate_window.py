"""The rate window: the account has one budget, and every answer states the rest of it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest
from requests import Response

from airflow_provider_volubile.simulator import Simulator

from .raw_api import RawApi


def remaining(answer: Response) -> int:
    return int(answer.headers["X-RateLimit-Remaining"])


def test_keys_and_tokens_share_one_budget(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(limit=5, window=3600)
    token = api.token("agents:read")
    answers = [
        api("GET", "/v1/agents"),
        api("GET", "/v1/agents", headers={"X-Api-Key": simulator.secondary_key}),
        api("GET", "/v1/agents", headers=token),
        api("GET", "/v1/agents/nonsense"),
    ]
    assert [remaining(answer) for answer in answers] == [3, 2, 1, 0]
    refused = api("GET", "/v1/agents")
    assert refused.status_code == 429
    assert refused.headers["X-RateLimit-Limit"] == "5"
    assert remaining(refused) == 0
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
    assert simulator.request_summary()["listAgents"] == {"200": 3, "429": 1}


def test_unauthenticated_and_control_requests_do_not_count(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(limit=10, window=3600)
    simulator.revoke_key("secondary")
    for _ in range(5):
        stranger = api("GET", "/v1/agents", headers={"X-Api-Key": "nobody's"})
        assert (stranger.status_code, remaining(stranger)) == (401, 10)
        simulator.state()
    assert remaining(api("GET", "/v1/agents")) == 9
    revoked = api("GET", "/v1/agents", headers={"X-Api-Key": simulator.secondary_key})
    assert (revoked.status_code, remaining(revoked)) == (401, 8), "a revoked key is still one of the account's"


@pytest.mark.parametrize("kind", ["aligned", "first_request"])
def test_a_new_window_restores_the_whole_budget(simulator: Simulator, api: RawApi, kind: str) -> None:
    simulator.configure(limit=3, window=1, window_start=kind)
    answers: list[Response] = []

    def back() -> bool:
        answers.append(api("GET", "/v1/agents"))
        return answers[-1].ok and any(answer.status_code == 429 for answer in answers)

    simulator.wait_until(back)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1", "rounded up"
    assert remaining(answers[-1]) == 2


def test_rate_headers_can_be_odd_or_absent(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(limit=1, window=3600)
    api("GET", "/v1/agents")
    simulator.configure(retry_after="date")
    wait = parsedate_to_datetime(api("GET", "/v1/agents").headers["Retry-After"]).timestamp() - time.time()
    assert 3500 < wait < 3602
    simulator.configure(retry_after="wrong")
    assert api("GET", "/v1/agents").headers["Retry-After"] == "0"
    simulator.configure(retry_after="absent", rate_headers="absent")
    headers = api("GET", "/v1/agents").headers
    assert not {"Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining"} & set(headers)
    simulator.configure(rate_headers="odd")
    headers = api("GET", "/v1/agents").headers
    assert not headers["X-RateLimit-Limit"].isdigit()
    assert not headers["X-RateLimit-Remaining"].isdigit()


def test_the_window_counts_wall_time(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(limit=1, window=3600)
    api("GET", "/v1/agents")
    simulator.advance(86400)
    assert api("GET", "/v1/agents").status_code == 429
