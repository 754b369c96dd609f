"""Calls: their statuses, transcripts and recordings, and the call list."""

from __future__ import annotations

import io
import json
import re
import wave
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import requests

from airflow_provider_volubile.simulator import (
    FOLLOW_UP_AGENT_ID,
    RECEPTION_AGENT_ID,
    REMINDER_AGENT_ID,
    Simulator,
)

from .raw_api import JSON, RawApi, bulk_body, call_body, campaign_body, phones

FINAL = {
    "CANCELED", "COMPLETED", "NO_ANSWER", "VOICE_BOX", "UNREACHABLE", "FAILED", "TRANSFERRED", "REJECTED", "FAILOVER",
}  # fmt: skip
ANSWERED = {"COMPLETED", "TRANSFERRED", "VOICE_BOX", "FAILOVER"}


def one_call(simulator: Simulator, api: RawApi, status: str, phone: str = "+33639980142", **context: str) -> JSON:
    """Have one call end in a status, long enough ago for its transcript."""
    simulator.outcomes({"*": [status]})
    answer = api.ok("POST", "/v1/calls", call_body(phone, **context))
    simulator.advance(1000)
    call: JSON = api.ok("GET", f"/v1/calls/{answer['id']}")
    return call


def test_all_ten_statuses_occur(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/bulk/calls", bulk_body(1000))
    assert {call["status"] for call in api.listed(size=100)} == {"IN_PROGRESS"}
    frozen.advance(600)
    statuses = Counter(frozen.summary()["statuses"])
    assert set(statuses) == FINAL
    assert 450 < statuses["COMPLETED"] < 650


def test_a_call_goes_from_dial_to_end(frozen: Simulator, api: RawApi) -> None:
    frozen.outcomes({"*": ["COMPLETED"]})
    call_id = api.ok("POST", "/v1/calls", call_body(firstName="Lucie"))["id"]
    call = api.ok("GET", f"/v1/calls/{call_id}")
    assert call["status"] == "IN_PROGRESS"
    assert call["endTime"] is None
    assert call["duration"] is None
    assert call["type"] == "OUTBOUND"
    frozen.advance(600)
    call = api.ok("GET", f"/v1/calls/{call_id}")
    assert call["status"] == "COMPLETED"
    assert 25 <= call["duration"] <= 150
    assert call["created"] <= call["startTime"] <= call["endTime"]
    assert call["recorded"] is True
    assert call["summary"]
    assert call["classificationData"] == {one["name"]: one["value"] for one in call["classifiers"]}
    assert call["context"]["firstName"] == "Lucie"
    assert call["context"]["system"]["callId"] == call_id
    assert call["context"]["system"]["phone"] == "06 39 98 01 42"


@pytest.mark.parametrize("status", sorted(FINAL))
def test_only_answered_calls_have_a_transcript(frozen: Simulator, api: RawApi, status: str) -> None:
    call = one_call(frozen, api, status, firstName="Lucie")
    answer = api("GET", f"/v1/calls/{call['id']}/transcript")
    if status not in ANSWERED:
        assert answer.status_code == 404
        assert call["duration"] == 0
        return
    events = answer.json()
    assert events[0]["action"] == "RING"
    assert events[-1]["action"] == "HANG_UP"
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert call["startTime"] <= events[0]["time"]
    assert events[-1]["time"] == call["endTime"]
    assert any("Bonjour Lucie" in event.get("message", "") for event in events)
    actions = {event["action"] for event in events}
    assert ("ANSWERING_MACHINE_BEEP" in actions) == (status == "VOICE_BOX")
    assert ("TRANSFER_CALL" in actions) == (status in ("TRANSFERRED", "FAILOVER"))


def test_transcripts_differ_between_people(frozen: Simulator, api: RawApi) -> None:
    frozen.outcomes({"*": ["COMPLETED"]})
    calls = api.ok("POST", "/v1/bulk/calls", bulk_body(20))["calls"]
    frozen.advance(1000)
    spoken = {
        json.dumps([event.get("message") for event in api.ok("GET", f"/v1/calls/{call['id']}/transcript")])
        for call in calls
    }
    assert len(spoken) > 15


def test_a_transcript_appears_some_time_after_the_end(frozen: Simulator, api: RawApi) -> None:
    frozen.configure(transcript_delay=3600)
    frozen.outcomes({"*": ["COMPLETED"]})
    path = f"/v1/calls/{api.ok('POST', '/v1/calls', call_body())['id']}"
    frozen.advance(600)
    assert api.ok("GET", path)["status"] == "COMPLETED"
    assert api("GET", path + "/transcript").status_code == 404
    assert not frozen.ledger()[0]["transcript_ready"]
    frozen.advance(3600)
    assert api("GET", path + "/transcript").status_code == 200
    assert frozen.ledger()[0]["transcript_ready"]


@pytest.mark.parametrize("shape", ["array", "single", "ndjson"])
def test_a_transcript_has_the_configured_shape(frozen: Simulator, api: RawApi, shape: str) -> None:
    call = one_call(frozen, api, "COMPLETED")
    whole = api.ok("GET", f"/v1/calls/{call['id']}/transcript")
    frozen.configure(transcript_shape=shape)
    text = api("GET", f"/v1/calls/{call['id']}/transcript").text
    if shape == "array":
        assert json.loads(text) == whole
    elif shape == "single":
        assert json.loads(text) in whole
    else:
        assert [json.loads(line) for line in text.splitlines()] == whole


@pytest.mark.parametrize("shape", ["array", "ndjson"])
def test_a_transcript_has_the_configured_size(frozen: Simulator, api: RawApi, shape: str) -> None:
    call = one_call(frozen, api, "COMPLETED")
    frozen.configure(transcript_shape=shape, transcript_size=3_000_000)
    answer = api("GET", f"/v1/calls/{call['id']}/transcript")
    assert 3_000_000 <= len(answer.content) < 3_500_000
    events = answer.json() if shape == "array" else [json.loads(line) for line in answer.text.splitlines()]
    assert events[-1]["action"] == "HANG_UP"


def test_a_recording_is_a_wav_file(frozen: Simulator, api: RawApi) -> None:
    path = f"/v1/calls/{one_call(frozen, api, 'COMPLETED')['id']}/recording"
    answer = api("GET", path)
    assert answer.headers["Content-Type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert sound.getnframes() == 8000
        assert len(set(sound.readframes(8000))) > 50
    frozen.configure(recording_size=2_000_000)
    answer = api("GET", path)
    assert int(answer.headers["Content-Length"]) == len(answer.content) == 2_000_000
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert sound.getnframes() == 2_000_000 - 44


def test_a_range_request_returns_part_of_a_recording(frozen: Simulator, api: RawApi) -> None:
    frozen.configure(recording_size=300_000)
    path = f"/v1/calls/{one_call(frozen, api, 'COMPLETED')['id']}/recording"
    whole = api("GET", path).content
    key = {"X-Api-Key": frozen.primary_key}
    rest = api("GET", path, headers=key | {"Range": "bytes=123456-"})
    assert rest.status_code == 206
    assert rest.headers["Content-Range"] == "bytes 123456-299999/300000"
    assert rest.content == whole[123456:]
    assert api("GET", path, headers=key | {"Range": "bytes=20-99"}).content == whole[20:100]
    assert api("GET", path, headers=key | {"Range": "bytes=300000-"}).status_code == 416


@pytest.mark.parametrize("form", ["redirect", "json"])
def test_a_presigned_link_returns_the_recording(frozen: Simulator, api: RawApi, form: str) -> None:
    path = f"/v1/calls/{one_call(frozen, api, 'COMPLETED')['id']}/recording"
    whole = api("GET", path).content
    frozen.configure(recording_answer=form)
    answer = api("GET", path)
    if form == "redirect":
        assert answer.status_code == 302
        link = answer.headers["Location"]
    else:
        link = answer.json()["url"]
    assert link.startswith(frozen.media_url + "/")
    assert requests.get(link, timeout=30).content == whole
    assert requests.get(link.replace("signature=", "signature=0"), timeout=30).status_code == 403
    assert requests.get(re.sub(r"expires=\d+", "expires=9999999999", link), timeout=30).status_code == 403
    names = frozen.media_requests()[0]["headers"]
    assert "host" in names
    assert "x-api-key" not in names


def test_a_presigned_link_expires(frozen: Simulator, api: RawApi) -> None:
    path = f"/v1/calls/{one_call(frozen, api, 'COMPLETED')['id']}/recording"
    frozen.configure(recording_answer="redirect", recording_link_life=0)
    link = api("GET", path).headers["Location"]
    frozen.wait_until(lambda: requests.get(link, timeout=30).status_code == 403)


def test_calls_that_are_not_recorded_have_no_recording(frozen: Simulator, api: RawApi) -> None:
    silent = one_call(frozen, api, "NO_ANSWER")
    assert api("GET", f"/v1/calls/{silent['id']}/recording").status_code == 404
    api.ok("PATCH", f"/v1/agents/{REMINDER_AGENT_ID}", {"recordable": False})
    unrecorded = one_call(frozen, api, "COMPLETED")
    assert unrecorded["recorded"] is False
    assert api("GET", f"/v1/calls/{unrecorded['id']}/recording").status_code == 404


@pytest.mark.parametrize(("answer", "status", "body"), [("no_id", 201, b"{}"), ("empty", 201, b""), ("204", 204, b"")])
def test_a_call_without_an_id_in_the_answer_is_in_the_list(
    frozen: Simulator, api: RawApi, answer: str, status: int, body: bytes
) -> None:
    frozen.configure(call_answer=answer)
    response = api("POST", "/v1/calls", call_body("+33639980142"))
    assert (response.status_code, response.content) == (status, body)
    [call] = api.listed(phone="+33639980142")
    assert call["id"] == frozen.ledger()[0]["call_id"]


@pytest.mark.parametrize(
    ("answer", "entries", "with_id"),
    [("calls", 5, True), ("list", 5, True), ("partial", 3, True), ("no_ids", 5, False), ("empty", 0, False)],
)
def test_a_bulk_request_has_the_configured_answer(
    frozen: Simulator, api: RawApi, answer: str, entries: int, with_id: bool
) -> None:
    frozen.configure(bulk_answer=answer)
    response = api("POST", "/v1/bulk/calls", bulk_body(5))
    assert response.status_code == 201
    if answer == "empty":
        assert response.content == b""
        found = []
    else:
        found = response.json() if answer == "list" else response.json()["calls"]
    assert len(found) == entries
    assert all(("id" in call) == with_id for call in found)
    assert len(api.listed()) == 5


def test_the_call_list_can_be_filtered(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/bulk/calls", bulk_body(6))
    api.ok("POST", "/v1/bulk/calls", bulk_body(4, agentId=FOLLOW_UP_AGENT_ID))
    for agent in (REMINDER_AGENT_ID, FOLLOW_UP_AGENT_ID):
        api.ok("POST", "/v1/campaigns", campaign_body(5, name="Twins", agentId=agent))
    frozen.advance(100)
    assert len(api.listed(size=100)) == 20
    assert len(api.listed(agentId=FOLLOW_UP_AGENT_ID)) == 9
    assert len(api.listed(campaign="Twins")) == 10, "campaigns of one name mix"
    assert len(api.listed(campaign="Twins", agentId=FOLLOW_UP_AGENT_ID)) == 5
    assert len(api.listed(phone=phones(1)[0])) == 4
    assert len(api.listed(phone=phones(1)[0], campaign="Twins", agentId=REMINDER_AGENT_ID)) == 1
    assert api.listed(campaign="Nobody's") == []
    assert api.listed(agentId=RECEPTION_AGENT_ID) == []


def test_pages_hold_every_call_once(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/bulk/calls", bulk_body(45))
    seen: list[str] = []
    for page in (1, 2, 3, 4):
        shown = api.ok("GET", "/v1/calls", params={"page": page})
        assert {name: shown[name] for name in ("size", "page", "totalElements", "totalPages")} == {
            "size": 20, "page": page, "totalElements": 45, "totalPages": 3,
        }  # fmt: skip
        seen += [call["id"] for call in shown["content"]]
    assert seen == [entry["call_id"] for entry in reversed(frozen.ledger())]
    oldest_first = api.listed(sort="created,ASC", size=100)
    assert [call["id"] for call in oldest_first] == seen[::-1]


@pytest.mark.parametrize("prop", ["startTime", "endTime", "status", "phone", "duration", "id", "agentId", "type"])
def test_the_call_list_can_be_sorted(frozen: Simulator, api: RawApi, prop: str) -> None:
    api.ok("POST", "/v1/bulk/calls", bulk_body(30))
    frozen.advance(40)  # some have ended
    values = [call[prop] for call in api.listed(sort=f"{prop},ASC", size=100)]
    assert len(values) == 30
    there = [value for value in values if value is not None]
    assert values == [None] * (30 - len(there)) + sorted(there)
    assert [call[prop] for call in api.listed(sort=f"{prop},DESC", size=100)] == values[::-1]


def test_sort_may_be_ignored_or_refused(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/bulk/calls", bulk_body(3))
    newest_first = api.listed()
    frozen.configure(sort="ignored")
    assert api.listed(sort="created,ASC") == newest_first
    frozen.configure(default_sort="created,ASC")
    assert api.listed(sort="created,DESC") == newest_first[::-1]
    frozen.configure(sort="refused")
    assert api("GET", "/v1/calls", params={"sort": "created,ASC"}).status_code == 400


def test_dates_are_whole_days_both_included(frozen: Simulator, api: RawApi) -> None:
    frozen.load_calls(
        73,  # hourly over three days, from midnight to midnight in UTC
        created_from=datetime(2026, 10, 23, 23, tzinfo=UTC),
        created_to=datetime(2026, 10, 27, tzinfo=UTC),
    )

    def total(first: str, last: str) -> int:
        shown = api.ok("GET", "/v1/calls", params={"from": first, "to": last})
        return int(shown["totalElements"])

    assert total("2026-10-24", "2026-10-24") == 24
    assert total("2026-10-24", "2026-10-26") == 72
    assert total("2026-10-27", "2026-12-31") == 1
    assert total("2026-10-01", "2026-10-23") == 0
    frozen.configure(date_zone="Europe/Paris")
    assert total("2026-10-25", "2026-10-25") == 25, "the day on which Paris repeats an hour"
    frozen.configure(date_filter="startTime")
    assert total("2026-10-25", "2026-10-25") == 25


def test_new_calls_show_up_late_in_the_list(frozen: Simulator, api: RawApi) -> None:
    frozen.configure(list_lag=3600)
    call_id = api.ok("POST", "/v1/calls", call_body())["id"]
    assert api.listed() == []
    assert api.ok("GET", "/v1/calls")["totalElements"] == 0
    assert api("GET", f"/v1/calls/{call_id}").status_code == 200
    frozen.configure(list_lag=0)
    assert len(api.listed()) == 1


def test_created_may_be_late_or_missing(frozen: Simulator, api: RawApi) -> None:
    call_id = api.ok("POST", "/v1/calls", call_body())["id"]
    created = api.ok("GET", f"/v1/calls/{call_id}")["created"]
    frozen.configure(created_lag=3600)
    assert api.ok("GET", f"/v1/calls/{call_id}")["created"] is None
    frozen.configure(created_lag=0.5)
    frozen.wait_until(lambda: api.ok("GET", f"/v1/calls/{call_id}")["created"])
    late = datetime.fromisoformat(api.ok("GET", f"/v1/calls/{call_id}")["created"])
    assert late - datetime.fromisoformat(created) in (timedelta(0), timedelta(seconds=1))
    frozen.configure(created="missing")
    assert "created" not in api.ok("GET", f"/v1/calls/{call_id}")


def test_a_ringing_call_shows_its_start(simulator: Simulator, api: RawApi) -> None:
    # created comes much later: the answer must still change at the first ring
    simulator.configure(speed=3, created_lag=3600)
    simulator.outcomes({"*": ["IN_PROGRESS"]})
    path = f"/v1/calls/{api.ok('POST', '/v1/calls', call_body())['id']}"
    api.ok("GET", path)
    simulator.wait_until(lambda: api.ok("GET", path)["startTime"])
    assert api.ok("GET", path)["created"] is None


def test_loaded_calls_are_listed_in_order_of_time(frozen: Simulator, api: RawApi) -> None:
    api.ok("POST", "/v1/calls", call_body())
    ids = frozen.load_calls(200, campaign="Archive", status="*", created_to=datetime.now(UTC) - timedelta(minutes=1))
    assert len(set(ids)) == 200
    everything = api.listed(size=100) + api.ok("GET", "/v1/calls", params={"size": 100, "page": 2})["content"]
    assert all(later["created"] >= earlier["created"] for later, earlier in pairwise(everything))
    assert everything[0]["id"] not in ids, "the call of just now is the newest"
    assert len(api.listed(campaign="Archive", size=100)) == 100
    running = frozen.load_calls(10, status="IN_PROGRESS", ends_within=100)
    frozen.advance(51)
    states = Counter(entry["status"] for entry in frozen.ledger() if entry["call_id"] in running)
    assert states == {"COMPLETED": 5, "IN_PROGRESS": 5}


def test_an_inbound_call_can_be_loaded(frozen: Simulator, api: RawApi) -> None:
    frozen.load_calls(1, type="INBOUND", agent_id=RECEPTION_AGENT_ID)
    [call] = api.listed()
    assert (call["type"], call["agentId"]) == ("INBOUND", RECEPTION_AGENT_ID)
