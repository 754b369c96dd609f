"""Faults happen on the real connection, and the ledger shows which requests took effect."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_volubile.simulator import Simulator, SimulatorError

from .raw_api import RawApi, bulk_body, call_body, campaign_body

DIALLING = [
    ("createCall", "/v1/calls", call_body()),
    ("createBulkCalls", "/v1/bulk/calls", bulk_body(1)),
    ("createCampaign", "/v1/campaigns", campaign_body(1)),
]


def raw_request(simulator: Simulator, path: str, body: object = None) -> socket.socket:
    """Send a request over a bare socket, and return the socket without waiting for an answer."""
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    address = urlsplit(simulator.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: simulator\r\nX-Api-Key: {simulator.primary_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def raw_exchange(simulator: Simulator, path: str) -> bytes | None:
    """Send a request over a bare socket; return the answer, or None if the connection is reset."""
    with raw_request(simulator, path) as connection:
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return None
        return received


@pytest.mark.parametrize(("operation", "path", "body"), DIALLING)
def test_a_dropped_request_takes_effect_without_an_answer(
    simulator: Simulator, api: RawApi, operation: str, path: str, body: object
) -> None:
    simulator.fault(operation, "drop")
    with pytest.raises(requests.ConnectionError, match="without response"):
        api("POST", path, body)
    [submission] = simulator.submissions()
    assert (submission["operation"], submission["answer"]) == (operation, "drop")
    simulator.wait_until(lambda: len(simulator.ledger()) == 1)
    [entry] = simulator.requests()
    assert (entry["status"], entry["fault"]) == (None, "drop")
    assert api("POST", path, body).status_code == 201, "one fault, once"


@pytest.mark.parametrize(("operation", "path", "body"), DIALLING)
def test_a_reset_request_takes_no_effect(
    simulator: Simulator, api: RawApi, operation: str, path: str, body: object
) -> None:
    simulator.fault(operation, "reset")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        api("POST", path, body)
    assert simulator.submissions() == []
    assert simulator.ledger() == []


def test_drop_sends_fin_and_reset_sends_rst(simulator: Simulator) -> None:
    simulator.fault("listAgents", "drop")
    assert raw_exchange(simulator, "/v1/agents") == b"", "an orderly close (FIN)"
    simulator.fault("listAgents", "reset")
    assert raw_exchange(simulator, "/v1/agents") is None, "a reset (RST)"


def test_drop_and_reset_can_be_ordered_with_or_without_effect(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("createCall", "reset", accept=True)
    simulator.fault("createCall", "drop", accept=False)
    for expected in (1, 1):
        with pytest.raises(requests.ConnectionError):
            api("POST", "/v1/calls", call_body())
        assert len(simulator.ledger()) == expected


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("accept", [False, True])
def test_a_status_fault_answers_its_status(simulator: Simulator, api: RawApi, status: int, accept: bool) -> None:
    simulator.fault("createCampaign", "status", status=status, accept=accept)
    assert api("POST", "/v1/campaigns", campaign_body(1)).status_code == status
    assert [one["answer"] for one in simulator.submissions()] == ([f"status {status}"] if accept else [])


def test_an_accepted_delay_takes_effect_before_the_wait(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("createCall", "delay", seconds=600, accept=True)
    with pytest.raises(requests.Timeout):
        api("POST", "/v1/calls", call_body(), timeout=0.5)
    simulator.wait_until(lambda: len(simulator.ledger()) == 1)


def test_a_delayed_request_takes_effect_after_the_client_has_gone(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("createCall", "delay", seconds=2)
    with pytest.raises(requests.Timeout):
        api("POST", "/v1/calls", call_body(), timeout=0.1)
    simulator.wait_until(lambda: len(simulator.ledger()) == 1)
    arrived, accepted = simulator.requests()[0]["wall"], simulator.submissions()[0]["wall"]
    assert datetime.fromisoformat(accepted).timestamp() - arrived >= 2


def test_a_request_that_waits_during_a_reset_never_dials(simulator: Simulator) -> None:
    simulator.fault("createCall", "delay", seconds=1)
    with raw_request(simulator, "/v1/calls", call_body()) as connection:
        simulator.wait_until(lambda: simulator.faults()[0]["applied"] == 1)
        simulator.reset()
        assert connection.recv(1) == b"", "closed without an answer"
    assert simulator.ledger() == []


@pytest.mark.parametrize("accept", [False, True])
def test_any_fault_can_be_delayed(simulator: Simulator, api: RawApi, accept: bool) -> None:
    simulator.fault("createCall", "status", status=504, seconds=0.3, accept=accept)
    before = time.monotonic()
    assert api("POST", "/v1/calls", call_body()).status_code == 504
    assert time.monotonic() - before >= 0.3
    simulator.fault("createCall", "reset", seconds=600, accept=accept)
    with pytest.raises(requests.Timeout):
        api("POST", "/v1/calls", call_body(), timeout=0.3)
    simulator.wait_until(lambda: simulator.faults()[1]["applied"] == 1)
    assert len(simulator.ledger()) == (2 if accept else 0)


def test_a_delay_does_not_hold_up_other_requests(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("listCalls", "delay", seconds=60)
    with raw_request(simulator, "/v1/calls"):
        simulator.wait_until(lambda: simulator.faults()[0]["applied"] == 1)
        assert api("GET", "/v1/agents", timeout=20).status_code == 200


def test_a_rate_limit_fault_can_be_repeated(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("*", "rate_limit", times=3, seconds=7)
    answers = [api("GET", "/v1/agents") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"


@pytest.mark.parametrize("kind", ["malformed", "empty", "html", "huge", "truncated"])
def test_requests_with_spoilt_answers_take_effect(simulator: Simulator, api: RawApi, kind: str) -> None:
    simulator.fault("createCall", kind, bytes=200_000)
    if kind == "truncated":
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            api("POST", "/v1/calls", call_body())
    else:
        answer = api("POST", "/v1/calls", call_body())
        assert answer.status_code == 201
        if kind == "huge":
            assert len(answer.content) > 200_000
        else:
            with pytest.raises(requests.exceptions.JSONDecodeError):
                answer.json()
    assert [one["answer"] for one in simulator.submissions()] == [kind]


def test_a_truncated_answer_announces_more_than_it_sends(simulator: Simulator) -> None:
    simulator.fault("listAgents", "truncated")
    head, _, body = (raw_exchange(simulator, "/v1/agents") or b"").partition(b"\r\n\r\n")
    announced = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    assert 0 < len(body) < int(announced.split(b":")[1])


def test_a_recording_can_be_truncated(simulator: Simulator, api: RawApi) -> None:
    [call_id] = simulator.load_calls(1)
    simulator.configure(recording_size=5_000_000)
    simulator.fault("getRecording", "truncated")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api("GET", f"/v1/calls/{call_id}/recording")
    simulator.configure(recording_answer="redirect")
    link = api("GET", f"/v1/calls/{call_id}/recording").headers["Location"]
    simulator.fault("getMedia", "truncated")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(link, timeout=30)
    assert len(requests.get(link, timeout=30).content) == 5_000_000


def test_a_redirect_fault_redirects(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("createCall", "redirect", location="http://198.51.100.7/elsewhere", status=307)
    answer = api("POST", "/v1/calls", call_body())
    assert (answer.status_code, answer.headers["Location"]) == (307, "http://198.51.100.7/elsewhere")
    assert simulator.ledger() == []
    with pytest.raises(SimulatorError, match="location"):
        simulator.fault("createCall", "redirect")


def test_a_fault_obeys_skip_times_and_operation(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("listAgents", "status", status=503, skip=2, times=2)
    assert [api("GET", "/v1/calls").status_code for _ in range(3)] == [200] * 3
    assert [api("GET", "/v1/agents").status_code for _ in range(6)] == [200, 200, 503, 503, 200, 200]
    [fault] = simulator.faults()
    assert (fault["seen"], fault["applied"]) == (4, 2)
    simulator.fault("*", "status", status=504, times=None)
    assert api("GET", "/v1/calls").status_code == 504
    simulator.clear_faults()
    assert api("GET", "/v1/calls").status_code == 200


def test_probability_is_drawn_from_the_seed(simulator: Simulator, api: RawApi) -> None:
    def hits() -> list[int]:
        simulator.reset()
        simulator.configure(limit=1000)
        simulator.fault("listAgents", "status", status=503, probability=0.4, times=None)
        return [api("GET", "/v1/agents").status_code for _ in range(60)]

    first = hits()
    assert 10 < first.count(503) < 40
    assert hits() == first


def test_refused_requests_meet_no_fault(simulator: Simulator, api: RawApi) -> None:
    simulator.fault("listAgents", "status", status=503)
    assert api("GET", "/v1/agents", headers={}).status_code == 401
    assert api("GET", "/v1/agents").status_code == 503


@pytest.mark.parametrize("form", ["json", "empty", "html"])
def test_errors_have_the_configured_body(simulator: Simulator, api: RawApi, form: str) -> None:
    simulator.configure(error_body=form)
    answer = api("GET", "/v1/calls/nonsense")
    assert answer.status_code == 400
    if form == "json":
        assert answer.json()["status"] == 400
    else:
        assert answer.text.startswith("<html>") == (form == "html")


def test_unknown_operations_and_kinds_are_refused(simulator: Simulator) -> None:
    with pytest.raises(SimulatorError, match="createCalls"):
        simulator.fault("createCalls", "drop")
    with pytest.raises(SimulatorError, match="explode"):
        simulator.fault("createCall", "explode")


def test_every_answer_can_be_given_a_latency(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(latency=0.3)
    before = time.monotonic()
    api("GET", "/v1/agents")
    assert time.monotonic() - before >= 0.3
