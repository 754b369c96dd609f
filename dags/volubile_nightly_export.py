"""Update a table of all calls every night, and query it in SQL for the figures of the last days.

The tasks need ``pip install 'airflow-provider-volubile[parquet]' duckdb``. Parsing does not.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, ObjectStoragePath, Param, dag, task

from airflow_provider_volubile.operators.exports import VolubileExportCallsOperator

ZONE = "Europe/Paris"
CALLS_PER_DAY = """
    SELECT
        date,
        status,
        count(*) AS calls,
        count(DISTINCT phone) AS people,
        coalesce(sum(duration), 0)::BIGINT AS seconds
    FROM read_parquet($files, hive_partitioning = true, hive_types = {'date': VARCHAR})
    GROUP BY ALL
    ORDER BY ALL
"""


@dag(
    # Adjoining intervals, also on days of 23 and 25 hours. At five, few calls are in progress.
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone=ZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=ZONE),
    catchup=False,  # the operator begins where the last run ended
    max_active_runs=1,
    tags=["volubile"],
    params={
        "output": Param(
            os.environ.get("VOLUBILE_OUTPUT", "file:///tmp/volubile"),
            type="string",
            description="Where the files go: a folder or a bucket",
        ),
    },
)
def volubile_nightly_export():
    export = VolubileExportCallsOperator(
        task_id="export_calls",
        output_path="{{ params.output }}/calls",
        file_format="parquet",
        timezone=ZONE,
        # Rewrite the days of the interval and the day before: summaries and extracted data come after a call, and
        # calls that were in progress last night have ended.
        lookback=timedelta(days=1),
    )

    @task
    def calls_per_day(export: dict) -> list[dict]:
        """Count calls, people and seconds by day and status. Figures may go to XCom."""
        import duckdb

        files = [ObjectStoragePath(file) for file in export["files"]]
        with duckdb.connect() as database:
            database.register_filesystem(files[0].fs)  # DuckDB then reads any store that Airflow knows
            rows = database.execute(CALLS_PER_DAY, {"files": [file.fs.unstrip_protocol(file.path) for file in files]})
            names = [column[0] for column in rows.description]
            figures = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
        for row in figures:
            print(*row.values(), sep="\t")
        return figures

    calls_per_day(export.output)


volubile_nightly_export()
