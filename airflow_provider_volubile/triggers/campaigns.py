"""The trigger behind campaigns that are waited for without a worker."""

from __future__ import annotations

from typing import Any

from airflow_provider_volubile.calling.stopping import KillAction
from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger


class VolubileCampaignTrigger(WaitTrigger):
    """Fires when everyone in the campaigns of a submission has an outcome.

    :param campaigns: instead of ``handle``: id, name and number of recipients of each, with ``agent_id``, ``since``
        (no call is older; ISO 8601), ``redial`` and ``schedule`` as handles have them.
    """

    def __init__(self, *, on_kill_action: KillAction = "pause", **kwargs: Any) -> None:
        super().__init__(on_kill_action=on_kill_action, **kwargs)
