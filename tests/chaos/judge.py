"""Compare Airflow's reports with the simulator's ledger, which alone knows who was called.

A report alone does not excuse a recipient who was not called. The judge believes a rejection only if a request for this
person met an injected 400. It believes an unknown outcome only if a process began this very request, and

* the process died before the end of the request, or before it recorded an injected 400;
* or it never heard whether Airflow had recorded the request;
* or it heard that Airflow had not, after Airflow was killed meanwhile;
* or it stood still for so long that it neither sent the request nor could record that;
* or it got no token because of an injected fault, and could not record that;
* or the request met another injected fault, or its answer took longer than the client's timeout.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.stack import CLIENT_TIMEOUT, PART_SIZE, SEND_WITHIN, Task
from tests.chaos.trail import Attempt, Key, matched

UNKNOWN = "It is not known whether"
ACCEPTED = "accepted"
REFUSED = "VolubileRequestRefused"
SILENT = "VolubileUnknownOutcome"
NOT_SENT = "VolubileUnavailable"
NOT_BEGUN = "not begun"
BEGIN_LOST = "begin lost"


@dataclass
class Evidence:
    """The evidence that the judge sees.

    :param people: numbers in each submission, in order.
    :param tasks: end states of the submissions' tasks.
    :param handles: return values of the tasks.
    :param logs: log of the last try of each failed task.
    :param attempts: requests that the tasks' processes began (:mod:`tests.chaos.trail`).
    :param ledger: the simulator's ledger; ``requests`` and ``submissions`` are the simulator's too.
    :param cuts: POSIX seconds when Airflow's API server or database was killed. Answers in progress are lost then: a
        write may have succeeded although its repetition is refused.
    """

    people: Mapping[Key, Sequence[str]]
    tasks: Mapping[Key, Task]
    handles: Mapping[Key, Mapping[str, Any]]
    logs: Mapping[Key, str]
    attempts: Sequence[Attempt]
    ledger: Sequence[Mapping[str, Any]]
    requests: Sequence[Mapping[str, Any]]
    submissions: Sequence[Mapping[str, Any]]
    cuts: Sequence[float] = ()


@dataclass
class Verdict:
    """The verdict on all recipients and tasks.

    :param duplicates: people who were called twice.
    :param lost: people who were not called, and whom no task correctly reports.
    :param wrong_reports: tasks whose report contradicts the ledger, with the reason.
    :param unexpected: tasks that failed without an unknown outcome, or never ended.
    :param unknown: tasks that correctly report an unknown outcome.
    :param left: people in correctly reported requests of unknown outcome, and in the requests after them.
    """

    submissions: int = 0
    people: int = 0
    called: int = 0
    rejected: int = 0
    left: int = 0
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong_reports: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not (self.duplicates or self.lost or self.wrong_reports or self.unexpected)


def duplicates(ledger: Sequence[Mapping[str, Any]], people: Mapping[Key, Sequence[str]]) -> list[str]:
    """Return the people who were called more than once. No campaign of the storm redials."""
    calls = Counter(entry["phone"] for entry in ledger)
    return [phone for phones in people.values() for phone in phones if calls[phone] > 1]


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict(duplicates=duplicates(evidence.ledger, evidence.people))
    calls: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in evidence.ledger:
        calls[entry["phone"]].append(entry)
    excused = _excused(evidence)
    last = _last(evidence.attempts, excused)
    for key, phones in evidence.people.items():
        task = evidence.tasks.get(key)
        if task is None:
            continue  # its run was never created
        size = 1 if task.task_id.startswith("single") else PART_SIZE
        case = _Case(
            task,
            [phones[start : start + size] for start in range(0, len(phones), size)],
            {phone: calls[phone] for phone in phones if phone in calls},
            [attempt for attempt in evidence.attempts if attempt.key == key],
            {part: attempt for (owner, part), attempt in last.items() if owner == key},
            excused,
        )
        verdict.submissions += 1
        verdict.people += len(phones)
        verdict.called += len(case.calls)
        verdict.states[str(task.state)] += 1
        if task.state == "success":
            _check_success(verdict, case, evidence.handles.get(key), evidence.submissions)
        elif task.state == "failed" and UNKNOWN in (log := evidence.logs.get(key, "")):
            _check_unknown(verdict, case, log)
        else:
            verdict.unexpected.append(f"{task}: {evidence.logs.get(key, '')[-1500:]}")
            verdict.lost += [phone for phone in phones if phone not in case.calls]
    return verdict


@dataclass
class _Case:
    """One submission: its parts, calls, attempts, the last attempt at each part, and the excused attempts."""

    task: Task
    parts: Sequence[Sequence[str]]
    calls: Mapping[str, Sequence[Mapping[str, Any]]]
    attempts: Sequence[Attempt]
    last: Mapping[int, Attempt]
    excused: set[Attempt]

    def missing(self, parts: Sequence[Sequence[str]]) -> list[str]:
        return [phone for part in parts for phone in part if phone not in self.calls]

    def refused(self) -> set[str]:
        """People whose request met an injected 400. A frozen process may have tried again after it."""
        return {
            phone
            for attempt in self.attempts
            if attempt.how == REFUSED and attempt in self.excused and self.task.task_id.startswith("single")
            for phone in self.parts[attempt.part]
        }


def _last(attempts: Sequence[Attempt], excused: set[Attempt]) -> dict[tuple[Key, int], Attempt]:
    """Return the last attempt at each part that may have begun its request.

    An attempt that Airflow refused to record counts only if it is excused and no earlier attempt began the request.
    """
    last: dict[tuple[Key, int], Attempt] = {}
    for attempt in attempts:
        before = last.get((attempt.key, attempt.part))
        if attempt.how != NOT_BEGUN or (attempt in excused and (before is None or before.is_written)):
            last[attempt.key, attempt.part] = attempt
    return last


def _excused(evidence: Evidence) -> set[Attempt]:
    """Return the attempts whose failure is due to an injection or to a timeout."""
    ended = [attempt for attempt in evidence.attempts if attempt.ended is not None]
    silent = [attempt for attempt in ended if attempt.how == SILENT]
    faults = [request for request in evidence.requests if request["fault"] is not None]
    refusals = [fault for fault in faults if fault["status"] == 400]
    others = [fault for fault in faults if fault["status"] not in (400, 429)]
    tokens = [fault["wall"] for fault in faults if fault["operation"] == "issueToken"]

    def saw(attempt: Attempt, moments: Sequence[float]) -> bool:
        return any(attempt.began <= at <= (attempt.ended or 0) for at in moments)

    return (
        {attempt for attempt in evidence.attempts if attempt.ended is None or attempt.how == BEGIN_LOST}
        | {attempt for attempt in ended if attempt.how == NOT_SENT and attempt.lasted >= SEND_WITHIN}
        | {attempt for attempt in ended if attempt.how == NOT_BEGUN and saw(attempt, evidence.cuts)}
        | {attempt for attempt in ended if attempt.how not in (REFUSED, SILENT, NOT_BEGUN) and saw(attempt, tokens)}
        | matched([attempt for attempt in ended if attempt.how == REFUSED], refusals)
        # An attempt that timed out needs no fault: leave the fault to other attempts.
        | matched([attempt for attempt in silent if attempt.lasted < CLIENT_TIMEOUT], others)
        | {attempt for attempt in silent if attempt.lasted >= CLIENT_TIMEOUT}
    )


def _check_success(
    verdict: Verdict, case: _Case, handle: Mapping[str, Any] | None, submissions: Sequence[Mapping[str, Any]]
) -> None:
    missing = case.missing(case.parts)
    verdict.lost += [phone for phone in missing if phone not in case.refused()]
    if handle is None:
        verdict.wrong_reports.append(f"{case.task}: succeeded without a handle")
        return
    verdict.rejected += handle["rejected"]
    entries = [entry for attempts in case.calls.values() for entry in attempts]
    counts = Counter(entry["status"] for entry in entries)
    wrong = []
    if handle["recipients"] != len(case.calls) or handle["rejected"] != len(missing):
        wrong.append(
            f"{handle['recipients']} recipients and {handle['rejected']} rejected, but {len(case.calls)} were called"
        )
    if handle["counts"] != counts:
        wrong.append(f"counts {handle['counts']}, but the calls ended as {dict(counts)}")
    if "call_ids" in handle and sorted(handle["call_ids"]) != sorted(entry["call_id"] for entry in entries):
        wrong.append("other call ids")
    campaigns = {submission["name"]: submission["campaign_id"] for submission in submissions}
    for campaign in handle.get("campaigns", ()):
        if campaigns.get(campaign["name"]) is None or campaign["id"] not in (None, campaigns[campaign["name"]]):
            wrong.append(f"campaign {campaign}, but it is {campaigns.get(campaign['name'])}")
    if wrong:
        verdict.wrong_reports.append(f"{case.task}: {'; '.join(wrong)}")


def _check_unknown(verdict: Verdict, case: _Case, log: str) -> None:
    """Check that the outcome of every named request really is unknown, and that all others were called.

    Requests that the task says it did not send are the last ones.
    """
    report = log[log.rindex(UNKNOWN) :].partition("was created")[0]
    named = {int("".join(found)) - 1 for found in re.findall(r"campaign '[^']*-(\d+)\]'|request (\d+) of", report)}
    held_back = re.search(r"(\d+) requests after them were not sent", report)
    others = [number for number in range(len(case.parts)) if number not in named]
    sent = others[: len(others) - int(held_back[1])] if held_back else others
    for number in sorted(named) or [-1]:
        attempt = case.last.get(number)
        # With any other end, the service accepted the request, or certainly did not.
        is_unknown = attempt is not None and (
            attempt.how in (None, SILENT, BEGIN_LOST, NOT_BEGUN) or (attempt.how != ACCEPTED and not attempt.is_written)
        )
        if not is_unknown or attempt not in case.excused:
            verdict.wrong_reports.append(
                f"{case.task}: request {number + 1} is reported, but nothing befell it: {attempt}"
            )
            verdict.lost += case.missing(case.parts)
            return
    missing = case.missing([case.parts[number] for number in sent])
    refused = case.refused().intersection(missing)
    verdict.rejected += len(refused)
    verdict.lost += [phone for phone in missing if phone not in refused]
    left = [phone for number, part in enumerate(case.parts) if number not in sent for phone in part]
    if called := [phone for phone in left if phone in case.calls]:
        numbers = ", ".join(str(number + 1) for number in sorted(named))
        verdict.wrong_reports.append(f"{case.task}: request {numbers} is reported, but {called} were called")
    else:
        verdict.unknown.append(str(case.task))
        verdict.left += len(left)
