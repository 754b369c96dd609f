"""A request of which nobody knows whether it was taken: when to look for it again, how to ask a person, how to give up.

What may then be sent again is decided in :mod:`airflow_provider_volubile.calling.journal` and
:mod:`airflow_provider_volubile.calling.sending_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile._airflow import show_question
from airflow_provider_volubile.exceptions import VolubileUnknownSubmission
from airflow_provider_volubile.waiting.find_calls import REFERENCE_KEY

if TYPE_CHECKING:
    from airflow_provider_volubile.calling.journal import PartRecord, SubmissionJournal

# Between two looks for a part whose answer was lost.
LOOK_AGAIN = timedelta(seconds=15)
# The answers, as people read them in Airflow's UI.
CREATED = "It was created"
SEND = "It was not created: send it"
STOP = "Stop"


class Answer(NamedTuple):
    """What a person answered.

    :param chosen: one of :data:`CREATED`, :data:`SEND` and :data:`STOP`.
    :param campaign_id: what was typed, not checked.
    """

    chosen: str
    campaign_id: str

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Answer:
        """Take an answer out of the event that Airflow resumes a task with; no answer is :data:`STOP`."""
        chosen = (event.get("chosen_options") or [STOP])[0]
        return cls(chosen, str((event.get("params_input") or {}).get("id") or "").strip())


def next_look(record: PartRecord, confirmation_timeout: float, *, now: datetime) -> datetime | None:
    """When to look again for a part that was not found; None when ``confirmation_timeout`` seconds are over."""
    until = (record.missed_at or now) + timedelta(seconds=confirmation_timeout)
    return min(now + LOOK_AGAIN, until) if now < until else None


def describe(journal: SubmissionJournal, number: int) -> str:
    """What messages call a part: all that is needed to look for it."""
    record = journal[number]
    what = f"campaign {record.name!r}" if record.name else f"request {number + 1} of {len(journal)}"
    sent = f"sent at {record.sent_at:%Y-%m-%d %H:%M} UTC"
    mark = f"{REFERENCE_KEY} {journal.noted('reference')}-{number + 1}"
    people = "1 person" if journal.size(number) == 1 else f"{journal.size(number)} people"
    return f"{what} ({people} by agent {journal.agent_id}, {sent}; {mark} in their context)"


def ask(ti_id: Any, what: str, confirmation_timeout: float) -> bool:
    """Have Airflow's UI ask whether a part was created.

    :param what: as :func:`describe` says it.
    :return: whether it does. It keeps the text of a task's first question, over tries and clears, and would have an
        answer to that taken for an answer to this one.
    """
    body = (
        f"The answer to the creation of {what} was lost, and no call of it appeared within {confirmation_timeout:g} s "
        "of looking. Look for it in Volubile's dashboard. If it exists, give its id (campaigns only; without it the "
        "campaign can be waited for but not paused)."
    )
    return show_question(
        ti_id, subject="Was this request created in Volubile?", body=body, options=[CREATED, SEND, STOP]
    )


def unknown(
    record: PartRecord, what: str, confirmation_timeout: float, *, could_ask: bool
) -> VolubileUnknownSubmission:
    """The error that gives a part up, with what to do next.

    :param could_ask: the task would have asked a person, but Airflow shows an earlier question.
    """
    again = " a second time" if record.resent else ""
    ways = (
        " (Airflow's UI goes on showing this task's first question, which was about another request, so nobody is "
        "asked about this one)"
        if could_ask
        else "; with on_unknown='ask' it asks in Airflow's UI what you found"
    )
    return VolubileUnknownSubmission(
        f"Nobody knows whether {what} was created: its answer was lost{again}, "
        f"and no call of it appeared within {confirmation_timeout:g} s of looking. It was not sent again. Look for it "
        "in Volubile's dashboard. Then clear this task, keeping its state: it looks once more and goes on if calls "
        f"have appeared{ways}; with on_unknown='resend' it sends the request again, once. Requests accepted before "
        "are never sent again."
    )
