"""What a real sentry-sdk, with its defaults, makes of failing requests: no key, token, number or word of anybody."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic
import pytest
import sentry_sdk
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.serde import serialize

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.settings import Settings
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.masking import Secret
from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator
from airflow_provider_volubile.operators.calls import (
    VolubileBulkCallsOperator,
    VolubileCreateCallOperator,
    VolubileGetTranscriptOperator,
)
from airflow_provider_volubile.operators.campaigns import (
    VolubileCreateCampaignOperator,
    VolubileUpdateCampaignStatusOperator,
)
from airflow_provider_volubile.operators.exports import (
    VolubileExportCallsOperator,
    VolubileExportRecordingsOperator,
    VolubileExportTranscriptsOperator,
)
from tests.unit.api import stub
from tests.unit.fakes import Store, context

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
PRIMARY, SECONDARY, TOKEN = "planted-primary-key", "planted-secondary-key", "planted.bearer.token"
PHONE, SPEECH, SIGNATURE = "+33639980142", "planted speech", "planted-signature"
PERSON = {"phone": PHONE, "context": {"note": SPEECH}}
PLANTED = (PRIMARY, SECONDARY, TOKEN, "39980142", "39 98 01 42", SPEECH, SIGNATURE)

Event = dict[str, Any]


@pytest.fixture(scope="module")
def tracker() -> Iterator[list[Event]]:
    """sentry-sdk as a user has it, and what it would send."""
    sent: list[Event] = []

    def keep(event: Event, hint: Any) -> Event:
        sent.append(event)
        return event

    options: Any = {"before_send": keep, "before_send_transaction": keep, "traces_sample_rate": 1}
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", **options)
    yield sent
    sentry_sdk.init()


@pytest.fixture
def events(tracker: list[Event]) -> list[Event]:
    tracker.clear()
    sentry_sdk.get_isolation_scope().clear()
    return tracker


@pytest.fixture
def server() -> Iterator[stub.Server]:
    server, listener = stub.start_server()
    server.on("POST /v1/auth/token", stub.answer(200, {"token": TOKEN, "expiresIn": 900}))
    yield server
    listener.close()


@pytest.fixture(params=["api_key", "bearer"])
def mode(request: pytest.FixtureRequest, server: stub.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    host, port = server.url.removeprefix("http://").split(":")
    value = {"conn_type": "volubile", "host": f"http://{host}", "port": int(port), "password": PRIMARY}
    extra = {"secondary_api_key": SECONDARY, "auth": request.param}
    monkeypatch.setenv("AIRFLOW_CONN_VOLUBILE_DEFAULT", json.dumps(value | {"extra": extra}))
    return str(request.param)


def found(events: list[Event], folder: str = "airflow_provider_volubile") -> list[str]:
    """Where planted values are: in variables of our frames, or anywhere outside of frames."""
    hits = []
    for event in events:
        for exception in event.get("exception", {}).get("values", []):
            for frame in exception.get("stacktrace", {}).pop("frames", []):
                if folder in (frame.get("module") or ""):
                    text = json.dumps(frame.get("vars"))
                    hits += [f"{frame['module']}.{frame['function']}: {p}" for p in PLANTED if p in text]
        hits += [
            f"{place}: {p}" for place, value in event.items() for p in PLANTED if p in json.dumps(value, default=str)
        ]
    return hits


CALLS: dict[str, Callable[[Any], Any]] = {
    "create_call": lambda c: c.create_call(ID, PERSON),
    "create_bulk_calls": lambda c: c.create_bulk_calls(ID, [PERSON]),
    "create_campaign": lambda c: c.create_campaign({"name": "x", "agentId": ID, "recipients": [PERSON]}),
    "list_calls": lambda c: c.list_calls(phone=PHONE),
    "iter_calls": lambda c: list(c.iter_calls(phone=PHONE)),
    "get_call": lambda c: c.get_call(ID),
    "get_transcript": lambda c: c.get_transcript(ID),
    "open_recording": lambda c: c.open_recording(ID).__enter__(),
    "issue_token": lambda c: c.issue_token("calls:read"),
    "update_campaign_status": lambda c: c.update_campaign_status(ID, "PAUSED"),
}
FAULTS = {
    "400": stub.answer(400, {"message": "no"}),
    "401": stub.answer(401),
    "reset": stub.reset,
    "not JSON": stub.answer(200, body=f'"{SPEECH} {PHONE}'.encode()),
    "redirect": stub.answer(302, headers={"Location": f"https://nowhere.invalid/a?signature={SIGNATURE}"}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_failing_request_shows_nothing(
    call: str, fault: str, mode: str, server: stub.Server, events: list[Event]
) -> None:
    if call == "issue_token":
        server.forget("POST /v1/auth/token")
    server.on(".*", FAULTS[fault])
    client = VolubileHook().client()
    client._sender._sleep = lambda _: None
    with sentry_sdk.start_transaction(name="task"):
        try:
            CALLS[call](client)
        except VolubileError as error:
            sentry_sdk.capture_exception(error)
    assert events
    assert found(events) == []


OPERATORS: dict[str, Callable[[Path], Any]] = {
    "campaign": lambda folder: VolubileCreateCampaignOperator(
        task_id="t", name="x", agent_id=ID, recipients=[PERSON], time_slots=["09:00-12:00"]
    ),
    "bulk": lambda folder: VolubileBulkCallsOperator(task_id="t", agent_id=ID, recipients=[PERSON]),
    "single": lambda folder: VolubileBulkCallsOperator(
        task_id="t", agent_id=ID, recipients=[PERSON], submit_as="single"
    ),
    "call": lambda folder: VolubileCreateCallOperator(
        task_id="t", agent_id=ID, phone=PHONE, call_context={"x": SPEECH}
    ),
    "transcript": lambda folder: VolubileGetTranscriptOperator(task_id="t", call_id=ID),
    "status": lambda folder: VolubileUpdateCampaignStatusOperator(task_id="t", campaign_id=ID, status="PAUSED"),
    "agent": lambda folder: VolubileUpdateAgentOperator(task_id="t", agent_id=ID, changes={"active": True}),
    "calls": lambda folder: VolubileExportCallsOperator(task_id="t", output_path=str(folder)),
    "transcripts": lambda folder: VolubileExportTranscriptsOperator(task_id="t", calls=[ID], output_path=str(folder)),
    "recordings": lambda folder: VolubileExportRecordingsOperator(task_id="t", calls=[ID], output_path=str(folder)),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_whose_request_fails_shows_nothing(
    operator: str, mode: str, server: stub.Server, events: list[Event], tmp_path: Path
) -> None:
    server.on(".*", stub.answer(400, {"message": "no"}))
    task = OPERATORS[operator](tmp_path)
    ExecutorSafeguard.tracker.set(task)
    now = datetime.now(UTC)
    interval = {"data_interval_start": now, "data_interval_end": now}
    with pytest.raises(Exception) as error:  # noqa: PT011
        task.execute(context(Store()) | interval)
    sentry_sdk.capture_exception(error.value)
    (event,) = events
    assert event["exception"]["values"][-1]["type"].startswith(("Volubile", "AirflowFail")), error.value
    assert found(events) == []


def test_the_search_finds_what_a_frame_shows(events: list[Event]) -> None:
    def fail(key: str) -> None:
        raise VolubileError("x")

    with pytest.raises(VolubileError) as error:
        fail(PRIMARY)
    sentry_sdk.capture_exception(error.value)
    assert any(PRIMARY in hit for hit in found(events, "test_error_trackers"))


# --- what must not be stored ---


@dataclass
class Holder:
    value: Any


class Model(pydantic.BaseModel):
    value: Any


PAIR = ApiKeyPair(PRIMARY, SECONDARY)
SECRETS = {
    "secret": Secret(TOKEN),
    "pair": PAIR,
    "bearer": BearerTokens(PAIR),
    "settings": Settings("https://x.example", Secret(PRIMARY), Secret(SECONDARY)),
    "token": IssuedToken(Secret(TOKEN), frozenset({"calls:read"}), 900, datetime.now(UTC)),
}
STORES: dict[str, Callable[[Any], Any]] = {
    "Airflow": serialize,
    "pickle": pickle.dumps,
    "asdict": lambda value: asdict(Holder(value)),
    "json": lambda value: json.dumps(value, default=str),
    "pydantic": lambda value: Model(value=value).model_dump_json(),
    "pydantic, as Python": lambda value: json.dumps(Model(value=value).model_dump(), default=str),
}


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], Holder, lambda value: Model(value=value)])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_can_be_stored(what: str, store: str, wrap: Callable[[Any], Any]) -> None:
    try:
        stored = str(STORES[store](wrap(SECRETS[what])))
    except Exception as error:
        stored = str(error)
    assert not any(planted in stored for planted in PLANTED)
