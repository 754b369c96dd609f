"""Planted secrets and numbers. They exist nowhere else, so any trace of them is a leak.

People come from files, never from a Dag's source, its conf or an XCom, which the user must protect. So only the
connections may hold something planted.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MODES = {"keys": "api_key", "tokens": "bearer"}

# Each key has characters that URLs, JSON and HTML escape.
PRIMARY = "vk/1+Q=%25:9f3Kd0ZsA7uXw2Lb&PRIMARY"
SECONDARY = "vk/2+Q=%25:c81TgY5mRe4oJi6N&SECONDARY"
REFUSED_PRIMARY = "vk/3+Q=%25:b7eUk2HvP9xCq3Fz&REFUSED1"
REFUSED_SECONDARY = "vk/4+Q=%25:e05WnD8jM1aGs6Bt&REFUSED2"
KEYS = {
    "primary key": PRIMARY,
    "secondary key": SECONDARY,
    "refused primary key": REFUSED_PRIMARY,
    "refused secondary key": REFUSED_SECONDARY,
}


def _numbers(group: int, count: int) -> tuple[str, ...]:
    # No number ends in 000: a time such as 54.639982+00:00 must not look like a number.
    return tuple(f"+3363998{group:02d}{number:02d}" for number in range(1, count + 1))


# Connections that fail, and the tasks that use them; an empty tuple means all tasks.
FAILING = {
    "echo_400": (),
    "echo_503": ("campaign", "bulk", "single", "call", "export_calls", "pause_campaign"),
    "echo_200": (
        *("campaign_sensor", "calls_sensor", "calls_deferred", "transcript", "export_transcripts"),
        *("export_recordings", "change_agent"),
    ),
    "echo_401": ("bulk", "calls_sensor", "calls_deferred"),
    "refused": ("campaign", "campaign_sensor"),
    "unreachable": ("call", "calls_sensor", "calls_deferred"),
}
#: Connections of watchers. A watcher never fails: it logs the fault and polls again.
WATCHED = ("echo_401", "refused")
NOTIFYING = ("echo_400", "echo_401", "echo_200", "refused")

IN_FILE = _numbers(20, 20)
REJECTED_IN_FILE = _numbers(21, 4)
IN_CONTEXT = _numbers(22, 20)
RENDERED = _numbers(23, 10)
ON_A_FAILING_SERVICE = _numbers(24, 10)
# Ofcom reserves these for drama. Only the country shows that their notation is a number.
BRITISH = tuple(f"+447700900{number}" for number in (123, 456))
NUMBERS = {
    number: group
    for group, numbers in {
        "number of a file": IN_FILE,
        "number that was rejected": REJECTED_IN_FILE,
        "number in a context": IN_CONTEXT,
        "number from a template": RENDERED,
        "number on a failing service": ON_A_FAILING_SERVICE,
        "number of another country": BRITISH,
    }.items()
    for number in numbers
}


def national(number: str, between: str = " ") -> str:
    """Return a number in national notation: ``06 39 98 20 01``, ``07700 900123``."""
    if number.startswith("+44"):
        return f"0{number[3:7]}{between}{number[7:]}"
    digits = "0" + number.removeprefix("+33")
    return between.join(digits[at : at + 2] for at in range(0, 10, 2))


@dataclass(frozen=True)
class Canary:
    """A secret and a number that are leaked on purpose, to show that the search finds leaks.

    :param found_in: prefixes of the names of the places where the search must find them.
    """

    name: str
    number: str
    found_in: tuple[str, ...]

    @property
    def secret(self) -> str:
        return f"ck/{hashlib.sha256(self.name.encode()).hexdigest()[:24]}"


def _canaries(**found_in: tuple[str, ...]) -> dict[str, Canary]:
    return {
        name: Canary(name, f"+3363998{90 + number // 9}{number % 9 + 1:02d}", places)
        for number, (name, places) in enumerate(found_in.items())
    }


CANARIES = _canaries(
    parsing=("file logs/dag_processor/",),
    task_log=("file logs/dag_id=careless/", "rest /api/v2/dags/careless/dagRuns/.*/logs/", "file scheduler.log"),
    exception=("file logs/dag_id=careless/", "rest /api/v2/dags/careless/dagRuns/.*/logs/"),
    xcom=("db xcom.value", "rest .*/xcomEntries/"),
    rendered=("db rendered_task_instance_fields.rendered_fields", "rest .*/taskInstances/"),
    task_state=("db task_state_store.value", "rest .*/state-store"),
    trigger=("waiting trigger.kwargs",),
    triggerer_log=("file logs/dag_id=careless/.*trigger",),
    dag=("db serialized_dag.data", "rest /api/v2/dags/careless/details"),
    conf=("db dag_run.conf", "rest /api/v2/dags/careless/dagRuns/"),
    asset_event=("db asset_event.extra", "rest /api/v2/assets/events"),
    variable=("db variable.val", "rest /api/v2/variables"),
    login=("db connection.login", "rest /api/v2/connections/careless"),
    api_log=("file api-server.log",),
)


def spelled(name: str) -> dict[str, str]:
    """Return a canary in one of the spellings that the search must recognise. Each canary has another spelling."""
    canary = CANARIES[name]
    secrets = [
        canary.secret,
        quote(canary.secret, safe=""),
        base64.b64encode(f"a{canary.secret}".encode()).decode(),
        f"…{canary.secret[7:19]}…",
    ]
    numbers = [
        canary.number,
        national(canary.number),
        canary.number[1:],
        national(canary.number, "."),
        f"+33 (0){national(canary.number)[1:]}",
        quote(canary.number),
    ]
    at = list(CANARIES).index(name)
    return {"note": secrets[at % len(secrets)], "who": numbers[at % len(numbers)]}


def folder() -> Path:
    """Return the folder of the files, for the Dags."""
    return Path(os.environ["LEAKS_FOLDER"])


def write_files(folder: Path) -> None:
    """Write the files of people for the Dags."""
    # The task rejects national numbers without a region, and the last rows, which are not numbers.
    bad = "".join(f"{national(number)},Marc,\n" for number in REJECTED_IN_FILE[:2])
    bad += "".join(f"{number}{number[1:]},Marc,\n" for number in REJECTED_IN_FILE[2:])
    people = "".join(
        f"{number},Lucie,or {national(other)}\n" for number, other in zip(IN_FILE, IN_CONTEXT, strict=True)
    )
    head = "phone,firstName,note\n"
    (folder / "people.csv").write_text(head + people + bad)
    (folder / "rejected.csv").write_text(head + bad)
    (folder / "failing.csv").write_text(
        head + "".join(f"{national(number)},Lucie,\n" for number in ON_A_FAILING_SERVICE)
    )
    (folder / "rendered.txt").write_text("".join(f"{national(number)}\n" for number in RENDERED))
    (folder / "british.txt").write_text("".join(f"{national(number)}\n" for number in BRITISH))
    (folder / "rejected.txt").write_text(REJECTED_IN_FILE[0] + REJECTED_IN_FILE[1])


def british_numbers() -> list[str]:
    """Return the British numbers that templates give."""
    return (folder() / "british.txt").read_text().split("\n")[:-1]


def rendered_numbers() -> list[str]:
    """Return the numbers that templates give, as people write them."""
    return (folder() / "rendered.txt").read_text().split("\n")[:-1]
