"""What is sent: queries, bodies, and what is refused before anything leaves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.exceptions import (
    VolubileInputError,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileUnknownOutcome,
)

AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
ID = "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633"
PHONE = "+33639980142"
EMPTY_PAGE = {"content": [], "page": 1, "size": 100, "totalElements": 0, "totalPages": 0}


@dataclass(frozen=True)
class Recipient:
    phone: str
    context: Mapping[str, Any] = field(default_factory=dict)


class Colour(StrEnum):
    RED = "red"


# --- lists ---


def test_every_filter_of_the_call_list(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, EMPTY_PAGE))
    client.list_calls(
        agent_id=AGENT,
        phone=PHONE,
        campaign="Winter & tyres +1",
        from_date=date(2025, 10, 25),
        to_date=date(2025, 10, 27),
        page=3,
        size=50,
        sort="startTime,ASC",
    )
    assert server.requests[0].query == {
        "agentId": AGENT,
        "phone": PHONE,
        "campaign": "Winter & tyres +1",
        "from": "2025-10-25",
        "to": "2025-10-27",
        "page": "3",
        "size": "50",
        "sort": "startTime,ASC",
    }


def test_no_filter_at_all(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(200, EMPTY_PAGE))
    client.list_calls(sort=None)
    client.list_agents()
    assert [request.query for request in server.requests] == [{"page": "1", "size": "100"}] * 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"page": 0}, "page 0"),
        ({"size": 0}, "size 0"),
        ({"size": 101}, "size 101"),
        ({"sort": "created"}, "property,ASC"),
        ({"sort": "created,desc"}, "property,ASC"),
        ({"sort": "a&b,ASC"}, "property,ASC"),
        ({"from_date": date(2025, 1, 1)}, "together"),
        ({"to_date": date(2025, 1, 1)}, "together"),
        ({"from_date": date(2025, 1, 2), "to_date": date(2025, 1, 1)}, "after to_date"),
        ({"from_date": datetime(2025, 1, 1), "to_date": date(2025, 1, 1)}, "from_date must be a date"),
        ({"from_date": date(2025, 1, 1), "to_date": "2025-01-01"}, "to_date must be a date"),
        ({"phone": "0639980142"}, "E.164"),
        ({"phone": ""}, "E.164"),
        ({"campaign": " "}, "campaign is empty"),
    ],
)
def test_filters_that_make_no_sense(options: Any, why: str, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match=why) as error:
        client.list_calls(**options)
    assert "0639980142" not in str(error.value)
    assert server.requests == []


def calls(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [{"id": name, "status": "COMPLETED", "agentId": AGENT, "phone": PHONE, **more} for name in ids]


def pages(tell: Any, *contents: list[dict[str, Any]], total: int | None = None, **envelope: Any) -> list[Any]:
    return [
        tell.answer(
            200,
            {
                "content": content,
                "page": number,
                "size": 100,
                "totalElements": sum(map(len, contents)),
                "totalPages": len(contents) if total is None else total,
                **envelope,
            },
        )
        for number, content in enumerate(contents, 1)
    ]


def test_all_pages_are_walked(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", *pages(tell, calls("a", "b"), calls("c"), calls("d")))
    assert [call.id for call in client.iter_calls(agent_id=AGENT)] == ["a", "b", "c", "d"]
    assert [request.query["page"] for request in server.requests] == ["1", "2", "3"]


def test_pages_are_fetched_as_they_are_needed(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", *pages(tell, calls("a", "b"), calls("c")))
    assert next(client.iter_calls()).id == "a"
    assert len(server.requests) == 1


def test_calls_that_arrive_meanwhile_neither_repeat_nor_hide_any(server: Any, tell: Any, client: Any) -> None:
    """Newest first: a new call pushes the last of page 1 onto page 2."""
    server.on("GET .*", *pages(tell, calls("c", "b"), calls("b", "a")))
    assert [call.id for call in client.iter_calls()] == ["c", "b", "a"]


def test_a_page_of_nothing_new_does_not_end_the_walk(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", *pages(tell, calls("c", "b"), calls("c", "b"), calls("a")))
    assert [call.id for call in client.iter_calls()] == ["c", "b", "a"]


def test_the_list_grows_and_the_walk_follows(server: Any, tell: Any, client: Any) -> None:
    server.on(
        "GET .*",
        *pages(tell, calls("c"), total=2),
        *pages(tell, calls("b"), total=3, page=2),
        *pages(tell, calls("a"), total=3, page=3),
    )
    assert [call.id for call in client.iter_calls()] == ["c", "b", "a"]


@pytest.mark.parametrize("told", [{"page": 1}, {"page": None}])
def test_a_server_that_does_not_turn_pages_is_an_error_not_a_loop_nor_a_loss(
    told: dict[str, Any], server: Any, tell: Any, client: Any
) -> None:
    server.on("GET .*", *pages(tell, calls("a", "b"), total=5, **told))
    walk = client.iter_calls()
    assert [next(walk).id, next(walk).id] == ["a", "b"]
    with pytest.raises(VolubileProtocolError, match=r"listCalls: page 2 .*2 items were read"):
        next(walk)
    assert len(server.requests) == 2


def test_a_list_that_breaks_off_is_an_error_not_a_loss(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", *pages(tell, calls("a", "b"), [], total=4))
    with pytest.raises(VolubileProtocolError, match=r"listCalls: page 2 .*2 items were read"):
        list(client.iter_calls())


def test_an_empty_page_ends_a_list_of_untold_length(server: Any, tell: Any, client: Any) -> None:
    untold = {"totalPages": None, "size": None}
    server.on("GET .*", *pages(tell, calls("a", "b"), [], **untold))
    assert [call.id for call in client.iter_calls()] == ["a", "b"]


def test_pages_counted_from_zero_are_walked_too(server: Any, tell: Any, client: Any) -> None:
    first, second = pages(tell, calls("a"), total=2, page=0) + pages(tell, calls("b"), total=2, page=1)
    server.on("GET .*", first, second)
    assert [call.id for call in client.iter_calls()] == ["a", "b"]


@pytest.mark.parametrize(
    "envelope", [{"totalPages": None}, {"totalPages": None, "page": None}, {"totalPages": None, "size": None}]
)
def test_without_totals_a_short_or_empty_page_is_the_last(
    envelope: dict[str, Any], server: Any, tell: Any, client: Any
) -> None:
    server.on("GET .*", *pages(tell, calls("a", "b"), [], **{"size": 2, **envelope}))
    assert [call.id for call in client.iter_calls(size=2)] == ["a", "b"]
    server.on("GET .*", *pages(tell, calls("a"), size=2, totalPages=None))
    assert [call.id for call in client.iter_calls(size=2)] == ["a"]


def test_agents_are_walked_too(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", *pages(tell, [{"id": "a"}], [{"id": "b"}]))
    assert [agent.id for agent in client.iter_agents()] == ["a", "b"]


def test_an_order_that_is_refused_is_left_out_for_the_whole_list(server: Any, tell: Any, client: Any) -> None:
    server.on(
        "GET .*",
        tell.answer(400, {"message": "no such property"}),
        *pages(tell, calls("a"), total=2),
        *pages(tell, calls("b"), total=2, page=2),
    )
    assert [call.id for call in client.iter_calls()] == ["a", "b"]
    assert ["sort" in request.query for request in server.requests] == [True, False, False]


def test_a_400_for_another_reason_is_not_blamed_on_the_order(server: Any, tell: Any, client: Any) -> None:
    server.on("GET .*", tell.answer(400), tell.answer(400, {"message": "bad date"}), tell.answer(200, EMPTY_PAGE))
    with pytest.raises(VolubileRequestRefused, match="bad date"):
        client.list_calls()
    assert client.list_calls().sort == "created,DESC"


def test_a_filter_the_server_ignores_is_applied_here(
    server: Any, tell: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    others = calls("x", agentId="another") + calls("y", phone="+33639980143")
    notations = calls("n", phone="06 39 98 01 42") + calls("p", phone="0033639980142") + calls("q", phone=None)
    server.on("GET .*", *pages(tell, others + calls("a"), others, notations))
    assert [call.id for call in client.iter_calls(agent_id=AGENT.upper(), phone=PHONE)] == ["a", "n", "p"]
    assert len([record for record in caplog.records if "ignored a filter" in record.message]) == 1
    assert client.list_calls(agent_id=AGENT).received == 3


# --- people ---


@pytest.mark.parametrize(
    "recipient", [Recipient(PHONE, {"firstName": "Lucie"}), {"phone": PHONE, "context": {"firstName": "Lucie"}}]
)
def test_a_call(recipient: Any, server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201))
    client.create_call(AGENT, recipient)
    assert server.requests[0].json == {
        "agentId": AGENT,
        "recipient": {"phone": PHONE, "context": {"firstName": "Lucie"}},
    }
    assert server.requests[0].headers["content-type"] == "application/json"
    assert server.requests[0].headers["user-agent"].startswith("airflow-provider-volubile/")


def test_bulk_calls(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201))
    client.create_bulk_calls(UUID(AGENT), (Recipient(f"+3363998{n:04}") for n in range(1000)))
    body = server.requests[0].json
    assert body["agentId"] == AGENT
    assert len(body["recipients"]) == 1000
    assert body["recipients"][0] == {"phone": "+33639980000"}


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_or_many_people(count: int, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match=f"{count} recipients .*1 to 1000"):
        client.create_bulk_calls(AGENT, [Recipient(PHONE)] * count)
    assert server.requests == []


@pytest.mark.parametrize(
    "phone", ["", None, 33639980142, "0639980142", "+0639980142", "+33 6 39 98 01 42", "+33639980142\n"]
)
def test_a_number_that_is_not_e164(phone: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match=r"E\.164") as error:
        client.create_call(AGENT, {"phone": phone, "context": {}})
    assert "39980142" not in str(error.value).replace(" ", "")
    assert server.requests == []


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("Lucie", "Lucie"),
        ("", ""),
        (Colour.RED, "red"),
        (7, "7"),
        (-1.5, "-1.5"),
        (75001.0, "75001"),
        (-0.0, "0"),
        (Decimal("19.90"), "19.90"),
        (Decimal("20.00"), "20"),
        (True, "true"),
        (False, "false"),
        (["a", 1, None], ["a", 1, None]),
        (("a", "b"), ["a", "b"]),
        ({"street": {"no": 7}}, {"street": {"no": 7}}),
    ],
)
def test_context_values(value: Any, sent: Any, server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201))
    client.create_call(AGENT, Recipient(PHONE, {"x": value, "nothing": None}))
    assert server.requests[0].json["recipient"]["context"] == {"x": sent}


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("1E+1000000"),
        pytest.param(10**5000, id="huge"),
        date(2025, 1, 1),
        b"hidden",
        object(),
        {1, 2},
        ["hidden", float("nan")],
        {"deep": object()},
        {("a", "b"): 1},
        "half \ud800",
        ["half \ud800"],
    ],
)
def test_a_context_value_that_is_not_json_names_its_key(value: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match="'street'") as error:
        client.create_call(AGENT, Recipient(PHONE, {"street": value}))
    assert "hidden" not in str(error.value)
    assert server.requests == []


def test_a_value_that_holds_itself(client: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(VolubileInputError, match="'street'"):
        client.create_call(AGENT, Recipient(PHONE, {"street": loop}))


@pytest.mark.parametrize("recipient", [{"phone": PHONE, "context": "Lucie"}, Recipient(PHONE, ["Lucie"])])  # type: ignore[arg-type]
def test_a_context_that_is_none(recipient: Any, client: Any) -> None:
    with pytest.raises(VolubileInputError, match=r"\+33 6 \*\* \*\* \*\* 42") as error:
        client.create_call(AGENT, recipient)
    assert "Lucie" not in str(error.value)


@pytest.mark.parametrize("recipient", [PHONE, None, 5, object()])
def test_a_recipient_that_is_none(recipient: Any, client: Any) -> None:
    with pytest.raises(VolubileInputError, match=r"E\.164"):
        client.create_call(AGENT, recipient)


@pytest.mark.parametrize("key", ["system", "", 5, None])
def test_a_context_key_that_cannot_be(key: Any, client: Any) -> None:
    with pytest.raises(VolubileInputError, match="context key"):
        client.create_call(AGENT, Recipient(PHONE, {key: "x"}))


# --- campaigns ---


def campaign(**more: Any) -> dict[str, Any]:
    return {
        **wire.campaign_body(
            name="Winter tyres",
            agent_id=AGENT,
            start_date=date(2025, 11, 12),
            time_slots=[(time(9, 30), time(12, 0)), (time(14, 0), time(18, 30))],
            days=["TUESDAY", "THURSDAY"],
            batch_size=150,
            recipients=[Recipient(PHONE, {"firstName": "Lucie"})],
            retry={"max": 2, "delay": 90, "retryOn": ["NO_ANSWER"]},
            timezone="Europe/Paris",
        ),
        **more,
    }


def test_a_campaign(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201, {"id": ID, "status": "ACTIVE", "timezone": "Europe/Paris"}))
    created = client.create_campaign(campaign())
    assert (created.id, created.status) == (ID, "ACTIVE")
    assert server.requests[0].json == {
        "name": "Winter tyres",
        "agentId": AGENT,
        "startDate": "2025-11-12",
        "timeSlots": [{"startTime": "09:30", "endTime": "12:00"}, {"startTime": "14:00", "endTime": "18:30"}],
        "batchSize": 150,
        "days": ["TUESDAY", "THURSDAY"],
        "retry": {"max": 2, "delay": 90, "retryOn": ["NO_ANSWER"]},
        "recipients": [{"phone": PHONE, "context": {"firstName": "Lucie"}}],
        "timezone": "Europe/Paris",
    }


@pytest.mark.parametrize("message", ["Unrecognized field timezone", "timeZone: unknown", "time zone not allowed"])
def test_a_timezone_that_is_refused_is_left_out(
    message: str, server: Any, tell: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.on("POST .*", tell.answer(400, {"message": message}), tell.answer(201, {"id": ID, "timezone": "UTC"}))
    assert client.create_campaign(campaign()).timezone == "UTC"
    with_zone, without = (request.json for request in server.requests)
    assert with_zone.pop("timezone") == "Europe/Paris"
    assert with_zone == without
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("takes no timezone" in text for text in warnings)
    assert any("of UTC, not of Europe/Paris" in text for text in warnings)


def test_another_400_is_not_blamed_on_the_timezone(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(400, {"message": "agent is inbound"}))
    with pytest.raises(VolubileRequestRefused, match="agent is inbound"):
        client.create_campaign(campaign())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [403, 422, 500])
def test_only_a_400_is_a_reason_to_leave_the_timezone_out(status: int, server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(status, {"message": "timezone"}))
    with pytest.raises(Exception, match="createCampaign"):
        client.create_campaign(campaign())
    assert len(server.requests) == 1


@pytest.mark.parametrize("zone", ["Europe/Pariss", "", "../etc/passwd", "/etc/passwd", 5])
def test_a_timezone_that_is_none(zone: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match="IANA"):
        client.create_campaign(campaign(timezone=zone))
    assert server.requests == []


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b'{"id": null}', b"[]", b'{"id": "x"'])
def test_an_accepted_campaign_without_an_id_is_known_to_exist(body: bytes, server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(201, body=body))
    with pytest.raises(VolubileUnknownOutcome, match=r"'Winter tyres' was accepted .*Do not create it again") as error:
        client.create_campaign(campaign())
    assert error.value.accepted
    assert error.value.status == 201
    assert len(server.requests) == 1


def test_an_unclear_campaign_is_not_said_to_exist(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(502))
    with pytest.raises(VolubileUnknownOutcome) as error:
        client.create_campaign(campaign())
    assert not error.value.accepted


def test_what_is_not_json_does_not_leave(client: Any, server: Any, window: Any) -> None:
    for odd in (object(), float("nan"), {("a",): 1}):
        with pytest.raises(VolubileInputError, match="createCampaign"):
            client.create_campaign(campaign(extra=odd))
    assert server.requests == []
    assert window.acquired == 0


def test_a_status_is_a_bare_text(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(200, {"id": ID, "status": "PAUSED"}))
    assert client.update_campaign_status(ID, "PAUSED").status == "PAUSED"
    assert server.requests[0].body == b'"PAUSED"'


@pytest.mark.parametrize("status", ["CANCELED", "paused", "", None])
def test_a_status_that_is_none(status: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match="two L"):
        client.update_campaign_status(ID, status)
    assert server.requests == []


def test_a_status_that_is_set_already_counts_as_set(server: Any, tell: Any, client: Any) -> None:
    """The first answer was lost; the second attempt is refused because it is done."""
    server.on("POST .*", tell.reset, tell.answer(409, {"message": "already cancelled"}))
    server.on("GET .*", tell.answer(200, {"id": ID, "status": "CANCELLED"}))
    assert client.update_campaign_status(ID, "CANCELLED").status == "CANCELLED"


def test_a_status_that_is_refused(server: Any, tell: Any, client: Any) -> None:
    server.on("POST .*", tell.answer(409, {"message": "already cancelled"}))
    server.on("GET .*", tell.answer(200, {"id": ID, "status": "CANCELLED"}))
    with pytest.raises(VolubileRequestRefused, match="already cancelled"):
        client.update_campaign_status(ID, "ACTIVE")


@pytest.mark.parametrize("status", [200, 204])
def test_changes_that_are_not_shown_are_read_back(status: int, server: Any, tell: Any, client: Any) -> None:
    server.on("(POST|PATCH) .*", tell.answer(status))
    server.on("GET .*", tell.answer(200, {"id": ID, "status": "PAUSED", "active": False}))
    assert client.update_campaign_status(ID, "PAUSED").status == "PAUSED"
    assert client.update_agent(ID, {"active": False}).active is False


# --- agents ---


def test_changes_of_an_agent(server: Any, tell: Any, client: Any) -> None:
    server.on("PATCH .*", tell.answer(200, {"id": ID, "active": False}))
    assert client.update_agent(ID, {"active": False}).active is False
    assert server.requests[0].json == {"active": False}


@pytest.mark.parametrize(
    "changes", [{}, {"prompt": "x"}, {"active": "yes"}, {"active": None}, {"active": 1}, {"name": ""}, {"name": 5}]
)
def test_changes_that_cannot_be(changes: Any, client: Any, server: Any) -> None:
    with pytest.raises(VolubileInputError, match="agent"):
        client.update_agent(ID, changes)
    assert server.requests == []


def test_the_accounts_limits_are_told(server: Any, tell: Any, client: Any) -> None:
    assert client.rate_limit is None
    server.on(
        "GET .*",
        tell.answer(200, {"id": ID}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "97"}),
        tell.answer(200, {"id": ID}, headers={"X-RateLimit-Limit": "9" * 5000, "X-RateLimit-Remaining": "-1"}),
    )
    client.get_call(ID)
    client.get_call(ID)
    assert client.rate_limit == (100, 97)
