"""The client against a whole service: what the ledger says was dialled, and every form an answer can take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from typing import Any

import pytest

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator

PEOPLE = [{"phone": f"+33639980{n:03}", "context": {"firstName": "Lucie"}} for n in range(5)]


@pytest.fixture
def pair(simulator: Simulator) -> ApiKeyPair:
    return ApiKeyPair(simulator.primary_key, simulator.secondary_key, name="volubile_test")


@pytest.fixture
def make(simulator: Simulator, pair: ApiKeyPair) -> Callable[..., VolubileClient]:
    def make(bearer: bool = False, **options: Any) -> VolubileClient:
        options.setdefault("window", RateWindow(limit=100_000, length=0.5))
        options.setdefault("sleep", lambda seconds: time.sleep(min(seconds, 0.05)))
        # Two refusals may ask for a whole window of 15 s each, and are to be survived.
        options.setdefault("retry", RetryBudget(attempts=4, rate_limit_seconds=60))
        return VolubileClient(simulator.url, BearerTokens(pair) if bearer else pair, **options)

    return make


@pytest.fixture
def volubile(make: Callable[..., VolubileClient]) -> VolubileClient:
    return make()


def campaign_body(people: Any = PEOPLE, **more: Any) -> dict[str, Any]:
    return {
        **wire.campaign_body(
            name="Winter tyres",
            agent_id=REMINDER_AGENT_ID,
            start_date=datetime.now(UTC).date(),
            time_slots=[(clock(0, 0), clock(23, 59))],
            days=["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"],
            batch_size=1000,
            recipients=people,
        ),
        **more,
    }


DIALS: dict[str, Callable[[VolubileClient], Any]] = {
    "createCall": lambda c: c.create_call(REMINDER_AGENT_ID, PEOPLE[0]),
    "createBulkCalls": lambda c: c.create_bulk_calls(REMINDER_AGENT_ID, PEOPLE),
    "createCampaign": lambda c: c.create_campaign(campaign_body()),
}


#: What may go wrong after the request was read: with and without it taking effect.
FAULTS: list[dict[str, Any]] = [
    {"accept": accept, **fault}
    for accept in (True, False)
    for fault in (
        {"kind": "drop"},
        {"kind": "reset"},
        *({"kind": "status", "status": status} for status in (500, 502, 503, 504)),
        {"kind": "malformed"},
        {"kind": "empty"},
        {"kind": "truncated"},
        {"kind": "html"},
        {"kind": "redirect", "location": "https://elsewhere.example/"},
        {"kind": "delay", "seconds": 1},
    )
]
#: What says no for certain.
FAULTS += [
    {"kind": "rate_limit", "accept": False},
    *({"kind": "status", "status": status, "accept": False} for status in (400, 401)),
]


def name(fault: dict[str, Any]) -> str:
    return f"{fault['kind']}{fault.get('status', '')}{' after taking it' if fault['accept'] else ''}"


@pytest.mark.parametrize("fault", FAULTS, ids=name)
@pytest.mark.parametrize("operation", DIALS)
def test_no_fault_makes_anyone_be_dialled_twice(
    operation: str, fault: dict[str, Any], simulator: Simulator, make: Callable[..., VolubileClient]
) -> None:
    """The fault hits once and everything after it goes well: whoever repeats, dials."""
    refused = fault["kind"] == "rate_limit" or fault.get("status") in {400, 401}
    simulator.fault(operation, **fault)
    client = make(timeout=(5, 0.5))
    outcome = "accepted"
    try:
        DIALS[operation](client)
    except VolubileUnknownOutcome as unknown:
        outcome = "accepted" if unknown.accepted else "unknown"
    except VolubileError:
        outcome = "refused"
    time.sleep(1.2 if fault["kind"] == "delay" else 0.1)  # whatever is still under way arrives
    taken = len(simulator.submissions())
    assert taken <= 1
    if outcome == "refused":
        assert taken == 0
    spoiled = fault["kind"] in {"malformed", "empty", "truncated", "html"}
    if outcome == "accepted" and not (spoiled and not fault["accept"]):
        assert taken == 1
    if refused and fault.get("status") != 400:
        assert (outcome, taken) == ("accepted", 1), "a certain no is followed by another attempt"
    simulator.wait_until_quiet()
    assert simulator.summary()["max_attempts"] <= 1


@pytest.mark.parametrize("kind", ["drop", "reset", "truncated", "status", "rate_limit"])
def test_reading_survives_what_may_happen(kind: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.fault("*", kind, times=2)
    assert volubile.get_agent(REMINDER_AGENT_ID).type == "OUTBOUND"
    simulator.fault("*", kind, times=None)
    with pytest.raises(VolubileError) as error:
        volubile.get_agent(REMINDER_AGENT_ID)
    assert type(error.value).__name__ in {"VolubileUnavailable", "VolubileRateLimitError"}


@pytest.mark.parametrize("kind", ["malformed", "html", "empty", "huge"])
def test_nonsense_is_named(kind: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.fault("getAgent", kind, **({"bytes": 40_000_000} if kind == "huge" else {}))
    with pytest.raises(VolubileProtocolError, match="getAgent"):
        volubile.get_agent(REMINDER_AGENT_ID)


def test_a_campaign_from_creation_to_transcripts(simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.configure(transcript_delay=0)
    created = volubile.create_campaign(campaign_body(timezone="Europe/Paris"))
    assert (created.status, created.timezone) == ("ACTIVE", "Europe/Paris")
    assert volubile.get_campaign(created.id).name == "Winter tyres"
    simulator.wait_until_quiet()
    calls = list(volubile.iter_calls(campaign="Winter tyres", agent_id=REMINDER_AGENT_ID, size=2))
    assert {call.id: call.status for call in calls} == {
        entry["call_id"]: entry["status"] for entry in simulator.ledger()
    }
    assert {call.phone for call in calls} == {person["phone"] for person in PEOPLE}
    assert all(call.is_final and call.created and call.created.utcoffset() == timedelta(0) for call in calls)
    for call in calls:
        if call.status == "COMPLETED":
            assert volubile.get_transcript(call.id)[0].action == "RING"
    with pytest.raises(VolubileNotFound):
        volubile.get_call("00000000-0000-4000-8000-000000000000")


def test_filters_and_order(simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.load_calls(250)
    everything = list(volubile.iter_calls())
    assert len({call.id for call in everything}) == len(everything) == 250
    times = [call.created for call in everything if call.created]
    assert times == sorted(times, reverse=True)
    one = everything[100]
    assert one.phone is not None
    assert one.id in {call.id for call in volubile.iter_calls(phone=one.phone)}
    assert {call.phone for call in volubile.iter_calls(phone=one.phone)} == {one.phone}
    today = datetime.now(UTC).date()
    assert len(list(volubile.iter_calls(from_date=today.replace(year=today.year - 5, day=1), to_date=today))) <= 250


@pytest.mark.parametrize("listed_before", [False, True])
def test_one_refusal_of_a_list_does_not_take_its_order_for_good(
    simulator: Simulator, volubile: VolubileClient, listed_before: bool
) -> None:
    if listed_before:
        assert volubile.list_calls().sort == wire.NEWEST_FIRST
    simulator.fault("listCalls", "status", status=400)
    assert volubile.list_calls().sort == (wire.NEWEST_FIRST if listed_before else None)
    assert volubile.list_calls().sort == wire.NEWEST_FIRST


def test_a_service_that_refuses_an_order_is_asked_without_one_after_a_few_lists(
    simulator: Simulator, volubile: VolubileClient
) -> None:
    simulator.configure(sort="refused")
    for _ in range(5):
        assert [volubile.list_calls(page=page).sort for page in (1, 2)] == [None, None]
    assert simulator.request_summary()["listCalls"] == {"200": 10, "400": 3}


def test_a_list_that_grows_while_it_is_read(simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.load_calls(30)
    before = {call.id for call in volubile.iter_calls()}
    walk = volubile.iter_calls(size=5)
    seen = [next(walk).id for _ in range(7)]
    volubile.create_bulk_calls(REMINDER_AGENT_ID, PEOPLE)
    seen += [call.id for call in walk]
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


def test_the_status_of_a_campaign(simulator: Simulator, volubile: VolubileClient) -> None:
    created = volubile.create_campaign(campaign_body())
    assert volubile.update_campaign_status(created.id, "PAUSED").status == "PAUSED"
    simulator.fault("updateCampaignStatus", "drop")
    assert volubile.update_campaign_status(created.id, "CANCELLED").status == "CANCELLED"


@pytest.mark.parametrize("form", ["id", "no_id", "empty", "204"])
def test_forms_of_an_accepted_call(form: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.configure(call_answer=form)
    accepted = volubile.create_call(REMINDER_AGENT_ID, PEOPLE[0])
    (entry,) = simulator.ledger()
    assert accepted.id == (entry["call_id"] if form == "id" else None)


@pytest.mark.parametrize("form", ["calls", "list", "empty", "partial", "no_ids"])
def test_forms_of_accepted_bulk_calls(form: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.configure(bulk_answer=form)
    accepted = volubile.create_bulk_calls(REMINDER_AGENT_ID, PEOPLE)
    dialled = {entry["call_id"]: entry["phone"] for entry in simulator.ledger()}
    assert len(dialled) == len(PEOPLE)
    for call in accepted:
        assert call.id is None or dialled[call.id] == (call.phone or dialled[call.id])
    expected = {"calls": 5, "list": 5, "empty": 0, "no_ids": 5}.get(form)
    assert len(accepted) == expected if expected is not None else 0 < len(accepted) < 5


@pytest.mark.parametrize("form", ["accepted", "refused", "ignored"])
def test_forms_of_a_campaigns_timezone(
    form: str, simulator: Simulator, volubile: VolubileClient, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.configure(campaign_timezone=form)
    created = volubile.create_campaign(campaign_body(timezone="Europe/Madrid"))
    assert len(simulator.submissions()) == 1
    assert ("clock" in caplog.text) == (form != "accepted")
    assert volubile.get_campaign(created.id).id == created.id


@pytest.mark.parametrize("form", ["agent", "empty", "204"])
def test_forms_of_a_changed_agent(form: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.configure(patch_answer=form)
    assert volubile.update_agent(REMINDER_AGENT_ID, {"active": False}).active is False


@pytest.mark.parametrize("form", ["bytes", "redirect", "json", "empty"])
def test_forms_of_a_recording(form: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.outcomes({PEOPLE[0]["phone"]: ["COMPLETED"]})  # type: ignore[dict-item]
    simulator.configure(recording_answer=form, recording_size=300_000)
    volubile.create_call(REMINDER_AGENT_ID, PEOPLE[0])
    simulator.wait_until_quiet()
    (call,) = volubile.iter_calls()
    if form == "empty":
        with pytest.raises(VolubileNotFound), volubile.open_recording(call.id):
            pass
        return
    with volubile.open_recording(call.id) as recording:
        whole = b"".join(recording.iter_chunks())
    assert len(whole) == 300_000
    assert recording.content_type.startswith("audio/")
    with volubile.open_recording(call.id, offset=1000) as rest:
        assert b"".join(rest.iter_chunks()) == whole[rest.offset :]
    for request in simulator.media_requests():
        assert not {"x-api-key", "authorization", "cookie"} & {name.lower() for name in request["headers"]}


@pytest.mark.parametrize("form", ["array", "single", "ndjson"])
def test_forms_of_a_transcript(form: str, simulator: Simulator, volubile: VolubileClient) -> None:
    simulator.outcomes({PEOPLE[0]["phone"]: ["COMPLETED"]})  # type: ignore[dict-item]
    simulator.configure(transcript_shape=form, transcript_delay=0)
    volubile.create_call(REMINDER_AGENT_ID, PEOPLE[0])
    simulator.wait_until_quiet()
    (call,) = volubile.iter_calls()
    events = volubile.get_transcript(call.id)
    assert len(events) == 1 if form == "single" else len(events) > 3


# --- keys, tokens, window ---


def test_the_primary_is_revoked_while_many_read(
    simulator: Simulator, volubile: VolubileClient, pair: ApiKeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.load_calls(100)
    stop = threading.Event()

    rounds = [0] * 4

    def work(number: int) -> int:
        while not stop.is_set():
            assert len(list(volubile.iter_calls(size=20))) == 100
            rounds[number] += 1
        return rounds[number]

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, number) for number in range(4)]
        try:
            volubile.get_agent(REMINDER_AGENT_ID)
            simulator.revoke_key("primary")
            volubile.get_agent(REMINDER_AGENT_ID)
            simulator.restore_key("primary")
            # Nobody who was refused the primary shall be refused the secondary, too.
            before = list(rounds)
            while any(
                rounds[number] < before[number] + 2 and not worker.done() for number, worker in enumerate(workers)
            ):
                time.sleep(0.01)
            simulator.revoke_key("secondary")
            volubile.get_agent(REMINDER_AGENT_ID)
        finally:
            stop.set()
        assert all(worker.result(60) for worker in workers)
    assert len([record for record in caplog.records if "was refused (401)" in record.message]) == 2
    simulator.revoke_key("primary")
    with pytest.raises(VolubileAuthError):
        volubile.get_agent(REMINDER_AGENT_ID)
    simulator.restore_key("primary")
    simulator.restore_key("secondary")


@pytest.mark.parametrize("bearer", [False, True])
def test_every_operation_in_both_modes(bearer: bool, simulator: Simulator, make: Callable[..., VolubileClient]) -> None:
    simulator.outcomes({PEOPLE[0]["phone"]: ["COMPLETED"]})  # type: ignore[dict-item]
    simulator.configure(transcript_delay=0)
    client = make(bearer)
    assert list(client.iter_agents())
    client.update_agent(REMINDER_AGENT_ID, {"active": True})
    client.create_call(REMINDER_AGENT_ID, PEOPLE[0])
    simulator.wait_until_quiet()
    (call,) = client.iter_calls()
    assert client.get_call(call.id) == call
    client.get_transcript(call.id)
    with client.open_recording(call.id) as recording:
        assert sum(map(len, recording.iter_chunks())) == recording.length
    client.create_bulk_calls(REMINDER_AGENT_ID, PEOPLE)
    client.update_campaign_status(client.create_campaign(campaign_body()).id, "CANCELLED")
    scopes = simulator.request_summary().get("issueToken", {})
    assert sum(scopes.values()) == (5 if bearer else 0), "one token for each scope"


def test_tokens_of_two_seconds(simulator: Simulator, make: Callable[..., VolubileClient]) -> None:
    simulator.configure(token_life=2)
    client = make(bearer=True)
    deadline = time.monotonic() + 5
    rounds = 0
    while time.monotonic() < deadline:
        client.get_agent(REMINDER_AGENT_ID)
        rounds += 1
        time.sleep(0.05)
    requests = simulator.request_summary()
    assert requests["getAgent"].get("200") == rounds
    assert 2 <= requests["issueToken"]["200"] <= 6


@pytest.mark.parametrize(
    ("config", "works"),
    [
        ({"token_claims": {"iat": 1_000_000_000, "exp": 1_000_000_900}}, True),  # a clock that is decades behind
        ({"token_claims": {"iat": None, "exp": None}}, True),
        ({"token_format": "opaque"}, True),
        ({"token_expires_in": 10**12}, True),
        ({"token_format": "opaque", "token_expires_in": 0}, False),
        ({"token_format": "opaque", "token_expires_in": -900}, False),
    ],
)
def test_tokens_with_odd_claims(
    config: dict[str, Any], works: bool, simulator: Simulator, make: Callable[..., VolubileClient]
) -> None:
    simulator.configure(**config)
    client = make(bearer=True)
    if works:
        client.get_agent(REMINDER_AGENT_ID)
    else:
        with pytest.raises(VolubileProtocolError, match="issueToken"):
            client.get_agent(REMINDER_AGENT_ID)
    assert sum(simulator.request_summary()["issueToken"].values()) == 1


def test_revoked_tokens(simulator: Simulator, make: Callable[..., VolubileClient]) -> None:
    client = make(bearer=True)
    client.get_agent(REMINDER_AGENT_ID)
    simulator.revoke_tokens()
    client.get_agent(REMINDER_AGENT_ID)
    assert simulator.request_summary()["issueToken"] == {"200": 2}


@pytest.mark.parametrize("retry_after", ["seconds", "date", "absent", "wrong"])
def test_a_full_window_costs_a_wait_and_no_failure(
    retry_after: str, simulator: Simulator, make: Callable[..., VolubileClient]
) -> None:
    simulator.configure(limit=10, window=1, retry_after=retry_after)
    client = make(window=RateWindow(limit=10, length=1), sleep=time.sleep)
    with ThreadPoolExecutor(6) as pool:
        agents = list(pool.map(client.get_agent, [REMINDER_AGENT_ID] * 30))
    assert len(agents) == 30
    assert simulator.request_summary()["getAgent"]["200"] == 30


def test_a_service_that_is_gone(simulator: Simulator, make: Callable[..., VolubileClient], pair: ApiKeyPair) -> None:
    gone = VolubileClient(
        "http://127.0.0.1:9", pair, window=RateWindow(), retry=RetryBudget(attempts=2), sleep=lambda _: None
    )
    for dial in DIALS.values():
        with pytest.raises(VolubileUnavailable):
            dial(gone)
