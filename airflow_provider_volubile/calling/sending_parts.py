"""Sending the parts of a submission, each at most once, and finding those whose answer was lost. Knows no Airflow."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.routes import ISSUE_TOKEN
from airflow_provider_volubile.calling.journal import Part, SubmissionJournal
from airflow_provider_volubile.calling.kinds import Calls, check_agent
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
    VolubileUnknownOutcome,
)

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)

# A process that was frozen after it had written down a request must not send it when it thaws: another may have
# decided about it meanwhile. Airflow takes a task for dead after five minutes without a heartbeat.
SEND_WITHIN = 120.0
# After so many requests in a row whose answers were lost nothing more is sent before they are found.
OUTAGE = 3

# After these the service certainly did not take the request.
NOT_TAKEN = (
    VolubileAuthError,
    VolubileInputError,
    VolubileNotFound,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
)


def send_pending(
    client: VolubileClient,
    journal: SubmissionJournal,
    parts: Sequence[Part],
    kind: Calls,
    *,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Send what was not sent yet, in order. A part whose answer is lost stays in flight, and the next one is sent.

    Safe to call again whatever happened to an earlier call, as often as needed.

    :param check_stop: called before each request that dials; raises when somebody is stopping the task.
    :raises VolubileError: a part was certainly not taken. What is pending may be sent later.
    """
    for number in journal.numbers("pending", "to_resend"):
        before = [journal[earlier].state for earlier in range(max(number - OUTAGE, 0), number)]
        if before == ["in_flight"] * OUTAGE:
            return
        part = parts[number]
        # What was sent before may have shown up since somebody decided to send it again.
        if journal[number].state == "to_resend" and (found := kind.find(client, journal, {number: part})):
            log.info("Request %d of %d was taken after all: it is not sent again.", number + 1, len(parts))
            journal.accept_all(found)
            continue
        client.wait_for_place()  # before the part is written down: this wait is no freeze
        check_stop()
        not_after = time.monotonic() + SEND_WITHIN
        journal.begin(number, now=datetime.now(UTC), name=kind.name(journal.reference_of(number)))
        try:
            journal.accept(number, kind.send(client, journal, number, part, not_after=not_after))
        except VolubileUnknownOutcome as unknown:
            log.warning("%s", unknown)
            if unknown.accepted:
                journal.accept(number)
        except VolubileError as error:
            # Without its token a request was not even sent, and the error says nothing about the person.
            was_sent = error.operation != ISSUE_TOKEN.operation
            if was_sent and isinstance(error, VolubileRequestRefused) and _concerns_person(client, kind, error):
                if journal[number].resent:
                    log.warning("%s That was the second sending; the first may have been taken.", error)
                else:
                    journal.refuse(number, error.reason or str(error))
                continue
            if not was_sent or isinstance(error, NOT_TAKEN):
                journal.release(number)
                if accepted := len(journal.numbers("accepted")):
                    log.error(
                        "Request %d of %d was not taken. %d accepted before it go on calling; another try begins with "
                        "this one.",
                        number + 1,
                        len(journal),
                        accepted,
                    )
            raise


def find_unknown(client: VolubileClient, journal: SubmissionJournal, parts: Sequence[Part], kind: Calls) -> list[int]:
    """Look for the calls of all parts that are in flight.

    :returns: the parts of which there are none (yet).
    """
    unknown = journal.numbers("in_flight")
    if found := unknown and kind.find(client, journal, {number: parts[number] for number in unknown}):
        log.info(
            "%d of %d requests whose answers were lost had been taken: their calls are there.", len(found), len(unknown)
        )
        journal.accept_all(found)
        unknown = journal.numbers("in_flight")
    journal.miss(*unknown, now=datetime.now(UTC))
    return unknown


def find_missing_ids(client: VolubileClient, journal: SubmissionJournal, parts: Sequence[Part], kind: Calls) -> None:
    """Look once for the ids of accepted calls that the answers did not give. The wait looks for the others."""
    # Of a part that was sent twice a person may have two calls: the wait decides which one counts.
    if missing := [number for number in journal.missing_ids() if not journal[number].resent]:
        journal.accept_all(kind.find(client, journal, {number: parts[number] for number in missing}))


def check_refusals(journal: SubmissionJournal) -> None:
    """Report the people whom the service refused, once all parts are accepted or refused.

    :raises VolubileRequestRefused: all were refused. That is about the request, and not about the people.
    """
    reasons = Counter(record.reason or "no reason given" for record in journal if record.state == "refused")
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(5))
    if reasons.total() == len(journal):
        # Once the cause is mended they may be tried again.
        journal.release(*range(len(journal)))
        raise VolubileRequestRefused(f"Volubile refused every request, nobody is called ({listed}).", status=400)
    if reasons:
        log.warning("Volubile refused %d of %d people: %s.", reasons.total(), len(journal), listed)


def _concerns_person(client: VolubileClient, kind: Calls, refusal: VolubileRequestRefused) -> bool:
    """Whether a refusal concerns one person. Anything else would be refused for everybody."""
    if not kind.one_person or refusal.status not in wire.PERSON_REFUSALS:
        return False
    try:
        check_agent(client, kind.agent_id)  # it may have been switched off meanwhile
    except VolubileError as fault:
        log.error("%s", fault)
        return False
    return True
