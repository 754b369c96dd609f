"""Two keys and short tokens: fallback, rotation, renewal, and no stampede."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
import requests

from airflow_provider_volubile.api import auth
from airflow_provider_volubile.api.auth import LONGEST_LIFE, ApiKeyPair, BearerTokens, token_lifetime
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.api.transport import Answer
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileInputError,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.masking import Secret

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
CALL = {"id": ID, "status": "COMPLETED"}
RECIPIENT = {"phone": "+33639980142", "context": {}}


# --- keys ---


def accept(server: Any, tell: Any, *keys: str, success: Any = CALL) -> None:
    """Answer 401 to every key but these, from now on."""

    def act(conn: Any, request: Any) -> bool:
        allowed = request.headers.get("x-api-key") in keys
        return bool(tell.answer(200 if allowed else 401, success if allowed else {"message": "key?"})(conn, request))

    server.on(".*", act)


def keys_used(server: Any) -> list[str]:
    return [request.headers["x-api-key"] for request in server.requests]


def test_the_primary_is_used_while_it_works(server: Any, tell: Any, client: Any, pair: ApiKeyPair) -> None:
    accept(server, tell, *pair.keys)
    client.get_call(ID)
    assert keys_used(server) == [pair.primary]


def test_the_secondary_takes_over_and_is_remembered_with_one_warning(
    server: Any, tell: Any, make_client: Any, pair: ApiKeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    assert pair.secondary is not None
    accept(server, tell, pair.secondary)
    client = make_client()
    client.get_call(ID)
    client.get_call(ID)
    make_client(ApiKeyPair(pair.primary, pair.secondary, name="made later")).get_call(ID)
    assert keys_used(server) == [pair.primary, pair.secondary, pair.secondary, pair.secondary]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'volubile_test'" in warning.getMessage()
    assert "new key" in warning.getMessage()


def test_rotation_goes_round(
    server: Any, tell: Any, client: Any, pair: ApiKeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    assert pair.secondary is not None
    for works in (pair.secondary, pair.primary, pair.secondary):
        accept(server, tell, works)
        client.get_call(ID)
        client.get_call(ID)
    first, second = pair.primary, pair.secondary
    assert keys_used(server) == [first, second, second, second, first, first, first, second, second]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 3


def test_both_refused_is_an_error_that_says_where_to_look(
    server: Any, tell: Any, client: Any, pair: ApiKeyPair, pauses: list[float]
) -> None:
    accept(server, tell)
    with pytest.raises(VolubileAuthError, match=r"'volubile_test': both API keys .*401.*eu\.volubile\.ai") as error:
        client.get_call(ID)
    assert error.value.status == 401
    assert keys_used(server) == list(pair.keys), "each once"
    assert pauses == []


def test_a_single_key_that_is_refused(server: Any, tell: Any, make_client: Any) -> None:
    accept(server, tell)
    with pytest.raises(VolubileAuthError, match="the API key was refused"):
        make_client(ApiKeyPair("only-one")).get_call(ID)
    assert len(server.requests) == 1


def test_an_overloaded_gateway_does_not_prove_a_key(server: Any, tell: Any, client: Any, pair: ApiKeyPair) -> None:
    server.on("GET .*", tell.answer(401), tell.answer(503), tell.answer(429), tell.answer(401))
    with pytest.raises(VolubileAuthError):
        client.get_call(ID)
    assert keys_used(server) == [pair.primary, pair.secondary, pair.secondary, pair.secondary]
    server.forget("GET .*")
    accept(server, tell, *pair.keys)
    client.get_call(ID)
    assert keys_used(server)[-1] == pair.primary


def test_a_request_that_dials_tries_both_keys_and_is_taken_once(
    server: Any, tell: Any, client: Any, pair: ApiKeyPair
) -> None:
    assert pair.secondary is not None
    accept(server, tell, pair.secondary, success={"id": ID})
    assert client.create_call(ID, RECIPIENT).id == ID
    assert keys_used(server) == list(pair.keys)


def test_many_threads_find_out_together_and_warn_once(
    server: Any, tell: Any, client: Any, pair: ApiKeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    assert pair.secondary is not None
    accept(server, tell, pair.secondary)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(client.get_call, [ID] * 40))
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_the_same_keys_elsewhere_are_another_story(
    server: Any, other_server: Any, tell: Any, make_client: Any, pair: ApiKeyPair
) -> None:
    assert pair.secondary is not None
    accept(server, tell, pair.secondary)
    accept(other_server, tell, pair.primary)
    make_client().get_call(ID)
    make_client(base_url=other_server.url).get_call(ID)
    assert keys_used(other_server) == [pair.primary]


@pytest.mark.parametrize("key", ["", "   ", None, "two words", "line\nbreak", "clé", "x" * 20_000])
def test_a_key_no_header_can_carry(key: Any) -> None:
    with pytest.raises(VolubileInputError, match="'conn': the primary API key") as error:
        ApiKeyPair(key, name="conn")
    if key and key.strip():
        assert key not in str(error.value)


def test_keys_are_stripped_and_a_secondary_that_is_none_is_left_out() -> None:
    assert ApiKeyPair(" a\n", " ").keys == ("a",)
    assert ApiKeyPair("a", "a ").keys == ("a",)
    with pytest.raises(VolubileInputError, match="secondary"):
        ApiKeyPair("a", "b c")


def test_nothing_shows_a_key_or_token() -> None:
    pair = ApiKeyPair("very-secret-1", "very-secret-2", name="conn")
    token = IssuedToken(Secret("very-secret-3"), frozenset({"calls:read"}), 900, None)  # type: ignore[arg-type]
    for thing in (pair, BearerTokens(pair), token, VolubileClient("https://x.example", pair, window=None)):  # type: ignore[arg-type]
        assert "very-secret" not in repr(thing) + str(thing) + f"{thing}"


# --- tokens ---


def token(life: float = 900, *, iat: float | None = 1_700_000_000, **claims: Any) -> str:
    if iat is not None:
        claims = {"iat": iat, "exp": iat + life, **claims}
    return jwt.encode(claims, "a secret of the server that is long enough", algorithm="HS256")


class Issuer:
    """Issues tokens as told and refuses those it does not know or that are over."""

    def __init__(self, server: Any, tell: Any, pair: ApiKeyPair, *, life: float = 900) -> None:
        self.server, self.tell, self.pair, self.life = server, tell, pair, life
        self.issued: list[tuple[str, tuple[str, ...], float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.answer: Any = None
        self.slow_scope: str | None = None
        server.on("POST /v1/auth/token", self.issue)
        server.on(".*", self.check)

    def issue(self, conn: Any, request: Any) -> bool:
        scopes = tuple(request.json["scope"])
        if self.slow_scope is None or self.slow_scope in scopes:
            self.gate.wait(120)
        if "authorization" in request.headers or request.headers.get("x-api-key") not in self.pair.keys:
            return bool(self.tell.answer(401)(conn, request))
        if self.answer is not None:
            return bool(self.answer(conn, request))
        value = token(self.life, number=len(self.issued))
        self.issued.append((value, scopes, time.monotonic() + self.life))
        return bool(self.tell.answer(200, {"token": value, "expiresIn": self.life})(conn, request))

    def check(self, conn: Any, request: Any) -> bool:
        if "x-api-key" in request.headers:
            return bool(self.tell.answer(403, {"message": "a key beside a token"})(conn, request))
        value = request.headers.get("authorization", "").removeprefix("Bearer ")
        good = any(value == issued and time.monotonic() < until for issued, _, until in self.issued)
        return bool(self.tell.answer(200 if good else 401, CALL if good else None)(conn, request))

    def revoke(self) -> None:
        self.issued = [(value, scopes, 0) for value, scopes, _ in self.issued]

    @property
    def mints(self) -> int:
        return len(self.server.asked("POST /v1/auth/token"))


@pytest.fixture
def issuer(server: Any, tell: Any, pair: ApiKeyPair) -> Issuer:
    return Issuer(server, tell, pair)


@pytest.fixture
def bearer(make_client: Any, pair: ApiKeyPair) -> Callable[..., VolubileClient]:
    return lambda **options: make_client(BearerTokens(pair), **options)


def test_each_operation_asks_for_its_own_scope_and_no_more(issuer: Issuer, bearer: Any, server: Any) -> None:
    client = bearer()
    client.get_call(ID)
    client.get_campaign(ID)
    client.create_call(ID, RECIPIENT)
    client.get_call(ID)
    assert [scopes for _, scopes, _ in issuer.issued] == [("calls:read",), ("campaigns:read",), ("calls:write",)]


def test_tokens_are_shared_by_the_clients_of_a_process(issuer: Issuer, bearer: Any) -> None:
    for _ in range(3):
        bearer().get_call(ID)
    assert issuer.mints == 1


def test_500_threads_at_once_ask_for_one_token(issuer: Issuer, bearer: Any, server: Any, window: Any) -> None:
    issuer.gate.clear()
    client = bearer(timeout=60)
    ready = threading.Barrier(501)
    found: list[str] = []

    def work() -> None:
        ready.wait()
        found.append(client.get_call(ID).id)

    threads = [threading.Thread(target=work) for _ in range(500)]
    for thread in threads:
        thread.start()
    ready.wait()
    while not issuer.mints:
        time.sleep(0.01)
    issuer.gate.set()
    for thread in threads:
        thread.join(120)
    assert len(found) == 500
    assert issuer.mints == 1
    assert window.in_flight == 0


def test_a_slow_mint_of_one_scope_does_not_hold_up_another(issuer: Issuer, bearer: Any) -> None:
    issuer.slow_scope = "calls:read"
    issuer.gate.clear()
    client = bearer(timeout=120)
    slow = threading.Thread(target=client.get_call, args=(ID,), daemon=True)
    slow.start()
    while not issuer.mints:
        time.sleep(0.01)
    other = threading.Thread(target=client.get_campaign, args=(ID,), daemon=True)
    other.start()
    other.join(20)
    went_through = not other.is_alive()
    issuer.gate.set()
    slow.join(30)
    other.join(30)
    assert went_through, "while the other scope was still being asked for"


def bearer_of(identity: Any, send: Any) -> Any:
    identity.prepare(send)
    return identity(requests.Request("GET", "https://x.example").prepare()).headers["Authorization"]


def test_a_late_refusal_of_an_old_token_leaves_the_new_one(pair: ApiKeyPair) -> None:
    """Two requests carry the old token; the second hears of its refusal when a new one is there."""
    names = iter(["old", "new", "newer"])

    def send(message: Any) -> Answer:
        body = json.dumps({"token": next(names), "expiresIn": 900}).encode()
        return Answer(200, {}, 0, 0, body=body)

    first, second = (auth.identify(BearerTokens(pair), "https://x.example", "calls:read") for _ in range(2))
    assert bearer_of(first, send) == bearer_of(second, send) == "Bearer old"
    assert first.has_another(401)
    assert bearer_of(first, send) == "Bearer new"
    assert second.has_another(401)
    assert bearer_of(second, send) == "Bearer new"


def test_a_failed_mint_is_one_failure_for_all_who_wait(issuer: Issuer, bearer: Any, tell: Any, server: Any) -> None:
    issuer.answer = tell.answer(400, {"message": "no such scope"})
    issuer.gate.clear()
    client = bearer(timeout=30)
    errors: list[Exception] = []

    def work() -> None:
        try:
            client.get_call(ID)
        except VolubileRequestRefused as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    while not issuer.mints:
        time.sleep(0.01)
    time.sleep(0.5)  # all the others wait by then
    issuer.gate.set()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 50
    assert len({id(error) for error in errors}) == 50, "an error of its own for each thread"
    assert issuer.mints == 1
    issuer.answer = None
    client.get_call(ID)  # the failure is not remembered


def test_a_thread_that_is_stopped_while_it_mints_leaves_the_rest_going(pair: ApiKeyPair) -> None:
    first, second = (auth.identify(BearerTokens(pair), "https://x.example", "calls:read") for _ in range(2))

    def stopped(message: Any) -> Answer:
        raise SystemExit

    with pytest.raises(SystemExit):
        first.prepare(stopped)
    answer = Answer(200, {}, 0, 0, body=b'{"token": "t", "expiresIn": 900}')
    assert bearer_of(second, lambda message: answer) == "Bearer t"


def test_a_token_that_is_revoked_is_renewed_once(issuer: Issuer, bearer: Any) -> None:
    client = bearer()
    client.get_call(ID)
    issuer.revoke()
    client.get_call(ID)
    assert issuer.mints == 2


def test_a_fresh_token_that_is_refused_too_is_an_error_not_a_loop(
    issuer: Issuer, bearer: Any, server: Any, pauses: list[float]
) -> None:
    server.forget(".*")
    server.on("GET .*", issuer.tell.answer(401))
    with pytest.raises(VolubileAuthError, match=r"getCall refused .*calls:read, and a fresh one too"):
        bearer().get_call(ID)
    assert issuer.mints == 2
    assert pauses == []


def test_a_crowd_with_a_revoked_token_asks_for_one_new_one(issuer: Issuer, bearer: Any) -> None:
    client = bearer(timeout=60)
    client.get_call(ID)
    issuer.revoke()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(client.get_call, [ID] * 200))
    assert issuer.mints == 2


def test_tokens_of_two_seconds_serve_a_long_wait(
    server: Any, tell: Any, pair: ApiKeyPair, bearer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty seconds pass, by a clock that is turned; the server's turns with it."""
    issuer = Issuer(server, tell, pair, life=2)
    client = bearer()
    real, turned = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + turned[0])
    for _ in range(120):
        client.get_call(ID)
        turned[0] += 0.5
    assert 30 <= issuer.mints <= 60
    assert {request.method for request in server.requests if request.path.endswith(ID)} == {"GET"}
    assert len(server.asked("GET .*")) == 120, "none was refused"


def test_a_token_that_runs_out_while_waiting_for_the_window_is_no_refusal(
    server: Any, tell: Any, pair: ApiKeyPair, make_client: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(server, tell, pair, life=2)
    real, turned = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + turned[0])
    acquire = window.acquire
    waits = iter([0, 15, 0, 15, 0, 0])  # mint, read, mint, read, mint, read

    def slow_acquire(**options: Any) -> None:
        acquire(**options)
        turned[0] += next(waits, 0)

    window.acquire = slow_acquire
    assert make_client(BearerTokens(pair)).get_call(ID).id == ID
    assert issuer.mints == 3


def test_a_window_that_always_outlasts_the_tokens_ends_in_an_error(
    server: Any, tell: Any, pair: ApiKeyPair, make_client: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(server, tell, pair, life=2)
    real, turned = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + turned[0])
    acquire = window.acquire

    def slow_acquire(**options: Any) -> None:
        acquire(**options)
        turned[0] += 15

    window.acquire = slow_acquire
    with pytest.raises(VolubileAuthError):
        make_client(BearerTokens(pair)).get_call(ID)
    assert issuer.mints < 10


def test_403_names_operation_and_scope(server: Any, issuer: Issuer, bearer: Any, tell: Any) -> None:
    server.forget(".*")
    server.on("GET .*", tell.answer(403))
    with pytest.raises(VolubileAuthError, match=r"getCall is forbidden .*calls:read"):
        bearer().get_call(ID)
    assert issuer.mints == 1


def test_minting_falls_back_to_the_secondary_key(
    server: Any, tell: Any, pair: ApiKeyPair, bearer: Any, issuer: Issuer
) -> None:
    issuer.pair = ApiKeyPair(pair.secondary or "")
    bearer().get_call(ID)
    keys = [request.headers["x-api-key"] for request in server.asked("POST /v1/auth/token")]
    assert keys == list(pair.keys)


def test_an_account_without_working_keys(server: Any, issuer: Issuer, bearer: Any) -> None:
    issuer.pair = ApiKeyPair("another")
    with pytest.raises(VolubileAuthError, match="issueToken"):
        bearer().create_call(ID, RECIPIENT)
    assert server.asked("POST /v1/calls") == []


def test_a_mint_that_fails_before_dialling_is_no_unknown_outcome(
    server: Any, issuer: Issuer, bearer: Any, tell: Any
) -> None:
    issuer.answer = tell.reset
    with pytest.raises(VolubileUnavailable, match="issueToken"):
        bearer().create_call(ID, RECIPIENT)
    assert server.asked("POST /v1/calls") == []


def test_a_token_that_is_handed_out_is_announced_for_masking_and_no_other(issuer: Issuer, bearer: Any) -> None:
    announced: list[str] = []
    client = bearer(on_secret=announced.append)
    client.get_call(ID)
    handed_out = client.issue_token({"agents:read", "calls:read"})
    assert announced == [handed_out.token]
    assert issuer.issued[-1][:2] == (handed_out.token, ("agents:read", "calls:read"))
    assert handed_out.scopes == {"agents:read", "calls:read"}
    assert handed_out.lifetime == 900
    assert handed_out.expires_at.utcoffset() is not None


def test_an_absurd_token_is_in_no_error(server: Any, tell: Any, make_client: Any) -> None:
    server.on("POST .*", tell.answer(200, {"token": "secret.but.odd", "expiresIn": -1}))
    with pytest.raises(VolubileProtocolError) as error:
        make_client().issue_token("calls:read")
    assert "secret.but.odd" not in str(error.value)


@pytest.mark.parametrize("scopes", [[], ["calls:everything"], "calls", ["calls:read", ""], None, 5, [["a"]]])
def test_unknown_scopes_are_refused_here(scopes: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match="calls:read"):
        client.issue_token(scopes)
    assert server.requests == []


@pytest.mark.parametrize(
    "data",
    [
        [],
        "token",
        {},
        {"token": None, "expiresIn": 900},
        {"token": 5, "expiresIn": 900},
        {"token": "", "expiresIn": 900},
        {"token": "two words", "expiresIn": 900},
        {"token": "line\r\nX-Evil: 1", "expiresIn": 900},
        {"token": "x" * 20_000, "expiresIn": 900},
        {"token": "opaque"},
        {"token": "opaque", "expiresIn": 0},
        {"token": "opaque", "expiresIn": "soon"},
        {"token": "opaque", "expiresIn": True},
        {"token": "opaque", "expiresIn": float("inf")},
        {"token": token(0)},
        {"token": token(-5), "expiresIn": 900},
        {"token": token(iat=None, exp=1_000_000_000)},
        {"token": token(iat=None)},
    ],
)
def test_an_absurd_token_is_an_error_without_a_loop(
    data: Any, server: Any, tell: Any, bearer: Any, issuer: Issuer
) -> None:
    issuer.answer = tell.answer(200, data)
    with pytest.raises(VolubileProtocolError, match="issueToken") as error:
        bearer().get_call(ID)
    assert issuer.mints == 1
    assert error.value.status == 200


@pytest.mark.parametrize(
    ("value", "expires_in", "life"),
    [
        (token(900), 900, 900),
        (token(900), 600, 900),  # what the token says itself counts
        (token(600), 900, 600),
        (token(900), None, 900),
        (token(900, iat=1e12), None, 900),  # a server whose clock goes wrong
        (token(iat=None), 120, 120),
        (token(iat=None, exp=1_700_000_000), 120, 120),
        ("opaque", 120, 120),
        ("a.b.c", 2.5, 2.5),
        (token(10**9), None, LONGEST_LIFE),
        ("opaque", 10**30, LONGEST_LIFE),
        ("opaque", None, None),
    ],
)
def test_how_long_a_token_lives(value: str, expires_in: Any, life: float | None) -> None:
    assert token_lifetime(Secret(value), expires_in) == life


def test_errors_survive_pickling() -> None:
    error = VolubileUnknownOutcome("what", operation="createCall", status=500, accepted=True)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.operation, again.status, again.accepted) == ("what", "createCall", 500, True)
