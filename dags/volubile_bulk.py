"""Call any number of people at once with one mapped task per 10,000 people, then add up the outcomes.

A task takes at most 10,000 people, so a first task splits the file. Only then the number of tasks is known, so the Dag
uses dynamic task mapping.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator

PEOPLE = Path(__file__).parent / "data" / "people.csv"
# An outbound agent of the account; this one is the simulator's.
AGENT = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
OUTPUT = "{{ params.output }}/bulk/{{ dag_run.run_after | ts_nodash }}"


@dag(
    schedule=None,
    tags=["volubile"],
    params={
        "people": Param(str(PEOPLE), type="string", description="CSV, JSON lines or Parquet file of people to call"),
        "batch_size": Param(10_000, type="integer", minimum=1, maximum=10_000, description="People in one task"),
        "output": Param(
            os.environ.get("VOLUBILE_OUTPUT", "file:///tmp/volubile"),
            type="string",
            description="Where the files go: a folder or a bucket",
        ),
    },
)
def volubile_bulk():
    @task
    def split(folder: str, params=None) -> list[str]:
        """Split the file into batches and return their paths: people belong in files, not in XCom."""
        import json

        from airflow_provider_volubile.calling.recipients import read_recipients, split_parts

        # Read the whole file first: otherwise two tasks could call a number that the file holds twice.
        everybody = read_recipients(params["people"]).accepted
        ObjectStoragePath(folder).mkdir(parents=True, exist_ok=True)
        batches = []
        for number, batch in enumerate(split_parts(everybody, params["batch_size"])):
            path = ObjectStoragePath(folder) / f"{number:03}.jsonl"
            path.write_text(
                "".join(json.dumps({"phone": person.phone, "context": person.context}) + "\n" for person in batch)
            )
            batches.append(str(path))
        return batches

    calls = VolubileBulkCallsOperator.partial(
        task_id="call_people",
        agent_id=AGENT,
        outcomes_path=f"{OUTPUT}/outcomes/{{{{ '%03d' % ti.map_index }}}}.jsonl.gz",
        max_missing=0,  # the task fails if it could not call a recipient, and says how many
        deferrable=True,  # wait for hours without a worker
    ).expand(recipients=split(f"{OUTPUT}/people"))

    @task
    def count_outcomes(submissions: list[dict]) -> dict[str, int]:
        """Add up the outcomes. The files that ``outcomes`` names hold the people."""
        from collections import Counter

        counts = Counter()
        for submission in submissions:
            print(f"{submission['recipients']:>6} people: {submission['outcomes']}")
            counts.update(submission["counts"])
        return dict(counts)

    count_outcomes(calls.output)


volubile_bulk()
