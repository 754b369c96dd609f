"""Which days an export is of. Days are those of a time zone; they have 23 or 25 hours when its clocks change."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.exceptions import VolubileInputError

# The scheduler's clock and the worker's may differ a little.
CLOCK_TOLERANCE = timedelta(minutes=1)
UNKNOWN_DAY = "unknown"


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
    """Refuse an interval that holds nothing, or what nobody can know yet.

    :raises VolubileInputError: it ends before it begins, or in the future.
    """
    if end < begin:
        raise VolubileInputError(f"The interval ends ({end.isoformat()}) before it begins ({begin.isoformat()}).")
    if end > now + CLOCK_TOLERANCE:
        raise VolubileInputError(
            f"The interval lies in the future: it ends at {end.isoformat()}, and it is {now.isoformat()}."
        )


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day, in UTC: moments of one zone would be compared by their clocks."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def days_between(begin: datetime, end: datetime, zone: ZoneInfo) -> list[date]:
    """The days that have a part in ``[begin, end)``."""
    day = begin.astimezone(zone).date()
    days = []
    while midnight(day, zone) < end:
        days.append(day)
        day += timedelta(days=1)
    return days if begin < end else []


def partition(moment: datetime | None, zone: ZoneInfo) -> str:
    """The folder of a moment's day, such as ``date=2025-11-12``."""
    day = UNKNOWN_DAY
    if moment:
        with suppress(OverflowError):  # beyond the calendar's end, by a few hours
            day = moment.astimezone(zone).date().isoformat()
    return f"date={day}"


def iso(moment: datetime) -> str:
    """A moment as the API writes it: UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
