"""A careless provider: it leaks a secret and a number in every kind of place, and the search must find them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tests.leaks import planted


class CarelessTrigger(BaseTrigger):
    """Keep a secret in its arguments, and log another one."""

    def __init__(self, note: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.note = note

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"note": self.note}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self.log.info("careless: %s", planted.spelled("triggerer_log"))
        while not (planted.folder() / "looked_at").exists():
            await asyncio.sleep(0.5)
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class CarelessOperator(BaseOperator):
    template_fields = ("shown",)

    def __init__(self, *, shown: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shown = shown

    def execute(self, context: Any) -> None:
        print(planted.spelled("task_log"))
        context["ti"].xcom_push("careless", planted.spelled("xcom"))
        context["task_state_store"].set("careless", planted.spelled("task_state"))
        (asset,) = self.outlets
        context["outlet_events"][asset].extra = planted.spelled("asset_event")
        self.defer(trigger=CarelessTrigger(planted.spelled("trigger")), method_name="go_on")

    def go_on(self, context: Any, event: Any) -> None:
        context["outlet_events"][self.outlets[0]].extra = planted.spelled("asset_event")
