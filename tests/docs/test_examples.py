"""Every example of the documentation works, or says why it is not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .blocks import ROOT, pages, read_page
from .running import Session

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900)]

WITH_EXAMPLES = [page for page in pages() if read_page(page)]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_work(page: Path, session: Callable[[str], Session]) -> None:
    run = session(page.stem).run
    for block in read_page(page):
        run(block)
