"""Campaigns: whom to dial, when, and when to redial."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any

from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.config import Config
from airflow_provider_volubile.simulator.engine import Engine
from airflow_provider_volubile.simulator.schedule import Schedule

ACTIVE, PAUSED, CANCELLED = "ACTIVE", "PAUSED", "CANCELLED"

# Longest delay of a redial, in seconds: Python's calendar ends in the year 9999.
_CENTURY = 3_155_760_000


@dataclass
class Campaign:
    """One campaign.

    :param view: the campaign as the API shows it, its status included.
    :param recipients: ``{"phone", "context"}`` each.
    :param queue: a heap of (simulated due time, index of the recipient, attempt).
    :param dialled: attempts per local day.
    :param wake_at: simulated time of the next planned check of the queue, or None.
    """

    view: dict[str, Any]
    agent: dict[str, Any]
    recipients: list[dict[str, Any]]
    schedule: Schedule
    submission: int
    queue: list[tuple[float, int, int]]
    dialled: Counter[date] = field(default_factory=Counter)
    in_progress: int = 0
    wake_at: float | None = None

    @property
    def status(self) -> str:
        return str(self.view["status"])


class Dialler:
    """Dial the queued recipients of all campaigns, within their windows, batch sizes and lines."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.campaigns: dict[str, Campaign] = {}
        self._engine = engine
        self._config = config

    def add(
        self,
        view: dict[str, Any],
        agent: dict[str, Any],
        recipients: list[dict[str, Any]],
        schedule: Schedule,
        submission: int,
    ) -> Campaign:
        """Start a campaign at the present simulated time."""
        queue = [(self._engine.now, index, 1) for index in range(len(recipients))]
        campaign = Campaign(view, agent, recipients, schedule, submission, queue)
        self.campaigns[view["id"]] = campaign
        self._wake(campaign, self._engine.now)
        return campaign

    def set_status(self, campaign: Campaign, status: str) -> bool:
        """Pause, resume or cancel a campaign. Calls in progress go on.

        :return: False if the change is refused: ``CANCELLED`` is final.
        """
        if campaign.status == CANCELLED and status != CANCELLED:
            return False
        campaign.view["status"] = status
        self._wake(campaign, self._engine.now)
        return True

    def wake_all(self) -> None:
        """Check every queue again, because the configuration has changed."""
        for campaign in self.campaigns.values():
            self._wake(campaign, self._engine.now)

    def _wake(self, campaign: Campaign, when: float) -> None:
        if campaign.wake_at is None or when < campaign.wake_at:
            campaign.wake_at = when
            self._engine.at(when, partial(self._dial_next, campaign, when))

    def _dial_next(self, campaign: Campaign, now: float) -> None:
        """Dial the next recipient, or plan the next check for when this is allowed."""
        if campaign.wake_at != now:
            return  # an earlier check has replaced this one
        campaign.wake_at = None
        if campaign.status != ACTIVE or not campaign.queue:
            return
        if campaign.in_progress >= self._config.lines:
            return  # the next call that ends plans a check
        allowed = self._next_allowed(campaign, max(now, campaign.queue[0][0]))
        if allowed > now:
            self._wake(campaign, allowed)
            return
        _, index, attempt = heapq.heappop(campaign.queue)
        self._dial(campaign, index, attempt)
        self._wake(campaign, now + self._config.dial_interval)

    def _next_allowed(self, campaign: Campaign, when: float) -> float:
        if self._config.ignore_windows:
            return when
        schedule = campaign.schedule
        when = schedule.next_opening(when)
        while campaign.dialled[schedule.local(when).date()] >= campaign.view["batchSize"]:
            when = schedule.next_opening(schedule.next_day(when))
        return when

    def _dial(self, campaign: Campaign, index: int, attempt: int) -> None:
        recipient = campaign.recipients[index]
        campaign.in_progress += 1
        campaign.dialled[campaign.schedule.local(self._engine.now).date()] += 1
        self._engine.dial(
            campaign.agent,
            recipient["phone"],
            recipient["context"],
            source="campaign",
            submission=campaign.submission,
            recipient_index=index,
            attempt=attempt,
            campaign_id=campaign.view["id"],
            campaign_name=campaign.view["name"],
            then=partial(self._ended, campaign),
        )

    def _ended(self, campaign: Campaign, call: Call) -> None:
        campaign.in_progress -= 1
        retry = campaign.view["retry"]
        if retry and call.attempt <= retry["max"] and call.status in retry["retryOn"]:
            due = self._engine.now + min(60 * retry["delay"], _CENTURY)
            heapq.heappush(campaign.queue, (due, call.recipient_index, call.attempt + 1))
        self._wake(campaign, self._engine.now)
