"""Rows of stated schemas, their order, and their bytes in each format."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

import duckdb
import pyarrow.parquet
import pytest

from airflow_provider_volubile.api.models import Agent, Call, TranscriptEvent
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports.formats import (
    ROW_GROUP_BYTES,
    ROW_GROUP_SIZE,
    check_format,
    write_rows,
)
from airflow_provider_volubile.exports.rows import FlatColumns, call_row, event_rows, read_flatten, text_row
from airflow_provider_volubile.exports.schemas import CALLS, TRANSCRIPT_TEXTS, TRANSCRIPTS
from airflow_provider_volubile.exports.spool import Spool

CALL = {
    "id": "9e7d5a10-64c3-4f0b-b2d8-71f0c4e8a633",
    "agentId": "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10",
    "phone": "+33639980177",
    "type": "OUTBOUND",
    "status": "COMPLETED",
    "duration": 74,
    "startTime": "2025-11-12T10:02:11Z",
    "endTime": "2025-11-12T10:03:25Z",
    "anonymous": False,
    "recorded": True,
    "summary": 'Moved to "Friday",\nbrings own tyres.',
    "extractors": [{"name": "visit", "value": [{"name": "day", "value": ["Friday"]}]}],
    "extractedData": {"visit": {"day": "Friday", "remarks": ["own tyres", "waits"]}, "sum": 12.5},
    "classifiers": [{"name": "outcome", "value": "moved"}],
    "classificationData": {"outcome": "moved"},
    "context": {"firstName": "Karim", "system": {"phone": "06 39 98 01 77"}},
    "created": "2025-11-12T10:02:05Z",
    "costCents": 12,
}
BARE = {"id": "40b6f8d2", "agentId": "5b0f3c52", "status": "IN_PROGRESS"}


def encoded(schema, rows):
    return [schema.encode(row) for row in rows]


def as_bytes(schema, rows, file_format):
    file = io.BytesIO()
    assert write_rows(file, iter(encoded(schema, rows)), schema, file_format) == len(rows)
    return file.getvalue()


@pytest.fixture
def rows():
    return [call_row(Call.model_validate(call)) for call in (CALL, BARE)]


class TestSchema:
    def test_every_row_has_every_column_in_order(self, rows):
        for line in encoded(CALLS, rows):
            assert list(json.loads(line)) == [column.name for column in CALLS.columns]

    def test_moments_are_written_in_utc(self):
        paris_winter = datetime(2025, 10, 26, 2, 30, tzinfo=timezone(timedelta(hours=1)))
        assert json.loads(CALLS.encode({"created": paris_winter}))["created"] == "2025-10-26T01:30:00Z"
        assert json.loads(CALLS.encode({"created": "2025-10-26T02:30:00+02:00"}))["created"] == "2025-10-26T00:30:00Z"

    @pytest.mark.parametrize(
        "row",
        [
            {"created": datetime(2025, 11, 12)},
            {"phone_number": "x"},
            {"context": {"score": float("nan")}},
            {"context": {"when": datetime.now(UTC)}},
            {"duration": 2**63},
        ],
    )
    def test_rows_that_do_not_fit_are_refused(self, row):
        with pytest.raises((ValueError, TypeError)):
            CALLS.encode(row)

    def test_half_an_emoji_does_not_stop_an_export(self):
        assert json.loads(CALLS.encode({"summary": "merci \ud83d"}))["summary"] == "merci ?"


class TestFormats:
    def test_json_lines_keep_everything(self, rows):
        lines = gzip.decompress(as_bytes(CALLS, rows, "jsonl")).decode().splitlines()
        first, second = map(json.loads, lines)
        assert first["extracted_data"] == CALL["extractedData"]
        assert first["context"]["system"]["phone"] == "06 39 98 01 77"
        assert first["extra"] == {"costCents": 12}
        assert second["created"] is None

    def test_csv_is_what_a_csv_reader_expects(self, rows):
        text = as_bytes(CALLS, rows, "csv").decode()
        first, second = csv.DictReader(io.StringIO(text, newline=""))
        assert first["summary"] == CALL["summary"]
        assert first["recorded"] == "true"
        assert json.loads(first["extracted_data"]) == CALL["extractedData"]
        assert second["duration"] == ""

    @pytest.mark.parametrize("message", ["bonjour\rau revoir", "a\r\nb", "a\nb", '"a", b', " a "])
    def test_a_cell_of_csv_is_read_back_as_one(self, message, tmp_path):
        path = tmp_path / "transcripts.csv"
        event = {"call_id": "c1", "position": 0, "message": message}
        path.write_bytes(as_bytes(TRANSCRIPTS, [event, event], "csv"))
        with path.open(newline="") as file:
            assert [row["message"] for row in csv.DictReader(file)] == [message] * 2
        assert duckdb.sql(f"SELECT message FROM read_csv('{path}')").fetchall() == [(message,)] * 2

    def test_parquet_has_the_stated_types_whatever_the_rows(self, rows):
        full = pyarrow.parquet.read_table(io.BytesIO(as_bytes(CALLS, rows, "parquet")))
        empty = pyarrow.parquet.read_table(io.BytesIO(as_bytes(CALLS, [], "parquet")))
        assert full.schema == empty.schema
        assert str(full.schema.field("created").type) == "timestamp[us, tz=UTC]"
        first, second = full.to_pylist()
        assert first["created"] == datetime(2025, 11, 12, 10, 2, 5, tzinfo=UTC)
        assert json.loads(first["extracted_data"]) == CALL["extractedData"]
        assert (second["created"], second["extracted_data"]) == (None, None)

    def test_parquet_is_written_group_by_group(self):
        short = [{"call_id": str(number)} for number in range(ROW_GROUP_SIZE + 1)]
        long = [{"call_id": "x", "summary": "y" * (ROW_GROUP_BYTES // 2)}] * 5
        for rows, groups in ((short, 2), (long, 3)):
            file = pyarrow.parquet.ParquetFile(io.BytesIO(as_bytes(CALLS, rows, "parquet")))
            assert file.metadata.num_row_groups == groups
            assert file.metadata.num_rows == len(rows)

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
    def test_the_same_rows_make_the_same_bytes(self, rows, file_format, monkeypatch):
        first = as_bytes(CALLS, rows, file_format)
        monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
        assert as_bytes(CALLS, rows, file_format) == first

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
    def test_duckdb_reads_them(self, rows, file_format, tmp_path):
        path = tmp_path / {"jsonl": "calls.jsonl.gz", "parquet": "calls.parquet", "csv": "calls.csv"}[file_format]
        path.write_bytes(as_bytes(CALLS, rows, file_format))
        found = duckdb.sql(f"SELECT call_id, duration, summary FROM '{path}' ORDER BY duration").fetchall()
        assert found == [(CALL["id"], 74, CALL["summary"]), ("40b6f8d2", None, None)]

    def test_an_unknown_format(self):
        with pytest.raises(VolubileInputError, match="'xlsx'; expected one of 'jsonl', 'parquet', 'csv'"):
            check_format("xlsx")

    def test_parquet_without_pyarrow_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(VolubileInputError, match=r"airflow-provider-volubile\[parquet\]"):
            check_format("parquet")


class TestTranscripts:
    EVENTS: tuple[TranscriptEvent, ...] = tuple(
        TranscriptEvent.model_validate(event)
        for event in (
            {"action": "RING", "actor": "UNKNOWN"},
            {"action": "ANSWER", "time": "2025-11-12T10:02:19Z", "actor": "HUMAN"},
            {
                "action": "AGENT_SPEAK",
                "time": "2025-11-12T10:02:20Z",
                "actor": "AGENT",
                "message": "Bonjour.",
            },
            {
                "action": "HUMAN_SPEAK",
                "time": "2025-11-12T10:02:27Z",
                "actor": "HUMAN",
                "message": "Oui ?",
                "mood": 1,
            },
            {"action": "WHISPER", "time": "2025-11-12T10:02:28Z"},
        )
    )

    def test_one_row_per_event(self):
        rows = [json.loads(line) for line in encoded(TRANSCRIPTS, event_rows("c1", self.EVENTS))]
        assert [row["position"] for row in rows] == [0, 1, 2, 3, 4]
        assert {row["call_id"] for row in rows} == {"c1"}
        assert rows[3]["extra"] == {"mood": 1}
        assert rows[4]["action"] == "WHISPER"

    def test_one_text_per_call(self):
        row = json.loads(TRANSCRIPT_TEXTS.encode(text_row("c1", self.EVENTS)))
        assert row == {
            "call_id": "c1",
            "started": "2025-11-12T10:02:19Z",
            "utterances": 2,
            "text": "AGENT: Bonjour.\nHUMAN: Oui ?",
        }


class TestFlatColumns:
    FIELDS: ClassVar = {
        "extracted": ["visit.day", "visit.remarks", "sum", "absent.deep"],
        "classification": ["outcome"],
    }

    def test_listed_fields_become_columns(self):
        flat = FlatColumns.of(self.FIELDS)
        assert [column.name for column in flat.columns()] == [
            "extracted_visit_day",
            "extracted_visit_remarks",
            "extracted_sum",
            "extracted_absent_deep",
            "classification_outcome",
        ]
        assert list(flat.values(Call.model_validate(CALL)).values()) == [
            "Friday",
            '["own tyres","waits"]',
            "12.5",
            None,
            "moved",
        ]

    def test_columns_do_not_depend_on_the_call(self):
        flat = FlatColumns.of(self.FIELDS)
        names = [column.name for column in flat.columns()]
        for call in (CALL, BARE, {**BARE, "extractedData": {"visit": "odd", "new": "field"}}):
            assert list(flat.values(Call.model_validate(call))) == names

    def test_both_spellings_and_names_with_dots(self):
        flat = FlatColumns.of(self.FIELDS)
        hook = {**BARE, "extractorData": {"visit.day": "Friday"}, "classifierData": {"outcome": "moved"}}
        values = flat.values(Call.model_validate(hook))
        assert (values["extracted_visit_day"], values["classification_outcome"]) == ("Friday", "moved")

    def test_columns_of_an_agents_configuration(self):
        agent = Agent.model_validate(
            {
                "id": "a",
                "configuration": {
                    "extractors": [
                        {"name": "visit", "extractors": [{"name": "day"}]},
                        {"name": "sum"},
                        {},
                        "odd",
                    ],
                    "classifiers": [{"name": "outcome", "values": ["moved"]}],
                },
            }
        )
        assert FlatColumns.of_agent(agent) == FlatColumns(("visit.day", "sum"), ("outcome",))

    def test_an_agent_without_configuration(self):
        with pytest.raises(VolubileInputError, match="list the fields instead"):
            FlatColumns.of_agent(Agent(id="a"))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"extracted": ["a b", "a.b"]}, "more than one column would be called extracted_a_b"),
            ({"extracted": ["data"]}, "more than one column would be called extracted_data"),
            ({"classification": ["Data"]}, "more than one column would be called classification_data"),
            ({"classification": ["Outcome", "outcome"]}, "more than one column would be called classification_outcome"),
            ({"extracted": ["\u00e9t\u00e9", "e\u0301te\u0301"]}, "more than one column would be called extracted_ete"),
            ({"extractors": ["a"]}, "'extractors' is neither"),
            ({"extracted": "visit"}, "must be a list"),
            ({"extracted": None}, "must be a list"),
        ],
    )
    def test_bad_lists(self, fields, message):
        with pytest.raises(VolubileInputError, match=message):
            FlatColumns.of(fields)

    def test_names_in_other_scripts_stay_distinct(self):
        flat = FlatColumns.of({"extracted": ["téléphone", "né", "nà", "名前", "住所", "が", "か", "й", "и"]})
        names = [column.name.removeprefix("extracted_") for column in flat.columns()]
        assert names == ["telephone", "ne", "na", "名前", "住所", "が", "か", "й", "и"]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("true", True),
            ("False", False),
            (" TRUE ", True),
            ("None", None),
            ("", None),
            ('{"extracted": ["visit.day"]}', {"extracted": ["visit.day"]}),
            ("{'extracted': ['visit.day']}", {"extracted": ["visit.day"]}),
            ({"extracted": ["visit.day"]}, {"extracted": ["visit.day"]}),
        ],
    )
    def test_what_templates_render(self, text, value):
        assert read_flatten(text) == value

    @pytest.mark.parametrize("text", ["visit.day", "{", "yes", 1, "1"])
    def test_what_is_no_flatten(self, text):
        with pytest.raises(VolubileInputError, match=r"flatten is .*must be true, false or a mapping"):
            read_flatten(text)


class TestSpool:
    def test_order_does_not_depend_on_arrival(self):
        calls = [(f"c{n}", f"2025-11-{12 + n % 2}", f"{n % 5}") for n in range(50)]
        expected = None
        for seed in range(3):
            random.Random(seed).shuffle(calls)
            with Spool() as spool:
                for key, part, at in calls:
                    spool.put(key, part, at, [f"{key}-{position}".encode() for position in range(2)])
                found = {part: list(spool.lines(part)) for part in spool.parts()}
            expected = expected or found
            assert found == expected
        assert list(expected) == ["2025-11-12", "2025-11-13"]
        assert expected["2025-11-12"][:4] == [b"c0-0", b"c0-1", b"c10-0", b"c10-1"]

    def test_the_last_reading_of_a_call_counts(self):
        with Spool() as spool:
            spool.put("c1", "a", "1", [b"early", b"more"])
            spool.put("c1", "b", "2", [b"late"])
            assert spool.parts() == ["b"]
            assert list(spool.lines("b")) == [b"late"]

    def test_odd_ids_are_just_values(self):
        with Spool() as spool:
            for key in ("../../etc", "\ud83d", "", "'; DROP TABLE rows"):
                spool.put(key, "a", "1", [repr(key).encode()])
            assert len(list(spool.lines("a"))) == 4
