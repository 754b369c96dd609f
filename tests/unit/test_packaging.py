"""What people install: the wheel and the source distribution, as they are built from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from airflow_provider_volubile import __version__

# One worker builds it, for all.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "airflow_provider_volubile"
BIN = Path(sys.executable).parent


def run(*command: object, **environment: str) -> str:
    result = subprocess.run(
        list(map(str, command)), env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions; the wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(BIN / "uv", "build", "--quiet", "--python", sys.executable, "--out-dir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    [path] = built.glob("*.whl")
    assert path.name == f"airflow_provider_volubile-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(in_dist_info(wheel, "METADATA"))


def in_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"airflow_provider_volubile-{__version__}.dist-info/{name}").decode()


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    sources = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == sources
    assert "airflow_provider_volubile/py.typed" in packed


def test_metadata_is_that_of_the_project(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["Name"] == project["name"]
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == len(project["dependencies"])
    assert set(metadata.get_all("Provides-Extra", [])) == {"simulator", "parquet"}


def test_licence_comes_along(wheel: zipfile.ZipFile) -> None:
    assert in_dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text("utf-8")


def test_source_distribution_holds_what_it_takes_to_work_on_it(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py", "docs/conf.py"} <= names
    assert not [name for name in names if "_build" in name or "__pycache__" in name or name.startswith(".venv")]


@pytest.mark.airflow
def test_airflow_finds_the_installed_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    run(BIN / "uv", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site", wheel.filename)
    ahead = {"PYTHONPATH": str(tmp_path / "site")}
    where = run(sys.executable, "-P", "-c", "import airflow_provider_volubile as p; print(p.__file__)", **ahead)
    assert Path(where.strip()).is_relative_to(tmp_path)
    told = run(BIN / "airflow", "providers", "get", "airflow-provider-volubile", "--full", "--output", "json", **ahead)
    [provider] = json.loads(told)
    assert provider["package-name"] == "airflow-provider-volubile"
    assert provider["hooks"][0]["python-modules"] == ["airflow_provider_volubile.hooks.volubile"]
