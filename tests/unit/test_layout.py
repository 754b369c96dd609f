"""The house plan: which room may import which, and that a base name stands for one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import airflow_provider_volubile

PACKAGE = airflow_provider_volubile.__name__
FOLDER = Path(airflow_provider_volubile.__file__).parent
MODULES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))
OURS = [path for path in MODULES if path.parts[0] != "simulator"]

# Which rooms each room may import. "root" is the modules beside the rooms.
ROOT = {"root"}
MAY_IMPORT = {
    "root": ROOT,
    "api": ROOT | {"api"},
    "hooks": ROOT | {"api", "hooks"},
    "calling": ROOT | {"api", "hooks", "calling", "waiting"},
    "waiting": ROOT | {"api", "hooks", "calling", "waiting"},
    "exports": ROOT | {"api", "hooks", "calling", "waiting", "exports"},
    "triggers": ROOT | {"api", "hooks", "calling", "waiting", "exports", "triggers"},
    "operators": ROOT | {"api", "hooks", "calling", "waiting", "exports", "triggers", "operators"},
    "sensors": ROOT | {"api", "hooks", "calling", "waiting", "exports", "triggers", "sensors"},
    "notifications": ROOT | {"api", "hooks", "calling", "waiting", "exports", "triggers", "notifications"},
    "simulator": {"simulator"},
}
# Operators, sensors, triggers and exports share these nouns, as in Airflow's own providers.
SHARED_NOUNS = {"__init__", "calls", "campaigns"}


def room(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else "root"


def imports(path: Path) -> set[str]:
    """Modules of this package that a module imports, also within functions."""
    tree = ast.parse((FOLDER / path).read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_rooms_below_its_own(path: Path) -> None:
    rooms = {name.split(".")[0] for name in imports(path)}
    imported = {name if (FOLDER / name).is_dir() else "root" for name in rooms}
    assert imported <= MAY_IMPORT[room(path)]


def test_each_base_name_stands_for_one_module() -> None:
    places = defaultdict(list)
    for path in OURS:
        places[path.stem].append(str(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1 and name not in SHARED_NOUNS} == {}


def test_the_package_has_at_most_six_modules_beside_its_rooms() -> None:
    assert len([path for path in OURS if room(path) == "root"]) <= 6


@pytest.mark.parametrize("name", ["api", "calling", "waiting", "exports"])
def test_the_map_of_a_room_names_each_of_its_modules_once(name: str) -> None:
    listed = re.findall(r"^``(\w+)``", (FOLDER / name / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in MODULES if room(path) == name and path.stem != "__init__")


def test_private_parts_of_airflow_are_imported_in_one_module() -> None:
    private = ("airflow.sdk.execution_time", "airflow.sdk.definitions", "airflow.sdk._", "airflow.models")
    for path in OURS:
        if path.name == "_airflow.py":
            continue
        tree = ast.parse((FOLDER / path).read_text("utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert [name for name in modules if name.startswith(private)] == [], path


def test_the_map_of_the_house_names_every_room() -> None:
    table = (FOLDER.parent / "CONTRIBUTING.md").read_text("utf-8")
    rooms = {room(path) for path in MODULES} - ROOT
    assert [name for name in sorted(rooms) if f"`{name}/`" not in table] == []
