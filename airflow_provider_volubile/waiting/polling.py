"""One wait: when its next round of polling is due, whether it is over, and the loop of rounds for a worker.

Everything here is synchronous and knows nothing of Airflow. Operators wait with :func:`wait`, sensors hold one round
(:func:`~airflow_provider_volubile.waiting.poll_round.poll_once`) at each poke, and triggers share one loop
(:mod:`airflow_provider_volubile.waiting.shared_poll`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.calling.schedule import Schedule
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.waiting.ending import EventStatus, WaitEvent, wait_event
from airflow_provider_volubile.waiting.fault_policy import as_volubile_error
from airflow_provider_volubile.waiting.outcomes import NOTHING, Progress
from airflow_provider_volubile.waiting.poll_round import poll_once
from airflow_provider_volubile.waiting.watches import Watch, watches_for

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

FIRST_INTERVAL = 2.0
# The whole budget is a request in 0.15 s; one wait, or all that share a poll, take at most half of it.
SECONDS_PER_REQUEST = 0.3
# After a fault the next round is not later than this, whatever the calling hours are.
FAULT_INTERVAL = 30.0
# With the calling hours closed and no call in progress, only a cancellation could be missed.
CLOSED_INTERVAL = 900.0
QUIET = timedelta(minutes=10)

Opening = Callable[[datetime], datetime]


def interval(
    progress: Progress,
    *,
    age: float,
    quiet: float,
    now: datetime,
    poll_interval: float,
    opening: Opening | None,
) -> float:
    """Seconds until the next round is due: soon at first, then every ``poll_interval``, rarely out of hours.

    :param age: seconds since waiting began.
    :param quiet: seconds since a round last brought news. Hours alone are not trusted: the service may keep another
        clock.
    :param now: the present by the wall clock, which is for the calling hours only: it may jump.
    :param opening: tells, for a moment, when calls may next be placed.
    """
    # When everyone is settled only transcripts are waited for, which keep no calling hours.
    is_idle = not progress.in_flight and not progress.is_complete
    if opening and is_idle and quiet > QUIET.total_seconds():
        closed = (opening(now) - now).total_seconds()
        if closed > 0:
            return min(closed, max(CLOSED_INTERVAL, poll_interval))
    return min(poll_interval, max(FIRST_INTERVAL, age / 4))


@dataclass(eq=False)
class Wait:
    """One wait between rounds. Moments are monotonic: the wall clock may jump.

    :param watches: what it waits for.
    :param poll_interval: the longest time between two rounds while calls may be placed, in seconds.
    :param opening: tells, for a moment, when calls may next be placed; rounds are rarer until then.
    """

    watches: Sequence[Watch]
    poll_interval: float
    opening: Opening | None = None
    began: float = field(default_factory=monotonic)
    moved: float = field(default_factory=monotonic)
    progress: Progress = NOTHING
    is_over: bool = False
    error: VolubileError | None = None

    @classmethod
    def of(cls, handle: SubmissionHandle, *, wait_for: str, poll_interval: float) -> Wait:
        return cls(watches_for(handle, wait_for=wait_for), poll_interval, opening_of(handle))

    def update(self, now: datetime) -> float:
        """Take in what the last round found. Returns the seconds until the next one is wanted."""
        try:
            self.error = self.error or next((watch.error for watch in self.watches if watch.error), None)
            if self.error:
                return inf
            first, *others = [watch.progress() for watch in self.watches] or [NOTHING]
            progress = sum(others, first)
            if progress != self.progress:
                self.progress, self.moved = progress, monotonic()
            self.is_over = all(watch.is_over() for watch in self.watches)
            clock = monotonic()
            usual = interval(
                progress,
                age=clock - self.began,
                quiet=clock - self.moved,
                now=now,
                poll_interval=self.poll_interval,
                opening=self.opening,
            )
            faulty = FAULT_INTERVAL if any(watch.faults for watch in self.watches) else usual
            return min([usual, faulty, *(watch.recheck_after for watch in self.watches)])
        except Exception as error:
            self.error = as_volubile_error(error)
            return inf

    def dump(self) -> list[dict[str, Any]]:
        """What another process needs in order to go on; JSON."""
        return [watch.dump() for watch in self.watches]

    def restore(self, states: Sequence[Mapping[str, Any]] | None) -> None:
        """Go on where :meth:`dump` was called, if it was."""
        for watch, state in zip(self.watches, states or (), strict=False):
            watch.restore(state)

    def event(self) -> WaitEvent:
        """How the wait ended."""
        status: EventStatus = "error" if self.error else "over" if self.is_over else "timeout"
        return wait_event(status, self.progress, self.watches, self.error)


def opening_of(handle: SubmissionHandle) -> Opening | None:
    """The calling hours of a submission, if they are known."""
    return Schedule.load(handle["schedule"]).next_opening if handle.get("schedule") else None


def wait(
    client: VolubileClient,
    handle: SubmissionHandle,
    *,
    wait_for: str = "ended",
    deadline: datetime,
    poll_interval: float,
    report: Callable[[Progress], object] | None = None,
) -> WaitEvent:
    """Wait in this thread until everything of a submission is over, or until ``deadline``.

    The synchronous twin of :class:`~airflow_provider_volubile.triggers.wait_trigger.WaitTrigger`.

    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param poll_interval: the longest time between two rounds, in seconds.
    :param report: is shown the progress after every round.
    """
    waiting = Wait.of(handle, wait_for=wait_for, poll_interval=poll_interval)
    while True:
        result = poll_once(client, waiting.watches, now=datetime.now(UTC))
        now = datetime.now(UTC)
        pause = waiting.update(now)
        if report:
            report(waiting.progress)
        if waiting.error or waiting.is_over or now >= deadline:
            return waiting.event()
        time.sleep(min(max(pause, result.requests * SECONDS_PER_REQUEST), (deadline - now).total_seconds()))
