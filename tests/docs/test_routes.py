"""The how-to pages list the routes, classes, tests, results and Dags of the OpenAPI file and the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.simulator import Simulator
from tests.airflow.helpers import REMINDER, UNKNOWN
from tests.docs.test_site import PUBLIC

from .blocks import ROOT

PAGE = ROOT / "docs" / "howto" / "routes.rst"
# How to call each method. A request that the simulator refuses, or does not find, counts too.
USES: dict[str, Callable[[VolubileClient], object]] = {
    "issue_token": lambda client: client.issue_token(["calls:read"]),
    "VolubileHook.issue_token": lambda client: VolubileHook().issue_token(["calls:read"]),
    "list_agents": lambda client: client.list_agents(),
    "iter_agents": lambda client: list(client.iter_agents()),
    "VolubileHook.test_connection": lambda client: VolubileHook().test_connection(),
    "get_agent": lambda client: client.get_agent(REMINDER),
    "update_agent": lambda client: client.update_agent(REMINDER, {"active": True}),
    "list_calls": lambda client: client.list_calls(),
    "iter_calls": lambda client: list(client.iter_calls()),
    "create_call": lambda client: client.create_call(REMINDER, {"phone": "+33639980142"}),
    "get_call": lambda client: client.get_call(UNKNOWN),
    "open_recording": lambda client: client.open_recording(UNKNOWN).__enter__(),
    "get_transcript": lambda client: client.get_transcript(UNKNOWN),
    "create_bulk_calls": lambda client: client.create_bulk_calls(REMINDER, [{"phone": "+33639980142"}]),
    "create_campaign": lambda client: client.create_campaign({"name": "Winter tyres"}),
    "get_campaign": lambda client: client.get_campaign(UNKNOWN),
    "update_campaign_status": lambda client: client.update_campaign_status(UNKNOWN, "PAUSED"),
}


class Row(NamedTuple):
    route: str
    methods: list[str]
    in_a_dag: str
    test: str


def rows() -> list[Row]:
    found = []
    for text in re.split(r"^   \* - ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[2:]:
        route, methods, in_a_dag, test = (
            " ".join(cell.split()) for cell in re.split(r"^     - ", text, flags=re.MULTILINE)
        )
        found.append(Row(route.strip("`"), re.findall(r"``([\w.]+)``", methods), in_a_dag, test.strip("`")))
    return found


ROWS = rows()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.route)


def operations() -> dict[str, str]:
    """Return route → operationId, from the OpenAPI file."""
    paths = yaml.safe_load((ROOT / "tests" / "contract" / "openapi.yaml").read_text("utf-8"))["paths"]
    return {
        f"{method.upper()} {path}": operation["operationId"]
        for path, item in paths.items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_the_page_lists_every_route_of_the_openapi_file_once() -> None:
    assert len(operations()) == 13
    assert sorted(row.route for row in ROWS) == sorted(operations())


@each_row
def test_methods_send_the_route(row: Row, connection: str, simulator: Simulator) -> None:
    assert row.methods
    for name in row.methods:
        before = simulator.requests()
        with suppress(VolubileError):
            USES[name](VolubileHook().client())
        sent = {request["operation"] for request in simulator.requests(since=before[-1]["seq"] if before else 0)}
        assert operations()[row.route] in sent, f"{name} does not send {row.route}"


def test_the_page_lists_every_method_of_the_client() -> None:
    plumbing = {"close", "rate_limit", "wait_for_place"}
    public = {name for name in vars(VolubileClient) if not name.startswith("_")} - plumbing
    assert {name for row in ROWS for name in row.methods if "." not in name} == public


@each_row
def test_tests_exist_and_run_on_real_airflow(row: Row) -> None:
    module, *names = row.test.split("::")
    tree: ast.Module | ast.ClassDef = ast.parse((ROOT / "tests" / "airflow" / f"{module}.py").read_text("utf-8"))
    marked = any(isinstance(node, ast.Assign) and "pytest.mark.airflow" in ast.unparse(node) for node in tree.body)
    assert marked, f"{module} is not marked as running on real Airflow"
    for name in names:
        inside = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in inside, f"{module} has no {name}"
        if isinstance(found := inside[name], ast.ClassDef):
            tree = found
    assert names[-1].startswith("test_")


def test_the_page_names_every_public_class_and_no_other() -> None:
    public = {name.rpartition(".")[2] for _, name in PUBLIC}
    named = {name for row in ROWS for name in re.findall(r"``(Volubile\w+)``", row.in_a_dag)}
    assert named == public - {"VolubileHook"}


@each_row
def test_a_route_without_an_operator_says_so(row: Row) -> None:
    assert row.in_a_dag.startswith("No operator: ") != bool(re.search(r"``Volubile\w+``", row.in_a_dag))


def test_the_taskflow_page_names_what_operators_return() -> None:
    page = (ROOT / "docs" / "howto" / "taskflow.rst").read_text("utf-8")
    told = {}
    for row in re.split(r"^   \* - ", page, flags=re.MULTILINE)[2:]:
        operators, result = re.split(r"^     - ", row, flags=re.MULTILINE)
        (name,) = re.findall(r":class:`~[\w.]+\.(\w+)`", result)
        for operator in re.findall(r"``(Volubile\w+)``", operators):
            told[operator] = f"list[{name}]" if result.startswith("a list of") else name
    returned = {}
    for kind, path in PUBLIC:
        if kind in ("operators", "sensors"):
            module, _, name = path.rpartition(".")
            operator = getattr(importlib.import_module(module), name)
            method = operator.execute_complete if kind == "sensors" else operator.execute
            returned[name] = inspect.signature(method).return_annotation
    assert told == returned


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.stem)
def test_the_page_on_dags_lists_every_example_dag(path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "dags.rst").read_text("utf-8")
    assert f".. literalinclude:: ../../dags/{path.name}\n" in page
    assert f"\n``{path.stem}`` " in page
    assert f"| [`{path.stem}`](dags/{path.name}) |" in (ROOT / "README.md").read_text("utf-8")
