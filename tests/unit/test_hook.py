"""A connection, in each form Airflow takes, becomes settings; what cannot be right is refused with its reason."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from airflow.models.connection import Connection as MetadataConnection
from airflow.sdk import Connection
from airflow.sdk.log import redact
from airflow.sdk.serde import serialize

from airflow_provider_volubile.api import auth
from airflow_provider_volubile.api import rate_window as pacing
from airflow_provider_volubile.api.auth import BearerTokens
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileUnavailable,
)
from airflow_provider_volubile.hooks import checking
from airflow_provider_volubile.hooks.settings import DEFAULT_HOST, Settings, read_settings
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.masking import Secret
from airflow_provider_volubile.simulator import Simulator

PRIMARY, SECONDARY = "primary/+=&%:@key", "secondary/+=&%:@key"

Define = Callable[..., VolubileHook]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Define the connection ``tested`` as people do, in the environment; return its hook."""

    def define(value: str | None = None, **fields: Any) -> VolubileHook:
        text = value if value is not None else json.dumps({"conn_type": "volubile"} | fields)
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", text)
        return VolubileHook("tested")

    return define


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    """Which key works, tokens and windows are remembered by a process; each test begins as one."""
    yield
    for thread in threading.enumerate():
        if thread.name == "volubile-connection-test":  # given up by a test, and still at it
            thread.join()
    for memory in (auth._working, auth._slots, pacing._windows):
        memory.clear()


# --- forms ---

FORMS = {
    "json": json.dumps(
        {
            "conn_type": "volubile",
            "host": "https://api.eu.volubile.ai",
            "password": PRIMARY,
            "extra": {"secondary_api_key": SECONDARY, "auth": "bearer", "timeout": 10},
        }
    ),
    "uri": (
        "volubile://:primary%2F%2B%3D%26%25%3A%40key@api.eu.volubile.ai/"
        "?secondary_api_key=secondary%2F%2B%3D%26%25%3A%40key&auth=bearer&timeout=10"
    ),
    "uri with a scheme": (
        "volubile://https://:primary%2F%2B%3D%26%25%3A%40key@api.eu.volubile.ai/"
        "?secondary_api_key=secondary%2F%2B%3D%26%25%3A%40key&auth=bearer&timeout=10"
    ),
    "uri without a host": (
        "volubile://:primary%2F%2B%3D%26%25%3A%40key@/"
        "?secondary_api_key=secondary%2F%2B%3D%26%25%3A%40key&auth=bearer&timeout=10"
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_settings(form: str, define: Define) -> None:
    assert define(form).settings == Settings(DEFAULT_HOST, Secret(PRIMARY), Secret(SECONDARY), "bearer", 10.0)


def sdk_connection(uri: str) -> Connection:
    return Connection.from_uri(uri, conn_id="tested")


def metadata_connection(uri: str) -> MetadataConnection:
    return MetadataConnection(conn_id="tested", uri=uri)


@pytest.mark.parametrize("parse", [sdk_connection, metadata_connection])
@pytest.mark.parametrize(
    ("host", "port", "schema", "base_url"),
    [
        (None, None, None, "https://api.eu.volubile.ai"),
        ("", None, "", "https://api.eu.volubile.ai"),
        ("api.eu.volubile.ai", None, None, "https://api.eu.volubile.ai"),
        (" https://api.eu.volubile.ai/ ", None, None, "https://api.eu.volubile.ai"),
        ("https://gateway.example/volubile", None, None, "https://gateway.example/volubile"),
        ("https://gateway.example/volubile", 8443, None, "https://gateway.example:8443/volubile"),
        ("https://API.EU.volubile.ai:443", 443, None, "https://api.eu.volubile.ai"),
        ("api.eu.volubile.ai", 443, None, "https://api.eu.volubile.ai"),
        (None, 443, None, "https://api.eu.volubile.ai"),
        ("http://127.0.0.1:8765", None, None, "http://127.0.0.1:8765"),
        ("http://127.0.0.1:8765", 8765, None, "http://127.0.0.1:8765"),
        ("127.0.0.1", 8765, "http", "http://127.0.0.1:8765"),
        ("localhost:8765", None, "http", "http://localhost:8765"),
        ("http://[::1]:8765", None, None, "http://[::1]:8765"),
        ("::1", 8765, "http", "http://[::1]:8765"),
    ],
)
def test_the_address_survives_the_uri_that_the_form_s_test_button_makes(
    host: str | None, port: int | None, schema: str | None, base_url: str, parse: Callable[[str], Connection]
) -> None:
    fields = MetadataConnection(
        conn_id="tested", conn_type="volubile", host=host, port=port, schema=schema, password=PRIMARY
    )
    for connection in (fields, parse(fields.get_uri())):
        assert read_settings(connection) == Settings(base_url, Secret(PRIMARY))  # type: ignore[arg-type]


def test_what_the_form_leaves_empty_is_null_and_means_the_default(define: Define) -> None:
    extra = {"secondary_api_key": None, "auth": None, "timeout": None}
    assert define(password=PRIMARY, host="", login="", schema="", extra=extra).settings == Settings(
        DEFAULT_HOST, Secret(PRIMARY)
    )


@pytest.mark.parametrize("parse", [sdk_connection, metadata_connection])
def test_a_key_of_digits_in_a_uri_stays_as_it_is(parse: Callable[[str], Connection]) -> None:
    """Airflow reads a query's values as JSON."""
    settings = read_settings(parse("volubile://:123456789@/?secondary_api_key=9876543210987654321"))
    assert (settings.primary, settings.secondary) == (Secret("123456789"), Secret("9876543210987654321"))


@pytest.mark.parametrize("value", ["1e10", "1.50", "true", "[1]", '{"a": 1}'])
def test_a_key_that_a_uri_would_change_is_refused(value: str) -> None:
    uri = MetadataConnection(conn_id="tested", conn_type="volubile", password=PRIMARY).get_uri()
    with pytest.raises(VolubileInputError, match=r"secondary_api_key arrived as .*JSON") as error:
        read_settings(metadata_connection(f"{uri}?secondary_api_key={quote(value)}"))  # type: ignore[arg-type]
    assert value not in str(error.value)


# --- what cannot be right ---


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "no API key"),
        ({"password": "  "}, "no API key"),
        ({"password": "", "extra": {"secondary_api_key": SECONDARY}}, "no API key"),
        ({"password": PRIMARY, "login": "me"}, "login"),
        ({"login": PRIMARY}, "login"),
        ({"password": PRIMARY, "extra": {"auth": "basic"}}, "auth is neither 'api_key' nor 'bearer'"),
        ({"password": PRIMARY, "extra": {"auth": SECONDARY}}, "auth is neither 'api_key' nor 'bearer'"),
        ({"password": PRIMARY, "extra": {"auth": [SECONDARY]}}, "auth is neither 'api_key' nor 'bearer'"),
        ({"password": PRIMARY, "extra": {"timeout": 0}}, "timeout is no number"),
        ({"password": PRIMARY, "extra": {"timeout": "soon"}}, "timeout is no number"),
        ({"password": PRIMARY, "extra": {"timeout": SECONDARY}}, "timeout is no number"),
        ({"password": PRIMARY, "extra": {"timeout": 601}}, "timeout is no number of seconds .* up to 600"),
        ({"password": PRIMARY, "extra": {"timeout": "nan"}}, "timeout is no number"),
        ({"password": PRIMARY, "extra": {"private_storage": SECONDARY}}, "private_storage is neither true nor false"),
        ({"password": PRIMARY, "extra": "not json"}, "its extra is no JSON object"),
        ({"password": PRIMARY, "extra": SECONDARY}, "its extra is no JSON object"),
        ({"password": PRIMARY, "extra": f'["{SECONDARY}"]'}, "its extra is no JSON object"),
        ({"password": PRIMARY, "extra": json.dumps(json.dumps({"auth": "bearer"}))}, "its extra is no JSON object"),
        ({"password": f"{PRIMARY} {SECONDARY}"}, "the API key in password holds a space"),
        ({"password": f"{PRIMARY}\nX-Evil: 1"}, "the API key in password holds a space"),
        (
            {"password": PRIMARY, "extra": {"secondary_api_key": f"{SECONDARY}é"}},
            "the API key in secondary_api_key holds",
        ),
        ({"password": PRIMARY, "host": "http://api.eu.volubile.ai"}, "unprotected"),
        ({"password": PRIMARY, "host": "api.eu.volubile.ai", "schema": "http"}, "unprotected"),
        ({"password": PRIMARY, "host": "ftp://api.eu.volubile.ai"}, "https"),
        ({"password": PRIMARY, "schema": "v1"}, "schema is neither empty nor 'https'"),
        ({"password": PRIMARY, "schema": SECONDARY}, "schema is neither empty nor 'https'"),
        ({"password": PRIMARY, "host": "127.0.0.1", "schema": "http", "port": 70000}, "the port is 70000"),
        ({"password": PRIMARY, "host": "https://api.eu.volubile.ai/v1"}, "before '/v1'"),
        ({"password": PRIMARY, "host": f"https://:{SECONDARY}@api.eu.volubile.ai"}, "URL"),
        ({"password": PRIMARY, "host": "https://api.eu.volubile.ai:lots"}, "not a URL"),
        ({"password": PRIMARY, "host": "http://127.0.0.1:1", "port": 2}, "port 1 and the port field 2"),
    ],
)
def test_a_connection_that_cannot_be_right(fields: dict[str, Any], why: str, define: Define) -> None:
    hook = define(**fields)
    with pytest.raises(VolubileInputError, match=why) as error:
        hook.client()
    assert str(error.value).startswith("Connection 'tested': ")
    good, text = hook.test_connection()
    assert not good
    assert re.search(why, text)
    assert "tested" not in text
    with pytest.raises(VolubileAuthError, match="Connection 'tested': The connection is not usable"):
        hook.check_connection()
    for secret in (PRIMARY, SECONDARY):
        assert secret not in f"{error.value} {text}"


def test_settings_show_no_key() -> None:
    shown = repr(Settings(DEFAULT_HOST, Secret(PRIMARY), Secret(SECONDARY)))
    assert PRIMARY not in shown
    assert SECONDARY not in shown


def test_the_mode_decides_who_requests_go_out_as(define: Define, simulator: Simulator) -> None:
    keys = {"host": simulator.url, "password": simulator.primary_key}
    define(**keys).client().list_agents()
    define(**keys, extra={"auth": "bearer"}).client().list_agents()
    used = [(request["operation"], request["credential"]) for request in simulator.requests()]
    assert used == [("listAgents", "primary"), ("issueToken", "primary"), ("listAgents", "token")]
    assert isinstance(define(**keys, extra={"auth": "bearer"}).settings.credentials("tested"), BearerTokens)


def test_all_hooks_of_an_account_share_one_rate_window(define: Define) -> None:
    one, other = define(password=PRIMARY).client(), define(password=PRIMARY).get_conn()
    third = define(password=SECONDARY).client(background=True)
    assert one._sender._window is other._sender._window
    assert one._sender._window is not third._sender._window


# --- the test of a connection ---


@pytest.fixture
def keys(simulator: Simulator) -> dict[str, Any]:
    return {
        "host": simulator.url,
        "password": simulator.primary_key,
        "extra": {"secondary_api_key": simulator.secondary_key},
    }


def with_extra(fields: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return fields | {"extra": fields.get("extra", {}) | extra}


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), (False, False), (True, True), ("true", True), ("False", False), ("", False)]
)
def test_private_storage_is_a_switch(value: Any, expected: bool, define: Define) -> None:
    assert define(password=PRIMARY, extra={"private_storage": value}).settings.private_storage is expected


def test_each_key_is_tried_by_itself(define: Define, simulator: Simulator, keys: dict[str, Any]) -> None:
    simulator.configure(limit=100)
    good, text = define(**keys).test_connection()
    assert good, text
    assert "accepts both API keys (auth = api_key)" in text
    assert "Account limit: 100 requests per 15 s, 98 left in this window. The account has 5 agents." in text
    used = [(request["operation"], request["credential"]) for request in simulator.requests()]
    assert used == [("listAgents", "primary"), ("listAgents", "secondary")]


def test_in_bearer_mode_each_key_must_get_a_token_of_its_own(
    define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    hook = define(**with_extra(keys, auth="bearer"))
    hook.client().list_agents()  # leaves a token behind, which proves nothing about the keys
    simulator.revoke_key("secondary")
    good, text = hook.test_connection()
    assert not good
    assert "secondary API key is refused (401)" in text
    simulator.restore_key("secondary")
    good, text = hook.test_connection()
    assert good, text
    assert "both API keys (auth = bearer, tokens of 900 s)" in text


@pytest.mark.parametrize("auth", ["api_key", "bearer"])
@pytest.mark.parametrize(("refused", "works"), [("primary", "secondary"), ("secondary", "primary")])
def test_one_key_refused_is_a_failure_that_names_it_and_the_one_that_works(
    refused: Any, works: str, auth: str, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.revoke_key(refused)
    good, text = define(**with_extra(keys, auth=auth)).test_connection()
    assert not good
    assert f"The {refused} API key is refused (401)" in text
    assert f"The {works} API key works" in text
    assert "https://eu.volubile.ai/integrations/api" in text


def test_both_keys_refused(define: Define, simulator: Simulator, keys: dict[str, Any]) -> None:
    simulator.revoke_key("primary")
    simulator.revoke_key("secondary")
    good, text = define(**keys).test_connection()
    assert not good
    assert "The primary API key is refused (401)" in text
    assert "The secondary API key is refused (401)" in text
    assert "works" not in text


def test_a_single_key_is_enough_and_its_risk_is_named(define: Define, simulator: Simulator) -> None:
    good, text = define(host=simulator.url, password=simulator.primary_key).test_connection()
    assert good
    assert "accepts the primary API key" in text
    assert "No secondary key" in text


@pytest.mark.parametrize("auth", ["api_key", "bearer"])
def test_the_same_key_twice_is_no_spare(auth: str, define: Define, simulator: Simulator, keys: dict[str, Any]) -> None:
    hook = define(**with_extra(keys, secondary_api_key=f" {simulator.primary_key}\n", auth=auth))
    good, text = hook.test_connection()
    assert not good
    assert "Both fields hold the same key: it is no spare." in text
    assert "both API keys" not in text
    assert Counter(request["operation"] for request in simulator.requests())["listAgents"] == 1
    hook.client().list_agents()  # it works all the same
    simulator.revoke_key("primary")
    assert "The primary API key is refused (401)" in hook.test_connection()[1]


def test_a_task_is_told_whether_to_try_again(define: Define, simulator: Simulator, keys: dict[str, Any]) -> None:
    hook = define(**keys)
    assert "accepts both API keys" in hook.check_connection()
    for fault in ({"kind": "status", "status": 503}, {"kind": "rate_limit", "seconds": 14}, {"kind": "reset"}):
        simulator.fault("listAgents", **fault)
        with pytest.raises(VolubileUnavailable, match="Connection 'tested': "):
            hook.check_connection()
    simulator.revoke_key("secondary")
    with pytest.raises(VolubileAuthError, match="Connection 'tested': The secondary API key is refused"):
        hook.check_connection()


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "rate_limit"}, {"kind": "html"}])
def test_a_refused_key_is_told_though_the_other_cannot_be_tried(
    fault: dict[str, Any], define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.revoke_key("primary")
    simulator.fault("listAgents", **fault, skip=1)
    with pytest.raises(VolubileAuthError, match="Connection 'tested': The primary API key is refused"):
        define(**keys).check_connection()


def test_a_mistyped_extra_is_found_before_it_is_missed(define: Define, simulator: Simulator) -> None:
    """With ``secondary_key`` instead of ``secondary_api_key`` there would be no spare, and nobody would know."""
    fields = {"host": simulator.url, "password": simulator.primary_key, "extra": {"secondary_key": "not-a-spare"}}
    good, text = define(**fields).test_connection()
    assert not good
    assert "'secondary_key', which means nothing here" in text
    assert "not-a-spare" not in text


FAULTS = [
    ({"kind": "html"}, "does not answer as Volubile's API does"),
    ({"kind": "empty"}, "does not answer as Volubile's API does"),
    ({"kind": "huge", "bytes": 50_000_000}, "larger than 32 MiB"),
    ({"kind": "status", "status": 404}, r"does not know GET /v1/agents \(404\)"),
    ({"kind": "status", "status": 400}, "does not answer as Volubile's API does"),
    ({"kind": "redirect", "location": "https://elsewhere.example/?k=v"}, "a redirect to elsewhere.example"),
    ({"kind": "status", "status": 503}, "it answered 503"),
    ({"kind": "status", "status": 403}, r"primary API key is known, but listAgents is forbidden to it \(403\)"),
    ({"kind": "rate_limit", "seconds": 14}, r"request window is full \(429\)"),
    ({"kind": "reset"}, "the connection was reset"),
]


@pytest.mark.parametrize(("fault", "text"), FAULTS, ids=[text for _, text in FAULTS])
def test_what_is_wrong_is_said_at_once(
    fault: dict[str, Any], text: str, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.fault("listAgents", **fault, times=None)
    good, told = define(**keys).test_connection()
    assert not good
    assert re.search(text, told)
    asked = [request["credential"] for request in simulator.requests()]
    assert len(asked) == len(set(asked)), "nothing is repeated: somebody is waiting"
    for secret in (simulator.primary_key, simulator.secondary_key):
        assert secret not in told


def test_a_silent_host_is_given_up_long_before_the_connection_s_timeout(
    define: Define, simulator: Simulator, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "STEP_SECONDS", 0.3)
    simulator.fault("listAgents", "delay", seconds=20, times=1)
    good, text = define(**with_extra(keys, timeout=600)).test_connection()
    assert not good
    assert "nothing came for 0.3 s" in text


def test_a_host_that_is_slow_in_every_step_is_given_up_as_a_whole(
    define: Define, simulator: Simulator, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "TEST_SECONDS", 0.3)
    simulator.fault("listAgents", "delay", seconds=2, times=1)
    good, text = define(**keys).test_connection()
    assert not good
    assert "No complete answer of 127.0.0.1" in text


def test_a_server_that_says_the_key_aloud_is_not_quoted(define: Define, simulator: Simulator) -> None:
    good, text = define(
        host=f"{simulator.url}/echo-me-secret-key-77", password="echo-me-secret-key-77"
    ).test_connection()
    assert not good
    assert "echo-me-secret-key-77" not in text


def test_the_test_does_not_queue_behind_the_tasks_of_its_process(
    define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    """Nor does it tell them anything: their window is spent and they wait, the test asks the server."""
    hook = define(**keys)
    window = hook.client()._sender._window
    now = time.monotonic()
    window.acquire()
    window.observe(429, {"Retry-After": "14"}, sent_at=now, received_at=now)
    good, text = hook.test_connection()
    assert good, text


# --- tokens to hand out ---


def test_a_token_of_ones_own(define: Define, simulator: Simulator, keys: dict[str, Any]) -> None:
    token = define(**with_extra(keys, auth="bearer")).issue_token(["calls:read"])
    assert token.scopes == {"calls:read"}
    assert token.token not in f"{token} {token!r}"
    assert [request["credential"] for request in simulator.requests()] == ["primary"]


def test_a_token_is_known_to_the_log_masker(define: Define, keys: dict[str, Any]) -> None:
    token = define(**keys).issue_token("calls:read").token
    assert token not in str(redact(f"Authorization: Bearer {token}"))


def test_a_token_does_not_become_an_xcom(define: Define, keys: dict[str, Any]) -> None:
    token = define(**keys).issue_token("calls:read")
    for value in (token, {"tokens": [token]}):
        with pytest.raises(TypeError, match="not to be stored"):
            serialize(value)


def test_both_keys_are_known_to_the_log_masker(define: Define) -> None:
    define(password="a-primary-key-to-mask", extra={"secondary_api_key": "a-secondary-key-to-mask"}).client()
    shown = str(redact("it was a-primary-key-to-mask or a-secondary-key-to-mask"))
    assert shown == "it was *** or ***"


def test_scopes_that_do_not_exist_are_refused_before_anything_is_sent(
    define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    for scopes in ([], ["calls:delete"], "everything"):
        with pytest.raises(VolubileInputError, match="scopes"):
            define(**keys).issue_token(scopes)
    assert simulator.requests() == []


# --- answers without measure ---

ABSURD_CLAIMS: list[dict[str, Any]] = [
    {"exp": 10**30},
    {"exp": -1},
    {"exp": 0, "iat": 0},
    {"exp": "tomorrow"},
    {"exp": [1], "iat": {"a": 1}},
    {"exp": 1e308, "iat": -1e308},
    {"exp": True},
    {"exp": None, "iat": None},
]


@pytest.mark.parametrize("claims", ABSURD_CLAIMS, ids=repr)
def test_a_token_with_absurd_claims_is_an_error_or_works_but_never_hangs(
    claims: dict[str, Any], define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.configure(token_claims=claims)
    client = define(**with_extra(keys, auth="bearer")).client()
    try:
        told = f"{len(client.list_agents().content)} agents"
    except VolubileError as error:
        told = str(error)
    assert re.search("^5 agents|^issueToken: ", told)
    assert sum(simulator.request_summary()["issueToken"].values()) == 1


@pytest.mark.parametrize("expires_in", [0, -5])
def test_a_token_whose_life_is_over_before_it_begins(
    expires_in: int, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.configure(token_expires_in=expires_in, token_format="opaque")
    with pytest.raises(VolubileError, match="issueToken"):
        define(**with_extra(keys, auth="bearer")).client().list_agents()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_that_leads_back_is_followed_a_few_times_only(
    status: int, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    (call_id,) = simulator.load_calls(1)
    location = f"{simulator.url}/v1/calls/{call_id}/recording"
    simulator.fault("getRecording", "redirect", status=status, location=location, times=None)
    with (
        pytest.raises(VolubileError, match=r"more than \d+ redirects"),
        define(**keys).client().open_recording(call_id) as recording,
    ):
        b"".join(recording.iter_chunks())
    assert len(simulator.requests()) < 10


@pytest.mark.parametrize("operation", ["listAgents", "getCall"])
def test_a_redirect_of_anything_else_is_not_followed(
    operation: str, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    (call_id,) = simulator.load_calls(1)
    simulator.fault(operation, "redirect", location=f"{simulator.media_url}/anything", times=None)
    client = define(**keys).client()
    with pytest.raises(VolubileError, match="not followed"):
        client.list_agents() if operation == "listAgents" else client.get_call(call_id)
    assert simulator.media_requests() == []


@pytest.mark.parametrize("auth", ["api_key", "bearer"])
@pytest.mark.parametrize("answer", ["redirect", "json"])
def test_object_storage_is_asked_without_credentials(
    auth: str, answer: str, define: Define, simulator: Simulator, keys: dict[str, Any]
) -> None:
    simulator.configure(recording_answer=answer)
    (call_id,) = simulator.load_calls(1)
    with define(**with_extra(keys, auth=auth)).client().open_recording(call_id) as recording:
        assert b"".join(recording.iter_chunks()).startswith(b"RIFF")
    (asked,) = simulator.media_requests()
    assert not {"x-api-key", "authorization", "cookie"} & set(asked["headers"])
