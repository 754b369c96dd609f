"""A sensor for calls that another task, or somebody else, had placed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from airflow.sdk import XComArg

from airflow_provider_volubile.calling.handles import SubmissionHandle, handles_and_ids
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.sensors.wait_sensor import WaitSensor


class VolubileCallsSensor(WaitSensor):
    """Wait until calls have ended.

    :param calls: the handle that a bulk or single call operator returned, a call's id, or a list of handles or ids. A
        handle is cheaper: it tells how far back the list of calls must be read.

    See :class:`~airflow_provider_volubile.sensors.wait_sensor.WaitSensor` for the other parameters.
    """

    template_fields: Sequence[str] = ("calls", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"calls": "json"}

    def __init__(
        self, *, calls: SubmissionHandle | str | Sequence[SubmissionHandle] | Sequence[str] | XComArg, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.calls = calls

    @cached_property
    def handle(self) -> SubmissionHandle:
        from airflow_provider_volubile.api import wire

        ids: dict[str, None] = {}
        handles: list[SubmissionHandle] = []
        for item in handles_and_ids(self.calls, "calls"):
            if isinstance(item, str):
                ids[wire.check_id(item, "calls")] = None
            elif "call_ids" in item:
                handles.append(item)
            else:
                raise VolubileInputError(
                    f"calls: a handle of kind {item.get('kind')!r} has no call ids; for campaigns there is "
                    "VolubileCampaignSensor."
                )
        if ids:
            handles.append(SubmissionHandle(kind="call", recipients=len(ids), call_ids=list(ids)))
        return SubmissionHandle(**handles[0]) if len(handles) == 1 else _merge(handles)


def _merge(handles: Sequence[SubmissionHandle]) -> SubmissionHandle:
    """One handle for the calls of all. What only some of them know is left out."""
    ids = [call_id for handle in handles for call_id in handle["call_ids"]]
    each_once = list(dict.fromkeys(ids))
    people = sum(handle.get("recipients", len(handle["call_ids"])) for handle in handles)
    result = SubmissionHandle(
        kind="bulk",
        recipients=people - (len(ids) - len(each_once)),
        rejected=sum(handle.get("rejected", 0) for handle in handles),
        call_ids=each_once,
    )
    agents = {handle.get("agent_id") for handle in handles}
    if len(agents) == 1 and (agent := agents.pop()):
        result["agent_id"] = agent
    times = [handle.get("submitted_at") for handle in handles]
    if times and all(times):
        result["submitted_at"] = min(filter(None, times), key=datetime.fromisoformat)
    if references := [handle["reference"] for handle in handles if "reference" in handle]:
        result["references"] = references
    return result
