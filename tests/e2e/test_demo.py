"""``make airflow`` serves a whole Airflow, from a virtual environment that is not on the PATH."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.live import free_port

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).parents[2]


def test_airflow_is_served_with_the_dags(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "demo", "--serve", f"--port={port}", f"--home={tmp_path / 'home'}"],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
            # Act as a terminal does: background jobs of a shell, such as this suite, ignore an interrupt.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        try:
            dags: set[str] = set()
            deadline = time.monotonic() + 240
            while "volubile_campaign" not in dags:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
                dags = listed(url)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # remaining child processes


def listed(url: str) -> set[str]:
    """Return the ids of the Dags that the REST API shows, none while it does not answer."""
    try:
        token = requests.get(f"{url}/auth/token", timeout=5).json()["access_token"]
        answer = requests.get(f"{url}/api/v2/dags", headers={"Authorization": f"Bearer {token}"}, timeout=5).json()
    except (requests.RequestException, ValueError, KeyError):
        return set()
    return {dag["dag_id"] for dag in answer["dags"]}
