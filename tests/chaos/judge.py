"""Holds what Airflow reports against the simulator's ledger, the only one that knows who was called."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_volubile.simulator import Simulator
from tests.chaos.stack import PART_SIZE, Stack, Task

UNKNOWN = "Nobody knows whether"
Key = tuple[str, str]


@dataclass
class Verdict:
    """What became of everybody.

    :param duplicates: people who were called twice.
    :param lost: people whom nobody called although their task succeeded and does not report them.
    :param wrong_reports: tasks whose report the ledger contradicts, with why.
    :param unexpected: tasks that failed otherwise than with an unknown outcome, or never ended.
    :param unknown: tasks that report an unknown outcome, and rightly so.
    """

    submissions: int = 0
    people: int = 0
    called: int = 0
    rejected: int = 0
    unreported: int = 0
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong_reports: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not (self.duplicates or self.lost or self.wrong_reports or self.unexpected)


def duplicates(simulator: Simulator) -> list[str]:
    """People called more than once; no campaign here redials."""
    return [phone for phone, calls in Counter(entry["phone"] for entry in simulator.ledger()).items() if calls > 1]


def judge(
    stack: Stack, simulator: Simulator, people: Mapping[Key, Sequence[str]], tasks: Mapping[Key, Task]
) -> Verdict:
    simulator.wait_until_quiet(120)
    verdict = Verdict(duplicates=duplicates(simulator))
    calls: dict[str, list[Any]] = defaultdict(list)
    for entry in simulator.ledger():
        calls[entry["phone"]].append(entry)
    campaigns = {submission["name"]: submission["campaign_id"] for submission in simulator.submissions()}
    handles, journals = stack.handles(), stack.journals()
    for key, task in tasks.items():
        phones = people[key]
        mine = {phone: calls[phone] for phone in phones if phone in calls}
        verdict.submissions += 1
        verdict.people += len(phones)
        verdict.called += len(mine)
        verdict.states[str(task.state)] += 1
        if task.state == "success":
            _check_success(verdict, task, phones, mine, handles.get(key), campaigns)
        elif task.state == "failed" and UNKNOWN in (log := stack.log_of(task)):
            _check_unknown(verdict, task, phones, mine, journals.get(key, {}), log)
        else:
            verdict.unexpected.append(f"{task}: {stack.log_of(task)[-1500:]}")
    return verdict


def _check_success(
    verdict: Verdict,
    task: Task,
    phones: Sequence[str],
    calls: Mapping[str, Sequence[Any]],
    handle: Mapping[str, Any] | None,
    campaigns: Mapping[str, str],
) -> None:
    if handle is None:
        verdict.wrong_reports.append(f"{task}: succeeded without a handle")
        return
    rejected = handle["rejected"]
    verdict.rejected += rejected
    missing = [phone for phone in phones if phone not in calls]
    if len(missing) > rejected or (rejected and not task.task_id.startswith("single")):
        verdict.lost += missing
    entries = [entry for attempts in calls.values() for entry in attempts]
    counts = Counter(entry["status"] for entry in entries)
    wrong = []
    if handle["recipients"] != len(calls) or handle["recipients"] + rejected != len(phones):
        wrong.append(f"{handle['recipients']} recipients and {rejected} rejected, but {len(calls)} were called")
    if handle["counts"] != counts:
        wrong.append(f"counts {handle['counts']}, but the calls ended as {dict(counts)}")
    if "call_ids" in handle and sorted(handle["call_ids"]) != sorted(entry["call_id"] for entry in entries):
        wrong.append("other call ids")
    for campaign in handle.get("campaigns", ()):
        if campaigns.get(campaign["name"]) is None or campaign["id"] not in (None, campaigns[campaign["name"]]):
            wrong.append(f"campaign {campaign}, but it is {campaigns.get(campaign['name'])}")
    if wrong:
        verdict.wrong_reports.append(f"{task}: {'; '.join(wrong)}")


def _check_unknown(
    verdict: Verdict,
    task: Task,
    phones: Sequence[str],
    calls: Mapping[str, Sequence[Any]],
    journal: Mapping[int, Mapping[str, Any]],
    log: str,
) -> None:
    """The request it names is the one that is in flight, nothing of it and after it was called, all before it was."""
    size = 1 if task.task_id.startswith("single") else PART_SIZE
    parts = [phones[start : start + size] for start in range(0, len(phones), size)]
    states = [journal.get(number, {}).get("state", "pending") for number in range(len(parts))]
    named = re.findall(UNKNOWN + r" (?:campaign '[^']*-(\d+)\]'|request (\d+) of)", log)
    number = int("".join(named[-1])) - 1 if named else -1
    wrong = []
    if states.count("in_flight") != 1 or states.index("in_flight") != number:
        wrong.append(f"request {number + 1} is reported, but the journal says {states}")
    else:
        called = [any(phone in calls for phone in part) for part in parts]
        if any(called[number:]):
            wrong.append(f"request {number + 1} is reported, but the calls are there: {called}")
        if not all(done or state == "refused" for done, state in zip(called[:number], states, strict=False)):
            verdict.lost += [phone for part in parts[:number] for phone in part if phone not in calls]
        verdict.unreported += sum(len(part) for part in parts[number:])
    if wrong:
        verdict.wrong_reports.append(f"{task}: {'; '.join(wrong)}")
    else:
        verdict.unknown.append(str(task))
