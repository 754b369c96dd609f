"""Sphinx builds the documentation with this: ``make docs``. Nothing is fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# Airflow is imported for its docstrings and would otherwise leave a configuration in the home directory.
os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parent / "_build" / "airflow-home"))

from airflow_provider_volubile import __version__
from airflow_provider_volubile.exports.columns import Table

project = "airflow-provider-volubile"
author = "The airflow-provider-volubile developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx_rtd_theme"]
exclude_patterns = ["_build"]
language = "en"
highlight_language = "none"

html_theme = "sphinx_rtd_theme"
html_title = "airflow-provider-volubile"
html_theme_options = {"navigation_depth": 3}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
# Airflow documents its own methods.
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
add_module_names = False

# References to modules of the reference must resolve. Airflow and the standard library have no inventory here, and
# annotations may name internal classes.
nitpicky = True
described = "operators|sensors|triggers|notifications|hooks|handles|exceptions|simulator"
nitpick_ignore_regex = [(r"py:.*", rf"(?!airflow_provider_volubile\.({described})\b).*")]


def add_template_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add the template fields of each operator and sensor, as its class lists them."""
    fields = getattr(obj, "template_fields", ())
    if what == "class" and fields:
        # Before the list of parameters: a sentence after it would belong to the last one.
        at = next((number for number, line in enumerate(lines) if line.startswith(":param")), len(lines))
        lines[at:at] = [f"Templates: {', '.join(f'``{field}``' for field in fields)}.", ""]


def add_columns(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """List the columns of a table."""
    if isinstance(obj, Table):
        lines += ["", "Columns:", "", *(f"- ``{column.name}``: {column.kind}" for column in obj.columns), ""]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", add_template_fields)
    app.connect("autodoc-process-docstring", add_columns)
