"""A sensor for calls that another task, or somebody else, had placed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.handles import SubmissionHandle
from airflow_provider_volubile.sensors.waiting import WaitSensor
from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
from airflow_provider_volubile.waiting import CallsWatch, Watch


class VolubileCallsSensor(WaitSensor):
    """Wait until calls have ended.

    :param calls: the handle that a bulk or single call operator returned, a call's id, or a list of ids. A handle
        is cheaper: it tells how far back the list of calls must be read.

    See :class:`~airflow_provider_volubile.sensors.waiting.WaitSensor` for the other parameters.
    """

    template_fields: Sequence[str] = ("calls", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"calls": "json"}

    def __init__(self, *, calls: SubmissionHandle | Sequence[str] | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls = calls

    @cached_property
    def handle(self) -> SubmissionHandle:
        if isinstance(self.calls, dict):
            if not self.calls.get("call_ids"):
                raise VolubileInputError(
                    f"calls is a handle of kind {self.calls.get('kind')!r} without call ids; "
                    "for campaigns there is VolubileCampaignSensor."
                )
            return SubmissionHandle(**self.calls)
        ids = [self.calls] if isinstance(self.calls, str) else list(self.calls or ())
        if not ids or not all(isinstance(call_id, str) and call_id for call_id in ids):
            raise VolubileInputError("calls holds no call ids; it takes a handle, an id or a list of ids.")
        return SubmissionHandle(kind="call", recipients=len(set(ids)), call_ids=ids)

    def watches(self) -> Sequence[Watch]:
        since = self.handle.get("submitted_at")
        return [
            CallsWatch(
                self.handle["call_ids"],
                agent_id=self.handle.get("agent_id"),
                since=datetime.fromisoformat(since) if since else None,
                with_transcripts=self.wait_for == "transcript",
            )
        ]

    def trigger(self, deadline: datetime) -> VolubileCallsTrigger:
        return VolubileCallsTrigger(
            volubile_conn_id=self.volubile_conn_id,
            call_ids=self.handle["call_ids"],
            agent_id=self.handle.get("agent_id"),
            since=self.handle.get("submitted_at"),
            deadline=deadline.isoformat(),
            poll_interval=self.poke_interval,
            wait_for=self.wait_for,
        )
