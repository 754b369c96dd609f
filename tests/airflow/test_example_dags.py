"""The example Dags, each run as it stands in dags/; the simulator's ledger is the judge.

The campaign is run in test_whole_airflow.py and by the quickstart, the check of both keys in test_rotation.py.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, ObjectStoragePath

from airflow_provider_volubile.simulator import LedgerEntry, Simulator
from tests import s3
from tests.airflow.conftest import Ran, store
from tests.airflow.helpers import REMINDER
from tests.simulator.raw_api import RawApi

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).parents[2] / "dags"
PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3.bucket("airflow-example-dags") as address:
        yield address


def load(name: str) -> DAG:
    """Read a Dag from its file, as the Dag processor does."""
    bag = DagBag(DAGS / f"{name}.py")
    assert bag.import_errors == {}
    dag: DAG = bag.dags[name]
    store(dag)
    return dag


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def created(entry: LedgerEntry) -> datetime:
    return datetime.fromisoformat(entry["created_wall"])


def last_five_o_clock() -> datetime:
    """When the latest nightly interval ended."""
    now = datetime.now(PARIS)
    five = now.replace(hour=5, minute=0, second=0, microsecond=0)
    return five if five <= now else five - timedelta(days=1)


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
def test_parsing_needs_no_extra_and_sends_no_request(
    path: Path, metadata_database: None, connection: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for heavy in ("duckdb", "pyarrow", "phonenumbers"):
        monkeypatch.setitem(sys.modules, heavy, None)
    bag = DagBag(path)
    assert bag.import_errors == {}
    assert list(bag.dags) == [path.stem]
    assert simulator.requests() == []


def test_bulk_calls_25_000_people_once_each(
    metadata_database: None, connection: str, simulator: Simulator, tmp_path: Path
) -> None:
    simulator.configure(speed=1_000_000)
    # Three of the six ranges that Arcep reserves for works of fiction (decision 2018-0881): each holds 10,000 numbers.
    numbers = [f"{prefix}{number:04d}" for prefix in ("+3363998", "+3319900", "+3326191") for number in range(10_000)]
    people = {phone: f"C{customer:05d}" for customer, phone in enumerate(numbers[:25_000])}
    with (tmp_path / "people.csv").open("w", newline="") as file:
        # Somebody stands in the file twice, so far apart that two tasks would call them.
        csv.writer(file).writerows([("phone", "customer"), *people.items(), (numbers[0], "C99999")])

    dag = load("volubile_bulk")
    ran = Ran(dag.test(run_conf={"people": str(tmp_path / "people.csv"), "output": f"file://{tmp_path}/output"}))
    assert ran.state == "success"

    ledger = simulator.ledger()
    assert Counter(entry["phone"] for entry in ledger) == Counter(people.keys())
    assert {entry["phone"]: entry["context"]["customer"] for entry in ledger} == people
    assert simulator.request_summary()["createBulkCalls"] == {"201": 25}
    submissions = [ran.xcom("call_people", map_index=index) for index in range(3)]
    assert [submission["recipients"] for submission in submissions] == [10_000, 10_000, 5_000]

    outcomes = [row for submission in submissions for row in rows(Path(submission["outcomes"].removeprefix("file://")))]
    truth = {entry["phone"]: (entry["status"], entry["call_id"], entry["duration"]) for entry in ledger}
    assert len(outcomes) == 25_000
    assert {row["phone"]: (row["status"], row["last_call_id"], row["duration"]) for row in outcomes} == truth
    assert all(row["settled"] and row["attempts"] == 1 for row in outcomes)
    assert ran.xcom("count_outcomes") == Counter(entry["status"] for entry in ledger)


def test_nightly_export_keeps_a_table_that_sql_reads(
    metadata_database: None, connection: str, simulator: Simulator, tmp_path: Path
) -> None:
    simulator.configure(speed=0)
    end = last_five_o_clock()
    nights = [end - timedelta(days=1), end]
    simulator.load_calls(150, status="*", created_from=end - timedelta(days=4), created_to=end)
    # In progress when the first night's run comes, over when the second one goes over their day again.
    late = simulator.load_calls(
        4,
        status="IN_PROGRESS",
        ends_within=600,
        created_from=nights[0] - timedelta(hours=8),
        created_to=nights[0] - timedelta(hours=6),
    )
    dag = load("volubile_nightly_export")

    def run(night: datetime) -> Ran:
        ran = Ran(dag.test(logical_date=night, run_conf={"output": f"file://{tmp_path}"}))
        assert ran.state == "success"
        return ran

    def check(ran: Ran, night: datetime) -> set[str]:
        """Files and figures of a run against the ledger; returns the ids of the calls in the files."""
        days = [(night - timedelta(days=ago)).date() for ago in (2, 1, 0)]
        ended = [
            entry
            for entry in simulator.ledger()
            if entry["ended_wall"] and created(entry).astimezone(PARIS).date() in days and created(entry) < night
        ]
        files = [file.removeprefix("file://") for file in ran.xcom("export_calls")["files"]]
        assert files == [f"{tmp_path}/calls/date={day}/calls.parquet" for day in days]
        found = duckdb.execute(
            "SELECT call_id, phone, status, duration FROM read_parquet($files)", {"files": files}
        ).fetchall()
        assert sorted(found) == sorted(
            (entry["call_id"], entry["phone"], entry["status"], entry["duration"]) for entry in ended
        )
        groups: dict[tuple[str, str], list[LedgerEntry]] = {}
        for entry in ended:
            groups.setdefault((str(created(entry).astimezone(PARIS).date()), entry["status"]), []).append(entry)
        assert ran.xcom("calls_per_day") == [
            {
                "date": day,
                "status": status,
                "calls": len(entries),
                "people": len({entry["phone"] for entry in entries}),
                "seconds": sum(entry["duration"] or 0 for entry in entries),
            }
            for (day, status), entries in sorted(groups.items())
        ]
        return {row[0] for row in found}

    assert check(run(nights[0]), nights[0]).isdisjoint(late)
    simulator.advance(600)
    assert check(run(nights[1]), nights[1]).issuperset(late)

    before = contents(tmp_path)
    for night in nights:
        run(night)
    assert contents(tmp_path) == before


def test_agent_is_on_by_day_and_off_by_night_whatever_the_clocks_do(
    metadata_database: None, connection: str, simulator: Simulator
) -> None:
    from airflow.models.serialized_dag import SerializedDagModel

    dag = load("volubile_agent_hours")
    stored: Any = SerializedDagModel.get_dag("volubile_agent_hours")
    # The clocks of Paris go back in the night to 25 October 2026, and forward in the night to 28 March 2027.
    for change, hours_of_sunday_night in ((datetime(2026, 10, 25), 13), (datetime(2027, 3, 28), 11)):
        sunday = change.replace(tzinfo=PARIS)
        moments = [
            info.run_after
            for info in stored.iter_dagrun_infos_between(sunday - timedelta(days=1), sunday + timedelta(days=1))
        ]
        assert [moment.astimezone(PARIS).strftime("%a %H:%M") for moment in moments] == [
            "Sat 08:00",
            "Sat 20:00",
            "Sun 08:00",
            "Sun 20:00",
        ]
        assert moments[2] - moments[1] == timedelta(hours=hours_of_sunday_night)
        for moment, on in zip(moments, (True, False, True, False), strict=True):
            assert str(dag.test(run_after=moment, logical_date=moment).state) == "success"
            agents = {agent["id"]: agent["active"] for agent in simulator.state()["agents"]}
            assert agents[REMINDER] is on, moment


def test_summaries_are_of_every_call_that_has_a_transcript(
    metadata_database: None, connection: str, simulator: Simulator, tmp_path: Path
) -> None:
    end = last_five_o_clock()
    begin = end - timedelta(days=1)
    simulator.load_calls(90, status="*", created_from=begin - timedelta(days=1), created_to=end)
    dag = load("volubile_summaries")
    ran = Ran(dag.test(logical_date=end, run_conf={"output": f"file://{tmp_path}"}))
    assert ran.state == "success"

    def last_words(call_id: str) -> str:
        events = RawApi(simulator).ok("GET", f"/v1/calls/{call_id}/transcript")
        said = [event["message"] for event in events if event["actor"] == "HUMAN" and event.get("message")]
        return said[-1] if said else ""

    found = rows(tmp_path / "summaries" / f"{begin.astimezone(UTC):%Y-%m-%d}.jsonl.gz")
    heard = [
        entry["call_id"] for entry in simulator.ledger() if entry["transcript_ready"] and begin <= created(entry) < end
    ]
    assert ran.xcom("write_summaries")["summaries"] == len(heard) > 0
    assert sorted((row["call_id"], row["summary"]) for row in found) == sorted(
        (call_id, last_words(call_id)) for call_id in heard
    )


@pytest.mark.parametrize("name", ["volubile_bulk", "volubile_nightly_export", "volubile_summaries"])
def test_files_may_go_to_a_bucket(
    name: str, metadata_database: None, connection: str, simulator: Simulator, bucket: str
) -> None:
    simulator.configure(speed=1_000_000)
    simulator.load_calls(10, created_from=last_five_o_clock() - timedelta(hours=9), created_to=last_five_o_clock())
    ran = Ran(load(name).test(run_conf={"output": f"{bucket}/{name}"}))
    assert ran.state == "success"
    assert any(path.is_file() for path in ObjectStoragePath(f"{bucket}/{name}").rglob("*"))
