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
from airflow_provider_volubile.exports.columns import CALLS, TRANSCRIPT_TEXTS, TRANSCRIPTS, Transcript, TranscriptLine
from airflow_provider_volubile.exports.flatten import flat_columns
from airflow_provider_volubile.exports.formats import (
    ROW_GROUP_LENGTH,
    ROW_GROUP_SIZE,
    check_format,
    write_rows,
)
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


def as_bytes(table, records, file_format):
    file = io.BytesIO()
    assert write_rows(file, map(table.row, records), table, file_format) == len(records)
    return file.getvalue()


def as_objects(table, records):
    return [json.loads(line) for line in gzip.decompress(as_bytes(table, records, "jsonl")).splitlines()]


def call(**members):
    return Call.model_validate({"id": "c1", **members})


@pytest.fixture
def calls():
    return [Call.model_validate(record) for record in (CALL, BARE)]


class TestRows:
    def test_every_row_has_every_column_in_order(self, calls):
        for row in as_objects(CALLS, calls):
            assert list(row) == [column.name for column in CALLS.columns]

    def test_every_documented_member_of_a_call_has_a_column(self):
        assert {column.name for column in CALLS.columns} == {"call_id", "extra", *Call.model_fields} - {"id"}

    def test_moments_are_written_in_utc(self):
        paris_winter = datetime(2025, 10, 26, 2, 30, tzinfo=timezone(timedelta(hours=1)))
        for created in (paris_winter, "2025-10-26T03:30:00+02:00"):
            assert as_objects(CALLS, [call(created=created)])[0]["created"] == "2025-10-26T01:30:00Z"

    @pytest.mark.parametrize("members", [{"context": {"score": float("nan")}}, {"duration": 2**63}])
    def test_rows_that_do_not_fit_are_refused(self, members):
        with pytest.raises(ValueError, match=r"JSON compliant|64 bits"):
            CALLS.row(call(**members))

    @pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
    def test_half_an_emoji_does_not_stop_an_export(self, file_format):
        broken = call(context={"said": "merci \ud83d"}).model_copy(update={"summary": "merci \ud83d"})
        data = as_bytes(CALLS, [broken], file_format)
        if file_format == "parquet":
            assert pyarrow.parquet.read_table(io.BytesIO(data)).column("summary").to_pylist() == ["merci ?"]
        else:
            assert b"merci ?" in (gzip.decompress(data) if file_format == "jsonl" else data)


class TestFormats:
    def test_json_lines_keep_everything(self, calls):
        lines = gzip.decompress(as_bytes(CALLS, calls, "jsonl")).decode().splitlines()
        first, second = map(json.loads, lines)
        assert first["extracted_data"] == CALL["extractedData"]
        assert first["context"]["system"]["phone"] == "06 39 98 01 77"
        assert first["extra"] == {"costCents": 12}
        assert second["created"] is None

    def test_csv_is_what_a_csv_reader_expects(self, calls):
        text = as_bytes(CALLS, calls, "csv").decode()
        first, second = csv.DictReader(io.StringIO(text, newline=""))
        assert first["summary"] == CALL["summary"]
        assert first["recorded"] == "true"
        assert json.loads(first["extracted_data"]) == CALL["extractedData"]
        assert second["duration"] == ""

    @pytest.mark.parametrize("message", ["bonjour\rau revoir", "a\r\nb", "a\nb", '"a", b', " a "])
    def test_a_cell_of_csv_is_read_back_as_one(self, message, tmp_path):
        path = tmp_path / "transcripts.csv"
        line = TranscriptLine("c1", 0, TranscriptEvent(message=message))
        path.write_bytes(as_bytes(TRANSCRIPTS, [line, line], "csv"))
        with path.open(newline="") as file:
            assert [row["message"] for row in csv.DictReader(file)] == [message] * 2
        assert duckdb.sql(f"SELECT message FROM read_csv('{path}')").fetchall() == [(message,)] * 2

    def test_parquet_has_the_stated_types_whatever_the_rows(self, calls):
        full = pyarrow.parquet.read_table(io.BytesIO(as_bytes(CALLS, calls, "parquet")))
        empty = pyarrow.parquet.read_table(io.BytesIO(as_bytes(CALLS, [], "parquet")))
        assert full.schema == empty.schema
        assert str(full.schema.field("created").type) == "timestamp[us, tz=UTC]"
        first, second = full.to_pylist()
        assert first["created"] == datetime(2025, 11, 12, 10, 2, 5, tzinfo=UTC)
        assert json.loads(first["extracted_data"]) == CALL["extractedData"]
        assert (second["created"], second["extracted_data"]) == (None, None)

    def test_parquet_is_written_group_by_group(self):
        short = [call(id=str(number)) for number in range(ROW_GROUP_SIZE + 1)]
        long = [call(summary="y" * (ROW_GROUP_LENGTH // 2))] * 5
        for records, groups in ((short, 2), (long, 3)):
            file = pyarrow.parquet.ParquetFile(io.BytesIO(as_bytes(CALLS, records, "parquet")))
            assert file.metadata.num_row_groups == groups
            assert file.metadata.num_rows == len(records)

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
    def test_the_same_rows_make_the_same_bytes(self, calls, file_format, monkeypatch):
        first = as_bytes(CALLS, calls, file_format)
        monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
        assert as_bytes(CALLS, calls, file_format) == first

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
    def test_duckdb_reads_them(self, calls, file_format, tmp_path):
        path = tmp_path / {"jsonl": "calls.jsonl.gz", "parquet": "calls.parquet", "csv": "calls.csv"}[file_format]
        path.write_bytes(as_bytes(CALLS, calls, file_format))
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
        rows = as_objects(TRANSCRIPTS, list(Transcript("c1", self.EVENTS).lines))
        assert [row["position"] for row in rows] == [0, 1, 2, 3, 4]
        assert {row["call_id"] for row in rows} == {"c1"}
        assert rows[3]["extra"] == {"mood": 1}
        assert rows[4]["action"] == "WHISPER"

    def test_one_text_per_call(self):
        (row,) = as_objects(TRANSCRIPT_TEXTS, [Transcript("c1", self.EVENTS)])
        assert row == {
            "call_id": "c1",
            "started": "2025-11-12T10:02:19Z",
            "utterances": 2,
            "text": "AGENT: Bonjour.\nHUMAN: Oui ?",
        }


def names(flatten, agent=None):
    return [column.name for column in flat_columns(flatten, agent)]


def cells(flatten, record):
    return [column.cell(Call.model_validate(record)) for column in flat_columns(flatten)]


class TestFlatColumns:
    FIELDS: ClassVar = {
        "extracted": ["visit.day", "visit.remarks", "sum", "absent.deep"],
        "classification": ["outcome"],
    }

    def test_listed_fields_become_columns(self):
        assert names(self.FIELDS) == [
            "extracted_visit_day",
            "extracted_visit_remarks",
            "extracted_sum",
            "extracted_absent_deep",
            "classification_outcome",
        ]
        assert cells(self.FIELDS, CALL) == ["Friday", '["own tyres","waits"]', "12.5", None, "moved"]

    @pytest.mark.parametrize("record", [BARE, {**BARE, "extractedData": {"visit": "odd", "new": "field"}}])
    def test_a_call_without_the_fields_has_empty_cells(self, record):
        assert cells(self.FIELDS, record) == [None] * 5

    def test_both_spellings_and_names_with_dots(self):
        record = {**BARE, "extractorData": {"visit.day": "Friday"}, "classifierData": {"outcome": "moved"}}
        assert cells(self.FIELDS, record) == ["Friday", None, None, None, "moved"]

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
        assert names(True, agent) == ["extracted_visit_day", "extracted_sum", "classification_outcome"]

    def test_an_agent_without_configuration(self):
        with pytest.raises(VolubileInputError, match="list the fields instead"):
            flat_columns(True, Agent(id="a"))

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
            flat_columns(fields)

    def test_names_in_other_scripts_stay_distinct(self):
        found = names({"extracted": ["téléphone", "né", "nà", "名前", "住所", "が", "か", "й", "и"]})
        expected = ["telephone", "ne", "na", "名前", "住所", "が", "か", "й", "и"]
        assert found == [f"extracted_{name}" for name in expected]

    @pytest.mark.parametrize("text", ["False", "None", "", "null", None, False])
    def test_what_templates_render_for_none(self, text):
        assert names(text) == []

    @pytest.mark.parametrize("text", ["true", " TRUE "])
    def test_what_templates_render_for_true(self, text):
        with pytest.raises(VolubileInputError, match="needs agent_id"):
            flat_columns(text)

    @pytest.mark.parametrize("text", ['{"extracted": ["visit.day"]}', "{'extracted': ['visit.day']}"])
    def test_what_templates_render_for_a_mapping(self, text):
        assert names(text) == ["extracted_visit_day"]

    @pytest.mark.parametrize("text", ["visit.day", "{", "yes", 1, "1"])
    def test_what_is_no_flatten(self, text):
        with pytest.raises(VolubileInputError, match=r"flatten is .*must be true, false or a mapping"):
            flat_columns(text)


class TestSpool:
    def test_order_does_not_depend_on_arrival(self):
        calls = [(f"c{n}", f"2025-11-{12 + n % 2}", f"{n % 5}") for n in range(50)]
        expected = None
        for seed in range(3):
            random.Random(seed).shuffle(calls)
            with Spool() as spool:
                for call_id, file, at in calls:
                    spool.put(file, at, call_id, [(call_id, 0), (call_id, 1)])
                found = {file: list(spool.rows(file)) for file in sorted(spool.counts)}
            expected = expected or found
            assert found == expected
        assert list(expected) == ["2025-11-12", "2025-11-13"]
        assert expected["2025-11-12"][:4] == [("c0", 0), ("c0", 1), ("c10", 0), ("c10", 1)]

    def test_odd_ids_are_just_values(self):
        with Spool() as spool:
            for call_id in ("../../etc", "\ud83d", "", "'; DROP TABLE rows"):
                spool.put("a", "1", call_id, [(None, True, 2**63 - 1, "é")])
            assert list(spool.rows("a")) == [(None, True, 2**63 - 1, "é")] * 4
