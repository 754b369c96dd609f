"""Exports through real Airflow against the simulator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_volubile.exports import transcripts
from airflow_provider_volubile.exports.formats import SUFFIXES
from airflow_provider_volubile.operators.exports import (
    VolubileExportCallsOperator,
    VolubileExportRecordingsOperator,
    VolubileExportTranscriptsOperator,
)
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from tests import s3
from tests.airflow.conftest import Ran, RunDag, store
from tests.airflow.helpers import UNKNOWN

pytestmark = pytest.mark.airflow

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)
DAGS = Path(__file__).parents[2] / "dags"
FILE = f"date={YESTERDAY:%Y-%m-%d}/calls.jsonl.gz"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    with s3.bucket("airflow-exports") as address:
        yield address


def export_calls(out: Any, **changes: Any) -> VolubileExportCallsOperator:
    settings: dict[str, Any] = {
        "task_id": "export",
        "output_path": str(out),
        "interval_start": YESTERDAY.isoformat(),
        "interval_end": TODAY.isoformat(),
        "lookback": timedelta(0),
    }
    return VolubileExportCallsOperator(**settings | changes)


def rows(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def why(ran: Ran, capfd: pytest.CaptureFixture[str]) -> str:
    """What a failed task told."""
    assert ran.state == "failed"
    captured = capfd.readouterr()
    return captured.out + captured.err


class TestCalls:
    def test_a_day_of_calls_equals_the_ledger(self, run_dag: RunDag, simulator: Simulator, out: Path) -> None:
        simulator.load_calls(130, status="*", created_from=YESTERDAY, created_to=TODAY - timedelta(seconds=1))
        ran = run_dag(lambda: export_calls(out))
        assert ran.state == "success"
        result = ran.xcom("export")
        assert result == {
            "output_path": str(out),
            "files": [f"{out}/{FILE}"],
            "manifests": [str(out / Path(FILE).parent / "_calls.manifest.json")],
            "counts": {"calls": 130, "missing": 0},
            "interval": [f"{YESTERDAY:%Y-%m-%dT%H:%M:%SZ}", f"{TODAY:%Y-%m-%dT%H:%M:%SZ}"],
        }
        found = {row["call_id"]: (row["phone"], row["status"]) for row in rows(out / FILE)}
        assert found == {entry["call_id"]: (entry["phone"], entry["status"]) for entry in simulator.ledger()}

    def test_only_the_files_hold_numbers(
        self, run_dag: RunDag, simulator: Simulator, out: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        simulator.load_calls(3, phones=["+33639980142"], created_from=YESTERDAY, created_to=YESTERDAY)
        ran = run_dag(lambda: export_calls(out))
        assert {row["phone"] for row in rows(out / FILE)} == {"+33639980142"}
        manifest = Path(ran.xcom("export")["manifests"][0]).read_text()
        captured = capfd.readouterr()
        assert "39980142" not in manifest + json.dumps(ran.xcom("export")) + captured.out + captured.err

    def test_a_second_run_makes_the_same_files(self, run_dag: RunDag, simulator: Simulator, out: Path) -> None:
        simulator.load_calls(50, created_from=YESTERDAY, created_to=TODAY - timedelta(seconds=1))
        run_dag(lambda: export_calls(out))
        first = contents(out)
        run_dag(lambda: export_calls(out))
        assert contents(out) == first

    def test_the_default_interval_is_the_day_before_the_run(
        self, metadata_database: None, connection: str, simulator: Simulator, out: Path
    ) -> None:
        """Airflow's default timetable for a cron expression gives an empty data interval."""
        simulator.load_calls(20, created_from=YESTERDAY, created_to=TODAY - timedelta(seconds=1))
        with DAG("nightly", schedule="@daily", start_date=TODAY - timedelta(days=9)) as dag:
            VolubileExportCallsOperator(task_id="export", output_path=str(out))
        store(dag)
        ran = Ran(dag.test(logical_date=TODAY))
        assert ran.xcom("export")["counts"] == {"calls": 20, "missing": 0}
        assert len(rows(out / FILE)) == 20

    def test_a_run_exports_the_days_that_earlier_runs_missed(
        self, metadata_database: None, connection: str, simulator: Simulator, out: Path
    ) -> None:
        simulator.load_calls(90, created_from=TODAY - timedelta(days=6), created_to=TODAY)
        with DAG("paused", schedule="@daily", start_date=TODAY - timedelta(days=9)) as dag:
            VolubileExportCallsOperator(task_id="export", output_path=str(out))
        store(dag)
        dag.test(logical_date=TODAY - timedelta(days=5))
        assert len(list(out.glob("date=*"))) == 1
        dag.test(logical_date=TODAY)
        assert sorted(path.name for path in out.glob("date=*")) == [
            f"date={TODAY - timedelta(days=ago):%Y-%m-%d}" for ago in (6, 5, 4, 3, 2, 1)
        ]
        before = contents(out)
        dag.test(logical_date=TODAY - timedelta(days=5))
        assert contents(out) == before

    def test_a_later_run_exports_a_call_that_took_days(
        self, metadata_database: None, connection: str, simulator: Simulator, out: Path
    ) -> None:
        """The nights after its day go over that day again, although it lies outside their interval and lookback."""
        simulator.configure(speed=0)
        created = TODAY - timedelta(days=6, hours=1)
        (late,) = simulator.load_calls(
            1, status="IN_PROGRESS", ends_within=600, created_from=created, created_to=created
        )
        with DAG("takes_days", schedule="@daily", start_date=TODAY - timedelta(days=9)) as dag:
            VolubileExportCallsOperator(task_id="export", output_path=str(out))
        store(dag)
        dag.test(logical_date=TODAY - timedelta(days=6))
        dag.test(logical_date=TODAY - timedelta(days=4))
        file = out / f"date={created:%Y-%m-%d}/calls.jsonl.gz"
        assert rows(file) == []
        simulator.advance(600)
        dag.test(logical_date=TODAY - timedelta(days=2))
        assert [row["call_id"] for row in rows(file)] == [late]
        assert json.loads((out / "_calls.watermark.json").read_text())["watermark"].startswith(
            f"{TODAY - timedelta(days=2):%Y-%m-%d}"
        )

    @pytest.mark.parametrize(
        "changes", [{"agent_id": REMINDER_AGENT_ID}, {"campaign": "Winter tyres"}, {"timezone": "Europe/Paris"}]
    )
    def test_a_folder_holds_one_selection(
        self,
        run_dag: RunDag,
        simulator: Simulator,
        out: Path,
        capfd: pytest.CaptureFixture[str],
        changes: dict[str, Any],
    ) -> None:
        """Also when no day of it is the same."""
        run_dag(lambda: export_calls(out))
        before = contents(out)
        days = [(TODAY - timedelta(days=ago)).isoformat() for ago in (5, 4)]
        ran = run_dag(lambda: export_calls(out, interval_start=days[0], interval_end=days[1], **changes))
        assert "belongs to another table" in why(ran, capfd)
        assert contents(out) == before

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
    def test_sql_reads_the_table(self, run_dag: RunDag, simulator: Simulator, out: Path, file_format: Any) -> None:
        simulator.load_calls(12, created_from=YESTERDAY - timedelta(days=1), created_to=TODAY - timedelta(hours=1))
        flatten = {"extracted": ["visit.day"], "classification": ["outcome"]}
        run_dag(lambda: export_calls(out, lookback=24, file_format=file_format, flatten=flatten))
        files = f"'{out}/date=*/calls{SUFFIXES[file_format]}'"
        found = duckdb.sql(
            f"SELECT date, count(*), count(DISTINCT call_id) FROM {files} GROUP BY ALL ORDER BY 1"
        ).fetchall()
        before, day = (YESTERDAY - timedelta(days=1)).date(), YESTERDAY.date()
        assert [str(found_day) for found_day, _, _ in found] == [str(before), str(day)]
        assert [count for _, count, _ in found] == [count for _, _, count in found]
        assert sum(count for _, count, _ in found) == 12
        duckdb.sql(f"SELECT extracted_visit_day, classification_outcome FROM {files}").fetchall()

    def test_templates_and_flatten_by_the_agents_configuration(
        self, run_dag: RunDag, simulator: Simulator, out: Path
    ) -> None:
        simulator.load_calls(5, created_from=YESTERDAY, created_to=YESTERDAY)
        ran = run_dag(
            lambda: export_calls(
                "{{ dag_run.conf.out }}",
                agent_id="{{ dag_run.conf.agent }}",
                interval_start="{{ dag_run.conf.start }}",
                interval_end="{{ dag_run.conf.end }}",
                flatten="{{ dag_run.conf.flatten }}",
            ),
            flatten=True,
            out=str(out),
            agent=REMINDER_AGENT_ID,
            start=YESTERDAY.isoformat(),
            end=TODAY.isoformat(),
        )
        assert ran.state == "success"
        assert any(name.startswith("classification_") for name in rows(out / FILE)[0] if name != "classification_data")

    def test_calls_can_be_exported_to_s3(self, run_dag: RunDag, simulator: Simulator, bucket: str) -> None:
        simulator.load_calls(7, created_from=YESTERDAY, created_to=YESTERDAY)
        ran = run_dag(lambda: export_calls(f"{bucket}/calls"))
        assert len(rows(ObjectStoragePath(ran.xcom("export")["files"][0]))) == 7

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"interval_end": (YESTERDAY - timedelta(days=2)).isoformat()}, "before it begins"),
            ({"interval_end": (TODAY + timedelta(days=2)).isoformat()}, "in the future"),
            ({"interval_start": "2025-11-12"}, "without a time zone"),
            ({"interval_end": None}, "given together"),
            ({"timezone": "Paris"}, "timezone is 'Paris'"),
            ({"file_format": "xlsx"}, "file_format is 'xlsx'"),
            ({"flatten": True}, "needs agent_id"),
            ({"flatten": "visit.day"}, "must be true, false or a mapping"),
            ({"agent_id": UNKNOWN}, f"agent_id is '{UNKNOWN}', and there is no such agent"),
            ({"agent_id": ""}, "agent_id '' is not an id"),
            ({"flatten": {"extractors": []}}, "neither 'extracted' nor"),
            ({"output_path": ""}, "output_path is empty"),
            (
                {"output_path": "s3://airflow-exports@nowhere/calls"},
                "Could not write s3://airflow-exports@nowhere/calls",
            ),
            ({"lookback": timedelta(hours=-1)}, "lookback in hours is -1.0; it must be a number from 0"),
            ({"lookback": "24"}, "lookback in hours is '24'; it must be a number"),
            ({"lookback": 1e9}, "it must be a number from 0 to 87600"),
            ({"timezone": None}, "timezone is None"),
        ],
    )
    def test_bad_input_is_told_and_leaves_nothing(
        self,
        run_dag: RunDag,
        simulator: Simulator,
        bucket: str,
        out: Path,
        capfd: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        ran = run_dag(lambda: export_calls(out, **changes))
        assert message in why(ran, capfd)
        assert not out.exists()


class TestTranscriptsAndRecordings:
    def test_transcripts_of_ids_can_be_exported_as_texts(
        self, run_dag: RunDag, simulator: Simulator, out: Path
    ) -> None:
        ids = simulator.load_calls(20, status="*", created_from=YESTERDAY, created_to=YESTERDAY)
        ran = run_dag(
            lambda: VolubileExportTranscriptsOperator(
                task_id="export", calls=ids, output_path=str(out), text_per_call=True, transcript_timeout=0
            )
        )
        assert ran.state == "success"
        result = ran.xcom("export")
        ready = {entry["call_id"] for entry in simulator.ledger() if entry["transcript_ready"]}
        assert result["counts"] == {
            "calls": 20,
            "written": len(ready),
            "none": 20 - len(ready),
            "missing": 0,
            "failed": 0,
        }
        assert [Path(path).name.split("-")[0] for path in result["files"]] == ["transcript_texts", "transcripts"]
        assert {row["call_id"] for row in rows(Path(result["files"][1]))} == ready
        manifest = json.loads(Path(result["manifest"]).read_text())
        assert {entry["call_id"] for entry in manifest["missing"]} == set(ids) - ready

    def test_a_handle_of_another_task_can_be_exported(self, run_dag: RunDag, simulator: Simulator, out: Path) -> None:
        ids = simulator.load_calls(4, campaign="Winter tyres x1", created_from=YESTERDAY, created_to=YESTERDAY)

        def flow() -> None:
            @task
            def call() -> dict[str, Any]:
                return {
                    "kind": "campaign",
                    "agent_id": REMINDER_AGENT_ID,
                    "submitted_at": (YESTERDAY - timedelta(hours=1)).isoformat(),
                    "recipients": 4,
                    "campaigns": [{"id": "c1", "name": "Winter tyres x1", "recipients": 4}],
                }

            calls = call()
            VolubileExportTranscriptsOperator(task_id="transcripts", calls=calls, output_path=str(out / "transcripts"))
            VolubileExportRecordingsOperator(task_id="recordings", calls=calls, output_path=str(out / "recordings"))

        ran = run_dag(flow)
        assert ran.state == "success"
        recorded = {entry["call_id"] for entry in simulator.ledger() if entry["recorded"]}
        assert {Path(path).stem for path in ran.xcom("recordings")["files"]} == recorded
        assert ran.xcom("transcripts")["counts"]["written"] == len(ids)

    def test_an_export_can_be_mapped_over_the_output_of_a_task(
        self, run_dag: RunDag, simulator: Simulator, out: Path
    ) -> None:
        ids = simulator.load_calls(6, created_from=YESTERDAY, created_to=YESTERDAY)

        def flow() -> None:
            @task
            def batches() -> list[list[str]]:
                return [ids[:2], ids[2:]]

            @task
            def count(exports: Any) -> int:
                return sum(export["counts"]["written"] for export in exports)

            exports = VolubileExportTranscriptsOperator.partial(task_id="export", output_path=str(out)).expand(
                calls=batches()
            )
            count(exports.output)

        ran = run_dag(flow)
        assert ran.xcom("count") == 6
        assert len(list(out.glob("date=*/transcripts-*.jsonl.gz"))) == 2

    def test_a_retry_replaces_the_files_of_the_first_try(
        self, metadata_database: None, connection: str, simulator: Simulator, out: Path
    ) -> None:
        ids = simulator.load_calls(6, created_from=YESTERDAY, created_to=YESTERDAY)
        with DAG("retry_replaces", schedule=None) as dag:
            VolubileExportTranscriptsOperator(
                task_id="export", calls=ids, output_path=str(out), retries=1, retry_delay=timedelta(seconds=0)
            )
        store(dag)
        simulator.fault("getTranscript", "malformed", times=1)
        assert str(dag.test().state) == "success"
        (file,) = out.glob("date=*/transcripts-*.jsonl.gz")
        assert {row["call_id"] for row in rows(file)} == set(ids)

    def test_a_task_fails_when_more_than_max_missing_are_missing(
        self,
        run_dag: RunDag,
        simulator: Simulator,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(transcripts, "PAUSE", 0.05)
        late = simulator.load_calls(2, transcripts=False, created_from=YESTERDAY, created_to=YESTERDAY)
        there = simulator.load_calls(3, created_from=YESTERDAY, created_to=YESTERDAY)

        def export(max_missing: int | None) -> Any:
            return lambda: VolubileExportTranscriptsOperator(
                task_id="export",
                calls=late + there,
                output_path=str(out),
                transcript_timeout=0.2,
                max_missing=max_missing,
            )

        message = why(run_dag(export(1)), capfd)
        assert "3 of 5 written, 2 missing (2 × COMPLETED: no transcript after 0.2 s)" in message
        (file,) = out.glob("date=*/transcripts-*.jsonl.gz")
        assert {row["call_id"] for row in rows(file)} == set(there)
        assert run_dag(export(2)).state == "success"
        assert run_dag(export(None)).state == "success"

    def test_recordings_can_be_exported_to_s3(self, run_dag: RunDag, simulator: Simulator, bucket: str) -> None:
        simulator.configure(recording_answer="redirect")
        ids = simulator.load_calls(3, created_from=YESTERDAY, created_to=YESTERDAY)
        ran = run_dag(
            lambda: VolubileExportRecordingsOperator(task_id="export", calls=ids, output_path=f"{bucket}/recordings")
        )
        files = ran.xcom("export")["files"]
        assert len(files) == sum(entry["recorded"] for entry in simulator.ledger()) > 0
        assert {ObjectStoragePath(path).size() for path in files} == {8044}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"calls": "{{ [1, 2] }}"}, "calls"),
            ({"calls": {"agent_id": "x"}}, "calls"),
            ({"transcript_timeout": "1"}, "transcript_timeout is '1'; it must be a number from 0"),
            ({"transcript_timeout": -1}, "transcript_timeout is -1"),
            ({"max_missing": "0"}, "max_missing is '0'"),
        ],
    )
    def test_bad_input_is_told_and_leaves_nothing(
        self,
        run_dag: RunDag,
        simulator: Simulator,
        out: Path,
        capfd: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        settings = {"calls": [UNKNOWN], "output_path": str(out)} | changes
        assert message in why(run_dag(lambda: VolubileExportTranscriptsOperator(task_id="export", **settings)), capfd)
        assert not out.exists()


def test_the_summaries_dag_runs_without_a_data_interval(
    metadata_database: None, connection: str, simulator: Simulator, out: Path
) -> None:
    """Somebody starts the Dag by hand: it takes the 24 hours before."""
    now = datetime.now(UTC)
    simulator.load_calls(5, created_from=now - timedelta(hours=20), created_to=now - timedelta(hours=10))
    simulator.load_calls(5, created_from=now - timedelta(hours=40), created_to=now - timedelta(hours=30))
    dag = DagBag(DAGS / "volubile_summaries.py").dags["volubile_summaries"]
    store(dag)
    ran = Ran(dag.test(logical_date=None, run_conf={"output": str(out)}))
    assert ran.state == "success"
    assert ran.xcom("write_summaries")["summaries"] == 5
    day = ran.run.run_after - timedelta(days=1)  # not of now, which may be before midnight
    assert [path.name for path in (out / "summaries").iterdir()] == [f"{day:%Y-%m-%d}.jsonl.gz"]
