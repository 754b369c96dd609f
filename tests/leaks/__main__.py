"""``python -m tests.leaks``: run everything and search everywhere. Then let tasks wait with short-lived tokens, and let
many threads request a token at once.

The command writes its figures to ``docs/_static/leaks.txt``. It takes three minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.leaks.drive import drive_and_search
from tests.leaks.stampede import ask_at_once
from tests.leaks.token_life import wait_with_short_tokens

FIGURES = Path(__file__).parents[2] / "docs" / "_static" / "leaks.txt"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="volubile-leaks-") as folder:
        found = drive_and_search(Path(folder))
    for hit in found.leaks:
        print(hit)
    with tempfile.TemporaryDirectory(prefix="volubile-leaks-") as folder:
        waited = wait_with_short_tokens(Path(folder))
    asked = ask_at_once()
    report = found.report() + waited.report() + asked.report()
    print(report, end="")
    FIGURES.write_text(report)
    return int(bool(found.leaks or waited.failed or asked.tokens != 1))


if __name__ == "__main__":
    sys.exit(main())
