"""The site builds without a warning, shows every example that the suite runs, and describes everything public."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docutils import nodes

from airflow_provider_volubile.get_provider_info import get_provider_info

from .blocks import ROOT, pages, read_page

# One worker builds the site for all tests.
pytestmark = pytest.mark.xdist_group("site")

README = (ROOT / "README.md").read_text("utf-8")


@dataclass(frozen=True)
class Site:
    """A build of the site.

    :param complaints: warnings and errors of Sphinx.
    """

    folder: Path
    status: int
    complaints: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", folder / "doctrees"]
    result = subprocess.run([*command, ROOT / "docs", folder / "html"], capture_output=True, text=True, check=False)
    return Site(folder, result.returncode, result.stderr)


def test_site_builds_without_a_warning(site: Site) -> None:
    assert site.complaints == ""
    assert site.status == 0


def test_the_suite_runs_or_marks_every_code_block(site: Site) -> None:
    """Sphinx shows the code blocks that the runner finds. Docstrings hold no examples, since the suite runs none."""
    shown: Counter[str] = Counter()
    for page in (site.folder / "doctrees").rglob("*.doctree"):
        document = pickle.loads(page.read_bytes())
        for node in document.findall(lambda node: isinstance(node, nodes.literal_block | nodes.doctest_block)):
            if "source" not in node.attributes:  # a block included from a file is run where the file is
                name = page.relative_to(site.folder / "doctrees").with_suffix(".rst")
                shown[str(Path("docs") / name)] += 1
    found = Counter({str(page.relative_to(ROOT)): len(read_page(page)) for page in pages() if page.suffix == ".rst"})
    assert shown == +found


def public_classes() -> Iterator[tuple[str, str]]:
    """Yield kind and full name of every operator, sensor, trigger, hook and notifier for Dags."""
    info = get_provider_info()
    for kind in ("operators", "sensors", "triggers", "hooks", "notifications"):
        listed = info.get(kind, [])
        assert isinstance(listed, list)
        modules = [entry for entry in listed if isinstance(entry, str)]
        modules += [module for entry in listed if isinstance(entry, dict) for module in entry["python-modules"]]
        for module in modules:
            name, _, attribute = module.rpartition(".")
            if attribute[:1].isupper():
                yield kind, module
                continue
            for name, value in vars(importlib.import_module(module)).items():
                if inspect.isclass(value) and value.__module__ == module and name.startswith("Volubile"):
                    yield kind, f"{module}.{name}"


PUBLIC = sorted(set(public_classes()))


def test_reference_describes_everything_public(site: Site) -> None:
    described = "".join(page.read_text("utf-8") for page in (site.folder / "html" / "reference").glob("*.html"))
    assert [name for _, name in PUBLIC if f'id="{name}"' not in described] == []


@pytest.mark.parametrize("name", [name.rpartition(".")[2] for _, name in PUBLIC])
def test_readme_names_everything_public(name: str) -> None:
    assert f"`{name}" in README


def test_readme_names_only_existing_classes() -> None:
    known = {name.rpartition(".")[2] for _, name in PUBLIC}
    assert set(re.findall(r"`(Volubile\w+)", README)) <= known


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_point_to_existing_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_on_a_page_exists(page: Path) -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text("utf-8")))
    assert named <= known
