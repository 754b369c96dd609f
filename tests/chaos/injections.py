"""What may go wrong: a seeded sequence of faults, kills and people's doings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

DIALLING = ("createCampaign", "createBulkCalls", "createCall", "createCall")
READING = ("listCalls", "listCalls", "listCalls", "getCampaign", "getAgent")
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
# At the heart of a submission the ways to die are all tried; elsewhere the simplest will do.
HEART = BOUNDARIES[:5]
DEATHS = ("task", "task", "task", "both", "supervisor", "freeze", "term")
# Longer than the client waits for an answer.
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
    """One thing that goes wrong.

    :param group: who is hit: the ``network``, a ``task`` at a boundary, a ``worker``, a ``component``, or what
        ``people`` do.
    :param what: what happens to it.
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
            taken = ", request taken" if self.details["accept"] else ", request not taken"
        return f"network: {kind}{taken} ({self.where})"


def sequence(seed: int, *, with_database: bool) -> Iterator[Injection]:
    """All that will go wrong, in order; the same for the same seed."""
    chance = random.Random(seed)
    components = _components(chance, with_database)
    for number in range(10**9):
        if number % 16 == 8:
            yield next(components)
            continue
        match chance.choices(("dialling", "reading", "task", "worker", "people"), (34, 14, 36, 7, 9))[0]:
            case "dialling":
                kind, details = chance.choice(DIALLING_FAULTS)
                yield Injection("network", kind, chance.choice(DIALLING), details)
            case "reading":
                kind, details = chance.choice(READING_FAULTS)
                yield Injection("network", kind, chance.choice(READING), details)
            case "task":
                boundary = chance.choice(BOUNDARIES + HEART)
                ways = (
                    ("task", "task", "task", "both", "supervisor", "freeze", "term") if boundary in HEART else ("task",)
                )
                yield Injection("task", chance.choice(ways), boundary)
            case "worker":
                yield Injection("worker", "kill", "supervisor at random")
            case "people":
                yield Injection("people", chance.choice(("clear", "clear", "stop and clear")), "")


def _components(chance: random.Random, with_database: bool) -> Iterator[Injection]:
    """Each component in turn, in an order that changes."""
    turn = [
        ("kill", "triggerer"),
        ("kill", "api-server"),
        ("kill", "scheduler"),
        ("kill with all its workers", "scheduler"),
        ("kill", "triggerer"),
        ("kill", "dag-processor"),
    ]
    if with_database:
        turn.append(("kill", "database"))
    while True:
        chance.shuffle(turn)
        for what, where in turn:
            yield Injection("component", what, where)
