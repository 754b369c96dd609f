"""What the tasks' processes really did: a witness beside the journal, which is under test itself.

``processes/sitecustomize.py`` writes a line before a request that dials is written down in the journal, and another
when the request has come to an end in whatever way, and a third when the journal has written that end. A process that
died in between has left only the first, or the first two. Where Airflow never answered whether it had written the
request down, the second line says so, and nothing was sent.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

Key = tuple[str, str]

OPERATIONS = {"campaign": "createCampaign", "bulk": "createBulkCalls", "single": "createCall"}


@dataclass(eq=False)
class Attempt:
    """One process that set about sending one request.

    :param key: run and task.
    :param part: number of the request, from 0.
    :param began: POSIX seconds, like ``ended``; before the boundary ``before-begin``, where it may have stood still.
    :param how: ``accepted``, or the class of the error it ended with; ``not begun`` if Airflow refused to write it
        down, ``begin lost`` if it did not answer; None if nothing more was heard of it.
    :param is_written: whether the journal has written that end down.
    """

    key: Key
    part: int
    pid: int
    began: float
    ended: float | None = None
    how: str | None = None
    is_written: bool = False

    @property
    def operation(self) -> str:
        return OPERATIONS[self.key[1].partition("_")[0]]

    @property
    def lasted(self) -> float:
        """Seconds; 0 if it came to no end."""
        return 0.0 if self.ended is None else self.ended - self.began

    def may_still_send(self, within: float) -> bool:
        """Whether its process lives, and has not come to the end of the request.

        :param within: so many seconds after it began it does not send any more.
        """
        if self.ended is not None or time.time() - self.began > within:
            return False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= self.began)
        return False


def read_trail(path: Path) -> list[Attempt]:
    """All attempts, in the order in which they were written down: who was frozen at ``before-begin`` began earlier."""
    attempts: dict[tuple[int, Key, int], Attempt] = {}
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        key = (entry["run"], entry["task"])
        if entry["how"] == "begin":
            attempt = Attempt(key, entry["part"], entry["pid"], entry["at"])
            attempts[entry["pid"], key, entry["part"]] = attempt
            found.append(attempt)
        elif known := attempts.get((entry["pid"], key, entry["part"])):
            if entry["how"] == "written":
                known.is_written = True
            else:
                known.ended, known.how = entry["at"], entry["how"]
    return found


def matched(attempts: Iterable[Attempt], requests: Iterable[Mapping[str, Any]]) -> set[Attempt]:
    """Those attempts that one of these requests belongs to: of the same operation, and seen while they lasted.

    A request belongs to one attempt only. Of several that may be meant it is given to the one that ended first, which
    leaves as few as possible without.
    """
    free = [attempt for attempt in attempts if attempt.ended is not None]
    found = set()
    for request in sorted(requests, key=lambda request: float(request["wall"])):
        fitting = [
            attempt
            for attempt in free
            if attempt.operation == request["operation"] and attempt.began <= request["wall"] <= (attempt.ended or 0)
        ]
        if fitting:
            first = min(fitting, key=lambda attempt: attempt.ended or 0)
            free.remove(first)
            found.add(first)
    return found
