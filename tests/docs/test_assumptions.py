"""docs/assumptions.rst lists everything that api/wire.py assumes, with the same evidence."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from .blocks import ROOT

EVIDENCE = ("documented", "inferred", "assumed")
WIRE = ROOT / "airflow_provider_volubile" / "api" / "wire.py"
PAGE = ROOT / "docs" / "assumptions.rst"


def evidence(text: str) -> frozenset[str]:
    """Return the words of evidence in a text, without "not documented"."""
    words = re.sub(r"\bnot\s+documented", "", text.lower())
    return frozenset(word for word in EVIDENCE if re.search(rf"\b{word}\b", words))


def said_in_the_module() -> dict[str, frozenset[str]]:
    """Return name → evidence, for everything in wire.py whose docstring or comment states its evidence."""
    source = WIRE.read_text("utf-8")
    lines = source.split("\n")
    said = {}
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name):
                text = ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                start = end = node.lineno - 1
                while lines[start - 1].startswith("#"):
                    start -= 1
                text = " ".join(line.lstrip("#: ") for line in lines[start:end])
            case _:
                continue
        if found := evidence(text):
            said[name] = found
    return said


def told_on_the_page() -> dict[str, frozenset[str]]:
    """Return name → evidence, from the rows of the page's tables."""
    told = {}
    for row in re.split(r"^   \* - ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        cells = [" ".join(cell.split()) for cell in re.split(r"^     - ", row, flags=re.MULTILINE)]
        if match := re.match(r"``([\w.]+)``", cells[3]):
            told[match[1]] = frozenset(cells[1].split(", "))
    return told


def test_page_and_module_agree() -> None:
    told = told_on_the_page()
    assert {name: sure for name, sure in told.items() if "." not in name} == said_in_the_module()
    assert frozenset().union(*told.values()) == set(EVIDENCE)


@pytest.mark.parametrize("name", [name for name in told_on_the_page() if "." in name])
def test_names_of_other_modules_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(f"airflow_provider_volubile.{module}"), attribute)
