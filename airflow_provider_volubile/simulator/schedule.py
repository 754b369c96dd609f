"""When a campaign may dial: its days and time slots in its time zone, over both changes of clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")


@dataclass(frozen=True)
class Schedule:
    """The windows of one campaign.

    A slot is open while clocks in ``zone`` show a time from its start (included) to its end (excluded). So a
    slot inside the skipped hour in spring does not open that day, and a slot inside the repeated hour in autumn
    opens twice.
    """

    start_date: date
    days: frozenset[int]
    slots: Sequence[tuple[time, time]]
    zone: ZoneInfo

    def local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self.zone)

    def is_open(self, at: float) -> bool:
        local = self.local(at)
        return (
            local.date() >= self.start_date
            and local.weekday() in self.days
            and any(start <= local.time() < end for start, end in self.slots)
        )

    def next_opening(self, at: float) -> float:
        """Return ``at`` while a window is open, otherwise the instant at which the next one opens."""
        if self.is_open(at):
            return at
        day = max(self.local(at).date(), self.start_date)
        for _ in range(400):
            openings = [instant for instant in self._candidates(day) if instant > at and self.is_open(instant)]
            if openings:
                return min(openings)
            day += timedelta(days=1)
        raise AssertionError("a schedule with a day and a slot opens within a year")

    def next_day(self, at: float) -> float:
        """Return the instant at which the next local day begins."""
        return datetime.combine(self.local(at).date() + timedelta(days=1), time(), self.zone).timestamp()

    def _candidates(self, day: date) -> Iterator[float]:
        """Yield every instant of ``day`` at which a window might open."""
        for start, _ in self.slots:
            for fold in (0, 1):  # an ambiguous start comes twice
                yield datetime.combine(day, start.replace(fold=fold), self.zone).timestamp()
        midnight = datetime.combine(day, time(), self.zone).timestamp()
        end = self.next_day(midnight)
        if end - midnight != 86400:  # the clocks change, always on a quarter of an hour: this may open a slot
            yield from (midnight + 900 * quarter for quarter in range(int(end - midnight) // 900))
