"""Windows of campaigns, over both changes of clock in Paris."""

from __future__ import annotations

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_volubile.simulator.schedule import Schedule

PARIS = ZoneInfo("Europe/Paris")
EVERY_DAY = frozenset(range(7))


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def schedule(*slots: tuple[str, str], days: frozenset[int] = EVERY_DAY, start: str = "2026-01-01") -> Schedule:
    times = [(time.fromisoformat(begin), time.fromisoformat(end)) for begin, end in slots]
    return Schedule(date.fromisoformat(start), days, times, PARIS)


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2026-03-02T08:00:00+01:00", "2026-03-02T09:00:00+01:00"),
        ("2026-03-02T10:30:15+01:00", "2026-03-02T10:30:15+01:00"),
        ("2026-03-02T12:00:00+01:00", "2026-03-02T14:00:00+01:00"),
        ("2026-03-02T18:00:00+01:00", "2026-03-03T09:00:00+01:00"),
        ("2026-03-06T18:00:00+01:00", "2026-03-09T09:00:00+01:00"),  # Friday evening
        ("2026-03-07T10:00:00+01:00", "2026-03-09T09:00:00+01:00"),  # Saturday, at a time that is open on weekdays
        # Over the weekend on which Paris changes to summer time, and back.
        ("2026-03-27T18:00:00+01:00", "2026-03-30T09:00:00+02:00"),
        ("2026-10-23T18:00:00+02:00", "2026-10-26T09:00:00+01:00"),
        ("2025-11-12T10:00:00+01:00", "2026-01-01T09:00:00+01:00"),  # before the start date
    ],
)
def test_the_next_opening_follows_days_and_slots(at: str, opens: str) -> None:
    working_days = frozenset(range(5))
    windows = schedule(("09:00", "12:00"), ("14:00", "18:00"), days=working_days)
    assert windows.next_opening(instant(at)) == instant(opens)


@pytest.mark.parametrize(
    ("slot", "at", "opens"),
    [
        # 29 March 2026: 2:00 becomes 3:00. A slot inside the skipped hour waits for the next day,
        (("02:15", "02:45"), "2026-03-29T00:00:00+01:00", "2026-03-30T02:15:00+02:00"),
        # a slot that begins in it opens after it,
        (("02:30", "04:00"), "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        # 25 October 2026: 3:00 becomes 2:00 again. A slot inside the repeated hour opens twice,
        (("02:15", "02:45"), "2026-10-25T00:00:00+02:00", "2026-10-25T02:15:00+02:00"),
        (("02:15", "02:45"), "2026-10-25T02:50:00+02:00", "2026-10-25T02:15:00+01:00"),
        (("02:07", "02:45"), "2026-10-25T02:50:00+02:00", "2026-10-25T02:07:00+01:00"),
        # and a slot that ended in it opens again when the clocks go back.
        (("01:30", "02:10"), "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"),
    ],
)
def test_a_slot_in_the_hour_of_a_clock_change_opens_as_the_clocks_show(
    slot: tuple[str, str], at: str, opens: str
) -> None:
    assert schedule(slot).next_opening(instant(at)) == instant(opens)


def test_a_local_day_lasts_23_or_25_hours() -> None:
    windows = schedule(("09:00", "12:00"))
    for day, hours in (("2026-03-29T00:00:00+01:00", 23), ("2026-10-25T00:00:00+02:00", 25)):
        assert windows.next_day(instant(day)) - instant(day) == hours * 3600


def test_every_instant_of_a_year_agrees_with_the_clocks_in_paris() -> None:
    windows = schedule(("02:15", "03:30"), ("22:50", "23:59"), days=frozenset({2, 6}))
    at = instant("2026-01-01T00:00:00+01:00")
    while at < instant("2027-01-01T00:00:00+01:00"):
        opening = windows.next_opening(at)
        local = datetime.fromtimestamp(opening, PARIS)
        assert local.weekday() in (2, 6)
        assert any(begin <= f"{local:%H:%M}" < end for begin, end in (("02:15", "03:30"), ("22:50", "23:59")))
        before = datetime.fromtimestamp(opening - 1, PARIS)
        if opening > at:  # it has just opened
            assert not windows.is_open(before.timestamp())
        at = opening + 3 * 3600 + 7 * 60
