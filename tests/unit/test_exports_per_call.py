"""Transcripts and recordings, call by call, against the simulator and a server whose audio breaks off."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileIncompleteExport,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileUnavailable,
)
from airflow_provider_volubile.exports import store, transcripts
from airflow_provider_volubile.exports.export_report import ExportReport
from airflow_provider_volubile.exports.files import Export
from airflow_provider_volubile.exports.recording_files import export_recordings
from airflow_provider_volubile.exports.store import open_path
from airflow_provider_volubile.exports.transcripts import export_transcripts
from airflow_provider_volubile.simulator import REMINDER_AGENT_ID, Simulator
from airflow_provider_volubile.waiting.find_calls import CallRef, find_calls

UTC_ZONE = ZoneInfo("UTC")
YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
PLACE = f"date={YESTERDAY:%Y-%m-%d}"
ODD_IDS = ["../../etc/passwd", "a.b", "a/b", "..", " "]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "PAUSE", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def load(simulator: Simulator, count: int, **details: Any) -> list[str]:
    return simulator.load_calls(count, created_from=YESTERDAY, created_to=YESTERDAY + timedelta(minutes=5), **details)


def recorded(simulator: Simulator, count: int) -> list[str]:
    load(simulator, 4 * count, status="COMPLETED")
    return [entry["call_id"] for entry in simulator.ledger() if entry["recorded"]][:count]


def run(client: VolubileClient, folder: Path, calls: Any, **options: Any) -> ExportReport:
    refs = find_calls(client, calls, now=datetime.now(UTC))
    options = {"file_format": "jsonl", "texts": False, "patience": 0.0} | options
    export = Export(open_path(str(folder)), "transcripts", {"run_id": "r"}, key="k")
    report = export_transcripts(client, export, refs, zone=UTC_ZONE, **options)
    export.finish(report.counts)
    return report


def record(client: VolubileClient, folder: Path, calls: Any, key: str = "k") -> ExportReport:
    refs = find_calls(client, calls, now=datetime.now(UTC))
    export = Export(open_path(str(folder)), "recordings", {"run_id": "r"}, key=key)
    report = export_recordings(client, export, refs, zone=UTC_ZONE)
    export.finish(report.counts)
    return report


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def reasons(folder: Path, what: str = "transcripts", key: str = "k") -> dict[str, str]:
    manifest = json.loads((folder / f"_{what}-{key}.manifest.json").read_bytes())
    return {entry["call_id"]: entry["reason"] for entry in manifest["missing"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestTranscripts:
    def test_rows_are_what_the_service_tells(self, simulator, client, folder):
        ids = load(simulator, 30)
        report = run(client, folder, ids, texts=True)
        events = lines(folder / PLACE / "transcripts-k.jsonl.gz")
        for call_id in ids:
            told = client.get_transcript(call_id)
            found = [row for row in events if row["call_id"] == call_id]
            assert [(row["action"], row["message"]) for row in found] == [(e.action, e.message) for e in told]
            assert [row["position"] for row in found] == list(range(len(told)))
        texts = lines(folder / PLACE / "transcript_texts-k.jsonl.gz")
        assert sorted(row["call_id"] for row in texts) == sorted(ids)
        assert all("AGENT: " in row["text"] for row in texts)
        assert report.counts == {"calls": 30, "written": 30, "none": 0, "missing": 0, "failed": 0}

    def test_a_second_run_is_byte_identical_whatever_the_order(self, simulator, client, folder):
        ids = load(simulator, 40, status="*")
        run(client, folder, ids, texts=True)
        first = contents(folder)
        run(client, folder, list(reversed(ids)), texts=True)
        assert contents(folder) == first

    @pytest.mark.parametrize("file_format", ["parquet", "csv"])
    def test_other_formats(self, simulator, client, folder, file_format):
        run(client, folder, load(simulator, 3), file_format=file_format)
        assert (folder / PLACE / f"transcripts-k.{file_format}").stat().st_size > 100

    def test_late_transcripts_are_waited_for(self, simulator, client, folder):
        simulator.configure(speed=0, transcript_delay=120)
        ids = load(simulator, 5, status="IN_PROGRESS", ends_within=60)
        simulator.configure(speed=120)
        report = run(client, folder, ids, patience=60)
        assert report.counts == {"calls": 5, "written": 5, "none": 0, "missing": 0, "failed": 0}
        assert {row["call_id"] for row in lines(next(folder.glob("*/transcripts-k.jsonl.gz")))} == set(ids)

    def test_what_stays_away_is_listed_with_the_reason(self, simulator, client, folder):
        simulator.configure(speed=0)
        there = load(simulator, 2)
        late = load(simulator, 2, transcripts=False)
        running = load(simulator, 1, status="IN_PROGRESS")
        silent = load(simulator, 2, status="NO_ANSWER")
        unknown = "00000000-0000-4000-8000-000000000000"
        report = run(client, folder, [*there, *late, *running, *silent, unknown, *ODD_IDS], patience=0.3)
        assert report.counts == {"calls": 13, "written": 2, "none": 2, "missing": 9, "failed": 0}
        found = reasons(folder)
        assert {found[call_id] for call_id in late} == {"COMPLETED: no transcript after 0.3 s"}
        assert {found[call_id] for call_id in running} == {"IN_PROGRESS: has not ended"}
        assert {found[call_id] for call_id in silent} == {"NO_ANSWER: nobody was heard"}
        assert found[unknown] == "Volubile knows no such call, or it has nothing to give"
        assert {found[call_id] for call_id in ODD_IDS} == {"this is not the id of a call"}

    def test_waiting_asks_for_few_at_a_time(self, simulator, client, folder, monkeypatch):
        monkeypatch.setattr(transcripts, "REQUESTS_FOR_LATE", 4)
        simulator.configure(speed=0)
        ids = load(simulator, 10, transcripts=False)
        asked = []
        monkeypatch.setattr(transcripts.time, "sleep", lambda seconds: asked.append(len(simulator.requests())))
        run(client, folder, ids, patience=2)
        assert len(asked) > 3
        assert {after - before for before, after in pairwise(asked)} == {4}
        paths = [request["path"] for request in simulator.requests()[20:]]
        turns = [set(paths[at : at + 12]) for at in range(0, len(paths) - 11, 4)]
        assert all(len(asked_in_three_turns) == 10 for asked_in_three_turns in turns)  # nobody waits for longer

    def test_nobody_is_given_up_without_a_second_look(self, simulator, client, folder, monkeypatch):
        """A queue that is longer than the time there is: what came last in it was asked for once only."""
        ids = load(simulator, 9, status="COMPLETED")
        asked: Counter[str] = Counter()
        there = client.get_transcript

        def second_time(call_id):
            asked[call_id] += 1
            if asked[call_id] == 1:
                raise VolubileNotFound("not there yet")
            return there(call_id)

        monkeypatch.setattr(client, "get_transcript", second_time)
        monkeypatch.setattr(transcripts, "REQUESTS_FOR_LATE", 2)
        monkeypatch.setattr(transcripts, "PAUSE", 60)
        report = run(client, folder, ids, patience=0.1)
        assert (report.written, set(asked.values())) == (9, {2})

    def test_a_part_of_a_transcript_is_not_taken_for_the_whole(self, simulator, client, folder, monkeypatch):
        """Whether there is one while a call goes on is not documented."""
        (running,) = load(simulator, 1, status="IN_PROGRESS")
        (ended,) = load(simulator, 1, status="COMPLETED")
        whole = client.get_transcript(ended)
        monkeypatch.setattr(client, "get_transcript", lambda _: whole[:3])
        report = run(client, folder, [running, ended], patience=0.1)
        assert (report.counts["written"], report.missing) == (1, 1)
        assert reasons(folder) == {running: "IN_PROGRESS: has not ended"}

    def test_what_came_while_the_call_ended_is_asked_for_again(self, simulator, client, folder, monkeypatch):
        (ended,) = load(simulator, 1, status="COMPLETED")
        whole = client.get_transcript(ended)
        answers = iter([whole[:3], whole])
        monkeypatch.setattr(client, "get_transcript", lambda _: next(answers))
        run(client, folder, [ended])
        (rows,) = folder.rglob("transcripts-*.jsonl.gz")
        assert len(lines(rows)) == len(whole)

    def test_a_passing_fault_is_no_loss(self, simulator, client, folder):
        ids = load(simulator, 6)
        hasty = VolubileClient(
            simulator.url,
            ApiKeyPair(simulator.primary_key),
            window=RateWindow(),
            retry=RetryBudget(attempts=1),
            sleep=lambda seconds: None,
        )
        simulator.fault("getTranscript", "status", status=503, times=3)
        report = run(hasty, folder, ids, patience=30)
        assert (report.written, report.failed) == (6, 0)

    def test_calls_that_fail_for_good_do_not_stop_the_others(self, simulator, client, folder, monkeypatch):
        """Waiting brings them together: what looks like a service that is down is six calls of sixty."""
        ids = load(simulator, 60)
        get_transcript = client.get_transcript

        def fails_for_some(call_id: str) -> Any:
            if call_id in ids[::10]:
                raise VolubileUnavailable("500")
            return get_transcript(call_id)

        monkeypatch.setattr(client, "get_transcript", fails_for_some)
        report = run(client, folder, ids, patience=0.5)
        assert (report.written, report.failed) == (54, 6)
        assert set(reasons(folder)) == set(ids[::10])
        assert len({row["call_id"] for row in lines(folder / PLACE / "transcripts-k.jsonl.gz")}) == 54

    def test_a_failure_never_removes_what_an_earlier_run_wrote(self, simulator, client, folder):
        ids = load(simulator, 4)
        run(client, folder, ids)
        before = contents(folder)
        simulator.fault("getTranscript", "malformed", times=1)
        with pytest.raises(VolubileIncompleteExport, match=r"1 of the calls that failed now.* left as they are"):
            run(client, folder, ids)
        assert contents(folder) == before

    def test_a_call_that_failed_before_too_holds_up_no_other(self, simulator, client, folder):
        late = load(simulator, 1)
        simulator.fault("getTranscript", "malformed", times=None)
        run(client, folder, late)
        simulator.clear_faults()
        there = load(simulator, 1)
        simulator.fault("getTranscript", "malformed", times=1)
        assert run(client, folder, late + there).written == 1

    def test_a_lasting_fault_of_one_call_is_reported_and_fails_the_export(self, simulator, client, folder):
        ids = load(simulator, 4)
        simulator.fault("getTranscript", "malformed", times=1)
        report = run(client, folder, ids)
        assert (report.written, report.failed) == (3, 1)
        assert "VolubileProtocolError" in next(iter(reasons(folder).values()))
        with pytest.raises(VolubileIncompleteExport, match=r"3 of 4 written, 1 failed .*max_missing"):
            report.check("transcripts", None)
        report.check("transcripts", 1)

    def test_a_service_that_is_down_stops_the_export(self, simulator, client, folder):
        ids = load(simulator, 200)
        simulator.fault("getTranscript", "status", status=503, times=None)
        with pytest.raises(VolubileUnavailable):
            run(client, folder, ids)
        assert not folder.exists()

    def test_a_transcript_beyond_measure_is_reported(self, simulator, client, folder):
        simulator.configure(transcript_size=65 * 2**20)
        report = run(client, folder, load(simulator, 1))
        assert report.failed == 1
        assert "cannot be read: it " in next(iter(reasons(folder).values()))

    def test_a_transcript_of_4_mb_is_written(self, simulator, client, folder):
        simulator.configure(transcript_size=4 * 2**20)
        (call_id,) = load(simulator, 1)
        assert run(client, folder, call_id).written == 1
        with gzip.open(folder / PLACE / "transcripts-k.jsonl.gz") as file:
            assert sum(1 for _ in file) > 30_000

    def test_nothing_to_export(self, client, folder):
        assert run(client, folder, []).counts == {"calls": 0, "written": 0, "none": 0, "missing": 0, "failed": 0}
        assert list(contents(folder)) == ["_transcripts-k.manifest.json"]


class TestRecordings:
    @pytest.mark.parametrize("answer", ["bytes", "redirect"])
    def test_recorded_calls_have_a_file_each(self, simulator, client, folder, answer):
        simulator.configure(recording_answer=answer)
        ids = load(simulator, 12, status="*")
        recorded = {entry["call_id"] for entry in simulator.ledger() if entry["recorded"]}
        report = record(client, folder, ids)
        files = {path.stem: path for path in (folder / PLACE).iterdir()}
        assert set(files) == recorded
        assert 0 < len(recorded) < 12
        assert {path.suffix for path in files.values()} == {".wav"}
        assert {path.stat().st_size for path in files.values()} == {8044}
        assert report.counts == {
            "calls": 12,
            "written": len(recorded),
            "none": 12 - len(recorded),
            "missing": 0,
            "failed": 0,
        }
        manifest = json.loads((folder / "_recordings-k.manifest.json").read_bytes())
        for entry in manifest["files"]:
            data = (folder / entry["path"]).read_bytes()
            assert entry["sha256"] == hashlib.sha256(data).hexdigest()
            assert entry["content_type"].startswith("audio/")

    def test_a_recording_that_never_comes_whole_is_given_up(self, simulator, client, folder):
        ids = load(simulator, 1)
        simulator.fault("getRecording", "status", status=503, times=None)
        report = record(client, folder, ids)
        assert report.failed == 1
        assert list(contents(folder)) == ["_recordings-k.manifest.json"]

    @pytest.mark.parametrize("fault", [{"kind": "truncated"}, {"kind": "status", "status": 503}])
    def test_recordings_that_never_come_whole_stop_no_other(self, simulator, client, folder, fault):
        ids = load(simulator, 12)
        recorded = [entry["call_id"] for entry in simulator.ledger() if entry["recorded"]]
        simulator.fault("getRecording", times=None, **fault)
        assert record(client, folder, ids).failed == len(recorded) >= 6

    def test_a_service_that_is_down_is_not_asked_to_the_end(self, simulator, client, folder):
        ids = load(simulator, 40)
        simulator.fault("*", "status", status=503, times=None)
        with pytest.raises(VolubileUnavailable):
            record(client, folder, ids)
        assert not folder.exists()

    def test_what_was_written_before_the_service_went_down_is_listed(self, simulator, client, folder):
        ids = load(simulator, 20)
        simulator.fault("getRecording", "status", status=403, skip=3, times=None)
        with pytest.raises(VolubileAuthError):
            record(client, folder, ids)
        manifest = json.loads((folder / "_recordings-k.manifest.json").read_bytes())
        files = {path.name for path in (folder / PLACE).iterdir()}
        assert {Path(entry["path"]).name for entry in manifest["files"]} == files
        assert manifest["counts"]["written"] == len(files) == 3
        assert {entry["call_id"] for entry in manifest["missing"]} | {Path(file).stem for file in files} == set(ids)

    def test_a_failure_never_removes_what_an_earlier_run_wrote(self, simulator, client, folder):
        ids = load(simulator, 4)
        record(client, folder, ids)
        before = contents(folder)
        simulator.fault("getRecording", "html", times=1)
        assert record(client, folder, ids).failed == 1
        assert contents(folder).keys() == before.keys()
        assert all("file of an earlier run stays" in reason for reason in reasons(folder, "recordings").values())
        record(client, folder, ids)
        assert contents(folder) == before

    def test_whatever_ends_it_what_was_written_is_listed(self, simulator, client, folder, monkeypatch):
        ids = recorded(simulator, 6)
        publish, written = store.publish, []

        def full(local, target):
            if target.name.endswith(".wav") and len(written) == 2:
                raise OSError(errno.ENOSPC, "no room")
            written.append(target.name)
            publish(local, target)

        monkeypatch.setattr(store, "publish", full)
        with pytest.raises(OSError, match="no room"):
            record(client, folder, ids)
        manifest = json.loads((folder / "_recordings-k.manifest.json").read_bytes())
        assert len(manifest["files"]) == 2
        assert {entry["reason"] for entry in manifest["missing"]} == {
            "VolubileUnavailable: the export ended before it: OSError"
        }

    def test_what_another_export_of_the_folder_lists_stays(self, simulator, client, folder):
        both, mine = recorded(simulator, 2)
        record(client, folder, [both, mine])
        record(client, folder, [both], key="other")
        record(client, folder, [])
        assert [path.stem for path in (folder / PLACE).iterdir()] == [both]
        record(client, folder, [], key="other")
        assert list((folder / PLACE).iterdir()) == []

    def test_a_status_of_later_days_is_an_end_when_the_call_has_one(self, simulator, client, folder, monkeypatch):
        (call_id,) = recorded(simulator, 1)
        known = client.get_call(call_id)
        monkeypatch.setattr(client, "get_call", lambda _: known.model_copy(update={"status": "AGENT_HUNG_UP"}))
        assert record(client, folder, [call_id]).written == 1
        unended = known.model_copy(update={"status": "AGENT_HUNG_UP", "end_time": None})
        monkeypatch.setattr(client, "get_call", lambda _: unended)
        assert record(client, folder, [call_id], key="other").written == 0
        assert reasons(folder, "recordings", key="other") == {call_id: "AGENT_HUNG_UP: has not ended"}

    @pytest.mark.parametrize(
        ("status", "recorded", "reason"),
        [
            ("IN_PROGRESS", True, "IN_PROGRESS: has not ended"),
            ("COMPLETED", None, "COMPLETED: the service does not tell whether it was recorded"),
        ],
    )
    def test_what_is_not_fetched_and_why(self, client, simulator, folder, status, recorded, reason):
        export = Export(open_path(str(folder)), "recordings", {}, key="k")
        ref = CallRef("c1", status, recorded, YESTERDAY)
        report = export_recordings(client, export, [ref], zone=UTC_ZONE)
        assert (report.missing, export.missing) == (1, {"c1": reason})
        assert simulator.requests() == []

    def test_what_is_no_audio_is_no_file(self, simulator, client, folder):
        ids = load(simulator, 1)
        simulator.fault("getRecording", "html", times=None)
        assert record(client, folder, ids).failed == 1
        assert list(contents(folder)) == ["_recordings-k.manifest.json"]

    def test_an_empty_recording_is_missing(self, simulator, client, folder):
        simulator.configure(recording_answer="empty")
        assert record(client, folder, load(simulator, 1)).missing == 1

    def test_odd_ids_never_become_paths(self, simulator, client, folder):
        report = record(client, folder, ODD_IDS)
        assert report.missing == len(ODD_IDS)
        assert list(contents(folder)) == ["_recordings-k.manifest.json"]
        assert [path.name for path in folder.parent.iterdir()] == ["out"]

    def test_an_odd_id_from_the_list_is_reported_too(self, client, folder, tmp_path, monkeypatch):
        work = tmp_path / "work"
        work.mkdir()
        (work / "precious").write_text("x")
        monkeypatch.setattr("tempfile.tempdir", str(work))
        ref = CallRef("../precious", status="COMPLETED", recorded=True, at=YESTERDAY)
        export = Export(open_path(str(folder)), "recordings", {}, key="k")
        report = export_recordings(client, export, [ref], zone=UTC_ZONE)
        assert report.missing == 1
        assert (work / "precious").read_text() == "x"
        assert not folder.exists()


class Audio(ThreadingHTTPServer):
    """Serves one recording that breaks off: every answer stops after ``piece`` bytes.

    :param ranges: whether it can begin in the middle.
    :param promised: bytes that are announced and do not exist.
    """

    def __init__(self, data: bytes, piece: int, ranges: bool = True, promised: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), AudioHandler)
        self.data, self.piece, self.ranges, self.promised = data, piece, ranges, promised
        self.asked: list[str | None] = []


class AudioHandler(BaseHTTPRequestHandler):
    server: Audio

    def do_GET(self) -> None:
        if not self.path.endswith("/recording"):
            call = b'{"id": "c1", "status": "COMPLETED"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(call)))
            self.end_headers()
            self.wfile.write(call)
            return
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        data = self.server.data
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "audio/mpeg")
        self.send_header("Content-Length", str(len(data) - start + self.server.promised))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start : start + self.server.piece])
        self.changed()

    def changed(self) -> None:
        """For a subclass: what happens after an answer."""

    def log_message(self, *args: Any) -> None:
        pass


class TestBrokenRecordings:
    DATA = random.Random(7).randbytes(1_000_000)
    REF = CallRef("c1", status="COMPLETED", recorded=True, at=YESTERDAY)

    @pytest.fixture
    def serve(self) -> Iterator[Callable[[Audio], VolubileClient]]:
        servers = []

        def start(server: Audio) -> VolubileClient:
            servers.append(server)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            return VolubileClient(
                f"http://127.0.0.1:{server.server_port}",
                ApiKeyPair("key-for-tests-0001"),
                window=RateWindow(),
                sleep=lambda seconds: None,
            )

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()

    def export(self, client: VolubileClient, folder: Path) -> ExportReport:
        export = Export(open_path(str(folder)), "recordings", {}, key="k")
        return export_recordings(client, export, [self.REF], zone=UTC_ZONE)

    def test_it_is_resumed_where_it_stopped(self, serve, folder):
        server = Audio(self.DATA, piece=300_000)
        assert self.export(serve(server), folder).written == 1
        assert (folder / PLACE / "c1.mp3").read_bytes() == self.DATA
        assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]

    def test_it_is_fetched_anew_where_the_service_cannot_resume(self, serve, folder):
        server = Audio(self.DATA, piece=600_000, ranges=False)

        class Recovers(AudioHandler):
            def changed(self) -> None:
                server.piece = len(server.data)

        server.RequestHandlerClass = Recovers
        assert self.export(serve(server), folder).written == 1
        assert (folder / PLACE / "c1.mp3").read_bytes() == self.DATA
        assert len(server.asked) == 2

    def test_two_recordings_are_never_joined(self, serve, folder):
        """The service has another file, of another length, when asked to go on."""
        other = random.Random(8).randbytes(800_000)
        server = Audio(self.DATA, piece=600_000)

        class Replaced(AudioHandler):
            def changed(self) -> None:
                server.data = other

        server.RequestHandlerClass = Replaced
        assert self.export(serve(server), folder).written == 1
        assert (folder / PLACE / "c1.mp3").read_bytes() == other

    def test_it_is_given_up_when_it_gets_nowhere(self, serve, folder):
        server = Audio(self.DATA, piece=0)
        report = self.export(serve(server), folder)
        assert (report.written, report.failed) == (0, 1)
        assert not folder.exists()
        assert len(server.asked) < 10

    @pytest.mark.parametrize("change", [{"piece": [400_000, 600_000]}, {"data": [DATA, DATA + b"x"]}])
    def test_it_is_given_up_when_it_never_gets_further(self, serve, folder, change):
        """Every second answer comes further than the one before, or is of another length: that is no progress."""
        server = Audio(self.DATA, piece=500_000, ranges=False)
        ((name, values),) = change.items()

        class Changing(AudioHandler):
            def changed(self) -> None:
                setattr(server, name, values[len(server.asked) % 2])
                if len(server.asked) > 20:  # who would ask for ever has it whole, and fails the test
                    server.piece = len(server.data)

        server.RequestHandlerClass = Changing
        assert self.export(serve(server), folder).failed == 1
        assert len(server.asked) < 10

    @pytest.mark.parametrize("always", [False, True])
    def test_a_length_that_was_too_long(self, serve, folder, always):
        """All that there is came, and a range beyond its end is refused."""
        server = Audio(self.DATA, piece=len(self.DATA), promised=5)

        class Promising(AudioHandler):
            def changed(self) -> None:
                server.promised = 5 * always

        server.RequestHandlerClass = Promising
        report = self.export(serve(server), folder)
        assert server.asked[:3] == [None, "bytes=1000000-", None]
        assert (report.written, report.failed) == ((0, 1) if always else (1, 0))
        assert "refused" not in str(report)
        assert len(server.asked) < 10


class TestFindCalls:
    def handle(self, **parts: Any) -> dict[str, Any]:
        return {"agent_id": REMINDER_AGENT_ID, "submitted_at": YESTERDAY.isoformat(), **parts}

    def find(self, client: VolubileClient, calls: Any) -> list[CallRef]:
        return find_calls(client, calls, now=datetime.now(UTC))

    def test_ids_are_taken_as_they_are_each_once(self, client, simulator):
        assert self.find(client, ["a", "b", "a"]) == [CallRef("a"), CallRef("b")]
        assert self.find(client, "a") == [CallRef("a")]
        assert simulator.requests() == []

    def test_the_calls_of_campaigns_are_found_by_name(self, client, simulator):
        tyres = load(simulator, 150, campaign="Winter tyres 1", status="*")
        oil = load(simulator, 5, campaign="Oil 2")
        load(simulator, 5, campaign="Another")
        handle = self.handle(
            kind="campaign",
            campaigns=[
                {"id": "c1", "name": "Winter tyres 1", "recipients": 150},
                {"id": None, "name": "Oil 2", "recipients": 5},
            ],
        )
        found = self.find(client, handle)
        assert sorted(ref.call_id for ref in found) == sorted(tyres + oil)
        assert all(ref.status and ref.at for ref in found)

    def test_calls_of_others_are_noticed(self, client, simulator):
        load(simulator, 5, campaign="Winter tyres 1")
        handle = self.handle(campaigns=[{"id": "c1", "name": "Winter tyres 1", "recipients": 2}])
        with pytest.raises(VolubileProtocolError):
            self.find(client, handle)

    def test_many_ids_are_looked_up_by_listing(self, client, simulator):
        ids = load(simulator, 250, status="*")
        before = simulator.requests()[-1]["seq"] if simulator.requests() else 0
        found = self.find(client, self.handle(kind="bulk", call_ids=ids))
        assert sorted(ref.call_id for ref in found) == sorted(ids)
        assert all(ref.status for ref in found)
        assert len(simulator.requests(since=before)) == 3

    def test_ids_the_list_does_not_show_are_kept(self, client, simulator):
        ids = load(simulator, 120)
        found = self.find(client, self.handle(call_ids=[*ids, "gone"]))
        assert found[-1] == CallRef("gone")
        assert len(found) == 121

    def test_a_list_of_handles(self, client, simulator):
        found = self.find(client, [self.handle(call_ids=["a"]), self.handle(call_ids=["b", "a"])])
        assert [ref.call_id for ref in found] == ["a", "b"]

    @pytest.mark.parametrize("calls", ["['a']", {"agent_id": "x"}, [5], [""], None, [None]])
    def test_what_names_no_call(self, client, calls):
        with pytest.raises(VolubileInputError, match="calls"):
            self.find(client, calls)
