"""The API layer knows nothing of Airflow, nor of anything above it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_volubile.api as api

FOLDER = Path(api.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))


def test_importing_it_imports_no_airflow() -> None:
    names = [f"airflow_provider_volubile.api.{module}" for module in MODULES if module != "__init__"]
    script = f"import json, sys, {', '.join(names)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert set(names) <= set(loaded)
    assert [m for m in loaded if m.split(".")[0] in {"airflow", "phonenumbers", "pyarrow", "fastapi"}] == []
    ours = [m for m in loaded if m.startswith("airflow_provider_volubile.")]
    assert [m for m in ours if m.split(".")[1] not in {"api", "exceptions", "masking"}] == []


@pytest.mark.parametrize("module", MODULES)
def test_it_names_no_airflow_either(module: str) -> None:
    """Also in imports within functions."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [name for name in named if name.split(".")[0] == "airflow"] == []
    for name in named:
        if name.startswith("airflow_provider_volubile."):
            assert name.split(".")[1] in {"api", "exceptions", "masking"}
