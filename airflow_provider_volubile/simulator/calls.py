"""The calls: one record per attempt, and the indexes that keep the call list fast."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from airflow_provider_volubile.simulator.telephony import IN_PROGRESS


@dataclass(slots=True, eq=False)
class Call:
    """One attempt to reach one person. Times are POSIX seconds, in wall or simulated time as their name says.

    :param start_wall: the first ring; in the future while the call is being set up.
    :param submission: sequence number of the accepted request that placed this call.
    :param view: the rendered JSON, valid until the wall time ``view_until`` or the end of the call.
    """

    seq: int
    id: str
    phone: str
    type: str
    agent_id: str
    source: str
    campaign_id: str | None
    campaign_name: str | None
    submission: int
    recipient_index: int
    attempt: int
    context: dict[str, Any]
    created_simulated: float
    created_wall: float
    start_wall: float
    recordable: bool
    status: str = IN_PROGRESS
    duration: int | None = None
    ended_simulated: float | None = None
    ended_wall: float | None = None
    transcript_at: float | None = None
    recorded: bool = False
    view: bytes | None = None
    view_until: float = 0


_created = attrgetter("created_wall")


class CallBook:
    """All calls, and indexes in order of creation by agent, by campaign name, by both, and by phone."""

    def __init__(self) -> None:
        self.in_order_dialled: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._index: dict[tuple[str | None, str | None], list[Call]] = defaultdict(list)
        self._by_phone: dict[str, list[Call]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self.in_order_dialled)

    def get(self, call_id: str) -> Call | None:
        return self._by_id.get(call_id)

    def add(self, call: Call) -> None:
        """Add a call that was created no earlier than the calls in the book."""
        self.in_order_dialled.append(call)
        self._by_id[call.id] = call
        for key in {
            (None, None),
            (call.agent_id, None),
            (None, call.campaign_name),
            (call.agent_id, call.campaign_name),
        }:
            self._index[key].append(call)
        self._by_phone[call.phone].append(call)

    def add_past(self, calls: Iterable[Call]) -> None:
        """Add calls that may have been created earlier than the calls in the book."""
        for call in calls:
            self.add(call)
        for ordered in (*self._index.values(), *self._by_phone.values()):
            ordered.sort(key=_created)

    def select(
        self,
        *,
        agent_id: str | None,
        campaign: str | None,
        phone: str | None,
        created_from: float,
        created_before: float,
    ) -> tuple[Sequence[Call], int, int]:
        """Find calls in order of creation.

        :param created_from: earliest creation (wall), included.
        :param created_before: latest creation (wall), excluded.
        :return: a list, which the caller must not change, and the bounds of the matching calls in it.
        """
        if phone is None:
            found = self._index.get((agent_id, campaign), [])
        else:
            found = [
                call
                for call in self._by_phone.get(phone, ())
                if agent_id in (None, call.agent_id) and campaign in (None, call.campaign_name)
            ]
        start = bisect_left(found, created_from, key=_created)
        return found, start, bisect_left(found, created_before, lo=start, key=_created)

    def forget_views(self) -> None:
        """Drop all rendered calls, because their form has changed."""
        for call in self.in_order_dialled:
            call.view = None
