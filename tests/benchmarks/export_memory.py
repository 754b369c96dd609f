"""Memory of exports, against the simulator, each in a process of its own.

    python -m tests.benchmarks.export_memory [calls] [transcripts] [recordings]

Prints by how much the resident memory of the exporting process rose above what it had before, for few and for many
calls, transcripts and bytes of audio, and writes docs/_static/export_memory.txt once all were measured. Checks rows
against the ledger and a second run against the first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil

from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.simulator import Simulator

TABLE = Path(__file__).parents[2] / "docs/_static/export_memory.txt"
KINDS = ("calls", "transcripts", "recordings")
ENDPOINT = "BENCHMARK_S3_ENDPOINT"
UTC_ZONE = ZoneInfo("UTC")
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def main(kinds: list[str]) -> None:
    table = [f"{'export':<34}{'rise MB':>9}{'peak MB':>9}{'seconds':>9}  check"]
    print(table[0], flush=True)
    for line in measured(kinds):
        print(line, flush=True)
        table.append(line)
    if set(kinds) == set(KINDS):
        TABLE.write_text("\n".join(table) + "\n")


def measured(kinds: list[str]) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        s3_server(),
        Simulator(seed=7, limit=1_000_000) as simulator,
    ):
        for count in (2_000, 20_000) if "calls" in kinds else ():
            load(simulator, count, status="*")
            for file_format in ("jsonl", "parquet", "csv"):
                yield measure(f"{count} calls, {file_format}", simulator, "calls", f"{folder}/{count}", file_format)
        for count in (200, 2_000) if "transcripts" in kinds else ():
            ids = load(simulator, count)
            for file_format in ("jsonl", "parquet"):
                place = f"{folder}/{count}-{file_format}"
                yield measure(f"{count} transcripts, {file_format}", simulator, "transcripts", place, file_format, ids)
        for size in (20, 200) if "recordings" in kinds else ():
            ids = load(simulator, 1)
            simulator.configure(recording_size=size * 2**20)
            for place in (f"{folder}/audio-{size}", f"s3://moto@bench/audio-{size}"):
                store = place.partition("://")[0] if "://" in place else "local"
                yield measure(f"recording of {size} MB, {store}", simulator, "recordings", place, "", ids)


def load(simulator: Simulator, count: int, **details: Any) -> list[str]:
    simulator.reset()
    return simulator.load_calls(count, created_from=DAY, created_to=DAY + timedelta(hours=20), **details)


def measure(
    title: str, simulator: Simulator, kind: str, place: str, file_format: str, ids: list[str] | None = None
) -> str:
    """Export twice; a line of the table."""
    arguments = {"url": simulator.url, "key": simulator.primary_key, "kind": kind, "place": place}
    arguments |= {"file_format": file_format, "ids": ids or []}
    first, second = (in_a_process(arguments) for _ in range(2))
    checks = ["second run identical" if first["bytes"] == second["bytes"] else "SECOND RUN DIFFERS"]
    if (kind, file_format) == ("calls", "jsonl"):
        ledger = {(entry["call_id"], entry["phone"], entry["status"]) for entry in simulator.ledger()}
        found = {(row["call_id"], row["phone"], row["status"]) for row in rows(Path(place))}
        checks.append("rows equal the ledger" if found == ledger else "ROWS DIFFER FROM THE LEDGER")
    return f"{title:<34}{first['rise']:>9.1f}{first['peak']:>9.1f}{first['seconds']:>9.1f}  {', '.join(checks)}"


def in_a_process(arguments: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.export_memory", "--export"]
    done = subprocess.run(command, input=json.dumps(arguments), check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in folder.rglob("*.jsonl.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


# In the process that is measured -----------------------------------------------------------------------------------


def export(url: str, key: str, kind: str, place: str, file_format: Any, ids: list[str]) -> None:
    from airflow.sdk.io import attach

    from airflow_provider_volubile.exports.calls import CallsTable, export_calls
    from airflow_provider_volubile.exports.files import Export
    from airflow_provider_volubile.exports.recording_files import export_recordings
    from airflow_provider_volubile.exports.store import open_path, read_json
    from airflow_provider_volubile.exports.transcripts import export_transcripts
    from airflow_provider_volubile.waiting.find_calls import CallRef

    if file_format == "parquet":
        import pyarrow.parquet  # noqa: F401
    if place.startswith("s3"):
        attach("s3", "moto", fs=s3_files())
    client = VolubileClient(url, ApiKeyPair(key), window=RateWindow())
    client.list_agents()
    folder = open_path(place)
    read_json(folder / "nothing")

    def run() -> None:
        if kind == "calls":
            table = CallsTable(folder, None, None, UTC_ZONE, file_format)
            export_calls(client, table, DAY, DAY + timedelta(days=1))
            return
        refs = [CallRef(call_id) for call_id in ids]
        files = Export(folder, kind, {}, key="k")
        if kind == "recordings":
            report = export_recordings(client, files, refs, zone=UTC_ZONE)
        else:
            report = export_transcripts(
                client, files, refs, zone=UTC_ZONE, file_format=file_format, texts=True, patience=0
            )
        files.finish(report.counts)
        assert report.written == len(ids)

    start = time.monotonic()
    rise, peak = watched(run)
    seconds = time.monotonic() - start
    digests = sorted((name, digest(folder.fs, name)) for name in folder.fs.find(folder.path))
    print("\n" + json.dumps({"rise": rise, "peak": peak, "seconds": seconds, "bytes": digests}))


def watched(run: Callable[[], None]) -> tuple[float, float]:
    """Run something; by how many MB the resident memory rose, and its peak, looked at every 5 ms."""
    process = psutil.Process()
    before = highest = process.memory_info().rss
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        over.set()
        watcher.join()
    return (highest - before) / 2**20, highest / 2**20


def digest(files: Any, name: str) -> str:
    result = hashlib.sha256()
    with files.open(name, "rb") as file:
        while chunk := file.read(2**20):
            result.update(chunk)
    return result.hexdigest()


# A local S3 server ---------------------------------------------------------------------------------------------------


@contextmanager
def s3_server() -> Iterator[None]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ[ENDPOINT] = f"http://{host}:{port}"
    s3_files().mkdir("bench")
    yield
    server.stop()


def s3_files() -> Any:
    import s3fs

    return s3fs.S3FileSystem(key="k", secret="s", endpoint_url=os.environ[ENDPOINT], skip_instance_cache=True)


if __name__ == "__main__":
    if "--export" in sys.argv:
        export(**json.load(sys.stdin))
    else:
        main(sys.argv[1:] or list(KINDS))
