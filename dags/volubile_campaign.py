"""Call the people of a file, wait until each has an outcome, and write transcripts and outcomes to files.

The sample file holds numbers reserved for fiction. The task rejects and reports two of its rows.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_volubile.operators.campaigns import VolubileCreateCampaignOperator
from airflow_provider_volubile.operators.exports import VolubileExportTranscriptsOperator

PEOPLE = Path(__file__).parent / "data" / "people.csv"
# An outbound agent of the account; this one is the simulator's.
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
OUTPUT = "{{ params.output }}/campaign/{{ dag_run.run_after | ts_nodash }}"


@dag(
    schedule=None,
    tags=["volubile"],
    params={
        "people": Param(str(PEOPLE), type="string", description="CSV, JSON lines or Parquet file of people to call"),
        "output": Param(
            os.environ.get("VOLUBILE_OUTPUT", "file:///tmp/volubile"),
            type="string",
            description="Where the files go: a folder or a bucket",
        ),
    },
)
def volubile_campaign():
    campaign = VolubileCreateCampaignOperator(
        task_id="call_people",
        name="Winter tyres",
        agent_id=AGENT,
        recipients="{{ params.people }}",
        time_slots=["09:00-12:30", "13:30-19:00"],
        redial={"max": 2, "delay": 90, "retry_on": ["NO_ANSWER", "VOICE_BOX"]},
        outcomes_path=f"{OUTPUT}/outcomes.jsonl.gz",
        deferrable=True,
    )

    transcripts = VolubileExportTranscriptsOperator(
        task_id="export_transcripts",
        calls=campaign.output,
        output_path=f"{OUTPUT}/transcripts",
    )

    @task
    def count_outcomes(submission: dict) -> dict[str, int]:
        """Count people by outcome, from the outcomes file."""
        import gzip
        import json
        from collections import Counter

        with ObjectStoragePath(submission["outcomes"]).open("rb") as file, gzip.open(file) as lines:
            counts = Counter(json.loads(line)["status"] for line in lines)
        for status, people in counts.most_common():
            print(f"{status:<12} {people:>5}")
        return dict(counts)

    transcripts >> count_outcomes(campaign.output)


volubile_campaign()
