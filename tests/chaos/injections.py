"""The injections: a seeded sequence of network faults, kills and actions of people."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

DIALLING = ("createCampaign", "createBulkCalls", "createCall")
# Every other route that a submission uses: before it, while it waits, and when a person stops it.
READING = ("issueToken", "getAgent", "listCalls", "getCall", "getTranscript", "getCampaign", "updateCampaignStatus")
BOUNDARIES = (
    "before-begin",
    "before-send",
    "before-answer",
    "before-accept",
    "after-accept",
    "after-miss",
    "before-wait",
    "before-complete",
    "after-complete",
)
# The storm tries all ways to die at the boundaries of a request; elsewhere it tries the simplest.
HEART = BOUNDARIES[:5]
# Names of harms to a task's process, as in processes/sitecustomize.py.
DEATHS = {
    "kill -9": "kill",
    "kill -9 with its supervisor": "both",
    "kill -9 of its supervisor": "orphan",
    "freeze": "freeze",
    "terminate": "terminate",
}
COMPONENTS = ("triggerer", "api-server", "scheduler", "dag-processor")
# Seconds; longer than the client's timeout.
LATE = 3.0

DIALLING_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drop", {"accept": True}),
    ("drop", {"accept": False}),
    ("reset", {"accept": True}),
    ("reset", {"accept": False}),
    ("delay", {"accept": True, "seconds": LATE}),
    ("delay", {"accept": False, "seconds": LATE}),
    ("status", {"accept": True, "status": 500}),
    ("status", {"accept": False, "status": 500}),
    ("status", {"accept": True, "status": 502}),
    ("status", {"accept": False, "status": 503}),
    ("status", {"accept": True, "status": 504}),
    ("status", {"accept": False, "status": 400}),
    ("malformed", {}),
    ("empty", {}),
    ("truncated", {}),
    ("html", {}),
    ("rate_limit", {"seconds": 1}),
)
READING_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drop", {}),
    ("reset", {}),
    ("delay", {"seconds": LATE}),
    ("status", {"status": 500}),
    ("status", {"status": 502}),
    ("status", {"status": 503}),
    ("truncated", {}),
    ("rate_limit", {"seconds": 1}),
)


@dataclass(frozen=True)
class Injection:
    """One fault, kill or action of a person.

    :param group: its target: the ``network``, a ``task`` at a boundary, a ``worker`` or a ``component``; or ``people``
        for an action of a person.
    :param what: the kind of fault, kill or action.
    :param where: the operation, the boundary or the component.
    """

    group: Literal["network", "task", "worker", "component", "people"]
    what: str
    where: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        if self.group != "network":
            return f"{self.group}: {self.what} {self.where}".strip()
        kind = f"{self.what} {self.details['status']}" if "status" in self.details else self.what
        taken = ""
        if "accept" in self.details:
            late = "taken late" if self.what == "delay" else "not taken"
            taken = ", request taken" if self.details["accept"] else f", request {late}"
        return f"network: {kind}{taken} ({self.where})"


def sequence(seed: int, *, with_database: bool) -> Iterator[Injection]:
    """Yield all injections in order. The same seed gives the same sequence. None repeats before all others came."""
    chance = random.Random(seed)
    dialling = _dealt(chance, _faults(DIALLING, DIALLING_FAULTS))
    reading = _dealt(chance, _faults(READING, READING_FAULTS))
    tasks = _dealt(
        chance,
        [
            Injection("task", what, boundary)
            for what in DEATHS
            for boundary in (BOUNDARIES if what == "kill -9" else HEART)
        ],
    )
    workers = _dealt(chance, [Injection("worker", "kill -9", "supervisor at random")])
    people = _dealt(chance, [Injection("people", what, "") for what in ("clear", "clear", "stop and clear")])
    components = _dealt(
        chance,
        [Injection("component", "kill -9", component) for component in (*COMPONENTS, "triggerer")]
        + [Injection("component", "kill -9 with all its workers", "scheduler")]
        + [Injection("component", "kill -9", "database")] * with_database,
    )
    groups = (dialling, reading, tasks, workers, people)
    for number in range(10**9):
        yield next(components if number % 16 == 8 else chance.choices(groups, (30, 18, 36, 7, 9))[0])


def _faults(operations: Sequence[str], faults: Sequence[tuple[str, dict[str, Any]]]) -> list[Injection]:
    return [Injection("network", kind, operation, details) for operation in operations for kind, details in faults]


def _dealt(chance: random.Random, deck: Sequence[Injection]) -> Iterator[Injection]:
    """Yield a shuffled deck again and again, shuffled anew each time."""
    while True:
        yield from chance.sample(deck, len(deck))
