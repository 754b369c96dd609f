"""What a typing error costs: a message that names the value and the rule, no request that dials, and no retry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import RunDag
from tests.airflow.helpers import ARCHIVED, DIALLING, INACTIVE, INBOUND, REMINDER, UNKNOWN, Failures

pytestmark = pytest.mark.airflow

PHONE = "+33639980001"
YESTERDAY = datetime.now(UTC) - timedelta(days=2)


def campaign(**changes: Any) -> Callable[..., BaseOperator]:
    settings = {"name": "Tyres", "agent_id": REMINDER, "recipients": [PHONE], "time_slots": ["09:00-12:00"]} | changes
    return lambda **common: VolubileCreateCampaignOperator(**settings | common)


def bulk(**changes: Any) -> Callable[..., BaseOperator]:
    settings = {"agent_id": REMINDER, "recipients": [PHONE]} | changes
    return lambda **common: VolubileBulkCallsOperator(**settings | common)


def call(**changes: Any) -> Callable[..., BaseOperator]:
    settings = {"agent_id": REMINDER, "phone": PHONE} | changes
    return lambda **common: VolubileCreateCallOperator(**settings | common)


CASES: dict[str, tuple[Callable[..., BaseOperator], str]] = {
    # People
    "nobody": (campaign(recipients=[]), "nobody to call: 0 rows were read"),
    "no_valid_number": (
        bulk(recipients=["12", {"phone": ""}]),
        "2 rows were read and none was accepted (line 1: does not begin with + and a country code",
    ),
    "bad_phone": (call(phone="0639980001"), "line 1: does not begin with + and a country code"),
    "emergency": (call(phone="112", default_region="FR"), "is an emergency or short number"),
    "region": (call(phone="0639980001", default_region="France"), "default_region 'France' is no ISO 3166 country"),
    "one_object": (bulk(recipients={"phone": PHONE}), "got one object where a list of them, or a path, is expected"),
    "text_of_a_list": (bulk(recipients="{{ ['+33639980001'] }}"), "got the text of a list where a list or a path"),
    "a_number": (bulk(recipients=[12.5, PHONE]), "row 1: expected an object or a string, found float"),
    "too_many": (
        bulk(recipients=[f"+3363998{n:04d}" for n in range(10_000)] + ["+33199000000"]),
        "10001 recipients in one task; it takes at most 10000. Map the operator",
    ),
    # Context
    "no_json": (
        bulk(recipients=[{"phone": PHONE, "when": YESTERDAY}]),
        "line 1: context value of 'when' cannot be sent, it is a datetime",
    ),
    "no_json_nested": (
        call(call_context={"visit": {"days": [timedelta(1)]}}),
        "context value of 'visit' cannot be sent, it is a dict that is not JSON",
    ),
    "text_of_a_context": (
        call(call_context="{{ {'firstName': 'Lucie'} }}"),
        "call_context: got a str where an object is expected",
    ),
    "a_list_as_context": (call(call_context=[["firstName", "Lucie"]]), "call_context: got a list where an object is"),
    # Files
    "no_file": (bulk(recipients="/nowhere/people.csv"), "/nowhere/people.csv: cannot be read (FileNotFoundError"),
    "spreadsheet": (bulk(recipients="people.xlsx"), "people.xlsx: its format is not known by its name; expected .csv"),
    "not_utf8": (bulk(recipients="{{ params.folder }}/latin.csv"), "latin.csv, line 2: is not UTF-8"),
    "no_phone_column": (
        bulk(recipients="{{ params.folder }}/people.csv", phone_field="mobile"),
        "people.csv: has no column 'mobile' (phone_field); its columns: 'phone', 'first name'",
    ),
    "no_context_column": (
        bulk(recipients="{{ params.folder }}/people.csv", context_fields=["firstName"]),
        "people.csv: has no column 'firstName' (context_fields)",
    ),
    # Agents
    "unknown_agent": (campaign(agent_id=UNKNOWN), f"agent_id '{UNKNOWN}': this account has no such agent"),
    "inbound_agent": (bulk(agent_id=INBOUND), "is INBOUND; only an OUTBOUND agent can call people"),
    "inactive_agent": (call(agent_id=INACTIVE), f"agent_id '{INACTIVE}' (Summer check) is not active"),
    "archived_agent": (campaign(agent_id=ARCHIVED), "(Winter tyres (old)) is archived"),
    "odd_agent": (call(agent_id="../agents"), "agent_id '../agents' is not an id: expected a UUID"),
    # Schedule
    "no_name": (campaign(name=" "), "name is empty: calls are tied to their campaign by its name"),
    "no_slot": (campaign(time_slots=[]), "time_slots holds 0 slots; a campaign takes 1 or 2"),
    "three_slots": (
        campaign(time_slots=["08:00-09:00", "10:00-11:00", "12:00-13:00"]),
        "time_slots holds 3 slots; a campaign takes 1 or 2",
    ),
    "overlapping_slots": (
        campaign(time_slots=["11:00-13:00", "09:00-12:00"]),
        "time slots 09:00-12:00 and 11:00-13:00 overlap",
    ),
    "inverted_slot": (campaign(time_slots=["12:00-09:00"]), "time slot 12:00-09:00 ends before it begins"),
    "no_time": (campaign(time_slots=["9h-12h"]), "time slot '9h-12h' is not of the form '09:30-12:00'"),
    "batch_size_0": (campaign(batch_size=0), "batch_size is 0; it must be from 1 to 1000"),
    "batch_size_1001": (campaign(batch_size="1001"), "batch_size is 1001; it must be from 1 to 1000"),
    "batch_size_text": (campaign(batch_size="many"), "batch_size must be a whole number, not 'many'"),
    "unknown_day": (campaign(days=["MONDAY", "lundi"]), "unknown day 'LUNDI'; days are MONDAY, TUESDAY"),
    "no_day": (campaign(days=[]), "days is empty; a campaign needs at least one weekday"),
    "naive_date": (campaign(campaign_start_date="2050-01-01T09:00:00"), "2050-01-01T09:00:00 has no time zone"),
    "past_date": (
        campaign(campaign_start_date="2024-02-29"),
        "campaign_start_date 2024-02-29 is in the past: today is",
    ),
    "no_date": (campaign(campaign_start_date="tomorrow"), "campaign_start_date 'tomorrow' is not a date"),
    "no_zone": (campaign(timezone="Paris"), "timezone 'Paris' is not an IANA time zone"),
    "redial_key": (campaign(redial={"times": 2}), "redial has no 'times'; it takes 'max', 'delay' and 'retry_on'"),
    "redial_number": (campaign(redial={"max": -1}), "redial['max'] is -1; it must be 0 or more"),
    # Choices and numbers
    "on_kill_action": (
        campaign(on_kill_action="stop"),
        "on_kill_action is 'stop'; it must be one of pause, cancel, leave",
    ),
    "on_unknown": (call(on_unknown="retry"), "on_unknown is 'retry'; it must be one of fail, resend, ask"),
    "wait_for": (bulk(wait_for="answer"), "wait_for is 'answer'; it must be one of ended, transcript"),
    "submit_as": (bulk(submit_as="{{ 'many' }}"), "submit_as is 'many'; it must be one of bulk, single"),
    "timeout": (bulk(timeout=timedelta(hours=1)), "timeout is datetime.timedelta(seconds=3600); it must be a number"),
    "poll_interval": (call(poll_interval=-1), "poll_interval is -1; it must be a number from 0"),
    "max_missing": (campaign(max_missing="3"), "max_missing is '3'; it must be a number from 0"),
    "ratio": (campaign(min_success_ratio=80), "min_success_ratio is 80; it must be a number from 0 to 1"),
    "not_waiting": (
        bulk(wait_for_completion=False, outcomes_path="/tmp/outcomes.csv", max_missing=0),
        "outcomes_path, max_missing: outcomes are only known after waiting; with wait_for_completion=False leave",
    ),
    "outcomes": (bulk(outcomes_path="/tmp/outcomes.xlsx"), "/tmp/outcomes.xlsx: its name must end in .jsonl.gz"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "latin.csv").write_bytes("phone,name\n+33639980001,Hélène\n".encode("latin-1"))
    (tmp_path / "people.csv").write_text(f"phone,first name\n{PHONE},Lucie\n")
    return tmp_path


def test_nothing_is_sent_and_the_message_says_why(run_dag: RunDag, simulator: Simulator, folder: Path) -> None:
    failures = Failures()

    def make() -> None:
        for task_id, (operator, _) in CASES.items():
            operator(task_id=task_id, retries=2, on_failure_callback=failures)

    ran = run_dag(make, folder=str(folder))
    assert {ran.task(task_id).state for task_id in CASES} == {"failed"}
    wrong = {task_id: failures[task_id] for task_id, (_, message) in CASES.items() if message not in failures[task_id]}
    assert wrong == {}
    assert [task_id for task_id in CASES if PHONE in failures[task_id]] == []
    assert [task_id for task_id in CASES if ran.task(task_id).try_number > 1] == [], "a retry could not help"
    assert not simulator.request_summary().keys() & set(DIALLING)
    assert simulator.ledger() == []
    assert simulator.submissions() == []


def test_column_names_the_prompt_cannot_use_are_warned_of(
    run_dag: RunDag, simulator: Simulator, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing else can be known of the prompt: no route shows it."""
    ran = run_dag(lambda: bulk(recipients=str(folder / "people.csv"), wait_for_completion=False)(task_id="call"))
    assert ran.state == "success"
    warnings = [
        record.getMessage() for record in caplog.records if "the agent's prompt cannot use" in record.getMessage()
    ]
    assert len(warnings) == 1
    assert "rename them with underscores" in warnings[0]
    assert warnings[0].endswith("'first name'")


def test_columns_of_the_context_may_be_named_in_one_text(run_dag: RunDag, simulator: Simulator) -> None:
    rows = [{"phone": PHONE, "name": "Lucie", "day": "Friday", "a": "secret"}]
    run_dag(
        lambda: bulk(recipients=rows, context_fields="{{ 'name, day' }}", wait_for_completion=False)(task_id="call")
    )
    (entry,) = simulator.ledger()
    assert {key: value for key, value in entry["context"].items() if key != "airflow_ref"} == {
        "name": "Lucie",
        "day": "Friday",
    }
