"""The trigger behind a submission that pauses before it looks again for a part whose answer was lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger

from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.calling.stopping import KillAction, stop_if_killed
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.shared_poll import in_thread, stopping_threads


class LookAgainTrigger(DateTimeTrigger):
    """Fires at a moment. Should a person stop the task before it, the campaigns accepted so far are stopped too.

    :param moment: when to fire, aware.
    :param volubile_conn_id: the connection.
    :param campaigns: id, name and number of recipients of each campaign that was accepted.
    :param on_kill_action: what to do with them when a person stops the task: ``pause``, ``cancel``, ``leave``.
    """

    def __init__(
        self,
        *,
        moment: datetime,
        volubile_conn_id: str,
        campaigns: Sequence[CampaignRef],
        on_kill_action: KillAction,
        end_from_trigger: bool = False,
    ) -> None:
        super().__init__(moment=moment, end_from_trigger=end_from_trigger)
        self.volubile_conn_id = volubile_conn_id
        self.campaigns = campaigns
        self.on_kill_action = on_kill_action

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        _, kwargs = super().serialize()
        return f"{cls.__module__}.{cls.__qualname__}", kwargs | {
            "volubile_conn_id": self.volubile_conn_id,
            "campaigns": list(self.campaigns),
            "on_kill_action": self.on_kill_action,
        }

    async def on_kill(self) -> None:
        """Runs in the triggerer when the deferred task was stopped or cleared, or when the trigger only moved."""
        if self.task_instance is not None:
            hook = VolubileHook(self.volubile_conn_id)
            await in_thread(
                partial(stop_if_killed, hook, self.task_instance, self.campaigns, self.on_kill_action), stopping_threads
            )
