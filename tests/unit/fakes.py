"""What stands in for Airflow in the unit tests, one of each: the task state store, Variables, a task's context."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any


class Store:
    """The state store of a task or an asset. It keeps JSON, and what it hands out is a copy.

    :param values: what it holds already.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values = deepcopy(values or {})

    def get(self, key: str, default: Any = None) -> Any:
        return deepcopy(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.values[key] = json.loads(json.dumps(value))

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.set(key, value)


class Variables(dict[str, str]):
    """Airflow's Variables."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def context(
    store: Store,
    *,
    try_number: int = 1,
    max_tries: int = 3,
    map_index: int = -1,
    clear_number: int = 0,
    began: datetime | None = None,
) -> dict[str, Any]:
    """What Airflow hands to a task, whose every try has another id.

    :param began: when the Dag run began; a minute ago by default.
    """
    instance = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="dial",
        map_index=map_index,
        id=try_number,
        try_number=try_number,
        max_tries=max_tries,
        get_task_states=lambda **_: {"run": {"dial": "running"}},
    )
    began = began or datetime.now(UTC) - timedelta(minutes=1)
    run = SimpleNamespace(run_after=began - timedelta(hours=1), start_date=began, clear_number=clear_number)
    return {"ti": instance, "dag_run": run, "task_state_store": store}
