"""The course of a telephone call: its final status and its length."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_volubile.simulator import chance

IN_PROGRESS = "IN_PROGRESS"

#: The nine final statuses and how often each is drawn, in per cent.
WEIGHTS = {
    "COMPLETED": 55,
    "NO_ANSWER": 13,
    "VOICE_BOX": 10,
    "REJECTED": 5,
    "TRANSFERRED": 5,
    "UNREACHABLE": 4,
    "FAILOVER": 3,
    "FAILED": 3,
    "CANCELED": 2,
}

#: Statuses of calls in which a person or a machine answered: these calls have a transcript.
ANSWERED = frozenset({"COMPLETED", "TRANSFERRED", "VOICE_BOX", "FAILOVER"})

#: Statuses of calls that are recorded, if the agent records.
RECORDABLE = frozenset({"COMPLETED", "TRANSFERRED"})

# Seconds from the first ring to the end, at least and at most.
_LENGTHS = {
    "COMPLETED": (25, 150),
    "TRANSFERRED": (20, 90),
    "VOICE_BOX": (12, 35),
    "FAILOVER": (12, 40),
    "NO_ANSWER": (25, 35),
    "REJECTED": (4, 15),
    "CANCELED": (2, 20),
    "UNREACHABLE": (3, 8),
    "FAILED": (1, 3),
}


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a call, in simulated seconds.

    :param setup: from the creation of the record to the first ring.
    :param length: from the first ring to the end; None for a call that never ends.
    :param duration: the API's ``duration``: 0 if no one answered.
    """

    status: str
    setup: int
    length: int | None
    duration: int


def course(seed: int, phone: str, attempt: int, status: str | None = None) -> Course:
    """Return the course of an attempt at a number. This is a pure function of its arguments.

    :param status: a forced final status. ``IN_PROGRESS`` never ends; an unknown one counts as answered.
    """
    status = status or chance.weighted(WEIGHTS, seed, phone, attempt, "status")
    setup = chance.between(1, 6, seed, phone, attempt, "setup")
    if status == IN_PROGRESS:
        return Course(status, setup, None, 0)
    low, high = _LENGTHS.get(status, (10, 60))
    length = chance.between(low, high, seed, phone, attempt, "length")
    answered = status in ANSWERED or status not in WEIGHTS
    return Course(status, setup, length, length if answered else 0)
