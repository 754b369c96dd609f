"""Whole files, manifests and re-runs, on local disk and on S3."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import ClassVar

import fsspec
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_volubile.api.models import Call
from airflow_provider_volubile.exceptions import VolubileError, VolubileInputError, VolubileStoreError
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.columns import CALLS, OUTCOMES
from airflow_provider_volubile.exports.files import Export, write_table
from airflow_provider_volubile.exports.store import open_path
from tests import s3

SELECTION = {"agent_id": "a", "date": "2025-11-12"}


@pytest.fixture(scope="session")
def bucket():
    with s3.bucket("exports") as address:
        yield address


@pytest.fixture(params=["file", "s3"])
def folder(request, tmp_path):
    if request.param == "file":
        return open_path(str(tmp_path / "out"))
    return open_path(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def rows(*ids):
    return [CALLS.row(Call(id=call_id)) for call_id in ids]


def run(folder, *ids, selection=SELECTION, file_format="jsonl", missing=()):
    export = Export(folder, "calls", selection)
    export.write_rows("date=2025-11-12/calls", rows(*ids), CALLS, file_format)
    export.missing |= dict.fromkeys(missing, "still in progress")
    export.finish({"calls": len(ids)})
    return export


def tree(folder):
    """Every file below a folder, hidden ones too, with its content."""
    files = folder.fs.find(folder.path) if folder.fs.exists(folder.path) else []
    start = len(folder.fs._strip_protocol(folder.path)) + 1
    return {name[start:]: folder.fs.cat_file(name) for name in files}


def ids(data):
    return [json.loads(line)["call_id"] for line in gzip.decompress(data).splitlines()]


class TestExport:
    def test_files_and_their_manifest(self, folder):
        export = run(folder, "c1", "c2", missing=["c3"])
        files = tree(folder)
        assert sorted(files) == ["_calls.manifest.json", "date=2025-11-12/calls.jsonl.gz"]
        data = files["date=2025-11-12/calls.jsonl.gz"]
        assert ids(data) == ["c1", "c2"]
        manifest = json.loads(files["_calls.manifest.json"])
        assert manifest["selection"] == SELECTION
        assert manifest["counts"] == {"calls": 2}
        assert manifest["files"] == [
            {
                "path": "date=2025-11-12/calls.jsonl.gz",
                "rows": 2,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        ]
        assert manifest["missing"] == [{"call_id": "c3", "reason": "still in progress"}]
        assert manifest["schemas"] == [CALLS.describe()]
        assert export.files == [str(folder / "date=2025-11-12" / "calls.jsonl.gz")]

    def test_a_second_run_is_byte_identical(self, folder):
        run(folder, "c1", missing=["c2", "c3"])
        first = tree(folder)
        run(folder, "c1", missing=["c3", "c2"])
        assert tree(folder) == first

    def test_a_second_run_replaces(self, folder):
        run(folder, "c1", "c2")
        run(folder, "c2", "c3")
        assert ids(tree(folder)["date=2025-11-12/calls.jsonl.gz"]) == ["c2", "c3"]

    def test_what_is_no_longer_part_of_it_is_removed(self, folder):
        run(folder, "c1")
        folder.fs.pipe_file((folder / "date=2025-11-12" / "notes.txt").path, b"not ours")
        run(folder, "c1", file_format="csv")
        assert sorted(tree(folder)) == [
            "_calls.manifest.json",
            "date=2025-11-12/calls.csv",
            "date=2025-11-12/notes.txt",
        ]

    def test_two_exports_do_not_take_turns_in_one_place(self, folder):
        run(folder, "c1")
        before = tree(folder)
        with pytest.raises(VolubileInputError, match="belongs to another export"):
            run(folder, "c9", selection={**SELECTION, "agent_id": "b"})
        assert tree(folder) == before

    def test_a_manifest_nobody_can_read_is_replaced(self, folder):
        run(folder, "c1")
        for nonsense in (b"{", b"[]", b"\xff"):
            folder.fs.pipe_file((folder / "_calls.manifest.json").path, nonsense)
            run(folder, "c2")
        assert ids(tree(folder)["date=2025-11-12/calls.jsonl.gz"]) == ["c2"]

    @pytest.mark.parametrize("path", ["../precious", "a/../../precious", "/{root}/precious"])
    def test_a_manifest_removes_nothing_outside_its_folder(self, tmp_path, path):
        (tmp_path / "precious").write_text("x")
        folder = open_path(str(tmp_path / "out"))
        run(folder, "c1")
        manifest = json.loads((tmp_path / "out" / "_calls.manifest.json").read_text())
        manifest["files"].append({"path": path.replace("/{root}", str(tmp_path))})
        (tmp_path / "out" / "_calls.manifest.json").write_text(json.dumps(manifest))
        run(folder, "c1")
        assert (tmp_path / "precious").exists()

    def test_an_export_that_stops_leaves_the_old_manifest_and_no_part_of_a_file(self, folder):
        run(folder, "c1")
        before = tree(folder)

        def rows_that_stop():
            yield from rows("c8", "c9")
            raise ConnectionError("the network went away")

        with pytest.raises(ConnectionError):
            Export(folder, "calls", SELECTION).write_rows("date=2025-11-12/calls", rows_that_stop(), CALLS, "jsonl")
        assert tree(folder) == before

    def test_nothing_is_left_on_local_disk(self, folder, tmp_path, monkeypatch):
        (tmp_path / "work").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
        run(folder, "c1")
        assert list((tmp_path / "work").iterdir()) == []


class TestStores:
    def test_a_local_folder_that_may_not_be_written(self, tmp_path):
        (tmp_path / "out").write_text("a file where a folder should be")
        with pytest.raises(VolubileStoreError, match=f"Could not read {tmp_path}/out/_calls"):
            run(open_path(str(tmp_path / "out")), "c1")

    def test_a_bucket_that_is_not_there(self, bucket):
        with pytest.raises(VolubileStoreError, match="Could not write s3://exports@nowhere/out/date=2025-11-12/calls"):
            run(open_path(bucket.replace("@exports", "@nowhere") + "/out"), "c1")

    def test_a_store_nobody_knows(self):
        with pytest.raises(VolubileError, match="No filesystem registered"):
            run(open_path("gs://bucket/out"), "c1")

    def test_a_refused_move_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        folder = open_path(str(tmp_path / "out"))
        run(folder, "c1")
        before = tree(folder)

        def refuse(*args, **kwargs):
            raise PermissionError("not here")

        monkeypatch.setattr(type(folder.fs), "mv", refuse)
        with pytest.raises(VolubileStoreError, match="PermissionError: not here"):
            run(folder, "c2")
        assert tree(folder) == before

    def test_a_local_reader_never_sees_half_a_file(self, tmp_path, monkeypatch):
        """What is being copied stands under another name, and a copy that fails takes nothing with it."""
        folder = open_path(str(tmp_path / "out"))
        run(folder, "c1")
        before = tree(folder)

        def half(self, source, target, **kwargs):
            with open(source, "rb") as whole, open(target, "wb") as part:
                part.write(whole.read()[:10])
            raise OSError("disk full")

        monkeypatch.setattr(type(folder.fs), "put_file", half)
        with pytest.raises(VolubileStoreError, match="disk full"):
            run(folder, "c2", "c3")
        assert tree(folder) == before

    def test_any_fsspec_store(self):
        attach("memory", "test", fs=MemoryFileSystem())
        folder = open_path("memory://test@exports/out")
        run(folder, "c1")
        assert sorted(tree(folder)) == ["_calls.manifest.json", "date=2025-11-12/calls.jsonl.gz"]

    def test_reading_what_is_not_there(self, folder):
        assert store.read_json(folder / "nothing.json") is None
        store.remove(folder / "nothing.json")


class TestWriteTable:
    ROW: ClassVar = {
        "phone": "+33639980142",
        "status": "NEVER_DIALED",
        "settled": True,
        "attempts": 0,
        "last_call_id": None,
        "duration": None,
        "reason": None,
    }

    @pytest.mark.parametrize("name", ["outcomes.jsonl.gz", "outcomes.csv", "outcomes.parquet"])
    def test_formats_by_name(self, folder, name):
        assert write_table(folder / name, [self.ROW] * 3, OUTCOMES) == 3
        assert list(tree(folder)) == [name]

    def test_an_unknown_name(self, tmp_path):
        with pytest.raises(VolubileInputError, match=r"must end in \.jsonl\.gz, \.parquet, \.csv"):
            write_table(str(tmp_path / "outcomes.json"), [self.ROW], OUTCOMES)
        assert list(tmp_path.iterdir()) == []


def test_paths_stay_what_they_are(tmp_path):
    path = ObjectStoragePath(str(tmp_path))
    assert open_path(path) is path
    assert isinstance(open_path("relative/out").fs, fsspec.AbstractFileSystem)
