"""Requests of which it is not known whether they were taken: when to look again, how to ask a person, how to give up.

What may then be sent again is decided in :mod:`airflow_provider_volubile.calling.journal` and
:mod:`airflow_provider_volubile.calling.sending_parts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile._airflow import show_question
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileUnknownSubmission
from airflow_provider_volubile.waiting.find_calls import REFERENCE_KEY

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.journal import SubmissionJournal

# Between two searches for a part whose answer was lost.
LOOK_AGAIN = timedelta(seconds=15)
# Parts that a message describes one by one.
DESCRIBED = 20
# The answers, as people read them in Airflow's UI.
CREATED = "It was created"
SEND = "It was not created: send it"
STOP = "Stop"


class Answer(NamedTuple):
    """What a person answered.

    :param chosen: one of :data:`CREATED`, :data:`SEND` and :data:`STOP`.
    :param campaign_ids: what was typed, not checked.
    """

    chosen: str
    campaign_ids: list[str]

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Answer:
        """Take an answer out of the event that Airflow resumes a task with; no answer is :data:`STOP`."""
        chosen = (event.get("chosen_options") or [STOP])[0]
        typed = str((event.get("params_input") or {}).get("id") or "")
        return cls(chosen, re.findall(r"[^\s,;]+", typed))


def next_search(
    journal: SubmissionJournal, unknown: Sequence[int], confirmation_timeout: float, *, now: datetime
) -> datetime | None:
    """When to search again for parts that were not found; None when ``confirmation_timeout`` seconds are over."""
    missed_at = max((journal[number].missed_at or now for number in unknown), default=now)
    until = missed_at + timedelta(seconds=confirmation_timeout)
    return min(now + LOOK_AGAIN, until) if now < until else None


def describe(journal: SubmissionJournal, unknown: Sequence[int]) -> str:
    """What messages call parts: all that is needed to look for them, and how many were not sent."""
    parts = "; ".join(_describe(journal, number) for number in unknown[:DESCRIBED])
    if len(unknown) > DESCRIBED:
        parts += f"; and {len(unknown) - DESCRIBED} more"
    if pending := journal.numbers("pending"):
        parts += f" ({len(pending)} requests after them were not sent)"
    return parts


def _describe(journal: SubmissionJournal, number: int) -> str:
    record = journal[number]
    what = f"campaign {record.name!r}" if record.name else f"request {number + 1} of {len(journal)}"
    people = "1 person" if journal.size(number) == 1 else f"{journal.size(number)} people"
    return (
        f"{what} ({people} by agent {journal.head.agent_id}, sent at {record.sent_at:%Y-%m-%d %H:%M} UTC; "
        f"{REFERENCE_KEY} {journal.reference_of(number)} in their context)"
    )


def ask(ti_id: Any, what: str, confirmation_timeout: float) -> bool:
    """Have Airflow's UI ask whether parts were created.

    :param what: as :func:`describe` says it.
    :return: whether it does. It keeps the text of a task's first question, over tries and clears, and would have an
        answer to that taken for an answer to this one.
    """
    body = (
        f"The answer to the creation of {what} was lost, and no call of it appeared within {confirmation_timeout:g} s "
        "of looking. Look for it in Volubile's dashboard. One answer is about all requests named here. Campaigns whose "
        "ids you give count as created, whatever you choose for the others; a campaign that exists and whose id you do "
        "not give can be waited for but not paused."
    )
    return show_question(
        ti_id, subject="Was this request created in Volubile?", body=body, options=[CREATED, SEND, STOP]
    )


def match_campaigns(
    client: VolubileClient, journal: SubmissionJournal, unknown: Sequence[int], campaign_ids: Sequence[str]
) -> dict[int, list[str]]:
    """Which parts somebody typed the campaigns of. Another campaign would be paused or cancelled with this task.

    :raises VolubileInputError: one of them is none of these.
    """
    number_of = {journal[number].name: number for number in unknown}
    found = {}
    for identifier in campaign_ids:
        name = client.get_campaign(identifier).name
        # The service may not tell a campaign's name; with one campaign it can be no other.
        number = unknown[0] if name is None and len(unknown) == 1 else number_of.get(name)
        if number is None:
            raise VolubileInputError(
                f"Campaign {identifier} is called {name!r}, not {' or '.join(map(repr, number_of))}. Clear the task, "
                "keeping its state: it asks again."
            )
        found[number] = [identifier]
    return found


def unknown_submission(
    journal: SubmissionJournal, unknown: Sequence[int], confirmation_timeout: float, *, question_not_shown: bool
) -> VolubileUnknownSubmission:
    """The error that gives parts up, with what to do next.

    :param question_not_shown: the task asked a person, but Airflow goes on showing an earlier question.
    """
    again = " a second time" if any(journal[number].resent for number in unknown) else ""
    ways = (
        " (Airflow's UI goes on showing this task's first question, which was about another request, so nobody is "
        "asked about this one)"
        if question_not_shown
        else "; with on_unknown='ask' it asks in Airflow's UI what you found"
    )
    return VolubileUnknownSubmission(
        f"It is not known whether {describe(journal, unknown)} was created: its answer was lost{again}, "
        f"and no call of it appeared within {confirmation_timeout:g} s of looking. It was not sent again. Look for it "
        "in Volubile's dashboard. Then clear this task, keeping its state: it looks once more and goes on if calls "
        f"have appeared{ways}; with on_unknown='resend' it sends the request again, once. Requests accepted before "
        "are never sent again."
    )
