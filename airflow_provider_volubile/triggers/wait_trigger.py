"""What the provider's triggers for deferred tasks have in common: follow, report, and stop on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_volubile.calling.schedule import Schedule
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.ending import EventStatus, wait_event
from airflow_provider_volubile.waiting.outcomes import NOTHING, Progress
from airflow_provider_volubile.waiting.shared_poll import poll_of
from airflow_provider_volubile.waiting.watches import CampaignWatch, Watch

# The trigger's own deadline passes first: it reports how far things came, a deferral's timeout could not.
DEFERRAL_GRACE = timedelta(minutes=5)


class WaitTrigger(BaseTrigger):
    """Follows calls until they are over, through the poll that all waits of one account share.

    :param volubile_conn_id: the connection; credentials are read in the triggerer and never stored in the trigger.
    :param since: no call waited for is older (ISO 8601, aware), or None.
    :param deadline: when waiting ends without success (ISO 8601, aware). A moment and not a duration, so that a
        restarted triggerer does not begin anew.
    :param poll_interval: the longest time between two looks, in seconds.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    """

    def __init__(
        self,
        *,
        volubile_conn_id: str,
        since: str | None,
        deadline: str,
        poll_interval: float = 30,
        wait_for: str = "ended",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.volubile_conn_id = volubile_conn_id
        self.since = since
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.wait_for = wait_for

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", self._kwargs()

    def _kwargs(self) -> dict[str, Any]:
        return {
            "volubile_conn_id": self.volubile_conn_id,
            "since": self.since,
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "wait_for": self.wait_for,
        }

    def watches(self) -> Sequence[Watch]:
        """What is waited for."""
        raise NotImplementedError

    def schedule(self) -> Schedule | None:
        """The calling hours, if they are known: outside them looks are rarer."""
        return None

    @property
    def hook(self) -> VolubileHook:
        return VolubileHook(self.volubile_conn_id)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        watches = self.watches()
        progress = NOTHING
        status: EventStatus = "over"
        error: VolubileError | None = None
        schedule = self.schedule()
        left = (datetime.fromisoformat(self.deadline) - datetime.now(UTC)).total_seconds()
        try:
            async with asyncio.timeout(max(left, 0)):
                poll = await poll_of(self.volubile_conn_id)
                async for progress in poll.follow(
                    watches,
                    poll_interval=self.poll_interval,
                    opening=schedule.next_opening if schedule else None,
                ):
                    self._report(progress, watches)
        except TimeoutError:
            status = "timeout"
        except VolubileError as reason:
            status, error = "error", reason
        yield TriggerEvent(dict(wait_event(status, progress, watches, error)))  # type: ignore[no-untyped-call]

    def _report(self, progress: Progress, watches: Sequence[Watch]) -> None:
        self.log.info("%s", progress)
        for watch in watches:
            if isinstance(watch, CampaignWatch) and watch.status not in (None, "ACTIVE"):
                self.log.warning("Campaign %s is %s.", watch.campaign["name"], watch.status)
