"""Four waits, for a campaign and for calls, in the triggerer and in a worker."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID

PEOPLE = [f"+336399825{n:02d}" for n in range(1, 9)]

with DAG("waits", schedule=None):
    for deferrable, where in ((True, "deferred"), (False, "in_its_worker")):
        VolubileCreateCampaignOperator(
            task_id=f"campaign_{where}",
            name="Winter tyres",
            agent_id=REMINDER_AGENT_ID,
            recipients=PEOPLE,
            time_slots=["09:00-12:00"],
            poll_interval=1,
            deferrable=deferrable,
        )
        VolubileBulkCallsOperator(
            task_id=f"bulk_{where}",
            agent_id=REMINDER_AGENT_ID,
            recipients=PEOPLE,
            poll_interval=1,
            deferrable=deferrable,
        )
