"""The example campaign as a user runs it from the command line; tests/airflow/test_whole_airflow.py runs it there."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_volubile.simulator import Simulator
from tests.database import AIRFLOW
from tests.live import connection_json

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).parents[2] / "dags"
DAG = "volubile_campaign"
ATTEMPTS = 3  # the Dag redials twice


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def check_against_the_ledger(output: Path, simulator: Simulator) -> None:
    """Check that every recipient has the outcome of the ledger and was dialled at most three times."""
    dialled = defaultdict(list)
    for entry in simulator.ledger():
        dialled[entry["phone"]].append(entry)
    outcomes = rows(next(output.rglob("outcomes.jsonl.gz")))
    assert len(outcomes) == 24
    assert {row["phone"] for row in outcomes} == set(dialled)
    for row in outcomes:
        calls = sorted(dialled[row["phone"]], key=lambda entry: entry["attempt"])
        assert row["settled"]
        assert row["attempts"] == len(calls) <= ATTEMPTS
        last = calls[-1]
        assert (row["status"], row["last_call_id"], row["duration"]) == (
            last["status"],
            last["call_id"],
            last["duration"],
        )
    spoken = {row["call_id"] for row in rows(next(output.rglob("transcripts-*.jsonl.gz")))}
    assert spoken == {entry["call_id"] for entry in simulator.ledger() if entry["transcript_ready"]}


def test_the_campaign_dag_runs_from_the_command_line(
    metadata_database: None, simulator: Simulator, tmp_path: Path
) -> None:
    environment = os.environ | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW_CONN_VOLUBILE_DEFAULT": connection_json(simulator),
        "VOLUBILE_OUTPUT": f"file://{tmp_path}",
    }
    result = subprocess.run(
        [AIRFLOW, "dags", "test", DAG], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    check_against_the_ledger(tmp_path, simulator)
