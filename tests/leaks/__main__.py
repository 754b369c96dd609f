"""``python -m tests.leaks``: drive everything, search everywhere, write the figures to ``docs/_static/leaks.txt``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.leaks.drive import drive_and_search

FIGURES = Path(__file__).parents[2] / "docs" / "_static" / "leaks.txt"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="volubile-leaks-") as folder:
        found = drive_and_search(Path(folder))
    for hit in found.leaks:
        print(hit)
    print(found.report())
    FIGURES.write_text(found.report())
    return int(bool(found.leaks))


if __name__ == "__main__":
    sys.exit(main())
