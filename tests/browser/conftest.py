"""Airflow's own UI in headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from airflow_provider_volubile.simulator import Simulator
from tests.live import LiveAirflow

HOW_TO_GET_IT = (
    "Chromium is not installed, so Airflow's UI cannot be looked at. On Debian: apt-get install -y chromium; "
    "elsewhere set CHROMIUM to its executable."
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Keep = Callable[[Page | Locator, str], None]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of Chromium. Without it, tests are skipped on a developer's machine and fail in CI."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW_TO_GET_IT)
        pytest.skip(HOW_TO_GET_IT)
    return found


@pytest.fixture(scope="session")
def airflow(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    with LiveAirflow(home, dags, components=("api-server",)) as airflow:
        yield airflow


@pytest.fixture
def page(chromium: str, tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",  # empty
            executable_path=chromium,
            args=ARGUMENTS,
            viewport={"width": 1000, "height": 1000},
            locale="en-US",
        )
        (page,) = browser.pages
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)  # the page's timeout does not apply to expectations
        try:
            yield page
        finally:
            browser.close()


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Save a screenshot, for the documentation if ``SCREENSHOTS`` names its folder."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)

    def keep(what: Page | Locator, name: str) -> None:
        path = folder / f"{name}.png"
        what.screenshot(path=path, animations="disabled")
        assert path.stat().st_size > 5_000

    return keep


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.configure(limit=100)
    return simulator
