"""The judge excuses a recipient who was not called only for an injected reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.judge import Evidence, judge
from tests.chaos.stack import Task
from tests.chaos.trail import Attempt

PEOPLE = ["+33639980001", "+33639980002", "+33639980003", "+33639980004"]
SINGLE = ("run", "single_sync_fail")
BULK = ("run", "bulk_sync_fail")
UNKNOWN = "It is not known whether request 2 of 2 was created: its answer was lost"


def call(phone: str) -> dict[str, Any]:
    return {"phone": phone, "status": "COMPLETED", "call_id": f"call {phone}"}


def request(operation: str, at: float, *, fault: str | None = None, status: int | None = 201) -> dict[str, Any]:
    return {"operation": operation, "wall": at, "fault": fault, "status": status}


def singles(*, called: list[str], requests: list[dict[str, Any]], ends: Sequence[str | None]) -> Evidence:
    """A submission that succeeded, one request a second. It reports everyone who was not called as rejected."""
    calls = [call(phone) for phone in called]
    handle = {
        "recipients": len(calls),
        "rejected": len(PEOPLE) - len(calls),
        "counts": {"COMPLETED": len(calls)},
        "call_ids": [entry["call_id"] for entry in calls],
    }
    return Evidence(
        people={SINGLE: PEOPLE},
        tasks={SINGLE: Task(*SINGLE, "success", 1)},
        handles={SINGLE: handle},
        logs={},
        attempts=[Attempt(SINGLE, part, 1, part, part + 0.5, how) for part, how in enumerate(ends)],
        ledger=calls,
        requests=requests,
        submissions=[],
    )


def bulk(*, called: list[str], second: Attempt, requests: list[dict[str, Any]]) -> Evidence:
    """A submission of two requests that failed, because the outcome of the second is unknown."""
    return Evidence(
        people={BULK: PEOPLE},
        tasks={BULK: Task(*BULK, "failed", 1)},
        handles={},
        logs={BULK: UNKNOWN},
        attempts=[Attempt(BULK, 0, 1, 0, 0.5, "accepted"), second],
        ledger=[call(phone) for phone in called],
        requests=requests,
        submissions=[],
    )


ACCEPTED = ["accepted"] * 4
REFUSED = ["accepted", "VolubileRequestRefused", "accepted", "accepted"]
NO = "VolubileRequestRefused"
BULK_400 = request("createBulkCalls", 1.2, fault="status", status=400)
NO_TOKEN = request("issueToken", 1.2, fault="status", status=503)
INJECTED_400 = request("createCall", 1.2, fault="status", status=400)
DIED = Attempt(BULK, 1, 1, 1)
SILENT = Attempt(BULK, 1, 1, 1, 1.5, "VolubileUnknownOutcome")
TOKENLESS = Attempt(BULK, 1, 1, 1, 1.5, "VolubileUnavailable")
FROZEN = Attempt(BULK, 1, 1, 1, None, "VolubileUnavailable")
NOT_BEGUN = Attempt(BULK, 1, 1, 1, 1.5, "not begun")


def test_the_judge_accepts_one_call_per_person() -> None:
    verdict = judge(singles(called=PEOPLE, requests=[], ends=ACCEPTED))
    assert verdict.is_good
    assert (verdict.people, verdict.called) == (4, 4)


def test_the_judge_reports_a_second_call_as_duplicate() -> None:
    evidence = singles(called=PEOPLE, requests=[], ends=ACCEPTED)
    verdict = judge(replace(evidence, ledger=[*evidence.ledger, {**call(PEOPLE[0]), "call_id": "another"}]))
    assert verdict.duplicates == PEOPLE[:1]
    assert verdict.wrong_reports


def test_the_judge_believes_a_rejection_after_an_injected_400() -> None:
    verdict = judge(singles(called=[PEOPLE[0], *PEOPLE[2:]], requests=[INJECTED_400], ends=REFUSED))
    assert verdict.is_good
    assert verdict.rejected == 1


def test_the_judge_counts_recipients_refused_before_an_unknown_outcome() -> None:
    evidence = singles(called=[PEOPLE[0], PEOPLE[2]], requests=[INJECTED_400], ends=[*REFUSED[:3], None])
    died = [*evidence.attempts[:3], Attempt(SINGLE, 3, 1, 3)]
    verdict = judge(
        replace(
            evidence,
            tasks={SINGLE: Task(*SINGLE, "failed", 1)},
            handles={},
            logs={SINGLE: "It is not known whether request 4 of 4 was created"},
            attempts=died,
        )
    )
    assert verdict.is_good
    assert verdict.called + verdict.rejected + verdict.left == verdict.people == 4


@pytest.mark.parametrize(
    ("requests", "ends"),
    [
        pytest.param([], ACCEPTED, id="no-request-was-refused"),
        pytest.param([], REFUSED, id="no-400-was-injected"),
        pytest.param([request("createCall", 1.2, status=400)], REFUSED, id="a-400-that-was-not-injected"),
        pytest.param([INJECTED_400 | {"wall": 0.2}], REFUSED, id="a-400-of-another-request"),
        pytest.param([INJECTED_400 | {"operation": "createBulkCalls"}], REFUSED, id="a-400-of-another-route"),
        pytest.param([INJECTED_400 | {"status": 500}], REFUSED, id="another-fault"),
        pytest.param([INJECTED_400], ACCEPTED, id="the-process-says-accepted"),
    ],
)
def test_the_judge_reports_a_rejection_without_a_400_as_lost(
    requests: list[dict[str, Any]], ends: Sequence[str | None]
) -> None:
    verdict = judge(singles(called=[PEOPLE[0], *PEOPLE[2:]], requests=requests, ends=ends))
    assert verdict.lost == [PEOPLE[1]]


def test_one_400_excuses_only_one_person() -> None:
    ends = ["VolubileRequestRefused", "VolubileRequestRefused", "accepted", "accepted"]
    verdict = judge(singles(called=PEOPLE[2:], requests=[INJECTED_400], ends=ends))
    assert verdict.lost == PEOPLE[:1]


def test_the_judge_reports_a_missing_person_as_lost_and_the_report_as_wrong() -> None:
    evidence = singles(called=[PEOPLE[0], *PEOPLE[2:]], requests=[INJECTED_400], ends=REFUSED)
    handle = {**evidence.handles[SINGLE], "rejected": 0, "recipients": 4}
    assert judge(replace(evidence, handles={SINGLE: handle})).wrong_reports


@pytest.mark.parametrize(
    ("second", "requests"),
    [
        pytest.param(DIED, [], id="the-process-died"),
        pytest.param(SILENT, [request("createBulkCalls", 1.2, fault="drop", status=None)], id="a-fault"),
        pytest.param(replace(SILENT, ended=9), [], id="longer-than-the-client-waits"),
        pytest.param(replace(SILENT, how=NO), [BULK_400], id="the-process-died-before-it-recorded-a-400"),
        pytest.param(replace(FROZEN, ended=21), [], id="the-process-stood-still-for-too-long"),
        pytest.param(replace(SILENT, how="begin lost"), [], id="airflow-did-not-answer-the-write"),
        pytest.param(TOKENLESS, [NO_TOKEN], id="the-process-died-before-it-recorded-a-missing-token"),
    ],
)
def test_the_judge_believes_an_unknown_outcome_after_a_fault_of_its_request(
    second: Attempt, requests: list[dict[str, Any]]
) -> None:
    verdict = judge(bulk(called=PEOPLE[:3], second=second, requests=requests))
    assert verdict.is_good
    assert verdict.left == 1


@pytest.mark.parametrize(
    ("second", "requests"),
    [
        pytest.param(SILENT, [], id="no-fault-was-injected"),
        pytest.param(SILENT, [request("createCall", 1.2, fault="drop", status=None)], id="a-fault-of-another-route"),
        pytest.param(SILENT, [request("createBulkCalls", 1.2, fault="rate_limit", status=429)], id="a-refusal"),
        pytest.param(replace(SILENT, how="accepted"), [], id="it-was-accepted"),
        pytest.param(replace(DIED, part=0), [], id="it-was-never-sent"),
        pytest.param(replace(SILENT, how=NO, is_written=True), [BULK_400], id="a-recorded-400"),
        pytest.param(replace(SILENT, how=NO), [], id="a-400-that-was-not-injected"),
        pytest.param(replace(SILENT, how="not begun"), [], id="it-was-never-begun"),
        pytest.param(replace(FROZEN, ended=3), [], id="not-sent-without-standing-still"),
        pytest.param(replace(SILENT, how="accepted"), [NO_TOKEN], id="it-was-accepted-with-a-token"),
        pytest.param(replace(SILENT, how=NO), [NO_TOKEN], id="no-token-but-refused"),
        pytest.param(replace(TOKENLESS, is_written=True), [NO_TOKEN], id="a-recorded-missing-token"),
        pytest.param(replace(FROZEN, ended=21, is_written=True), [], id="a-recorded-unsent-request"),
    ],
)
def test_the_judge_reports_an_unexplained_unknown_outcome_as_lost(
    second: Attempt, requests: list[dict[str, Any]]
) -> None:
    verdict = judge(bulk(called=PEOPLE[:3], second=second, requests=requests))
    assert verdict.lost == PEOPLE[3:]
    assert verdict.wrong_reports


def test_the_judge_expects_the_other_requests_to_be_called() -> None:
    lost = request("createBulkCalls", 1.2, fault="drop", status=None)
    evidence = bulk(called=PEOPLE[3:], second=replace(SILENT, part=0), requests=[lost])
    evidence = replace(evidence, attempts=evidence.attempts[1:], logs={BULK: UNKNOWN.replace("2 of", "1 of")})
    verdict = judge(evidence)
    assert verdict.is_good
    assert verdict.left == 3
    nobody = replace(evidence, ledger=[])
    assert judge(nobody).lost == PEOPLE[3:]
    not_sent = UNKNOWN.replace("2 of 2", "1 of 2 (1 requests after them were not sent)")
    assert judge(replace(nobody, logs={BULK: not_sent})).left == 4


@pytest.mark.parametrize("before", [[], [replace(TOKENLESS, began=0.6, ended=0.9, is_written=True)]])
def test_a_killed_airflow_may_not_show_that_a_request_began(before: list[Attempt]) -> None:
    """The answer to the write is lost, and Airflow refuses the repetition."""
    evidence = bulk(called=PEOPLE[:3], second=NOT_BEGUN, requests=[])
    evidence = replace(evidence, attempts=[evidence.attempts[0], *before, NOT_BEGUN])
    verdict = judge(replace(evidence, cuts=[1.2]))
    assert verdict.is_good
    assert verdict.left == 1
    assert judge(replace(evidence, cuts=[0.5, 1.6])).lost == PEOPLE[3:]


def test_a_killed_airflow_does_not_excuse_earlier_requests() -> None:
    evidence = bulk(called=PEOPLE[:3], second=replace(SILENT, began=0.6, ended=0.9), requests=[])
    evidence = replace(evidence, attempts=[*evidence.attempts, NOT_BEGUN], cuts=[1.2])
    assert judge(evidence).lost == PEOPLE[3:]


def test_a_fault_is_not_matched_with_an_attempt_that_timed_out() -> None:
    fault = request("createBulkCalls", 1.2, fault="drop", status=None)
    evidence = bulk(called=PEOPLE[:3], second=replace(SILENT, ended=2.9), requests=[fault])
    longer = Attempt(("run", "bulk_sync_ask"), 0, 2, 0, 2.5, "VolubileUnknownOutcome")
    assert judge(replace(evidence, attempts=[*evidence.attempts, longer])).is_good


@pytest.mark.parametrize("how", [None, "VolubileUnavailable", "begin lost"])
def test_the_judge_believes_a_rejection_before_a_freeze(how: str | None) -> None:
    evidence = singles(called=[PEOPLE[0], *PEOPLE[2:]], requests=[INJECTED_400], ends=REFUSED)
    stale = Attempt(SINGLE, 1, 2, 0.9, 21 if how else None, how)
    assert judge(replace(evidence, attempts=[*evidence.attempts, stale])).is_good


def test_an_unknown_outcome_excuses_no_earlier_recipient() -> None:
    assert judge(bulk(called=PEOPLE[1:3], second=DIED, requests=[])).lost == PEOPLE[:1]


def test_the_judge_reports_an_unknown_outcome_as_wrong_if_the_calls_exist() -> None:
    assert judge(bulk(called=PEOPLE, second=DIED, requests=[])).wrong_reports


@pytest.mark.parametrize("state", ["failed", "running", None])
def test_the_judge_reports_a_task_that_failed_otherwise_or_never_ended(state: str | None) -> None:
    evidence = singles(called=PEOPLE[:2], requests=[], ends=["accepted", "accepted"])
    verdict = judge(replace(evidence, tasks={SINGLE: Task(*SINGLE, state, 1)}))
    assert verdict.unexpected
    assert verdict.lost == PEOPLE[2:]
