"""Rows kept on local disk until all are there, then read back in order."""

from __future__ import annotations

import marshal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

from airflow_provider_volubile.exports.columns import Row


class Spool(AbstractContextManager["Spool"]):
    """Sorts calls that come in any order, in little memory however many they are.

    Backed by a private temporary SQLite database, which the operating system removes however the process
    ends. Use it as a context manager, from one thread.

    :ivar counts: how many calls each file has.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._db = sqlite3.connect("", isolation_level=None)
        # Nothing here outlives the process, so nothing is protected against its crash.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE calls (file TEXT, at TEXT, call_id TEXT, rows BLOB)")
        self._db.execute("CREATE INDEX in_order ON calls (file, at, call_id)")

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def put(self, file: str, at: str, call_id: str, rows: list[Row]) -> None:
        """Keep the rows of one call.

        :param file: the file they go to.
        :param at: what calls are ordered by within a file; those of equal ``at`` by ``call_id``.
        """
        call_id = call_id.encode("utf-8", "backslashreplace").decode()  # SQLite takes no lone surrogates
        self._db.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", (file, at, call_id, marshal.dumps(rows)))
        self.counts[file] += 1

    def rows(self, file: str) -> Iterator[Row]:
        """The rows of one file, in order."""
        query = "SELECT rows FROM calls WHERE file = ? ORDER BY at, call_id"
        with closing(self._db.execute(query, (file,))) as found:
            for (rows,) in found:
                yield from marshal.loads(rows)  # noqa: S302  # we wrote it, where only this process reads and writes
