"""Waiting in the triggerer: the trigger for deferred tasks, and how operators and sensors defer to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn, cast

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.calling.stopping import KillAction, stop_if_killed
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.ending import EventStatus, wait_event
from airflow_provider_volubile.waiting.outcomes import NOTHING
from airflow_provider_volubile.waiting.polling import opening_of
from airflow_provider_volubile.waiting.shared_poll import in_thread, poll_of, stopping_threads
from airflow_provider_volubile.waiting.watches import CampaignWatch, watches_for

# The trigger's own deadline passes first: its event reports the progress, a deferral's timeout could not.
DEFERRAL_GRACE = timedelta(minutes=5)
# A trigger that starts after its deadline waits so long for one round, which an outage may hold up.
FIRST_ROUND = timedelta(minutes=2)


class WaitTrigger(BaseTrigger):
    """Fires when a submission is over, through the poll that all waits of one account share.

    It also fires when all campaigns were cancelled outside Airflow and their last calls have ended, at ``deadline``,
    and on errors that will not pass. The event is a :class:`~airflow_provider_volubile.waiting.ending.WaitEvent`.

    :param volubile_conn_id: the connection; credentials are read in the triggerer and never stored in the trigger.
    :param handle: what to wait for: the handle of a submission, or one made from plain ids.
    :param deadline: when waiting ends without success (ISO 8601, aware). A moment and not a duration, so that a
        restarted triggerer does not begin anew.
    :param poll_interval: the longest time between two rounds of polling, in seconds.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param on_kill_action: what to do with campaigns when a person stops the task: ``pause``, ``cancel``, ``leave``.
    :param parts_of_handle: instead of ``handle``, what triggers of earlier versions were given: ``campaigns``,
        ``call_ids``, ``agent_id``, ``since``, ``redial``, ``schedule``. Such triggers wait across an upgrade.
    """

    def __init__(
        self,
        *,
        volubile_conn_id: str,
        handle: SubmissionHandle | None = None,
        deadline: str,
        poll_interval: float = 30,
        wait_for: str = "ended",
        on_kill_action: KillAction = "leave",
        **parts_of_handle: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.volubile_conn_id = volubile_conn_id
        self.handle = handle if handle is not None else _handle_of(parts_of_handle)
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.wait_for = wait_for
        self.on_kill_action: KillAction = on_kill_action

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {
            "volubile_conn_id": self.volubile_conn_id,
            "handle": dict(self.handle),
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "wait_for": self.wait_for,
            "on_kill_action": self.on_kill_action,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        watches = watches_for(self.handle, wait_for=self.wait_for)
        progress = NOTHING
        status: EventStatus = "over"
        error: VolubileError | None = None
        left = (datetime.fromisoformat(self.deadline) - datetime.now(UTC)).total_seconds()
        deadline = asyncio.get_running_loop().time() + left
        try:
            # Even when no triggerer ran until after the deadline, one round tells how far things came.
            async with asyncio.timeout(max(left, FIRST_ROUND.total_seconds())) as limit:
                poll = await poll_of(self.volubile_conn_id)
                opening = opening_of(self.handle)
                async for progress in poll.follow(watches, poll_interval=self.poll_interval, opening=opening):
                    limit.reschedule(deadline)
                    self.log.info("%s", progress)
                    for watch in watches:
                        if isinstance(watch, CampaignWatch) and watch.status not in (None, "ACTIVE"):
                            self.log.warning("Campaign %s is %s.", watch.campaign["name"], watch.status)
        except TimeoutError:
            status = "timeout"
        except VolubileError as reason:
            status, error = "error", reason
        yield TriggerEvent(dict(wait_event(status, progress, watches, error)))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Runs in the triggerer when the deferred task was stopped or cleared, or when the trigger only moved."""
        campaigns = self.handle.get("campaigns")
        if campaigns and self.task_instance is not None:
            hook = VolubileHook(self.volubile_conn_id)
            stop = partial(stop_if_killed, hook, self.task_instance, campaigns, self.on_kill_action)
            await in_thread(stop, stopping_threads)


def _handle_of(parts: Mapping[str, Any]) -> SubmissionHandle:
    """The handle in the arguments of a trigger of an earlier version."""
    handle = {"submitted_at" if name == "since" else name: value for name, value in parts.items() if value is not None}
    return cast("SubmissionHandle", handle)


def defer_wait(
    task: BaseOperator,
    handle: SubmissionHandle,
    *,
    volubile_conn_id: str,
    deadline: datetime,
    poll_interval: float,
    wait_for: str,
    on_kill_action: KillAction = "leave",
    method_name: str = "execute_complete",
) -> NoReturn:
    """Let a task wait without a worker. It goes on in the method of this name, with a ``WaitEvent`` as ``event``.

    :param deadline: when waiting ends without success; aware.
    :param poll_interval: the longest time between two rounds of polling, in seconds.
    :param on_kill_action: what to do with campaigns when a person stops the task.
    """
    trigger = WaitTrigger(
        volubile_conn_id=volubile_conn_id,
        handle=handle,
        deadline=deadline.isoformat(),
        poll_interval=poll_interval,
        wait_for=wait_for,
        on_kill_action=on_kill_action,
    )
    left = max(deadline - datetime.now(UTC), timedelta(0))
    task.defer(trigger=trigger, method_name=method_name, timeout=left + DEFERRAL_GRACE)
