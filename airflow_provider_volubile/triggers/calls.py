"""The trigger behind calls that are waited for without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
from airflow_provider_volubile.waiting.watches import CallsWatch, Watch


class VolubileCallsTrigger(WaitTrigger):
    """Fires when calls have ended. The event is a :class:`~airflow_provider_volubile.waiting.ending.WaitEvent`.

    :param call_ids: the calls.
    :param agent_id: their agent, if all have the same and it is known.

    See :class:`~airflow_provider_volubile.triggers.wait_trigger.WaitTrigger` for the other parameters.
    """

    def __init__(self, *, call_ids: Sequence[str], agent_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.call_ids = call_ids
        self.agent_id = agent_id

    def _kwargs(self) -> dict[str, Any]:
        return super()._kwargs() | {"call_ids": list(self.call_ids), "agent_id": self.agent_id}

    def watches(self) -> Sequence[Watch]:
        return [
            CallsWatch(
                self.call_ids,
                agent_id=self.agent_id,
                since=datetime.fromisoformat(self.since) if self.since else None,
                with_transcripts=self.wait_for == "transcript",
            )
        ]
