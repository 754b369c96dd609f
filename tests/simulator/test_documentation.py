"""docs/simulator.rst lists every setting, fault, route and agent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from airflow_provider_volubile.simulator import agents
from airflow_provider_volubile.simulator.config import Config, Options
from airflow_provider_volubile.simulator.control import control_app
from airflow_provider_volubile.simulator.faults import FaultSpec, Kind
from airflow_provider_volubile.simulator.routes import OPERATIONS
from airflow_provider_volubile.simulator.state import State

TEXT = (Path(__file__).parents[2] / "docs" / "simulator.rst").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table after a heading, without its header row."""
    section = TEXT.split(f"\n{heading}\n")[1].split(".. list-table::")[1].split("\n\n\n")[0]
    rows = section.split("\n    * - ")[2:]
    return [[" ".join(cell.split()) for cell in row.split("\n      - ")] for row in rows]


def names(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"``(.+?)``", cell)]


def test_the_page_lists_every_configuration_key_and_its_default() -> None:
    rows = table("Configuration")
    assert sorted(names([row[0] for row in rows])) == sorted(Config.model_fields)
    for keys, defaults, _ in rows:
        written = {"null": "None", "false": "False"}.get(defaults, defaults.replace("``", ""))
        values = [str(getattr(Config(), key)) for key in names([keys])]
        assert re.sub(r"\.0\b", "", ", ".join(dict.fromkeys(values))) == written


def test_the_page_lists_every_fault() -> None:
    assert sorted(names([row[0] for row in table("Faults")])) == sorted(get_args(Kind))
    section = TEXT.split("\nFaults\n")[1].split("\nConfiguration\n")[0]
    for name in (*FaultSpec.model_fields, *(operation.id for operation in OPERATIONS)):
        assert f"``{name}``" in section


def test_the_page_lists_every_route_of_the_control_interface() -> None:
    documented = [row[0] for row in table("The control interface")]
    for path, methods in control_app(State(Options(), "")).openapi()["paths"].items():
        rows = [row for row in documented if f"/_sim{path}``" in row]
        assert all(any(method.upper() in row for row in rows) for method in methods), path


def test_the_page_lists_every_agent() -> None:
    constants = {name: value for name, value in vars(agents).items() if name.endswith("_AGENT_ID")}
    assert {f"``{name}``": f"``{value}``" for name, value in constants.items()} == {
        row[0]: row[1] for row in table("Point Airflow at it")
    }
