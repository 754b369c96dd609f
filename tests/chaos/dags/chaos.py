"""The Dag under the storm: the three kinds of submissions, each waiting in a worker and deferred.

The storm writes a file of recipients for each run and task before the run begins.
"""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator

AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"

with DAG("chaos", schedule=None, max_active_runs=1000, max_active_tasks=1000):
    for deferrable in (False, True):
        for on_unknown in ("fail", "ask"):
            mode = f"{'deferred' if deferrable else 'sync'}_{on_unknown}"
            common = {
                "agent_id": AGENT,
                "recipients": os.environ["CHAOS_PEOPLE"] + "/{{ run_id }}/{{ task.task_id }}.jsonl",
                "deferrable": deferrable,
                "on_unknown": on_unknown,
                # Half of them use tokens and transcripts, so that the storm hits these routes too.
                "volubile_conn_id": "volubile_bearer" if on_unknown == "ask" else "volubile_default",
                "wait_for": "transcript" if on_unknown == "ask" else "ended",
                "confirmation_timeout": float(os.environ["CHAOS_CONFIRMATION"]),
                "poll_interval": 2,
                "retries": 50,
                "retry_delay": timedelta(seconds=0),
            }
            VolubileCreateCampaignOperator(
                task_id=f"campaign_{mode}", name="Chaos {{ run_id }}", time_slots=["09:00-12:00"], **common
            )
            VolubileBulkCallsOperator(task_id=f"bulk_{mode}", **common)
            VolubileBulkCallsOperator(task_id=f"single_{mode}", submit_as="single", **common)
