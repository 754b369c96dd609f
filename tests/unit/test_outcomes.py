"""Which call settles whom: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.models import Call
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileOutcomeGap
from airflow_provider_volubile.waiting.outcomes import (
    NEVER_DIALED,
    REFUSED,
    Attempt,
    check_gaps,
    final_counts,
    outcomes,
    progress,
)

START = datetime(2026, 11, 24, 9, tzinfo=UTC)
LUCIE, KARIM, ANNE = "+33639980101", "+33639980102", "+33639980103"
TWICE = Redial(max=1, retry_on=frozenset({"NO_ANSWER"}))


def call(phone: str, status: str, minute: int = 0) -> Attempt:
    at = START + timedelta(minutes=minute)
    return Attempt.of(Call(id=f"{phone}/{minute}", phone=phone, status=status, created=at, duration=10))


def test_progress_tells_everybody_apart() -> None:
    state = progress(5, [call(LUCIE, "COMPLETED"), call(KARIM, "NO_ANSWER"), call(ANNE, "IN_PROGRESS")], TWICE)
    assert (state.settled, state.redial_due, state.in_flight, state.not_dialed) == (1, 1, 1, 2)
    assert not state.is_complete
    assert str(state) == (
        "1 of 5 settled, 1 in progress, 1 to be redialled, 2 not dialled yet (COMPLETED 1, IN_PROGRESS 1, NO_ANSWER 1)"
    )


def test_the_last_attempt_settles_whatever_the_order_of_the_list() -> None:
    attempts = [call(LUCIE, "COMPLETED", 90), call(LUCIE, "NO_ANSWER", 0)]
    assert progress(1, attempts, TWICE).is_complete
    assert outcomes([LUCIE], attempts, TWICE)[0]["status"] == "COMPLETED"


def test_used_up_attempts_settle() -> None:
    assert not progress(1, [call(LUCIE, "NO_ANSWER", 0)], TWICE).is_complete
    assert progress(1, [call(LUCIE, "NO_ANSWER", 0), call(LUCIE, "NO_ANSWER", 90)], TWICE).is_complete
    assert progress(1, [call(LUCIE, "NO_ANSWER", 0)], Redial()).is_complete


def test_an_unknown_status_is_not_final() -> None:
    assert not progress(1, [call(LUCIE, "ON_HOLD")], Redial()).is_complete


def test_outcomes_are_in_the_order_of_the_recipients_with_those_never_dialled() -> None:
    rows = outcomes([ANNE, LUCIE], [call(LUCIE, "VOICE_BOX"), call(KARIM, "COMPLETED")], Redial())
    assert [(row["phone"], row["status"], row["attempts"]) for row in rows] == [
        (ANNE, NEVER_DIALED, 0),
        (LUCIE, "VOICE_BOX", 1),
    ]
    assert rows[0]["last_call_id"] is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([LUCIE, KARIM, ANNE]),
            st.sampled_from([*wire.CALL_STATUSES, "NEW_STATUS"]),
            st.integers(0, 500),
        ),
        max_size=12,
    )
)
def test_nobody_is_lost_or_counted_twice(calls: list[tuple[str, str, int]]) -> None:
    attempts = [call(*each) for each in calls]
    state = progress(3, attempts, TWICE)
    assert sum(state.counts.values()) + state.not_dialed == 3
    assert state.settled == sum(row["settled"] for row in outcomes([LUCIE, KARIM, ANNE], attempts, TWICE))
    assert state.is_complete == (state.settled == 3)


def test_calls_are_reduced_with_the_time_that_is_there() -> None:
    early = Call(id="1", phone=LUCIE, status="COMPLETED", startTime="2026-11-24T09:00:00Z")
    assert Attempt.of(early).at == START
    assert Attempt.of(Call(id="2", status="IN_PROGRESS")).at < START


def test_final_counts_add_up_or_fail() -> None:
    assert final_counts(3, settled=2, counts={"COMPLETED": 2}, cancelled=False) == {"COMPLETED": 2, NEVER_DIALED: 1}
    assert final_counts(3, settled=1, counts={"NO_ANSWER": 2}, cancelled=True)[NEVER_DIALED] == 1
    with pytest.raises(VolubileOutcomeGap, match="3 recipients, 2 dialled, 1 settled"):
        final_counts(3, settled=1, counts={"NO_ANSWER": 2}, cancelled=False)
    with pytest.raises(VolubileOutcomeGap):
        final_counts(1, settled=2, counts={"COMPLETED": 2}, cancelled=False)


def test_gaps_fail_with_figures() -> None:
    counts = {"COMPLETED": 6, "NO_ANSWER": 2, NEVER_DIALED: 2}
    check_gaps(counts, max_missing=2, min_success_ratio=0.6)
    check_gaps({}, max_missing=0, min_success_ratio=1)
    with pytest.raises(VolubileOutcomeGap, match="2 of 10 recipients were never dialled; max_missing is 1"):
        check_gaps(counts, max_missing=1)
    with pytest.raises(VolubileOutcomeGap, match=r"6 of 10 recipients were reached \(60.0%\)"):
        check_gaps(counts, min_success_ratio=0.7)
    with pytest.raises(VolubileOutcomeGap, match=r"5 of 13 .* never dialled \(3 refused by the service\)"):
        check_gaps(counts | {REFUSED: 3}, max_missing=4)
    with pytest.raises(VolubileOutcomeGap, match="6 of 13 recipients were reached"):
        check_gaps(counts | {REFUSED: 3}, min_success_ratio=0.6)
    with pytest.raises(VolubileOutcomeGap, match="0 of 1 recipients were reached"):
        check_gaps({REFUSED: 1}, min_success_ratio=0.1)


def test_the_ratio_asked_for_is_enough() -> None:
    for percent in range(101):
        counts = {"COMPLETED": percent, "NO_ANSWER": 100 - percent}
        check_gaps(counts, min_success_ratio=percent / 100)
        with pytest.raises(VolubileOutcomeGap):
            check_gaps(counts, min_success_ratio=(percent + 0.5) / 100)


@pytest.mark.parametrize("notation", ["33639980101", "+33 6 39 98 01 01", "0033639980101"])
def test_a_person_is_the_same_in_any_notation_of_the_number(notation: str) -> None:
    attempts = [call(notation, "NO_ANSWER"), call(LUCIE, "COMPLETED", 90)]
    assert progress(1, attempts, TWICE).counts == {"COMPLETED": 1}
    assert outcomes([LUCIE], attempts, TWICE)[0]["attempts"] == 2


def test_calls_without_a_number_are_people_of_their_own() -> None:
    calls = [call("", "COMPLETED")._replace(call_id=call_id) for call_id in ("1", "2")]
    assert progress(2, calls, Redial()).settled == 2


def test_an_outcome_is_found_though_calls_show_the_national_notation() -> None:
    (row,) = outcomes(["+33639980101"], [call("639980101", "COMPLETED")], Redial())
    assert row["status"] == "COMPLETED"
