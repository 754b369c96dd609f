"""Which days of calls a run writes, and how far the table then reaches without a gap.

A run writes every day that has a part in its interval or in the lookback before it. A run on schedule begins at the
watermark if that is earlier: so it writes what earlier runs left out, and the days of calls that had not ended.

Days are those of a time zone; they have 23 or 25 hours when its clocks change.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from airflow_provider_volubile.exceptions import VolubileInputError

# The scheduler's clock and the worker's may differ a little.
CLOCK_TOLERANCE = timedelta(minutes=1)
# A call that never ends must not have the whole table written anew every night.
LONGEST_CALL = timedelta(days=31)
UNKNOWN_DAY = "unknown"


class Day(NamedTuple):
    """A day of a time zone.

    :param folder: such as ``date=2025-11-12``.
    :param begin: its first moment, in UTC: moments of one zone would be compared by their clocks.
    :param end: the first moment of the day after.
    """

    folder: str
    begin: datetime
    end: datetime


def begin_of_run(begin: datetime, lookback: timedelta, watermark: datetime | None) -> datetime:
    """The moment from which on a run writes the days.

    :param begin: where the run's interval begins.
    :param watermark: for a run on schedule, what an earlier run gave to :func:`next_watermark`.
    """
    begin -= lookback
    return min(begin, watermark or begin)


def next_watermark(end: datetime, open_since: datetime | None, watermark: datetime | None) -> datetime:
    """How far the table reaches without a gap, after a run on schedule. It never goes back.

    :param end: where the run's interval ended.
    :param open_since: the earliest moment of a call that has not ended. It holds the watermark for a month at most.
    :param watermark: how far the table reached before.
    """
    reached = max(min(end, open_since or end), end - LONGEST_CALL)
    return max(reached, watermark or reached)


def days_between(begin: datetime, end: datetime, zone: ZoneInfo) -> list[Day]:
    """The days that have a part in ``[begin, end)``."""
    day = begin.astimezone(zone).date()
    days = []
    while begin < end and (first := _midnight(day, zone)) < end:
        day += timedelta(days=1)
        days.append(Day(folder_of(first, zone), first, _midnight(day, zone)))
    return days


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def folder_of(moment: datetime | None, zone: ZoneInfo) -> str:
    """The folder of a moment's day, such as ``date=2025-11-12``."""
    day = UNKNOWN_DAY
    if moment:
        with suppress(OverflowError):  # beyond the calendar's end, by a few hours
            day = moment.astimezone(zone).date().isoformat()
    return f"date={day}"


def read_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name.

    :raises VolubileInputError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise VolubileInputError(f"timezone is {name!r}; expected an IANA name such as 'Europe/Paris'.") from error


def read_moment(name: str, value: Any) -> datetime:
    """A moment as a user gives it: a datetime, or its ISO 8601 text as a template renders it.

    :return: in UTC: moments of one zone would be compared by their clocks.
    :raises VolubileInputError: it is neither, or has no time zone.
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise VolubileInputError(
            f"{name} is {value!r}; expected a moment such as '2025-11-12T00:00:00+01:00'."
        ) from error
    if moment.tzinfo is None:
        raise VolubileInputError(
            f"{name} is {value!r}, without a time zone; write '2025-11-12T00:00:00+01:00', for example."
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise VolubileInputError(f"{name} is {value!r}, where the calendar ends.") from error


def check_interval(begin: datetime, end: datetime, now: datetime) -> None:
    """Refuse an interval that ends before it begins, or in the future.

    :raises VolubileInputError: it does.
    """
    if end < begin:
        raise VolubileInputError(f"The interval ends ({end.isoformat()}) before it begins ({begin.isoformat()}).")
    if end > now + CLOCK_TOLERANCE:
        raise VolubileInputError(
            f"The interval lies in the future: it ends at {end.isoformat()}, and it is {now.isoformat()}."
        )


def iso(moment: datetime) -> str:
    """A moment as the API writes it: UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
