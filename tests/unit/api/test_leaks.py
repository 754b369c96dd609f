"""Every operation, well and badly answered, at DEBUG level: no key, token, number or word in any log or error."""

from __future__ import annotations

import io
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.url_redaction import hide_urls_in_logs, redacted_urls
from airflow_provider_volubile.exceptions import VolubileError

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
PAIR = ApiKeyPair("planted-primary-key", "planted-secondary-key", name="volubile_test")
TOKEN = "planted.bearer.token"
PHONE = "+33639980142"
NATIONAL = "06 39 98 01 42"
SPEECH = "planted speech"
SIGNATURE = "planted-signature"
PLANTED = {
    "primary key": PAIR.primary,
    "secondary key": PAIR.secondary or "",
    "token": TOKEN,
    "number": "39980142",
    "number with spaces": "39 98 01 42",
    "speech": SPEECH,
    "signature": SIGNATURE,
}
RECIPIENT = {"phone": PHONE, "context": {"note": SPEECH, "again": PHONE}}
ECHO = f"phone {PHONE} / {NATIONAL} / %2B33639980142, keys {PAIR.primary} {PAIR.secondary}"


def record(client: VolubileClient) -> None:
    with client.open_recording(ID) as recording:
        list(recording.iter_chunks())


CALLS: list[Callable[[VolubileClient], Any]] = [
    lambda c: c.issue_token(["calls:read"]),
    lambda c: list(c.iter_agents()),
    lambda c: c.get_agent(ID),
    lambda c: c.update_agent(ID, {"name": "x"}),
    lambda c: list(c.iter_calls(phone=PHONE)),
    lambda c: c.get_call(ID),
    lambda c: c.create_call(ID, RECIPIENT),
    lambda c: c.get_transcript(ID),
    lambda c: c.create_bulk_calls(ID, [RECIPIENT]),
    lambda c: c.create_campaign({"name": "x", "agentId": ID, "recipients": [RECIPIENT], "timezone": "Europe/Paris"}),
    lambda c: c.get_campaign(ID),
    lambda c: c.update_campaign_status(ID, "PAUSED"),
    record,
    lambda c: c.get_call(PHONE),
    lambda c: c.create_call(ID, {"phone": NATIONAL, "context": {}}),
    lambda c: c.create_call(ID, {"phone": PHONE, "context": {"x": {SPEECH}}}),
    lambda c: c.list_calls(phone="00" + PHONE[1:]),
    lambda c: ApiKeyPair(PAIR.primary + " with a space"),
]


def answers(tell: Any, elsewhere: str, mode: str) -> dict[str, list[Any]]:
    echo = {"message": ECHO + (f", token {TOKEN}" if mode == "bearer" else "")}
    call = {"id": ID, "status": "COMPLETED", "phone": PHONE, "summary": SPEECH, "duration": SPEECH, "extra": PHONE}
    page = {"content": [call], "page": 1, "size": 100, "totalElements": 1, "totalPages": 1}
    speech = f'{{"id": 5, "phone": "{PHONE}", "summary": "{SPEECH}"'.encode()
    return {
        "good": [tell.answer(200, {**call, **page, "calls": [{"id": "a", "phone": PHONE}]})],
        "redirect": [
            tell.answer(302, headers={"Location": f"{elsewhere}/x?signature={SIGNATURE}&phone=%2B33639980142"})
        ],
        **{str(status): [tell.answer(status, echo)] for status in (400, 401, 403, 404, 409, 429, 500, 503)},
        "first key refused": [tell.answer(401, echo), tell.answer(200, {**call, **page})],
        "not JSON": [tell.answer(200, body=speech)],
        "odd": [tell.answer(200, [call, SPEECH])],
        "broken off": [tell.answer(200, body=speech, length=500)],
        "reset": [tell.reset],
        "closed": [tell.close],
        "no HTTP": [tell.garbage],
        "odd headers": [tell.answer(200, call, headers={"X-Odd": "a\r\nno colon " + PHONE}, keep=False)],
        "gzip that is none": [tell.answer(200, body=speech, headers={"Content-Encoding": "gzip"})],
        "a text": [tell.answer(400, body=json.dumps(echo).encode()[1:])],
    }


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s %(exc_text)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)


SITUATIONS = [
    *("good", "redirect", "400", "401", "403", "404", "409", "429", "500", "503", "first key refused", "not JSON"),
    *("odd", "broken off", "reset", "closed", "no HTTP", "odd headers", "gzip that is none", "a text"),
]


@pytest.mark.parametrize("mode", ["key", "bearer"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_nothing_leaks(
    situation: str,
    mode: str,
    server: Any,
    other_server: Any,
    tell: Any,
    make_client: Any,
    everything_logged: io.StringIO,
) -> None:
    scripts = answers(tell, other_server.url, mode)
    assert scripts.keys() == set(SITUATIONS)
    other_server.on(".*", tell.answer(200, body=b"audio", headers={"Content-Type": "audio/mpeg"}))
    texts: list[str] = []
    errors = 0
    for call in CALLS:
        server.on("POST /v1/auth/token", tell.answer(200, {"token": TOKEN, "expiresIn": 900}))
        server.on(".*", *scripts[situation])
        client = make_client(BearerTokens(PAIR) if mode == "bearer" else PAIR)
        try:
            texts.append(repr(call(client)))
        except VolubileError as error:
            errors += 1
            texts.append(repr(error) + "".join(traceback.format_exception(error)))
            texts.append(linked(error))
        texts.append(repr(client) + repr(vars(client)))
    texts.append(everything_logged.getvalue())
    hits = [
        (what, text[max(0, at - 60) : at + 60])
        for what, planted in PLANTED.items()
        for text in texts
        if (at := text.find(planted)) >= 0
    ]
    assert hits == []
    assert errors >= 5, "the last calls are bad input"
    log = everything_logged.getvalue()
    assert "urllib3" in log, "its lines are searched too"
    assert re.search(r"listCalls -> \d+|listCalls to 127\.0\.0\.1: no answer", log), "one line for each request"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 503])
def test_no_part_of_a_key_is_left_where_a_long_reason_is_cut(
    status: int, server: Any, tell: Any, make_client: Any
) -> None:
    pair = ApiKeyPair("planted/key+=33639980142/with=number")
    for before in range(250, 300, 7):
        said = "x" * before + f" {pair.primary}"
        for body in (json.dumps({"message": said}), said, " " * 900 + said):
            server.on(".*", tell.answer(status, body=body.encode()))
            with pytest.raises(VolubileError) as error:
                make_client(pair).get_agent(ID)
            text = str(error.value)
            assert "xxx" in text
            assert not re.search(r"x (pl|.*planted|.*with|.*number)", text), text


def test_a_key_that_comes_back_is_taken_out_of_answers(server: Any, tell: Any, make_client: Any) -> None:
    pair = ApiKeyPair("planted/key+with=odd&characters")
    server.on(".*/transcript", tell.answer(200, [{"action": "RING", "message": f"a {pair.primary}"}]))
    server.on(".*", tell.answer(200, {"id": ID, "name": f"a {pair.primary}", "x": "é"}))
    agent = make_client(pair).get_agent(ID)
    assert (agent.name, agent.model_extra) == ("a ***", {"x": "é"})
    assert make_client(pair).get_transcript(ID)[0].message == "a ***"


def linked(error: BaseException | None) -> str:
    """What an error carries with it, shown or not."""
    text = ""
    while error is not None:
        text += repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return text


def test_the_search_would_find_something(server: Any, tell: Any, client: Any, everything_logged: io.StringIO) -> None:
    """Without the filter urllib3 does print the number."""
    import requests

    server.on(".*", tell.answer(200, {}))
    requests.get(server.url + "/v1/calls", params={"phone": PHONE}, timeout=5)
    assert "39980142" in everything_logged.getvalue()


def test_other_peoples_urls_are_left_alone(server: Any, tell: Any, everything_logged: io.StringIO) -> None:
    import requests

    hide_urls_in_logs()
    server.on(".*", tell.answer(200, {}))
    requests.get(server.url + "/theirs?page=7", timeout=5)
    with redacted_urls():
        requests.get(server.url + "/ours?page=8", timeout=5)
    log = everything_logged.getvalue()
    assert "/theirs?page=7" in log
    assert "/ours?…" in log


def test_the_filter_is_there_once(make_client: Any) -> None:
    for _ in range(3):
        make_client()
    filters = logging.getLogger("urllib3.connectionpool").filters
    assert len([one for one in filters if type(one).__name__ == "_UrlFilter"]) == 1
