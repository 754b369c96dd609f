"""What is sent again and what never is: every route, every way to fail."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_volubile.api import routes
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)

ROUTES = tuple(value for value in vars(routes).values() if isinstance(value, Route))
ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
PHONE = "+33639980142"
RECIPIENT = {"phone": PHONE, "context": {"firstName": "Lucie"}}
CAMPAIGN = {"name": "Winter tyres", "agentId": ID, "recipients": [{"phone": PHONE}]}


def record(client: VolubileClient) -> bytes:
    with client.open_recording(ID) as recording:
        return b"".join(recording.iter_chunks())


CALLS: dict[str, Callable[[VolubileClient], Any]] = {
    "issueToken": lambda c: c.issue_token(["calls:read"]),
    "listAgents": lambda c: c.list_agents(),
    "getAgent": lambda c: c.get_agent(ID),
    "updateAgent": lambda c: c.update_agent(ID, {"active": False}),
    "listCalls": lambda c: c.list_calls(phone=PHONE),
    "getCall": lambda c: c.get_call(ID),
    "createCall": lambda c: c.create_call(ID, RECIPIENT),
    "getRecording": record,
    "getTranscript": lambda c: c.get_transcript(ID),
    "createBulkCalls": lambda c: c.create_bulk_calls(ID, [RECIPIENT]),
    "createCampaign": lambda c: c.create_campaign(CAMPAIGN),
    "getCampaign": lambda c: c.get_campaign(ID),
    "updateCampaignStatus": lambda c: c.update_campaign_status(ID, "PAUSED"),
}
OBJECT = {"id": ID, "name": "x", "status": "PAUSED"}
SUCCESS: dict[str, Any] = {
    "issueToken": {"token": "a.b.c", "expiresIn": 900},
    "listAgents": {"content": [], "page": 1, "size": 100, "totalElements": 0, "totalPages": 0},
    "listCalls": {"content": [], "page": 1, "size": 100, "totalElements": 0, "totalPages": 0},
    "getTranscript": [],
    "createBulkCalls": {"calls": [{"id": ID, "phone": PHONE}]},
}
DIALS = {"createCall", "createBulkCalls", "createCampaign"}


def pattern(route: Route) -> str:
    return f"{route.method} {route.path.replace('{id}', '[^/]+')}"


def good(tell: Any, route: Route) -> Any:
    if route.operation == "getRecording":
        return tell.answer(200, body=b"RIFF", headers={"Content-Type": "audio/wav"})
    return tell.answer(201 if route.operation in DIALS else 200, SUCCESS.get(route.operation, OBJECT))


def test_the_table_of_routes_is_the_documented_one() -> None:
    assert {route.operation for route in ROUTES} == CALLS.keys()
    assert {route.operation for route in ROUTES if not route.repeatable} == DIALS


# After a first fault, whatever follows would be a success. What does the client do?
AGAIN, UNKNOWN, REFUSED = "again", "unknown", "refused"
FAULTS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    # fault: (what the server does, a repeatable request, one that dials)
    "reset": (lambda t: t.reset, AGAIN, UNKNOWN),
    "closed": (lambda t: t.close, AGAIN, UNKNOWN),
    "no HTTP": (lambda t: t.garbage, AGAIN, UNKNOWN),
    "silence": (lambda t: t.silence(), AGAIN, UNKNOWN),
    "500": (lambda t: t.answer(500), AGAIN, UNKNOWN),
    "502": (lambda t: t.answer(502, body=b"<html>"), AGAIN, UNKNOWN),
    "503": (lambda t: t.answer(503, headers={"Retry-After": "2"}), AGAIN, UNKNOWN),
    "504": (lambda t: t.answer(504), AGAIN, UNKNOWN),
    "500, broken off": (lambda t: t.broken_body(500), AGAIN, UNKNOWN),
    "408": (lambda t: t.answer(408), AGAIN, UNKNOWN),
    "429": (lambda t: t.answer(429, headers={"Retry-After": "3"}), AGAIN, AGAIN),
    "429 without a word": (lambda t: t.answer(429), AGAIN, AGAIN),
    "401": (lambda t: t.answer(401), AGAIN, AGAIN),
    "400": (lambda t: t.answer(400, {"message": "no"}), REFUSED, REFUSED),
    "400, broken off": (lambda t: t.broken_body(400), REFUSED, REFUSED),
    "409": (lambda t: t.answer(409), REFUSED, REFUSED),
    "422": (lambda t: t.answer(422), REFUSED, REFUSED),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_what_is_sent_again(route: Route, fault: str, server: Any, tell: Any, make_client: Any, window: Any) -> None:
    action, repeatable, dials = FAULTS[fault]
    expected = dials if route.operation in DIALS else repeatable
    if route.operation == "listCalls" and fault.startswith("400"):
        expected = AGAIN  # without its order, which may have been the reason
    server.on(pattern(route), action(tell), good(tell, route))
    server.on("GET /v1/campaigns/[^/]+", tell.answer(200, {"id": ID, "status": "ACTIVE"})) if (
        route.operation == "updateCampaignStatus"
    ) else None
    client = make_client(timeout=0.5 if fault == "silence" else 5)

    if expected == AGAIN:
        CALLS[route.operation](client)
        assert len(server.asked(pattern(route))) == 2
    else:
        with pytest.raises(VolubileUnknownOutcome if expected == UNKNOWN else VolubileRequestRefused) as error:
            CALLS[route.operation](client)
        assert len(server.asked(pattern(route))) == 1, "sent again"
        assert error.value.operation == route.operation
        assert error.value.__cause__ is None
        assert error.value.__context__ is None
    assert window.in_flight == 0


@pytest.mark.parametrize("operation", sorted(DIALS))
@pytest.mark.parametrize("first", ["503", "reset"])
def test_a_certain_no_may_be_repeated_and_the_next_unclear_answer_ends_it(
    operation: str, first: str, server: Any, tell: Any, client: Any
) -> None:
    route = next(route for route in ROUTES if route.operation == operation)
    unclear = tell.answer(503) if first == "503" else tell.reset
    server.on(pattern(route), tell.answer(429), tell.answer(401), unclear, good(tell, route))
    with pytest.raises(VolubileUnknownOutcome):
        CALLS[operation](client)
    assert len(server.asked(pattern(route))) == 3


@pytest.mark.parametrize("operation", sorted(DIALS))
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_request_that_dials_is_never_followed(
    operation: str, status: int, server: Any, other_server: Any, tell: Any, client: Any
) -> None:
    route = next(route for route in ROUTES if route.operation == operation)
    server.on(pattern(route), tell.answer(status, headers={"Location": other_server.url + "/v1/calls"}))
    with pytest.raises(VolubileUnknownOutcome):
        CALLS[operation](client)
    assert len(server.requests) == 1
    assert other_server.requests == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_a_connection_that_was_never_made_is_tried_again_by_all(
    route: Route, make_client: Any, pauses: list[float], window: Any, deaf: socket.socket
) -> None:
    client = make_client(base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    with pytest.raises(VolubileUnavailable, match="refused") as error:
        CALLS[route.operation](client)
    assert len(pauses) == 2, "three attempts have two pauses"
    assert error.value.operation == route.operation
    assert window.abandoned == 3


@pytest.mark.parametrize("operation", sorted(DIALS))
def test_a_host_that_begins_to_answer_is_dialled_once(
    operation: str, tell: Any, make_client: Any, server: Any, deaf: socket.socket
) -> None:
    """Nobody listens at first; then the very same request goes through."""
    port = deaf.getsockname()[1]
    route = next(route for route in ROUTES if route.operation == operation)
    server.on(pattern(route), good(tell, route))

    def wake_up(_: float) -> None:
        from threading import Thread

        deaf.listen()

        def forward() -> None:
            conn, _ = deaf.accept()
            upstream = socket.create_connection(("127.0.0.1", server.port))
            with conn, upstream:
                upstream.sendall(conn.recv(2**16))
                while more := _more(conn):
                    upstream.sendall(more)
                conn.sendall(upstream.recv(2**16))

        def _more(conn: socket.socket) -> bytes:
            conn.settimeout(0.3)
            try:
                return conn.recv(2**16)
            except TimeoutError:
                return b""

        Thread(target=forward, daemon=True).start()

    CALLS[operation](make_client(base_url=f"http://127.0.0.1:{port}", sleep=wake_up))
    assert len(server.requests) == 1


@pytest.mark.parametrize("operation", sorted(DIALS))
def test_each_request_that_dials_has_a_connection_of_its_own(
    operation: str, server: Any, tell: Any, client: Any
) -> None:
    """On a kept-alive connection that the server is just closing, nobody could tell what it took."""
    server.on("GET /v1/calls/[^/]+", tell.answer(200, OBJECT))
    route = next(route for route in ROUTES if route.operation == operation)
    server.on(pattern(route), good(tell, route))
    client.get_call(ID)
    CALLS[operation](client)
    CALLS[operation](client)
    client.get_call(ID)
    first, second, third, fourth = (request.connection for request in server.requests)
    assert first == fourth, "reading keeps its connection"
    assert len({first, second, third}) == 3
    assert server.requests[1].headers["connection"] == "close"


def test_a_pooled_connection_that_went_stale_costs_a_reader_nothing(server: Any, tell: Any, client: Any) -> None:
    server.on("GET /v1/calls/[^/]+", tell.answer(200, OBJECT, keep=False), tell.answer(200, OBJECT))
    client.get_call(ID)
    assert client.get_call(ID).id == ID


# --- budgets ---


def test_a_repeatable_request_gives_up_after_its_attempts(
    server: Any, tell: Any, make_client: Any, pauses: list[float]
) -> None:
    server.on("GET .*", tell.answer(503, {"message": "maintenance"}))
    client = make_client(retry=RetryBudget(attempts=4))
    with pytest.raises(VolubileUnavailable, match="maintenance") as error:
        client.get_call(ID)
    assert (error.value.status, error.value.operation) == (503, "getCall")
    assert len(server.requests) == 4
    assert len(pauses) == 3
    assert pauses == sorted(pauses), "growing"


def test_a_server_that_asks_for_too_long_a_pause_is_not_waited_for(
    server: Any, tell: Any, client: Any, pauses: list[float]
) -> None:
    server.on("GET .*", tell.answer(503, headers={"Retry-After": "3600"}))
    with pytest.raises(VolubileUnavailable):
        client.get_call(ID)
    assert len(server.requests) == 1
    assert pauses == []


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "Wed, 12 Nov 2025 10:00:09 GMT", "Date": "Wed, 12 Nov 2025 10:00:00 GMT"}, 9, 9),
        ({"Retry-After": "Wed, 12 Nov 2025 09:00:00 GMT", "Date": "Wed, 12 Nov 2025 10:00:00 GMT"}, 0.1, 1),
        ({"Retry-After": "soon"}, 0.1, 1),
        ({"Retry-After": "nan"}, 0.1, 1),
        ({"Retry-After": "-5"}, 0.1, 1),
        ({}, 0.1, 1),
    ],
)
def test_retry_after_is_obeyed(
    headers: dict[str, str], least: float, most: float, server: Any, tell: Any, client: Any, pauses: list[float]
) -> None:
    server.on("GET .*", tell.answer(429, headers=headers), tell.answer(200, OBJECT))
    client.get_call(ID)
    (pause,) = pauses
    assert least <= pause <= most


def test_429_is_waited_for_longer_than_faults_and_then_ends(
    server: Any, tell: Any, client: Any, pauses: list[float], window: Any
) -> None:
    server.on("GET .*", tell.answer(429, headers={"Retry-After": "15"}))
    with pytest.raises(VolubileRateLimitError):
        client.get_call(ID)
    assert 250 < sum(pauses) <= 300
    assert window.observed == [429] * (len(pauses) + 1)


def test_429_that_never_names_a_pause_ends_too(server: Any, tell: Any, client: Any, pauses: list[float]) -> None:
    server.on("POST .*", tell.answer(429, headers={"Retry-After": "0"}))
    with pytest.raises(VolubileRateLimitError):
        client.create_call(ID, RECIPIENT)
    assert sum(pauses) <= 300
    assert len(server.requests) < 50, "no storm"


def test_what_stops_the_thread_gives_the_place_in_the_window_back(
    server: Any, tell: Any, client: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr("requests.Session.request", stop)
    with pytest.raises(Stopped):
        client.create_call(ID, RECIPIENT)
    assert window.in_flight == 0


# --- definite answers ---


def test_404(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(404, {"message": "No such call"}))
    with pytest.raises(VolubileNotFound, match=r"getCall.*No such call") as error:
        client.get_call(ID)
    assert error.value.status == 404


def test_403_with_a_key(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(403))
    with pytest.raises(VolubileAuthError, match="createCall is forbidden") as error:
        client.create_call(ID, RECIPIENT)
    assert error.value.status == 403


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"status": 400, "error": "Bad Request", "message": "batchSize must be at most 1000"}', "at most 1000"),
        (b'{"error": "Bad Request"}', "Bad Request"),
        (b'{"errors": [{"field": "days", "defaultMessage": "unknown day"}]}', "unknown day"),
        (b'"just a text"', "just a text"),
        (b"plain text", "plain text"),
        (b"<html>a page</html>", ""),
        (b"", ""),
        (b'{"message": "bad phone +33639980142"}', r"\+33 6 \*\* \*\* \*\* 42"),
        (b"[" * 100_000, ""),
        (b'{"message": "' + b"x" * 5000 + b'"}', "x…"),
    ],
)
def test_the_servers_reason_is_shown_bounded_and_masked(
    body: bytes, shown: str, server: Any, tell: Any, client: Any
) -> None:
    server.on("POST .*", tell.answer(400, body=body))
    with pytest.raises(VolubileRequestRefused) as error:
        client.create_call(ID, RECIPIENT)
    assert re.search(shown, error.value.reason)
    assert len(str(error.value)) < 600
    assert PHONE not in str(error.value)
    assert "html" not in str(error.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_a_read_is_an_error_that_names_the_host(
    status: int, server: Any, other_server: Any, tell: Any, client: Any
) -> None:
    server.on("GET .*", tell.answer(status, headers={"Location": "https://elsewhere.example/login?t=secret"}))
    with pytest.raises(VolubileProtocolError, match=r"redirect to elsewhere\.example") as error:
        client.get_call(ID)
    assert "secret" not in str(error.value)


def test_every_error_is_ours(client: VolubileClient, server: Any, tell: Any) -> None:
    server.on("(GET|POST|PATCH) .*", tell.answer(200, body=b"\xff\xfe{"))
    for operation, call in CALLS.items():
        if operation in {"createCall", "createBulkCalls"}:
            call(client)  # accepted, whatever the answer looks like
            continue
        with pytest.raises(VolubileError):
            call(client)


def test_a_background_client_says_so_to_the_window(server: Any, tell: Any, make_client: Any, window: Any) -> None:
    server.on("GET .*", tell.answer(200, OBJECT))
    make_client(background=True).get_call(ID)
    make_client().get_call(ID)
    assert window.background == [True, False]
