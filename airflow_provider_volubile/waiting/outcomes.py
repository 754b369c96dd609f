"""Which call settles which recipient. Pure functions over calls: no requests, no clock, no Airflow.

Campaigns have no "completed" status and no counters
(`Update campaign status <https://docs.volubile.ai/api-reference/campaigns/update-status>`__ shows all that is known of
them), so completion is computed here from the list of calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import VolubileOutcomeGap

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Call

NEVER_DIALED = "NEVER_DIALED"
# Not ``REJECTED``, which is a call's status: the service would not take this number, and nobody was called.
REFUSED = "REFUSED"

# Before any call; not the first day of the calendar, so that something can be subtracted from it.
BEGINNING = datetime.fromtimestamp(0, UTC)


class Attempt(NamedTuple):
    """What is kept of a call while waiting: small, so that ten thousand of them are no burden.

    :param phone: the digits of the person's number, however the service wrote it.
    :param final: whether the call is over.
    :param has_end: whether the call has an ``endTime``.
    """

    call_id: str
    phone: str
    status: str
    final: bool
    at: datetime
    duration: int | None
    has_end: bool = False

    @classmethod
    def of(cls, call: Call) -> Attempt:
        """Reduce a call. Its time is ``created``, else ``startTime``, else ``endTime``: any of them may be missing."""
        return cls(
            call.id,
            wire.significant_digits(call.phone or ""),
            call.status,
            call.is_final,
            call.time or BEGINNING,
            call.duration,
            call.end_time is not None,
        )


class Outcome(TypedDict):
    """What became of one recipient; a row of the outcomes table.

    ``status`` is the status of the last call, ``NEVER_DIALED``, or ``REFUSED`` where the service did not take the
    number. ``duration`` is in seconds, of the last call. ``settled`` is false while the last call goes on or another
    attempt is due. ``reason`` is the service's, for a refusal.
    """

    phone: str
    status: str
    settled: bool
    attempts: int
    last_call_id: str | None
    duration: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a submission has come.

    :param recipients: people accepted by the service.
    :param settled: of these, those with an outcome and no further attempt due.
    :param in_flight: calls that have not ended.
    :param redial_due: people whose last call ended and who will be called again.
    :param not_dialed: people no call is known for.
    :param counts: number of people by the status of their last call.
    """

    recipients: int
    settled: int
    in_flight: int
    redial_due: int
    not_dialed: int
    counts: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        return self.settled >= self.recipients

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.recipients + other.recipients,
            self.settled + other.settled,
            self.in_flight + other.in_flight,
            self.redial_due + other.redial_due,
            self.not_dialed + other.not_dialed,
            dict(Counter(self.counts) + Counter(other.counts)),
        )

    def __str__(self) -> str:
        parts = [f"{self.settled} of {self.recipients} settled"]
        parts += [
            f"{number} {what}"
            for number, what in (
                (self.in_flight, "in progress"),
                (self.redial_due, "to be redialled"),
                (self.not_dialed, "not dialled yet"),
            )
            if number
        ]
        counts = ", ".join(f"{status} {number}" for status, number in sorted(self.counts.items()))
        return ", ".join(parts) + (f" ({counts})" if counts else "")


NOTHING = Progress(0, 0, 0, 0, 0, {})


def by_person(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Group attempts by number, each person's in order of time. A call without a number is a person of its own."""
    people: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        people[attempt.phone or attempt.call_id].append(attempt)
    for calls in people.values():
        calls.sort(key=lambda attempt: (attempt.at, attempt.call_id))
    return people


def is_settled(attempts: Sequence[Attempt], redial: Redial) -> bool:
    """Whether a person's attempts, in order of time, leave nothing to wait for.

    A final status ends it unless the redial rule says that another attempt will follow. A status the provider does
    not know is not final (:mod:`airflow_provider_volubile.api.wire`).
    """
    if not attempts or not all(attempt.final for attempt in attempts):
        return False
    return not redial.is_due(attempts[-1].status, len(attempts))


def progress(recipients: int, attempts: Collection[Attempt], redial: Redial) -> Progress:
    """Count how far ``recipients`` people have come, given all attempts known."""
    people = by_person(attempts)
    settled = sum(is_settled(calls, redial) for calls in people.values())
    in_flight = sum(not attempt.final for attempt in attempts)
    busy = sum(any(not attempt.final for attempt in calls) for calls in people.values())
    return Progress(
        recipients=recipients,
        settled=settled,
        in_flight=in_flight,
        redial_due=len(people) - settled - busy,
        not_dialed=max(recipients - len(people), 0),
        counts=dict(Counter(calls[-1].status for calls in people.values())),
    )


def outcomes(
    phones: Iterable[str], attempts: Collection[Attempt], redial: Redial, *, refused: Mapping[str, str] | None = None
) -> list[Outcome]:
    """One row for each of ``phones``, in their order, dialled or not. Calls of other people are left out.

    :param refused: why the service did not take some of them, by number.
    """
    refused = refused or {}
    # The wait is over. A call that has an end is over too, whatever its status.
    people = by_person(
        attempt._replace(final=wire.has_ended(attempt.status, has_end=attempt.has_end)) for attempt in attempts
    )
    phones = list(phones)
    national = _national(phones, people)
    rows = []
    for phone in phones:
        calls = people.get(wire.significant_digits(phone)) or people.get(national.get(phone, "")) or []
        last = calls[-1] if calls else None
        rows.append(
            Outcome(
                phone=phone,
                status=last.status if last else REFUSED if phone in refused else NEVER_DIALED,
                settled=is_settled(calls, redial) or phone in refused,
                attempts=len(calls),
                last_call_id=last.call_id if last else None,
                duration=last.duration if last else None,
                reason=refused.get(phone),
            )
        )
    return rows


def _national(phones: Iterable[str], people: Iterable[str]) -> dict[str, str]:
    """For phones whose calls show another notation, such as the national one: the digits that these calls show."""
    known = {wire.significant_digits(phone) for phone in phones}
    by_ending = {digits[-6:]: digits for digits in people if digits not in known and len(digits) >= 6}
    found = {phone: by_ending.get(phone[-6:], "") for phone in phones}
    return {phone: digits for phone, digits in found.items() if digits and phone.endswith(digits)}


def final_counts(recipients: int, *, settled: int, counts: Mapping[str, int], cancelled: bool) -> dict[str, int]:
    """Count people by outcome at the end of a wait, and check that nobody is lost.

    :param recipients: people the service accepted.
    :param counts: people by the status of their last call.
    :param cancelled: a campaign was cancelled, so that some were not dialled and some not redialled.
    :raises VolubileOutcomeGap: the recipients are not the settled and the never dialled together.
    """
    dialed = sum(counts.values())
    missing = recipients - dialed
    if missing < 0 or (settled != dialed and not cancelled):
        raise VolubileOutcomeGap(f"Counts do not add up: {recipients} recipients, {dialed} dialled, {settled} settled.")
    return dict(sorted(counts.items())) | ({NEVER_DIALED: missing} if missing else {})


def check_gaps(
    counts: Mapping[str, int], *, max_missing: int | None = None, min_success_ratio: float | None = None
) -> None:
    """Hold the outcomes against what the task asked for.

    :param counts: people by outcome, ``NEVER_DIALED`` and ``REFUSED`` included.
    :raises VolubileOutcomeGap: with the figures.
    """
    people = sum(counts.values())
    refused = counts.get(REFUSED, 0)
    missing = counts.get(NEVER_DIALED, 0) + refused
    if max_missing is not None and missing > max_missing:
        of_them = f" ({refused} refused by the service)" if refused else ""
        raise VolubileOutcomeGap(
            f"{missing} of {people} recipients were never dialled{of_them}; max_missing is {max_missing}."
        )
    reached = sum(number for status, number in counts.items() if status in wire.REACHED_CALL_STATUSES)
    # The quotient is rounded as the user's number was: 55 of 100 are 0.55, while 0.55 * 100 is more than 55.
    if min_success_ratio is not None and people and reached / people < min_success_ratio:
        raise VolubileOutcomeGap(
            f"{reached} of {people} recipients were reached ({reached / people:.1%}); "
            f"min_success_ratio is {min_success_ratio:.1%}."
        )
