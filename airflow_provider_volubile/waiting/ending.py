"""What a trigger tells the task it resumes: counts and ids, never people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from airflow_provider_volubile.exceptions import VolubileError, is_permanent
from airflow_provider_volubile.waiting.outcomes import Progress
from airflow_provider_volubile.waiting.watches import CallsWatch, CampaignWatch, Watch

EventStatus = Literal["over", "timeout", "error"]


class WaitEvent(TypedDict):
    """The payload of :class:`~airflow.triggers.base.TriggerEvent`.

    ``status`` is ``over`` (nothing more to wait for), ``timeout`` or ``error``; ``counts`` is the number of people by
    the status of their last call; ``cancelled`` lists campaigns cancelled outside Airflow; ``missing`` lists call ids
    that the service does not know; ``final`` says of an error that trying again will not help.
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


def wait_event(
    status: EventStatus, progress: Progress, watches: Sequence[Watch], error: VolubileError | None = None
) -> WaitEvent:
    """What became of a wait, for the task that waits."""
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
        missing=sorted(call_id for watch in watches if isinstance(watch, CallsWatch) for call_id in watch.missing),
        final=error is not None and is_permanent(error),
    )


def read_event(event: Any) -> WaitEvent:
    """Check what arrived: anything unexpected fails loudly instead of passing for success.

    :raises VolubileError: not an event of ours.
    """
    if not isinstance(event, Mapping) or event.get("status") not in ("over", "timeout", "error"):
        raise VolubileError(
            f"The trigger resumed this task with something that is no event of this provider ({type(event).__name__}). "
            "Were triggerer and worker upgraded together? Clear the task: it goes on waiting and calls no one again."
        )
    return WaitEvent(**event)  # type: ignore[typeddict-item, no-any-return]
