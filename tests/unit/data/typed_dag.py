"""A Dag as people write it; mypy must complain about the marked lines, and no others."""

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.exports import VolubileExportTranscriptsOperator
from airflow_provider_volubile.sensors.calls import VolubileCallsSensor

AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"


@dag(schedule=None)
def typed() -> None:
    campaign = VolubileCreateCampaignOperator(
        task_id="campaign",
        name="Winter tyres",
        agent_id=AGENT,
        recipients=[{"phone": "+33639980001", "context": {"name": "Lucie"}}],
        time_slots=["09:00-12:30"],
        redial={"max": 2, "delay": 90, "retry_on": ["NO_ANSWER"]},
        deferrable=True,
        retries=2,
        retry_delay=timedelta(minutes=1),
    )
    VolubileExportTranscriptsOperator(task_id="texts", calls=campaign.output, output_path="file:///tmp/x")
    bulk = VolubileBulkCallsOperator(
        task_id="bulk",
        agent_id=AGENT,
        recipients="s3://bucket/people.csv",
        wait_for_completion=False,
    )
    VolubileCallsSensor(task_id="wait", calls=bulk.output, deferrable=True)

    VolubileBulkCallsOperator(
        task_id="wrong",
        agent_id=AGENT,
        recipients=[],
        submit_as="all",  # wrong
    )
    VolubileCreateCallOperator(
        task_id="call",
        agent_id=AGENT,
        phone="+33639980001",
    )

    @task
    def agents() -> list[str]:
        client = VolubileHook().client()
        client.get_agent(7)  # wrong
        return [agent.name or "" for agent in client.list_agents().content]

    agents()


typed()
