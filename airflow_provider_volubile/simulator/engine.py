"""The discrete-event engine: processes events in the exact order of their simulated times."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from airflow_provider_volubile.simulator import chance, telephony
from airflow_provider_volubile.simulator.calls import Call, CallBook
from airflow_provider_volubile.simulator.clock import Clock
from airflow_provider_volubile.simulator.config import Config


class Engine:
    """Process events up to the simulated present, and take each call from dial to end.

    :param outcomes: forced statuses of the attempts per phone (``*``: all others); the last one repeats.
    :param on_final: called with each call that has reached its final status.
    """

    def __init__(self, seed: int, clock: Clock, config: Config, on_final: Callable[[Call], None]) -> None:
        self.now = clock.now()
        self.calls = CallBook()
        self.outcomes: dict[str, list[str]] = {}
        self._seed = seed
        self._clock = clock
        self._config = config
        self._on_final = on_final
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    @property
    def pending(self) -> int:
        """The number of events and transcripts to come. At 0, only a request can make anything happen."""
        transcripts = sum((call.transcript_at or 0) > self.now for call in self.calls.in_order_dialled)
        return len(self._events) + transcripts

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Schedule an action at a simulated time."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def run(self) -> None:
        """Process all due events."""
        present = self._clock.now()
        while self._events and self._events[0][0] <= present:
            when, _, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            action()
        self.now = max(self.now, present)

    def dial(
        self,
        agent: dict[str, Any],
        phone: str,
        context: dict[str, Any],
        *,
        source: str,
        submission: int,
        recipient_index: int = 0,
        attempt: int = 1,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        then: Callable[[Call], None] | None = None,
    ) -> Call:
        """Place a call at the present simulated time.

        :param then: called when the call has ended.
        """
        course = telephony.course(self._seed, phone, attempt, self._forced(phone, attempt))
        call = Call(
            seq=len(self.calls) + 1,
            id=chance.uuid4(self._seed, "call", submission, recipient_index, attempt),
            phone=phone,
            type="OUTBOUND",
            agent_id=agent["id"],
            source=source,
            campaign_id=campaign_id,
            campaign_name=campaign_name,
            submission=submission,
            recipient_index=recipient_index,
            attempt=attempt,
            context=context,
            created_simulated=self.now,
            created_wall=self._clock.wall_at(self.now),
            start_wall=self._clock.wall_at(self.now + course.setup),
            recordable=agent["recordable"],
        )
        self.calls.add(call)
        if course.length is not None:
            ends = self.now + course.setup + course.length
            self.end_later(call, ends, course.status, course.duration, then)
        return call

    def end_later(
        self, call: Call, when: float, status: str, duration: int, then: Callable[[Call], None] | None = None
    ) -> None:
        """Schedule the end of a call in progress at a simulated time."""
        self.at(when, partial(self._end, call, status, duration, then))

    def _end(self, call: Call, status: str, duration: int, then: Callable[[Call], None] | None) -> None:
        wall = self._clock.wall_at(self.now)
        call.start_wall = min(call.start_wall, wall)  # an advance of the clock may have skipped the first ring
        finish(call, status, duration, self.now, wall, self._config.transcript_delay)
        if then is not None:
            then(call)
        self._on_final(call)

    def _forced(self, phone: str, attempt: int) -> str | None:
        statuses = self.outcomes.get(phone) or self.outcomes.get("*")
        return statuses[min(attempt, len(statuses)) - 1] if statuses else None


def finish(call: Call, status: str, duration: int, simulated: float, wall: float, transcript_delay: float) -> None:
    """Give a call its final status."""
    call.view = None
    call.status = status
    call.duration = duration
    call.ended_simulated = simulated
    call.ended_wall = wall
    call.recorded = call.recordable and status in telephony.RECORDABLE
    if status in telephony.ANSWERED:
        call.transcript_at = simulated + transcript_delay
