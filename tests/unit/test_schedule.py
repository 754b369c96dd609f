"""Calling schedules: what is refused, and when the next slot opens, over both clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_volubile.calling.schedule import WEEKDAYS, Redial, Schedule
from airflow_provider_volubile.exceptions import VolubileInputError

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)  # a Tuesday, 11:00 in Paris


def check(**changes: Any) -> Schedule:
    return Schedule.check(**{"time_slots": ["09:30-12:00"], "now": NOW} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_slots": []}, "0 slots"),
        ({"time_slots": ["08:00-09:00", "10:00-11:00", "12:00-13:00"]}, "3 slots"),
        ({"time_slots": ["09:00-12:00", "11:00-13:00"]}, "09:00-12:00 and 11:00-13:00 overlap"),
        ({"time_slots": ["12:00-09:00"]}, "ends before it begins"),
        ({"time_slots": ["09:00-09:00"]}, "ends before it begins"),
        ({"time_slots": ["9h-12h"]}, "'9h-12h'"),
        ({"time_slots": ["09:00-25:00"]}, "'09:00-25:00' is not of the form"),
        ({"time_slots": [{"startTime": "09:00"}]}, "is not of the form"),
        ({"time_slots": [17]}, "17 is not of the form"),
        ({"batch_size": 0}, "batch_size is 0; it must be from 1 to 1000"),
        ({"batch_size": 1001}, "1001"),
        ({"batch_size": "many"}, "'many'"),
        ({"batch_size": 1.5}, "1.5"),
        ({"batch_size": True}, "True"),
        ({"days": ["FUNDAY"]}, "unknown day 'FUNDAY'; days are MONDAY"),
        ({"days": []}, "days is empty"),
        ({"campaign_start_date": datetime(2026, 12, 1, 9)}, "has no time zone"),
        ({"campaign_start_date": "2026-12-01T09:00:00"}, "has no time zone"),
        ({"campaign_start_date": "2026-11-23"}, "2026-11-23 is in the past: today is 2026-11-24"),
        ({"campaign_start_date": date(2020, 1, 1)}, "in the past"),
        ({"campaign_start_date": "tomorrow"}, "'tomorrow' is not a date"),
        ({"campaign_start_date": 20261201}, "must be a date, not int"),
        ({"timezone": "Paris"}, "'Paris' is not an IANA time zone"),
        ({"timezone": ""}, "is not an IANA time zone"),
        ({"redial": {"max": -1}}, "redial['max'] is -1; it must be 0 or more"),
        ({"redial": {"times": 2}}, "redial has no 'times'"),
    ],
)
def test_bad_input_names_the_value_and_the_rule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VolubileInputError) as error:
        check(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "slots",
    [
        ["09:30-12:00", "14:00-18:30"],
        ["14:00 – 18:30", {"startTime": "9:30", "endTime": "12:00"}],
        "09:30-12:00, 14:00-18:30",
    ],
)
def test_a_slot_is_a_text_or_what_the_api_calls_it(slots: Any) -> None:
    assert [str(slot) for slot in check(time_slots=slots).time_slots] == ["09:30-12:00", "14:00-18:30"]


def test_the_start_is_today_on_the_campaigns_own_clock() -> None:
    evening = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    assert check(now=evening).start_date == date(2026, 11, 25)
    assert check(now=evening, timezone="America/Guadeloupe").start_date == date(2026, 11, 24)


def test_an_aware_start_is_read_on_the_campaigns_own_clock() -> None:
    assert check(campaign_start_date="2026-11-30T23:30:00+00:00").start_date == date(2026, 12, 1)


def opening(schedule: Schedule, now: str) -> str:
    return schedule.next_opening(datetime.fromisoformat(now)).isoformat(timespec="minutes")


def test_the_next_opening() -> None:
    schedule = check(time_slots=["09:30-12:00", "14:00-18:30"], days=["TUESDAY", "FRIDAY"])
    assert opening(schedule, "2026-11-24T08:00+01:00") == "2026-11-24T09:30+01:00"
    assert opening(schedule, "2026-11-24T10:15+01:00") == "2026-11-24T10:15+01:00"
    assert opening(schedule, "2026-11-24T12:00+01:00") == "2026-11-24T14:00+01:00"
    assert opening(schedule, "2026-11-24T18:30+01:00") == "2026-11-27T09:30+01:00"
    later = check(campaign_start_date="2026-12-01", days=WEEKDAYS)
    assert opening(later, "2026-11-24T10:00+01:00") == "2026-12-01T09:30+01:00"


def test_the_next_opening_over_both_clock_changes() -> None:
    spring = check(now=datetime(2027, 3, 20, tzinfo=UTC), time_slots=["02:30-04:00"], days=["SUNDAY"])
    # On 28 March 2027 Paris has no 02:30; that moment, by the clock that ends, is 03:30 by the one that begins.
    assert opening(spring, "2027-03-27T12:00+01:00") == "2027-03-28T03:30+02:00"
    autumn = check(now=datetime(2026, 10, 20, tzinfo=UTC), time_slots=["02:30-02:45"], days=["SUNDAY"])
    assert opening(autumn, "2026-10-24T12:00+02:00") == "2026-10-25T02:30+02:00"
    assert opening(autumn, "2026-10-25T12:00+01:00") == "2026-11-01T02:30+01:00"


def test_a_slot_in_the_hour_that_autumn_repeats_opens_twice() -> None:
    autumn = check(now=datetime(2026, 10, 20, tzinfo=UTC), time_slots=["02:30-02:45"], days=["SUNDAY"])
    assert opening(autumn, "2026-10-25T02:35+02:00") == "2026-10-25T02:35+02:00"
    assert opening(autumn, "2026-10-25T02:50+02:00") == "2026-10-25T02:30+01:00"
    assert opening(autumn, "2026-10-25T02:10+01:00") == "2026-10-25T02:30+01:00"
    assert opening(autumn, "2026-10-25T02:35+01:00") == "2026-10-25T02:35+01:00"
    assert opening(autumn, "2026-10-25T02:50+01:00") == "2026-11-01T02:30+01:00"


@given(st.datetimes(datetime(2026, 10, 24), datetime(2026, 10, 26), timezones=st.just(UTC)))
def test_an_opening_is_never_past_when_the_clocks_change(now: datetime) -> None:
    schedule = check(now=datetime(2026, 1, 1, tzinfo=UTC), time_slots=["01:30-02:15", "02:30-03:30"], days=WEEKDAYS)
    assert schedule.next_opening(now).astimezone(UTC) >= now


@given(st.datetimes(datetime(2026, 3, 1), datetime(2027, 12, 1), timezones=st.just(UTC)))
def test_an_opening_is_never_past_and_always_within_hours(now: datetime) -> None:
    schedule = check(now=datetime(2026, 1, 1, tzinfo=UTC), time_slots=["09:30-12:00"], days=["MONDAY", "SATURDAY"])
    opens = schedule.next_opening(now)
    assert opens >= now
    assert time(9, 30) <= opens.timetz().replace(tzinfo=None) < time(12)
    assert opens.weekday() in (0, 5)


@pytest.mark.parametrize(
    ("people", "end"),
    [
        (1, "2026-11-24T12:00+01:00"),
        (100, "2026-11-24T12:00+01:00"),
        (101, "2026-11-25T12:00+01:00"),
        (1000, "2026-12-07T12:00+01:00"),
    ],
)
def test_everyone_is_called_once_when_batch_size_allows(people: int, end: str) -> None:
    schedule = check(batch_size=100)
    assert schedule.end_of_calls(people, NOW).isoformat(timespec="minutes") == end
    assert Schedule.load(schedule.dump()).end_of_calls(people, NOW) == schedule.end_of_calls(people, NOW)


def test_hours_survive_a_trigger() -> None:
    schedule = check(time_slots=["14:00-18:30", "09:30-12:00"], days=["FRIDAY"], timezone="Europe/Lisbon")
    loaded = Schedule.load(schedule.dump())
    assert (loaded.time_slots, loaded.days, loaded.zone) == (schedule.time_slots, schedule.days, schedule.zone)
    assert loaded.start_date == schedule.start_date


def test_redialling_ends_when_the_attempts_are_used_up() -> None:
    redial = Redial.parse({"max": 2, "delay": 30, "retryOn": ["no_answer"]})
    assert [redial.is_due("NO_ANSWER", attempts) for attempts in (1, 2, 3)] == [True, True, False]
    assert not redial.is_due("COMPLETED", 1)
    assert redial.as_request() == {"max": 2, "delay": 30, "retryOn": ["NO_ANSWER"]}
    assert Redial.parse(redial.dump()) == redial
    assert Redial.parse(None).as_request() is None
