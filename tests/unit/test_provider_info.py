"""The provider's metadata: complete, valid for Airflow, and without a single import."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from airflow.sdk import BaseHook, BaseNotifier, BaseOperator, BaseSensorOperator
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
from airflow.triggers.base import BaseTrigger

import airflow_provider_volubile
from airflow_provider_volubile.get_provider_info import get_provider_info
from airflow_provider_volubile.hooks.settings import AUTH_MODES, DEFAULT_HOST, DEFAULT_TIMEOUT, EXTRA_FIELDS
from airflow_provider_volubile.hooks.volubile import VolubileHook

INFO: dict[str, Any] = get_provider_info()


def test_get_provider_info_imports_nothing() -> None:
    """In an interpreter of its own, with what the entry point's own load has loaded before."""
    script = (
        "import importlib.metadata, sys\n"
        "entries = importlib.metadata.entry_points(group='apache_airflow_provider')\n"
        "(entry,) = (entry for entry in entries if entry.value.startswith('airflow_provider_volubile.'))\n"
        "before = set(sys.modules)\n"
        "entry.load()()\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    package = "airflow_provider_volubile"
    assert set(result.stdout.split()) - {"__future__"} == {package, f"{package}.get_provider_info"}


def test_the_provider_has_the_name_of_the_distribution() -> None:
    """Airflow refuses to load it otherwise."""
    found = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.dist is not None and entry.value.startswith("airflow_provider_volubile.")
    ]
    assert [entry.dist.name for entry in found] == [INFO["package-name"]]  # type: ignore[union-attr]


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_the_metadata_is_valid_for_airflow(schema: str) -> None:
    """The second schema is of files that Airflow's own providers keep; it alone knows the connection's form."""
    rules = json.loads(files("airflow").joinpath(schema).read_text())
    if schema == "provider.yaml.schema.json":
        rules = rules["properties"]["connection-types"]
        jsonschema.validate(INFO["connection-types"], rules)
    else:
        jsonschema.validate(INFO, rules)


def modules(package: str) -> list[ModuleType]:
    found = importlib.import_module(f"airflow_provider_volubile.{package}")
    return [
        importlib.import_module(module.name) for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}.")
    ]


def public_classes(package: str, base: type) -> set[str]:
    """Modules of the classes that people use: those with the provider's name."""
    return {
        f"{cls.__module__}.{cls.__qualname__}"
        for module in modules(package)
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and cls.__module__ == module.__name__ and name.startswith("Volubile")
        if name != "VolubileOperator"
    }


@pytest.mark.parametrize(
    ("kind", "base"),
    [("operators", BaseOperator), ("sensors", BaseSensorOperator), ("triggers", BaseTrigger), ("hooks", BaseHook)],
)
def test_the_metadata_lists_every_public_module_and_no_other(kind: str, base: type) -> None:
    listed = {module for entry in INFO[kind] for module in entry["python-modules"]}
    assert listed == {name.rpartition(".")[0] for name in public_classes(kind, base)}


def test_the_metadata_lists_every_notifier() -> None:
    assert set(INFO.get("notifications", ())) == public_classes("notifications", BaseNotifier)


def test_the_form_has_the_fields_that_the_hook_reads_and_their_defaults() -> None:
    (form,) = INFO["connection-types"]
    fields = form["conn-fields"]
    assert set(fields) == EXTRA_FIELDS
    assert fields["auth"]["schema"]["enum"] == list(AUTH_MODES)
    assert fields["auth"]["schema"]["default"] == AUTH_MODES[0]
    assert fields["timeout"]["schema"]["default"] == DEFAULT_TIMEOUT
    assert fields["secondary_api_key"]["schema"]["format"] == "password"
    assert all(field["label"] and field["description"] for field in fields.values())
    assert form["ui-field-behaviour"]["placeholders"]["host"] == DEFAULT_HOST
    assert set(form["ui-field-behaviour"]["hidden-fields"]) >= {"login", "schema", "extra"}
    hook_module, _, hook_class = form["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(hook_module), hook_class) is VolubileHook
    assert (VolubileHook.conn_type, VolubileHook.hook_name) == (form["connection-type"], form["hook-name"])


def test_airflow_redacts_the_extra_of_the_secondary_key() -> None:
    assert should_hide_value_for_key("secondary_api_key")


def test_the_hook_declares_no_form_of_its_own() -> None:
    """Airflow 3.2 deprecated that, and its UI no longer asks for it."""
    assert not {"get_ui_field_behaviour", "get_connection_form_widgets"} & VolubileHook.__dict__.keys()


def test_importing_the_package_imports_nothing_of_it() -> None:
    tree = ast.parse(inspect.getsource(airflow_provider_volubile))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in imported)
