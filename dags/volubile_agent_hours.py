"""Switch an agent on in the morning and off at night, in Paris time.

Tasks that call people check their agent first. At night they fail and say that it is not active.
"""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pendulum
from airflow.sdk import MultipleCronTriggerTimetable, Param, dag, task

from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator

ZONE = "Europe/Paris"
# Hours in ZONE. Never choose an hour between two and three: once a year it is missing, and once a year it occurs twice.
OPENS, CLOSES = 8, 20
# An outbound agent of the account; this one is the simulator's.
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"


@dag(
    # The timetable's zone makes it eight o'clock in winter and in summer. A timetable in UTC, or one in steps of twelve
    # hours, would be an hour off for half of the year.
    schedule=MultipleCronTriggerTimetable(f"0 {OPENS} * * *", f"0 {CLOSES} * * *", timezone=ZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=ZONE),
    catchup=False,  # only the last of several missed runs counts
    max_active_runs=1,  # the morning's run waits until the night's run and its retries have ended
    tags=["volubile"],
    params={"agent": Param(AGENT, type="string", description="Id of the agent")},
)
def volubile_agent_hours():
    @task
    def is_open(dag_run=None) -> bool:
        """Return whether the agent should be active from this run on, also for a run started by hand."""
        return OPENS <= dag_run.run_after.astimezone(ZoneInfo(ZONE)).hour < CLOSES

    VolubileUpdateAgentOperator(
        task_id="switch_agent",
        agent_id="{{ params.agent }}",
        changes={"active": is_open()},
        # A repeated request does no harm. An agent that stays on at night does.
        retries=5,
        retry_delay=timedelta(minutes=2),
    )


volubile_agent_hours()
