"""Real Airflow and the simulator, for the examples of a page."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_volubile.simulator import Simulator
from tests.airflow.conftest import connection

from .blocks import ROOT
from .running import Session

__all__ = ["connection"]


@pytest.fixture
def session(
    metadata_database: None,
    connection: str,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], Session]]:
    """Make the session of a page. It has ``people.csv`` and ``dags/``, and reaches only this machine."""
    simulator.configure(speed=3600)
    folder = tmp_path / "page"
    folder.mkdir()
    shutil.copy(ROOT / "dags" / "data" / "people.csv", folder)
    (folder / "dags").symlink_to(ROOT / "dags")
    monkeypatch.chdir(folder)
    # An example may name the real service, so only this machine is reachable.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("VOLUBILE_OUTPUT", f"file://{folder}/output")
    home = folder / "airflow-home"
    home.mkdir()
    shutil.copy(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", home)
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    # Commands find only the connection that the page makes.
    del environment["AIRFLOW_CONN_VOLUBILE_DEFAULT"]
    with ExitStack() as stack:
        yield lambda page: stack.enter_context(Session(page, folder, dict(environment)))
