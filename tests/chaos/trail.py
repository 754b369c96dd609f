"""The trail of the tasks' processes: a record beside the journal, which is itself under test.

``processes/sitecustomize.py`` writes a first line before the journal records a request that dials, a second when the
request has ended in any way, and a third when the journal has recorded this end. A process that died in between leaves
only the first line, or the first two. If Airflow never answered whether it had recorded the request, the second line
says so, and the process sent nothing.
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
    """One attempt of a process to send one request.

    :param key: run and task.
    :param part: number of the request, from 0.
    :param began: POSIX seconds, like ``ended``; before the boundary ``before-begin``, where it may have stood still.
    :param how: ``accepted``, or the class of its error; ``not begun`` if Airflow refused to record the request,
        ``begin lost`` if Airflow did not answer; None if the trail holds no end.
    :param is_written: whether the journal has recorded this end.
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
        """Seconds; 0 without an end."""
        return 0.0 if self.ended is None else self.ended - self.began

    def may_still_send(self, within: float) -> bool:
        """Whether its process lives and the request has not ended.

        :param within: seconds after the beginning from which the process sends nothing any more.
        """
        if self.ended is not None or time.time() - self.began > within:
            return False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= self.began)
        return False


def read_trail(path: Path) -> list[Attempt]:
    """Return all attempts in the order of their lines. A process frozen at ``before-begin`` began earlier."""
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
    """Return the attempts that match one of these requests: same operation, received during the attempt.

    A request matches one attempt only: of several candidates, the one that ended first. This leaves the fewest attempts
    without a match.
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
