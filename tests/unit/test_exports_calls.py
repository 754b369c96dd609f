"""Whole days of calls, against the simulator."""

from __future__ import annotations

import gzip
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.exceptions import VolubileIncompleteExport, VolubileInputError, VolubileUnavailable
from airflow_provider_volubile.exports.calls import CallsTable, advance_watermark, export_calls, read_watermark
from airflow_provider_volubile.exports.columns import CALLS
from airflow_provider_volubile.exports.days import check_interval, days_between, folder_of, read_moment
from airflow_provider_volubile.exports.flatten import flat_columns
from airflow_provider_volubile.exports.store import open_path
from airflow_provider_volubile.simulator import FOLLOW_UP_AGENT_ID, REMINDER_AGENT_ID

PARIS = ZoneInfo("Europe/Paris")
UTC_ZONE = ZoneInfo("UTC")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def day(ago: int) -> datetime:
    return TODAY - timedelta(days=ago)


@pytest.fixture
def table(tmp_path: Any) -> CallsTable:
    return CallsTable(open_path(str(tmp_path / "calls")), None, None, UTC_ZONE, "jsonl")


def rows(table: CallsTable, moment: datetime) -> list[dict[str, Any]]:
    path = table.folder / folder_of(moment, table.zone) / "calls.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def manifest(table: CallsTable, moment: datetime) -> dict[str, Any]:
    return json.loads((table.folder / folder_of(moment, table.zone) / "_calls.manifest.json").read_bytes())


def contents(table: CallsTable) -> dict[str, bytes]:
    return {path: table.folder.fs.cat_file(path) for path in table.folder.fs.find(table.folder.path)}


def ids(table: CallsTable, moment: datetime) -> list[str]:
    return [row["call_id"] for row in rows(table, moment)]


class TestDays:
    def test_rows_are_the_ledgers_by_day(self, simulator, client, table):
        simulator.load_calls(500, status="*", created_from=day(3), created_to=day(0))
        result = export_calls(client, table, day(2), day(1))
        expected = {
            entry["call_id"]: entry
            for entry in simulator.ledger()
            if datetime.fromisoformat(entry["created_wall"]).date() == day(2).date()
        }
        found = rows(table, day(2))
        assert {row["call_id"] for row in found} == set(expected)
        assert len(found) > 100
        for row in found:
            entry = expected[row["call_id"]]
            assert (row["phone"], row["status"], row["duration"]) == (
                entry["phone"],
                entry["status"],
                entry["duration"],
            )
        assert [row["created"] for row in found] == sorted(row["created"] for row in found)
        assert result.counts == {"calls": len(expected), "missing": 0}
        assert len(result.files) == len(result.manifests) == 1

    def test_a_second_run_is_byte_identical_whatever_order_the_service_has(self, simulator, client, table):
        simulator.load_calls(250, created_from=day(3), created_to=day(0))
        export_calls(client, table, day(3), day(0))
        first = contents(table)
        simulator.configure(sort="ignored", default_sort="duration,ASC")
        export_calls(client, table, day(3), day(0))
        assert contents(table) == first
        assert len(first) == 6

    def test_every_call_is_in_one_file_once(self, simulator, client, table):
        loaded = simulator.load_calls(300, created_from=day(4) + timedelta(hours=7), created_to=day(1))
        for ago in (3, 2, 1):  # each run goes over the day before again
            export_calls(client, table, day(ago + 2), day(ago))
        found = [call_id for ago in (4, 3, 2) for call_id in ids(table, day(ago))]
        assert sorted(found) == sorted(loaded[:-1])  # the last one was created at the end, which is excluded

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Pacific/Kiritimati", "America/Los_Angeles"])
    @pytest.mark.parametrize("filter_zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
    def test_the_zone_of_the_services_filter_does_not_matter(self, simulator, client, table, zone, filter_zone):
        simulator.load_calls(240, created_from=day(5), created_to=day(0))
        simulator.configure(date_zone=filter_zone)
        there = ZoneInfo(zone)
        table = CallsTable(table.folder, None, None, there, "jsonl")
        _, begin, end = days_between(day(2), day(1), there)[0]
        wanted = begin.astimezone(there).date()
        export_calls(client, table, begin, end)
        expected = [
            entry["call_id"]
            for entry in simulator.ledger()
            if datetime.fromisoformat(entry["created_wall"]).astimezone(there).date() == wanted
        ]
        assert sorted(ids(table, begin)) == sorted(expected)

    def test_a_day_that_is_not_over_is_written_up_to_the_end_and_never_shrinks(self, simulator, client, table):
        simulator.load_calls(240, created_from=day(2), created_to=day(1))
        noon, evening = day(2) + timedelta(hours=12), day(2) + timedelta(hours=20)
        export_calls(client, table, day(2) + timedelta(hours=11), noon)
        assert (len(rows(table, noon)), manifest(table, noon)["until"]) == (119, f"{noon:%Y-%m-%dT%H:%M:%SZ}")
        export_calls(client, table, noon, evening)
        later = contents(table)
        export_calls(client, table, day(2) + timedelta(hours=11), noon)
        assert contents(table) == later
        export_calls(client, table, evening, day(0))
        assert manifest(table, noon)["until"] == f"{day(1):%Y-%m-%dT%H:%M:%SZ}"
        assert len(rows(table, noon)) == 239

    @pytest.mark.parametrize("hour", [8, 20])
    def test_an_older_run_that_finishes_last_does_not_shrink_the_day(self, simulator, client, table, monkeypatch, hour):
        """The other run goes further, or just as far with calls that had not ended before."""
        simulator.load_calls(24, created_from=day(2), created_to=day(1) - timedelta(hours=1))
        morning, end = day(2) + timedelta(hours=8), day(2) + timedelta(hours=hour)
        list_calls = client.iter_calls

        def overtaken(**filters: Any) -> Any:
            monkeypatch.undo()
            listed = list(list_calls(**filters))
            simulator.load_calls(3, created_from=day(2), created_to=day(2))
            export_calls(client, table, day(2), end)
            return listed

        monkeypatch.setattr(client, "iter_calls", overtaken)
        result = export_calls(client, table, day(2), morning)
        assert manifest(table, day(2))["until"] == f"{end:%Y-%m-%dT%H:%M:%SZ}"
        assert result.counts["calls"] == len(rows(table, day(2))) == 3 + hour
        assert result.files == [str(table.folder / folder_of(day(2), UTC_ZONE) / "calls.jsonl.gz")]

    def test_calls_that_are_no_longer_listed(self, simulator, client, table, caplog):
        simulator.load_calls(30, created_from=day(3), created_to=day(1) - timedelta(seconds=1))
        export_calls(client, table, day(3), day(1))
        before = rows(table, day(3))
        simulator.reset()
        simulator.load_calls(4, created_from=day(2), created_to=day(2))
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(VolubileIncompleteExport, match=rf"{day(3):date=%Y-%m-%d}/_calls.manifest.json.*remove"),
        ):
            export_calls(client, table, day(3), day(1))
        assert rows(table, day(3)) == before
        assert len(rows(table, day(2))) == 4
        assert "4 calls, and 15 in an earlier run" in caplog.text
        (table.folder / folder_of(day(3), UTC_ZONE) / "_calls.manifest.json").unlink()
        export_calls(client, table, day(3), day(1))
        assert rows(table, day(3)) == []

    def test_calls_that_have_not_ended_wait_for_a_later_run(self, simulator, client, table):
        simulator.configure(speed=0)
        running = simulator.load_calls(3, status="IN_PROGRESS", ends_within=600, created_from=day(1), created_to=day(1))
        ended = simulator.load_calls(2, created_from=day(1), created_to=day(1))
        assert export_calls(client, table, day(1), day(0)).open_since == day(1)
        assert sorted(ids(table, day(1))) == sorted(ended)
        assert manifest(table, day(1))["missing"] == [
            {"call_id": call_id, "reason": "IN_PROGRESS: has not ended"} for call_id in sorted(running)
        ]
        simulator.advance(3600)
        assert export_calls(client, table, day(1), day(0)).open_since is None
        assert sorted(ids(table, day(1))) == sorted(ended + running)
        assert manifest(table, day(1))["missing"] == []

    def test_without_created_the_start_decides(self, simulator, client, table):
        loaded = simulator.load_calls(10, created_from=day(1), created_to=day(1) + timedelta(hours=1))
        simulator.configure(created="missing")
        export_calls(client, table, day(1), day(0))
        assert sorted(ids(table, day(1))) == sorted(loaded)
        assert {row["created"] for row in rows(table, day(1))} == {None}

    def test_a_day_without_calls_has_a_file_without_rows(self, client, table):
        result = export_calls(client, table, day(2), day(0))
        assert (rows(table, day(2)), rows(table, day(1))) == ([], [])
        assert (result.counts, len(result.files)) == ({"calls": 0, "missing": 0}, 2)

    def test_only_the_calls_of_an_agent_or_a_campaign(self, simulator, client, table):
        simulator.load_calls(5, agent_id=REMINDER_AGENT_ID, created_from=day(1), created_to=day(1))
        other = simulator.load_calls(4, agent_id=FOLLOW_UP_AGENT_ID, created_from=day(1), created_to=day(1))
        tyres = simulator.load_calls(3, campaign="Winter tyres", created_from=day(1), created_to=day(1))
        agent = CallsTable(table.folder / "a", FOLLOW_UP_AGENT_ID, None, UTC_ZONE, "jsonl")
        campaign = CallsTable(table.folder / "b", None, "Winter tyres", UTC_ZONE, "jsonl")
        for chosen, expected in ((agent, other), (campaign, tyres)):
            export_calls(client, chosen, day(1), day(0))
            assert sorted(ids(chosen, day(1))) == sorted(expected)

    def test_another_selection_does_not_replace_this_one(self, simulator, client, table):
        export_calls(client, table, day(1), day(0))
        other = CallsTable(table.folder, REMINDER_AGENT_ID, None, UTC_ZONE, "jsonl")
        with pytest.raises(VolubileInputError, match="belongs to another export"):
            export_calls(client, other, day(1), day(0))

    def test_a_service_that_fails_midway_leaves_the_days_as_they_were(self, simulator, client, table):
        simulator.load_calls(250, created_from=day(1), created_to=day(0))
        export_calls(client, table, day(1), day(0))
        before = contents(table)
        simulator.load_calls(10, created_from=day(1), created_to=day(0))
        simulator.fault("listCalls", "status", status=403, times=None, skip=1)
        with pytest.raises(Exception, match="listCalls"):
            export_calls(client, table, day(1), day(0))
        assert contents(table) == before

    def test_flat_columns(self, simulator, client, table):
        simulator.load_calls(20, created_from=day(1), created_to=day(1))
        flat = flat_columns(True, client.get_agent(REMINDER_AGENT_ID))
        flat_table = CallsTable(table.folder, None, None, UTC_ZONE, "jsonl", CALLS.with_columns(flat))
        export_calls(client, flat_table, day(1), day(0))
        names = {column.name for column in flat}
        assert names
        for row in rows(table, day(1)):
            assert names <= set(row)
            for name in names:
                kind, _, field = name.partition("_")
                if kind == "classification":
                    assert row[name] == row["classification_data"][field]


class TestWatermark:
    @pytest.mark.parametrize(
        ("open_since", "reached"),
        [(None, day(1)), (day(4), day(4)), (day(0), day(1)), (day(90), day(1 + 31))],
    )
    def test_it_stays_before_a_call_that_has_not_ended_for_a_month(self, table, open_since, reached):
        advance_watermark(table, day(1), open_since)
        assert read_watermark(table) == reached

    def test_it_never_goes_back(self, table):
        advance_watermark(table, day(1))
        advance_watermark(table, day(3))
        assert read_watermark(table) == day(1)

    @pytest.mark.parametrize("moment", [None, day(1)])
    def test_another_selection_is_refused_for_the_whole_table(self, table, moment):
        advance_watermark(table, moment)
        with pytest.raises(VolubileInputError, match="belongs to another table"):
            read_watermark(replace(table, agent_id=REMINDER_AGENT_ID))
        assert read_watermark(table) == moment

    @pytest.mark.parametrize("nonsense", ["", "[]", "{}", "null"])
    def test_one_that_cannot_be_read_counts_as_none(self, table, nonsense):
        table.folder.mkdir(parents=True)
        (table.folder / "_calls.watermark.json").write_text(nonsense)
        assert read_watermark(table) is None


class TestIntervals:
    @pytest.mark.parametrize(
        ("begin", "end", "days", "hours"),
        [
            # The night of 29 to 30 March 2025 has no hour from 2 to 3; that of 25 to 26 October has it twice.
            ("2025-03-29T23:00:00+00:00", "2025-03-30T22:00:00+00:00", ["2025-03-30"], 23),
            ("2025-10-25T22:00:00+00:00", "2025-10-26T23:00:00+00:00", ["2025-10-26"], 25),
            ("2025-10-25T22:00:00+00:00", "2025-10-26T23:00:01+00:00", ["2025-10-26", "2025-10-27"], 25),
            ("2025-10-25T21:59:59+00:00", "2025-10-26T23:00:00+00:00", ["2025-10-25", "2025-10-26"], 24),
        ],
    )
    def test_days_of_paris_when_its_clocks_change(self, begin, end, days, hours):
        found = days_between(datetime.fromisoformat(begin), datetime.fromisoformat(end), PARIS)
        assert [each.folder for each in found] == [f"date={name}" for name in days]
        assert found[0].end - found[0].begin == timedelta(hours=hours)

    def test_an_empty_interval_has_no_day(self):
        assert days_between(day(1), day(1), PARIS) == []

    def test_the_hour_that_comes_twice_belongs_to_one_day(self):
        for text in ("2025-10-26T00:30:00+00:00", "2025-10-26T01:30:00+00:00"):
            assert folder_of(datetime.fromisoformat(text), PARIS) == "date=2025-10-26"

    @pytest.mark.parametrize(
        ("begin", "end", "message"),
        [
            (day(1), day(2), "before it begins"),
            (day(1), day(-3), "in the future"),
            (day(-3), day(-4), "in the future"),
        ],
    )
    def test_intervals_that_make_no_sense(self, begin, end, message):
        with pytest.raises(VolubileInputError, match=message):
            check_interval(begin, end, datetime.now(UTC))

    @pytest.mark.parametrize("value", ["2025-11-12", "2025-11-12T00:00:00", datetime(2025, 11, 12)])
    def test_a_moment_without_a_zone(self, value):
        with pytest.raises(VolubileInputError, match="without a time zone"):
            read_moment("interval_start", value)

    def test_an_interval_within_the_hour_that_comes_twice(self):
        begin, end = datetime(2025, 10, 26, 2, 30, tzinfo=PARIS), datetime(2025, 10, 26, 2, 10, fold=1, tzinfo=PARIS)
        moments = read_moment("interval_start", begin), read_moment("interval_end", end)
        check_interval(*moments, datetime.now(UTC))
        assert moments[1] - moments[0] == timedelta(minutes=40)

    def test_the_calendar_ends(self):
        last = datetime.max.replace(tzinfo=UTC)
        assert folder_of(last, PARIS) == "date=unknown"
        with pytest.raises(VolubileInputError, match="where the calendar ends"):
            read_moment("interval_end", last.replace(tzinfo=timezone(timedelta(hours=-1))))

    @pytest.mark.parametrize("value", ["None", "yesterday", None, 5])
    def test_no_moment_at_all(self, value):
        with pytest.raises(VolubileInputError, match=r"interval_start is .*expected a moment"):
            read_moment("interval_start", value)


def test_a_service_that_is_down_is_an_error(simulator, client, table):
    simulator.fault("listCalls", "status", status=503, times=None)
    impatient = VolubileClient(
        simulator.url, ApiKeyPair(simulator.primary_key), window=RateWindow(), sleep=lambda seconds: None
    )
    with pytest.raises(VolubileUnavailable):
        export_calls(impatient, table, day(1), day(0))
    assert not table.folder.exists()
