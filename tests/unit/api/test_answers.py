"""What comes back: tolerated where it may vary, refused with the route's name where it makes no sense."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_volubile.api.models import AcceptedCall, Agent, Call, Campaign
from airflow_provider_volubile.exceptions import VolubileNotFound, VolubileProtocolError

ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
PHONE = "+33639980142"
SECRET_TEXT = "what somebody said"

FULL_CALL: dict[str, Any] = {
    "id": ID,
    "agentId": AGENT,
    "phone": PHONE,
    "type": "OUTBOUND",
    "status": "COMPLETED",
    "duration": 74,
    "startTime": "2025-11-12T10:02:11Z",
    "endTime": "2025-11-12T10:03:25Z",
    "anonymous": False,
    "recorded": True,
    "summary": SECRET_TEXT,
    "extractors": [{"name": "visit", "value": [{"name": "day", "value": ["Friday"]}]}],
    "extractedData": {"visit": {"day": "Friday"}},
    "classifiers": [{"name": "outcome", "value": "moved"}],
    "classificationData": {"outcome": "moved"},
    "context": {"firstName": "Karim", "system": {"phone": "06 39 98 01 77"}},
    "created": "2025-11-12T10:02:05Z",
    "somethingNew": {"kept": True},
}


def get_call(server: Any, tell: Any, client: Any, data: Any = None, body: bytes | None = None) -> Call:
    server.on("GET .*", tell.answer(200, data, body=body))
    call: Call = client.get_call(ID)
    return call


def test_a_whole_call(server: Any, tell: Any, client: Any) -> None:
    call = get_call(server, tell, client, FULL_CALL)
    assert (call.id, call.agent_id, call.phone, call.type) == (ID, AGENT, PHONE, "OUTBOUND")
    assert call.start_time == datetime(2025, 11, 12, 10, 2, 11, tzinfo=UTC)
    assert call.start_time.utcoffset() == timedelta(0)
    assert call.extracted_data == {"visit": {"day": "Friday"}}
    assert call.model_extra == {"somethingNew": {"kept": True}}
    assert call.is_final
    assert call.model_dump(by_alias=True, mode="json") == FULL_CALL


def test_the_barest_call(server: Any, tell: Any, client: Any) -> None:
    call = get_call(server, tell, client, {"id": ID})
    assert (call.status, call.created, call.extracted_data) == ("", None, None)
    assert not call.is_final


def test_nulls_everywhere(server: Any, tell: Any, client: Any) -> None:
    call = get_call(server, tell, client, dict.fromkeys(FULL_CALL, None) | {"id": ID})
    assert call.model_dump(exclude={"id", "status", "somethingNew"}) == dict.fromkeys(
        call.model_dump(exclude={"id", "status", "somethingNew"})
    )


@pytest.mark.parametrize(
    ("status", "final"),
    [
        ("IN_PROGRESS", False),
        *((status, True) for status in ("COMPLETED", "TRANSFERRED", "VOICE_BOX", "FAILOVER", "NO_ANSWER")),
        *((status, True) for status in ("UNREACHABLE", "FAILED", "REJECTED", "CANCELED")),
        ("CANCELLED", False),
        ("SOMETHING_NEW", False),
        ("", False),
    ],
)
def test_what_is_final(status: str, final: bool) -> None:
    assert Call(id=ID, status=status).is_final == final


def test_the_spelling_of_webhooks_is_understood() -> None:
    call = Call.model_validate({"id": ID, "extractorData": {"a": 1}, "classifierData": {"b": 2}})
    assert (call.extracted_data, call.classification_data) == ({"a": 1}, {"b": 2})
    assert not call.model_extra


@pytest.mark.parametrize("depth", [700, 5000])
def test_events_that_are_nested_too_deeply(depth: int, server: Any, tell: Any, client: Any) -> None:
    odd = b'[{"action": 5, "message": {"a": 1}, "x": ' + b"[" * depth + b"]" * depth + b"}]"
    server.on("GET .*", tell.answer(200, body=odd))
    with pytest.raises(VolubileProtocolError, match="is no transcript"):
        client.get_transcript(ID)


@pytest.mark.parametrize("read", [Call.model_validate_json, lambda text: Call.model_validate(json.loads(text))])
def test_of_two_spellings_the_one_that_says_something_is_taken(read: Any) -> None:
    members = {"extractedData": None, "extractorData": {"a": 1}, "classifierData": {"b": 2}, "classificationData": None}
    call = read(json.dumps({"id": ID} | members))
    assert (call.extracted_data, call.classification_data) == ({"a": 1}, {"b": 2})
    assert call.model_dump(by_alias=True, exclude_none=True) == {
        "id": ID,
        "status": "",
        "extractedData": {"a": 1},
        "classificationData": {"b": 2},
    }


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-10-26T00:30:00Z", datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),
        ("2025-10-26T02:30:00+02:00", datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),
        ("2025-10-26T02:30:00.123456+01:00", datetime(2025, 10, 26, 1, 30, 0, 123456, tzinfo=UTC)),
        ("2025-10-26T00:30:00", datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),  # without a zone: UTC, as documented
        (1761438600, datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),
    ],
)
def test_moments_are_utc(text: Any, moment: datetime) -> None:
    created = Call(id=ID, created=text).created
    assert created == moment
    assert created.utcoffset() is not None
    assert created.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"created": "yesterday"},
        {"created": "9999-12-31T23:59:59-05:00"},
        {"duration": "long"},
        {"context": ["no object"]},
        {"phone": {"number": 5}},
        {"extractedData": "text", "summary": []},
    ],
)
def test_a_member_of_an_odd_shape_is_left_out_with_a_warning(
    odd: dict[str, Any], server: Any, tell: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    call = get_call(server, tell, client, FULL_CALL | odd)
    assert call.status == "COMPLETED"
    assert call.model_extra == {"somethingNew": {"kept": True}}
    for name in odd:
        assert getattr(call, {"extractedData": "extracted_data"}.get(name, name)) is None
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "getCall" in warning.getMessage()
    assert all(str(value) not in warning.getMessage() for value in odd.values())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"not JSON " + SECRET_TEXT.encode(),
        b"{",
        b"[]",
        b"null",
        b'"' + SECRET_TEXT.encode() + b'"',
        b"17",
        b'{"status": "COMPLETED", "summary": "' + SECRET_TEXT.encode() + b'"}',
        b'{"id": null}',
        b'{"id": ""}',
        b'{"id": {"a": 1}}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"id": "' + ID.encode() + b'", "context": ' + b'{"a":' * 100_000,
        b'{"id": ' + b"9" * 10_000 + b"}",
        b"<html>" + SECRET_TEXT.encode(),
    ],
)
def test_what_cannot_be_read_names_route_and_status_and_nothing_else(
    body: bytes, server: Any, tell: Any, client: Any
) -> None:
    with pytest.raises(VolubileProtocolError, match=r"getCall: the answer \(200\)") as error:
        get_call(server, tell, client, body=body)
    assert (error.value.operation, error.value.status) == ("getCall", 200)
    assert SECRET_TEXT not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


def test_numbers_as_ids_and_a_byte_order_mark(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, body=b'\xef\xbb\xbf{"id": 17}'))
    assert client.get_call("17").id == "17"


def test_halves_of_characters_are_replaced(server: Any, tell: Any, client: Any) -> None:
    body = b'{"id": "%s", "summary": "a \\ud83d b", "context": {"k\\udc00": ["\\ud800"]}}' % ID.encode()
    call = get_call(server, tell, client, body=body)
    assert call.summary == "a � b"
    json.dumps(call.model_dump(mode="json"), ensure_ascii=False).encode()


def test_printing_shows_no_one() -> None:
    call = Call.model_validate(FULL_CALL)
    agent = Agent.model_validate({"id": AGENT, "name": "n", "telephonyConfiguration": {"phoneNumbers": [PHONE]}})
    for text in (repr(call), str(call), repr(agent), repr(AcceptedCall(ID, PHONE)), f"{[call]}"):
        assert PHONE not in text
        assert SECRET_TEXT not in text
        assert "Karim" not in text
        assert "06 39 98 01 77" not in text
    assert "+33 6 ** ** ** 42" in repr(call)
    assert "COMPLETED" in repr(call)


def test_models_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Call(id=ID).status = "COMPLETED"  # type: ignore[misc]


# --- campaigns, agents ---


def test_a_campaign(server: Any, tell: Any, client: Any) -> None:
    data = {
        "id": ID,
        "name": "Winter tyres",
        "agentId": AGENT,
        "startDate": "2025-11-12",
        "timeSlots": [{"startTime": "09:30", "endTime": "12:00"}],
        "batchSize": 150,
        "retry": {"max": 2, "delay": 90, "retryOn": ["NO_ANSWER"]},
        "days": ["TUESDAY"],
        "status": "ACTIVE",
        "timezone": "Europe/Paris",
        "progress": 0.5,
    }
    server.on("GET .*", tell.answer(200, data))
    campaign = client.get_campaign(ID)
    assert campaign.start_date == date(2025, 11, 12)
    assert campaign.time_slots[0].start_time == "09:30"
    assert (campaign.retry.max, campaign.retry.delay, campaign.retry.retry_on) == (2, 90, ["NO_ANSWER"])
    assert campaign.model_dump(by_alias=True, mode="json") == data


def test_the_barest_campaign_and_agent(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, {"id": ID, "retry": None, "days": None}))
    assert client.get_campaign(ID).status == ""
    assert client.get_agent(ID).active is None


# --- pages ---


def page(*items: Any, **envelope: Any) -> dict[str, Any]:
    return {
        "content": list(items),
        "page": 1,
        "size": 100,
        "totalElements": len(items),
        "totalPages": 1,
        **envelope,
    }


def test_a_page(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, page(FULL_CALL, {"id": "b"}, extra="ignored")))
    found = client.list_calls()
    assert [call.id for call in found.content] == [ID, "b"]
    assert (found.page, found.size, found.total_elements, found.total_pages) == (1, 100, 2, 1)
    assert found.sort == "created,DESC"


def test_a_page_with_one_odd_item_keeps_them_all(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, page({"id": "a", "duration": "?"}, FULL_CALL, totalPages="many")))
    found = client.list_calls()
    assert [call.id for call in found.content] == ["a", ID]
    assert (found.total_pages, found.page) == (None, 1)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"content": None},
        {"content": {}},
        page({"status": "COMPLETED"}),
        page("text"),
        page(None),
        page([FULL_CALL]),
    ],
)
def test_what_is_no_page(data: Any, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, data))
    with pytest.raises(VolubileProtocolError, match=r"listCalls: the answer \(200\)"):
        client.list_calls()
    with pytest.raises(VolubileProtocolError, match=r"listAgents: the answer \(200\)"):
        client.list_agents()


# --- transcripts ---

EVENTS = [
    {"action": "RING", "time": "2025-11-12T10:02:11Z", "actor": "UNKNOWN"},
    {"action": "HUMAN_SPEAK", "time": "2025-11-12T10:02:27Z", "actor": "HUMAN", "message": "Oui ?", "new": 1},
]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(EVENTS).encode(),
        json.dumps({"content": EVENTS}).encode(),
        json.dumps({"events": EVENTS, "callId": ID}).encode(),
        b"\n".join(json.dumps(event).encode() for event in EVENTS),
        b"\r\n".join(json.dumps(event).encode() for event in EVENTS) + b"\r\n\r\n",
    ],
    ids=["list", "content", "events", "lines", "lines of another world"],
)
def test_a_transcript_in_every_form(body: bytes, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, body=body))
    ring, speech = client.get_transcript(ID)
    assert ring.action == "RING"
    assert (speech.message, speech.model_extra) == ("Oui ?", {"new": 1})
    assert speech.time == datetime(2025, 11, 12, 10, 2, 27, tzinfo=UTC)
    assert "Oui" not in repr(speech)


def test_a_transcript_of_one_event_as_the_page_shows_it(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, EVENTS[0]))
    (event,) = client.get_transcript(ID)
    assert event.action == "RING"


def test_odd_events(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, [{"message": "half \ud800"}, {"action": None, "time": "then"}]))
    first, second = client.get_transcript(ID)
    assert (first.action, first.message) == ("", "half �")
    assert second.time is None


def test_an_empty_transcript_is_a_list_without_events(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, []))
    assert client.get_transcript(ID) == []


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b""), (200, b"  \n"), (202, b""), (404, b"")])
def test_no_transcript_yet(status: int, body: bytes, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(status, body=body))
    with pytest.raises(VolubileNotFound, match="getTranscript"):
        client.get_transcript(ID)


@pytest.mark.parametrize(
    "body", [b"text", b'{"action"', b"17", b"null", b"[1]", b'[{"error": "x"}]', b'{"message": "a"}\n{', b"[" * 10**5]
)
def test_what_is_no_transcript(body: bytes, server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, body=body))
    with pytest.raises(VolubileProtocolError, match="getTranscript"):
        client.get_transcript(ID)


def test_a_long_transcript_is_read_whole(server: Any, tell: Any, client: Any) -> None:
    event = {"action": "AGENT_SPEAK", "time": "2025-11-12T10:02:27Z", "actor": "AGENT", "message": "x" * 50_000}
    server.on("GET .*", tell.answer(200, [event] * 1000))
    assert len(client.get_transcript(ID)) == 1000


# --- what was accepted ---


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (b"", AcceptedCall()),
        (b"not JSON", AcceptedCall()),
        (b"null", AcceptedCall()),
        (b"{}", AcceptedCall()),
        (b"[]", AcceptedCall()),
        (b"17", AcceptedCall()),
        (b"[" * 10**5, AcceptedCall()),
        (b'{"id": null}', AcceptedCall()),
        (b'{"id": "../x"}', AcceptedCall()),
        (b'{"id": "a"}', AcceptedCall("a")),
        (b'{"callId": "a", "phone": "+33639980142"}', AcceptedCall("a", PHONE)),
        (b'{"call": {"id": "a"}}', AcceptedCall("a")),
        (b'"a"', AcceptedCall("a")),
        (b'[{"id": "a"}]', AcceptedCall("a")),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_an_accepted_call_in_every_form(
    status: int, body: bytes, call: AcceptedCall, server: Any, tell: Any, client: Any
) -> None:
    server.on("POST .*", tell.answer(status, body=body))
    assert client.create_call(AGENT, {"phone": PHONE}) == call
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("data", "calls"),
    [
        (
            {"calls": [{"id": "a", "phone": PHONE}, {"phone": PHONE}, {"id": "c"}]},
            [("a", PHONE), (None, PHONE), ("c", None)],
        ),
        ([{"id": "a"}, {"id": "b"}], [("a", None), ("b", None)]),
        (["a", "b"], [("a", None), ("b", None)]),
        ({"content": [{"id": "a"}]}, [("a", None)]),
        ({"calls": []}, []),
        ({"calls": None}, [(None, None)]),
        ({"accepted": 2}, [(None, None)]),
        ([None, 17, ["a"]], []),
    ],
)
def test_accepted_calls_in_every_form(data: Any, calls: list[Any], server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201, data))
    found = client.create_bulk_calls(AGENT, [{"phone": PHONE}])
    assert [(call.id, call.phone) for call in found] == calls


def test_a_204_accepts_too(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(204))
    assert client.create_call(AGENT, {"phone": PHONE}) == AcceptedCall()
    assert client.create_bulk_calls(AGENT, [{"phone": PHONE}]) == []


def test_a_broken_off_yes_is_a_yes(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.broken_body(201))
    assert client.create_call(AGENT, {"phone": PHONE}) == AcceptedCall()
    assert len(server.requests) == 1


def test_a_model_may_come_from_a_webhook_body() -> None:
    call = Call.model_validate_json(json.dumps({**FULL_CALL, "context": {"system.phone": "06 39 98 01 77"}}))
    assert call.context == {"system.phone": "06 39 98 01 77"}
    assert Campaign.model_validate({"id": ID}).timezone is None
