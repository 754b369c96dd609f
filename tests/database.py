"""A migrated metadata database to copy: ``airflow db migrate`` takes five seconds, and many tests want one."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache"
AIRFLOW = Path(sys.executable).parent / "airflow"


def copy_database(home: Path) -> None:
    """Give an ``AIRFLOW_HOME`` a migrated SQLite database."""
    shutil.copyfile(_template() / "airflow.db", home / "airflow.db")


def copy_home(home: Path) -> None:
    """Give an ``AIRFLOW_HOME`` a migrated SQLite database and a configuration, so that no two processes make one."""
    copy_database(home)
    configuration = (_template() / "airflow.cfg").read_text("utf-8")
    (home / "airflow.cfg").write_text(configuration.replace(str(_template()), str(home)), "utf-8")


def _template() -> Path:
    """The home that is copied. The first process makes it, and keeps it for later runs with this Airflow."""
    folder = CACHE / f"airflow-{version('apache-airflow-core')}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
            result = subprocess.run(
                [AIRFLOW, "db", "migrate"],
                env=clean | {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stdout + result.stderr
            (folder / "ready").touch()
    return folder
