"""Switch an agent on in the morning and off at night, on the clocks of Paris.

Tasks that call people look at their agent first. At night they fail and say that it is not active.
"""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pendulum
from airflow.sdk import MultipleCronTriggerTimetable, Param, dag, task

from airflow_provider_volubile.operators.agents import VolubileUpdateAgentOperator

ZONE = "Europe/Paris"
# On the clocks of ZONE. Not between two and three: that hour is missing once a year, and there twice once a year.
OPENS, CLOSES = 8, 20
# An outbound agent of the account; this one lives in the simulator.
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"


@dag(
    # The timetable's own zone makes it eight o'clock in winter and in summer. Counted in UTC, or in steps of twelve
    # hours, it would be an hour off for half of the year.
    schedule=MultipleCronTriggerTimetable(f"0 {OPENS} * * *", f"0 {CLOSES} * * *", timezone=ZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=ZONE),
    catchup=False,  # of the runs that were missed, only the last one counts
    max_active_runs=1,  # the morning waits until the night, with its retries, is over
    tags=["volubile"],
    params={"agent": Param(AGENT, type="string", description="Id of the agent")},
)
def volubile_agent_hours():
    @task
    def is_open(dag_run=None) -> bool:
        """Whether the agent works from this run on. A run started by hand sets what holds at that moment."""
        return OPENS <= dag_run.run_after.astimezone(ZoneInfo(ZONE)).hour < CLOSES

    VolubileUpdateAgentOperator(
        task_id="switch_agent",
        agent_id="{{ params.agent }}",
        changes={"active": is_open()},
        # Repeating it does no harm, and an agent that stays on at night does.
        retries=5,
        retry_delay=timedelta(minutes=2),
    )


volubile_agent_hours()
