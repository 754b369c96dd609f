"""The code blocks of the documentation, and their marks.

A comment right above a block marks a block that cannot simply be run::

    .. not run: why                 (Markdown: <!-- not run: why -->)
    .. only parsed: why             the Dag is built, and not run
    .. file: dags/some_file.py      the block repeats the file, or consecutive lines of it; another test runs the file
    .. server: text                 the command runs until the page ends; it is ready once it prints the text
    .. output                       the block shows the output of the block before it; "…" stands for anything
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("not run", "only parsed", "file", "server", "output")
# Marks that need an argument: a reason, a path, a text.
TELLING = frozenset(MARKS) - {"output"}

# A directive, or a paragraph that ends with "::".
_LITERAL = re.compile(
    r"(?P<indent>\s*)(?:\.\. (?:code-block|code|sourcecode)::\s*(?P<language>\S*)|(?!\.\. )\S?.*::)\s*$"
)
_OPTION = re.compile(r"\s+:[\w-]+:.*$")
_FENCE = re.compile(r"(?P<indent>\s*)```(?P<language>\S*)\s*$")
_MARK = re.compile(rf"(?P<mark>{'|'.join(MARKS)})(?::\s*(?P<says>.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One example.

    :param page: path from the root of the repository.
    :param line: number of its first line of text, from 1.
    :param says: the argument of its mark: a reason, a path, a text.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    says: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the Markdown files of the root, and every page of the documentation."""
    written = (path for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts)
    return [*sorted(ROOT.glob("*.md")), *sorted(written)]


def read_page(path: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    lines = path.read_text("utf-8").split("\n")
    found = _markdown(lines) if path.suffix == ".md" else _restructured_text(lines)
    return [
        Block(name, start + 1, language, textwrap.dedent("\n".join(lines[start:end])).rstrip() + "\n", mark, says)
        for start, end, language, (mark, says) in found
    ]


Found = Iterator[tuple[int, int, str, tuple[str, str]]]


def _restructured_text(lines: list[str]) -> Found:
    end = 0
    for number, line in enumerate(lines):
        if number < end or not (literal := _LITERAL.match(line)):
            continue
        depth = len(literal["indent"])
        start = number + 1
        while start < len(lines) and (not lines[start].strip() or _OPTION.match(lines[start])):
            start += 1
        end = start
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > depth):
            end += 1
        yield start, end, literal["language"] or "", _mark(_comment_above(lines, number, depth))


def _markdown(lines: list[str]) -> Found:
    start: int | None = None
    language, mark = "", ("", "")
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence and start is None:
            start, language = number + 1, fence["language"]
            above = next((text.strip() for text in reversed(lines[:number]) if text.strip()), "")
            is_comment = above.startswith("<!--") and above.endswith("-->")
            mark = _mark(above[4:-3].strip() if is_comment else "")
        elif fence and start is not None:
            yield start, number, language, mark
            start = None


def _comment_above(lines: list[str], number: int, depth: int) -> str:
    """Return the comment that ends right above a line: ``.. text``, perhaps with indented lines after it."""
    parts: list[str] = []
    for line in reversed(lines[:number]):
        if not line.strip():
            if parts:
                return ""
            continue
        parts.insert(0, line.strip())
        if _indent(line) <= depth:
            return " ".join(parts).removeprefix(".. ") if line.strip().startswith(".. ") else ""
    return ""


def _mark(comment: str) -> tuple[str, str]:
    match = _MARK.match(comment)
    return (match["mark"], (match["says"] or "").strip()) if match else ("", "")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
