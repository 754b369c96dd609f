"""The trigger behind campaigns that are waited for without a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.calling.schedule import Schedule
from airflow_provider_volubile.calling.stopping import KillAction, stop_if_killed
from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
from airflow_provider_volubile.waiting.shared_poll import in_thread, stopping_threads
from airflow_provider_volubile.waiting.watches import Watch, campaign_watches


class VolubileCampaignTrigger(WaitTrigger):
    """Fires when everyone in the campaigns of one submission has an outcome.

    It also fires when all campaigns were cancelled outside Airflow and their last calls have ended, at ``deadline``,
    and on errors that will not pass. The event is a :class:`~airflow_provider_volubile.waiting.ending.WaitEvent`.

    :param campaigns: id, name and number of recipients of each.
    :param agent_id: their agent.
    :param schedule: their calling hours as :meth:`Schedule.dump` gives them, with the redial rule; None if unknown.
    :param on_kill_action: what to do with the campaigns when a person stops the task: ``pause``, ``cancel``, ``leave``.

    See :class:`~airflow_provider_volubile.triggers.wait_trigger.WaitTrigger` for the other parameters.
    """

    def __init__(
        self,
        *,
        campaigns: Sequence[CampaignRef],
        agent_id: str | None,
        schedule: Mapping[str, Any] | None = None,
        redial: Mapping[str, Any] | None = None,
        on_kill_action: KillAction = "pause",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaigns = campaigns
        self.agent_id = agent_id
        self.calling_hours = schedule
        self.redial = redial
        self.on_kill_action = on_kill_action

    def _kwargs(self) -> dict[str, Any]:
        return super()._kwargs() | {
            "campaigns": list(self.campaigns),
            "agent_id": self.agent_id,
            "schedule": self.calling_hours,
            "redial": self.redial,
            "on_kill_action": self.on_kill_action,
        }

    def watches(self) -> Sequence[Watch]:
        return campaign_watches(
            self.campaigns,
            agent_id=self.agent_id,
            since=self.since,
            redial=self.redial,
            wait_for=self.wait_for,
        )

    def schedule(self) -> Schedule | None:
        return Schedule.load(self.calling_hours) if self.calling_hours else None

    async def on_kill(self) -> None:
        """Runs in the triggerer when the deferred task was stopped or cleared, or when the trigger only moved."""
        if self.task_instance is not None:
            await in_thread(
                partial(stop_if_killed, self.hook, self.task_instance, self.campaigns, self.on_kill_action),
                stopping_threads,
            )
