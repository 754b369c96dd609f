"""What test_whole_airflow.py stops, clears and asks about. Who is called stands in each run's conf."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.simulator import FOLLOW_UP_AGENT_ID, REMINDER_AGENT_ID
from airflow_provider_volubile.triggers.finished import VolubileFinishedCallTrigger

COMMON: dict[str, Any] = {
    "agent_id": REMINDER_AGENT_ID,
    "poll_interval": 1,
    # Airflow itself fails a try now and then, when a trigger fires before the scheduler has noticed the deferral.
    "retries": 3,
    "retry_delay": timedelta(seconds=1),
}


def campaign(task_id: str, **settings: Any) -> None:
    VolubileCreateCampaignOperator(
        task_id=task_id,
        name=task_id,
        recipients=f"{{{{ dag_run.conf['people']['{task_id}'] }}}}",
        time_slots=["09:00-12:00"],
        **COMMON | settings,
    )


with DAG("asks", schedule=None, render_template_as_native_obj=True):
    asking: dict[str, Any] = {"on_unknown": "ask", "confirmation_timeout": 0}
    campaign("campaign", **asking, deferrable=True)
    VolubileBulkCallsOperator(task_id="bulk", recipients="{{ dag_run.conf['people']['bulk'] }}", **COMMON | asking)
    VolubileCreateCallOperator(
        task_id="call", phone="{{ dag_run.conf['people']['call'][0] }}", deferrable=True, **COMMON | asking
    )

with DAG("stopped", schedule=None, render_template_as_native_obj=True):
    for action in ("pause", "cancel", "leave"):
        for deferrable in (False, True):
            campaign(f"{action}_{'deferred' if deferrable else 'worker'}", on_kill_action=action, deferrable=deferrable)
    campaign("paused_by_a_person", deferrable=True)

with DAG("goes_on", schedule=None, render_template_as_native_obj=True):
    campaign("cleared", deferrable=True)

follow_ups = Asset(
    "volubile://follow-ups",
    watchers=[
        AssetWatcher(name="ended", trigger=VolubileFinishedCallTrigger(agent_id=FOLLOW_UP_AGENT_ID, poll_interval=1))
    ],
)

with DAG("calls_have_ended", schedule=follow_ups):

    @task
    def tell(triggering_asset_events: Any) -> list[Any]:
        return [event.extra["payload"] for event in triggering_asset_events[follow_ups]]

    tell()
