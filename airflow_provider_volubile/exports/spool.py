"""Rows kept on local disk until all are there, then read back in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from types import TracebackType


class Spool:
    """Sorts and de-duplicates rows that come in any order, in little memory however many they are.

    Backed by a private temporary SQLite database, which the operating system removes however the process
    ends. Use it as a context manager, from one thread.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        # Nothing here outlives the process, so nothing is protected against its crash.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE rows (part TEXT, at TEXT, key TEXT, position INTEGER, line BLOB)")
        self._db.execute("CREATE INDEX by_key ON rows (key)")
        self._db.execute("CREATE INDEX in_order ON rows (part, at, key, position)")

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def put(self, key: str, part: str, at: str, lines: Iterable[bytes]) -> None:
        """Keep the rows of one call; they take the place of any that were put for it before.

        :param part: the file they go to.
        :param at: what calls are ordered by within a file; those of equal ``at`` by ``key``.
        :param lines: its rows, in their order. If making one fails, none are kept.
        """
        name = _sortable(key)
        self._remove(name)
        rows = ((part, at, name, position, line) for position, line in enumerate(lines))
        try:
            self._db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", rows)
        except BaseException:
            self._remove(name)
            raise

    def _remove(self, name: str) -> None:
        self._db.execute("DELETE FROM rows WHERE key = ?", (name,))

    def parts(self) -> list[str]:
        """The files that have rows."""
        with closing(self._db.execute("SELECT DISTINCT part FROM rows ORDER BY part")) as found:
            return [part for (part,) in found]

    def count(self, part: str) -> int:
        """How many rows a file has."""
        ((rows,),) = self._db.execute("SELECT count(*) FROM rows WHERE part = ?", (part,))
        return int(rows)

    def lines(self, part: str) -> Iterator[bytes]:
        """The rows of one file, in order."""
        query = "SELECT line FROM rows WHERE part = ? ORDER BY at, key, position"
        with closing(self._db.execute(query, (part,))) as found:
            for (line,) in found:
                yield line


def _sortable(key: str) -> str:
    # SQLite takes no lone surrogates; ids come from outside.
    return key.encode("utf-8", "backslashreplace").decode()
