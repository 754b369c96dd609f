"""Types reach the people who write Dags: mypy accepts what is right, and finds what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).parent / "data" / "typed_dag.py"


def test_mypy_finds_the_wrong_arguments_of_a_dag_and_no_others() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", SAMPLE],
        cwd=ROOT,  # beside the cache of `make lint`
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = {int(line) for line in re.findall(rf"{SAMPLE.name}:(\d+): error", run.stdout)}
    marked = {number for number, line in enumerate(SAMPLE.read_text("utf-8").splitlines(), 1) if "# wrong" in line}
    assert complaints == marked, run.stdout + run.stderr
