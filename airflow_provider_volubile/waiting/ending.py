"""How a wait ends: the event that a trigger sends, and what becomes of it, for operators and sensors alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileOutcomeGap,
    VolubileWaitFailed,
    VolubileWaitTimeout,
    is_permanent,
)
from airflow_provider_volubile.waiting.outcomes import Progress, final_counts
from airflow_provider_volubile.waiting.watches import CallsWatch, CampaignWatch, Watch

log = logging.getLogger(__name__)

EventStatus = Literal["over", "timeout", "error"]


class WaitEvent(TypedDict):
    """The payload of :class:`~airflow.triggers.base.TriggerEvent`: counts and ids, no people.

    :ivar status: ``over`` (nothing more to wait for), ``timeout`` or ``error``.
    :ivar message: the progress, or the error.
    :ivar recipients: people who were waited for; ``settled``, ``in_flight`` and ``not_dialed`` of them.
    :ivar counts: number of people by the status of their last call.
    :ivar cancelled: campaigns that were cancelled outside Airflow.
    :ivar missing: call ids that the service does not know.
    :ivar final: whether trying again after this error will not help.
    :ivar found: ids of calls that the handle did not have, by the number of the part in their reference.
    :ivar unlisted: people who were accepted and of whom no call is listed.
    :ivar transcripts_given_up: calls whose transcript did not appear in time.
    :ivar unusable_ids: calls whose id cannot be used in a request, so that no transcript was asked for.
    """

    status: EventStatus
    message: str
    recipients: int
    settled: int
    in_flight: int
    not_dialed: int
    counts: dict[str, int]
    cancelled: list[str]
    missing: list[str]
    final: bool
    found: dict[str, list[str]]
    unlisted: int
    transcripts_given_up: int
    unusable_ids: int


def wait_event(
    status: EventStatus, progress: Progress, watches: Sequence[Watch], error: VolubileError | None = None
) -> WaitEvent:
    """What became of a wait, for the task that waits."""
    calls = [watch for watch in watches if isinstance(watch, CallsWatch)]
    outcomes_of_transcripts = [outcome for watch in watches for outcome in watch.transcripts.values()]
    return WaitEvent(
        status=status,
        message=str(error) if error else str(progress),
        recipients=progress.recipients,
        settled=progress.settled,
        in_flight=progress.in_flight,
        not_dialed=progress.not_dialed,
        counts=dict(progress.counts),
        cancelled=[
            watch.campaign["id"] or watch.campaign["name"]
            for watch in watches
            if isinstance(watch, CampaignWatch) and watch.is_cancelled
        ],
        missing=sorted(call_id for watch in calls for call_id in watch.missing),
        final=error is not None and is_permanent(error),
        found={part: ids for watch in calls for part, ids in watch.found.items()},
        unlisted=sum(watch.unlisted for watch in calls),
        transcripts_given_up=outcomes_of_transcripts.count("given_up"),
        unusable_ids=outcomes_of_transcripts.count("unusable_id"),
    )


def read_event(event: Any) -> WaitEvent:
    """Check the event that resumed a task. It may come from the version of this provider before an upgrade.

    :raises VolubileError: it is not an event of this provider.
    """
    if not isinstance(event, Mapping) or event.get("status") not in ("over", "timeout", "error"):
        raise VolubileError(
            f"The trigger resumed this task with something that is no event of this provider ({type(event).__name__}). "
            "Were triggerer and worker upgraded together? Clear the task: it goes on waiting and calls no one again."
        )
    added = {"found": {}, "unlisted": 0, "transcripts_given_up": 0, "unusable_ids": 0}
    return WaitEvent(**{**added, **event})  # type: ignore[typeddict-item]


def finish_wait(
    handle: SubmissionHandle, event: WaitEvent, *, timeout: float, max_missing: int | None = None
) -> SubmissionHandle:
    """End a wait: the handle with ``counts`` and with all call ids, or the error.

    :param timeout: how long was waited, in seconds, for the message.
    :param max_missing: so many people may have no outcome at the end.
    :raises VolubileWaitTimeout: not everyone has an outcome.
    :raises VolubileWaitFailed: the wait ended with an error that another try would meet again.
    :raises VolubileError: it ended with an error that may pass.
    :raises VolubileInputError: the service does not know some of the call ids.
    :raises VolubileOutcomeGap: people were accepted but no call of theirs is listed, or the counts do not add up.
    """
    if event["status"] == "error":
        error = VolubileWaitFailed if event["final"] else VolubileError
        raise error(f"Waiting failed: {event['message']}")
    unlisted = event["unlisted"]
    # At the deadline nothing else may be missing than calls that were never listed.
    if unlisted and (event["status"] == "over" or event["settled"] + unlisted >= event["recipients"]):
        if max_missing is None or unlisted > max_missing:
            raise VolubileOutcomeGap(
                f"{event['recipients']} people were accepted, but only {event['recipients'] - unlisted} of their calls "
                f"are listed. Whether the other {unlisted} will be called is not known. Look in Volubile's dashboard. "
                "Clearing this task looks once more, and calls no one. To go on without them, set max_missing."
            )
        log.warning("No call of %d accepted people is listed; max_missing allows that.", unlisted)
    elif event["status"] == "timeout":
        message = f"After {timeout:g} s: {event['message']}. The calls go on; a retry goes on waiting."
        for campaign in handle.get("campaigns", ()):
            if campaign["id"] is None:
                message += f" Campaign {campaign['name']!r} is known by its calls only: a cancellation is not noticed."
        raise VolubileWaitTimeout(message)
    if missing := event["missing"]:
        more = f" ({len(missing)} such ids in all)" if len(missing) > 5 else ""
        raise VolubileInputError(f"This account has no call {', '.join(missing[:5])}{more}.")
    if event["cancelled"]:
        log.warning("Cancelled outside Airflow: %s. What was reached is returned.", event["cancelled"])
    if event["transcripts_given_up"]:
        log.warning("The transcripts of %d calls did not appear in time.", event["transcripts_given_up"])
    if event["unusable_ids"]:
        log.warning("The ids of %d calls cannot be used: nothing more can be read of them.", event["unusable_ids"])
    recipients = handle.get("recipients", event["recipients"])
    counts = final_counts(
        recipients, settled=event["settled"], counts=event["counts"], cancelled=bool(event["cancelled"])
    )
    result = SubmissionHandle(**{**handle, "recipients": recipients, "counts": counts})
    if found := [call_id for ids in event["found"].values() for call_id in ids]:
        result["call_ids"] = list(dict.fromkeys([*handle.get("call_ids", ()), *found]))
    return result
