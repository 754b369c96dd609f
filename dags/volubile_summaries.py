"""Write a table of summaries every morning: one row for each call of the day before that has a transcript."""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, ObjectStoragePath, Param, dag, task

from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.operators.exports import VolubileExportTranscriptsOperator

ZONE = "Europe/Paris"


def summarise(text: str) -> str:
    """Summarise a conversation in one line: what the person said last.

    Call your language model here: send ``text`` with a prompt and return its answer. Mind where it runs: ``text`` is
    personal data.
    """
    said = [line.removeprefix("HUMAN: ") for line in text.splitlines() if line.startswith("HUMAN: ")]
    return said[-1] if said else ""


@dag(
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone=ZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=ZONE),
    catchup=False,
    tags=["volubile"],
    params={
        "output": Param(
            os.environ.get("VOLUBILE_OUTPUT", "file:///tmp/volubile"),
            type="string",
            description="Where the files go: a folder or a bucket",
        ),
    },
)
def volubile_summaries():
    @task
    def find_calls(data_interval_start=None, data_interval_end=None, dag_run=None) -> list[str]:
        """Return the ids of the interval's calls. Ids may go to XCom."""
        if data_interval_start is None:  # a person started the run
            data_interval_end = dag_run.run_after
            data_interval_start = data_interval_end - timedelta(days=1)
        # The clock of the list's days is not documented: ask for one day more on both sides, then decide by the time.
        from_date = data_interval_start.date() - timedelta(days=1)
        to_date = data_interval_end.date() + timedelta(days=1)
        calls = VolubileHook().client().iter_calls(from_date=from_date, to_date=to_date)
        times = {call.id: call.time for call in calls}
        return sorted(id_ for id_, at in times.items() if at and data_interval_start <= at < data_interval_end)

    transcripts = VolubileExportTranscriptsOperator(
        task_id="export_transcripts",
        calls=find_calls(),
        output_path="{{ params.output }}/transcripts",
        text_per_call=True,
        timezone=ZONE,
    )

    @task
    def write_summaries(export: dict, path: str) -> dict[str, str | int]:
        """Summarise the texts, file by file. A second run replaces the table."""
        import gzip
        import json

        summaries = []
        for file in export["files"]:
            if "/transcript_texts-" in file:  # the other files hold one row per utterance
                with ObjectStoragePath(file).open("rb") as zipped, gzip.open(zipped, "rt", encoding="utf-8") as calls:
                    for call in map(json.loads, calls):
                        summaries.append({"call_id": call["call_id"], "summary": summarise(call["text"])})
        table = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in summaries)
        target = ObjectStoragePath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(table.encode(), mtime=0))
        return {"path": path, "summaries": len(summaries)}

    day = "{{ data_interval_start | default(dag_run.run_after - macros.timedelta(days=1), true) | ds }}"
    write_summaries(transcripts.output, "{{ params.output }}/summaries/" + day + ".jsonl.gz")


volubile_summaries()
