"""The trigger behind calls that are waited for without a worker."""

from __future__ import annotations

from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger


class VolubileCallsTrigger(WaitTrigger):
    """Fires when calls have ended.

    :param call_ids: instead of ``handle``: the calls, with ``agent_id`` and ``since`` (none is older; ISO 8601).
    """
