"""When a campaign may call: its days, hours, batch and redialling, checked before anything is sent.

The rules are those of `Create campaign <https://docs.volubile.ai/api-reference/campaigns/create>`__: one or two
time slots, 1 to 1000 calls per day, days by their English names. What that page leaves open (that slots must not
overlap, the unit of ``delay``) is stricter here than the service may be, so that a typing error is caught early.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.exceptions import VolubileInputError

WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
WORKING_DAYS = WEEKDAYS[:5]
MAX_TIME_SLOTS = 2
MAX_BATCH_SIZE = 1000

_TIME = r"\s*([01]?\d|2[0-3]):([0-5]\d)\s*"
_SLOT = re.compile(f"{_TIME}[-–]{_TIME}")


@dataclass(frozen=True, slots=True)
class TimeSlot:
    """Hours of the day, on the campaign's own clock, within which calls may be placed."""

    start: time
    end: time

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Redial:
    """How often, and after which statuses, someone who was not reached is called again.

    :param max: further attempts after the first.
    :param delay: wait between two attempts; the unit is not documented and assumed to be minutes.
    :param retry_on: call statuses that lead to another attempt.
    """

    max: int = 0
    delay: int = 0
    retry_on: frozenset[str] = frozenset()

    def is_due(self, status: str, attempts: int) -> bool:
        """Whether a call that ended with ``status`` as attempt number ``attempts`` will be followed by another."""
        return status in self.retry_on and attempts <= self.max

    def dump(self) -> dict[str, Any]:
        """As JSON, for handles and triggers; :meth:`parse` reads it."""
        return {"max": self.max, "delay": self.delay, "retry_on": sorted(self.retry_on)}

    def as_request(self) -> dict[str, Any] | None:
        """As the API names it; None when nobody is to be redialled."""
        if not self.max:
            return None
        return {"max": self.max, "delay": self.delay, "retryOn": sorted(self.retry_on)}

    @classmethod
    def parse(cls, value: Mapping[str, Any] | None) -> Redial:
        """Read ``{"max", "delay", "retry_on"}``; the API's own ``retryOn`` is understood too.

        :raises VolubileInputError: an unknown key, or a number below zero.
        """
        if not value:
            return cls()
        known = {"max", "delay", "retry_on", "retryOn"}
        if unknown := set(value) - known:
            raise VolubileInputError(
                f"redial has no {', '.join(sorted(map(repr, unknown)))}; it takes 'max', 'delay' and 'retry_on'."
            )
        statuses = value.get("retry_on", value.get("retryOn")) or ()
        if isinstance(statuses, str):
            statuses = [statuses]
        return cls(
            max=_whole(value.get("max") or 0, "redial['max']", low=0),
            delay=_whole(value.get("delay") or 0, "redial['delay']", low=0),
            retry_on=frozenset(str(status).upper() for status in statuses),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked calling schedule; make one with :meth:`check`.

    :param start_date: first day on which calls may be placed.
    :param time_slots: one or two, in order, not overlapping.
    :param days: weekdays on which calls may be placed, in order of the week.
    :param batch_size: calls per day.
    :param zone: the clock of ``start_date`` and ``time_slots``.
    """

    start_date: date
    time_slots: tuple[TimeSlot, ...]
    days: tuple[str, ...]
    batch_size: int
    zone: ZoneInfo
    redial: Redial = field(default_factory=Redial)

    @classmethod
    def check(
        cls,
        *,
        time_slots: Iterable[Any],
        campaign_start_date: date | str | None = None,
        days: Iterable[str] = WORKING_DAYS,
        batch_size: int | str = MAX_BATCH_SIZE,
        redial: Mapping[str, Any] | None = None,
        timezone: str = "Europe/Paris",
        now: datetime,
    ) -> Schedule:
        """Check what a Dag author typed.

        :param time_slots: each ``"09:30-12:00"``, or the API's ``{"startTime": "09:30", "endTime": "12:00"}``.
        :param campaign_start_date: a date or ISO text; today in ``timezone`` by default.
        :param now: the present, aware.
        :raises VolubileInputError: naming the value and the rule it breaks.
        """
        zone = _zone(timezone)
        today = now.astimezone(zone).date()
        start = today if campaign_start_date in (None, "") else _date(campaign_start_date, zone)
        if start < today:
            raise VolubileInputError(f"campaign_start_date {start} is in the past: today is {today} in {timezone}.")
        return cls(
            start_date=start,
            time_slots=_time_slots(time_slots),
            days=_days(days),
            batch_size=_whole(batch_size, "batch_size", low=1, high=MAX_BATCH_SIZE),
            zone=zone,
            redial=Redial.parse(redial),
        )

    def dump(self) -> dict[str, Any]:
        """The calling hours as JSON, for a trigger; :meth:`load` reads them."""
        return {
            "start_date": self.start_date.isoformat(),
            "time_slots": [str(slot) for slot in self.time_slots],
            "days": list(self.days),
            "batch_size": self.batch_size,
            "timezone": self.zone.key,
        }

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Schedule:
        """Read what :meth:`dump` gave."""
        zone = _zone(value["timezone"])
        return cls(
            start_date=_date(value["start_date"], zone),
            time_slots=_time_slots(value["time_slots"]),
            days=_days(value["days"]),
            batch_size=value.get("batch_size", MAX_BATCH_SIZE),  # handles of earlier versions have none
            zone=zone,
        )

    def next_opening(self, now: datetime) -> datetime:
        """When calls may next be placed: ``now`` itself within a slot, else the start of the next one.

        :param now: aware.
        :returns: aware, in the campaign's zone. Clock changes are respected: a slot that begins within the hour
            that spring skips opens when that hour is over; one within the hour that autumn repeats opens twice.
        """
        now = now.astimezone(UTC)
        day = max(now.astimezone(self.zone).date(), self.start_date)
        for _ in range(8):
            if WEEKDAYS[day.weekday()] in self.days:
                windows = [
                    [self._moment(day, at, fold) for at in (slot.start, slot.end)]
                    for slot in self.time_slots
                    for fold in (0, 1)
                ]
                if openings := [max(now, opens) for opens, closes in windows if now < closes]:
                    return min(openings).astimezone(self.zone)
            day += timedelta(days=1)
        raise AssertionError("a week holds every weekday")  # pragma: no cover

    def end_of_calls(self, people: int, now: datetime) -> datetime:
        """When the first attempts of one campaign are over: the end of its last day, at ``batch_size`` people a day.

        :param now: when it was submitted, aware.
        """
        day, left = self.next_opening(now).date(), people
        while True:
            if WEEKDAYS[day.weekday()] in self.days:
                left -= self.batch_size
                if left <= 0:
                    return self._moment(day, self.time_slots[-1].end, 0).astimezone(self.zone)
            day += timedelta(days=1)

    def _moment(self, day: date, at: time, fold: int) -> datetime:
        """A time of the campaign's clock in UTC. ``fold`` 1 is the second of two in the hour that autumn repeats."""
        # In UTC, since Python compares two moments of one zone by the wall clock. In the hour that spring skips, the
        # second moment would be the earlier one.
        return max(datetime.combine(day, at, self.zone).replace(fold=each).astimezone(UTC) for each in range(fold + 1))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise VolubileInputError(f"timezone {name!r} is not an IANA time zone such as 'Europe/Paris'.") from None


def _date(value: date | str | None, zone: ZoneInfo) -> date:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            raise VolubileInputError(f"campaign_start_date {value!r} is not a date such as '2026-11-30'.") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise VolubileInputError(
                f"campaign_start_date {value.isoformat()} has no time zone: give a date, or an aware datetime."
            )
        return value.astimezone(zone).date()
    if isinstance(value, date):
        return value
    raise VolubileInputError(f"campaign_start_date must be a date, not {type(value).__name__}.")


def _time_slots(values: Iterable[Any]) -> tuple[TimeSlot, ...]:
    slots = []
    for value in _split(values):
        text = "{startTime}-{endTime}".format_map(value) if _is_api_slot(value) else value
        match = _SLOT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise VolubileInputError(f"time slot {value!r} is not of the form '09:30-12:00'.")
        hour, minute, until_hour, until_minute = map(int, match.groups())
        slot = TimeSlot(time(hour, minute), time(until_hour, until_minute))
        if slot.start >= slot.end:
            raise VolubileInputError(f"time slot {slot} ends before it begins; a slot lies within one day.")
        slots.append(slot)
    if not 1 <= len(slots) <= MAX_TIME_SLOTS:
        raise VolubileInputError(f"time_slots holds {len(slots)} slots; a campaign takes 1 or 2.")
    slots.sort(key=lambda slot: slot.start)
    for earlier, later in pairwise(slots):
        if later.start < earlier.end:
            raise VolubileInputError(f"time slots {earlier} and {later} overlap.")
    return tuple(slots)


def _is_api_slot(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"startTime", "endTime"}


def _split(values: Iterable[Any] | str | None) -> list[Any]:
    """A list, or the one text with commas that a template renders."""
    if isinstance(values, str):
        return [part.strip() for part in values.split(",") if part.strip()]
    return list(values or ())


def _days(values: Iterable[str]) -> tuple[str, ...]:
    wanted = {str(value).upper() for value in _split(values)}
    if unknown := wanted - set(WEEKDAYS):
        raise VolubileInputError(
            f"unknown day {', '.join(sorted(map(repr, unknown)))}; days are {', '.join(WEEKDAYS)}."
        )
    if not wanted:
        raise VolubileInputError("days is empty; a campaign needs at least one weekday.")
    return tuple(day for day in WEEKDAYS if day in wanted)


def _whole(value: Any, name: str, *, low: int, high: int | None = None) -> int:
    try:
        number = int(value)
        if isinstance(value, bool) or (isinstance(value, float) and value != number):
            raise ValueError
    except (TypeError, ValueError):
        raise VolubileInputError(f"{name} must be a whole number, not {value!r}.") from None
    if number < low or (high is not None and number > high):
        bounds = f"from {low} to {high}" if high is not None else f"{low} or more"
        raise VolubileInputError(f"{name} is {number}; it must be {bounds}.")
    return number
