"""What stands in for Airflow in the unit tests, one of each: the task state store, Variables, a task's context."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow_provider_volubile.simulator import Simulator


class Store:
    """The task state store: what it hands out is a copy, as after a round trip through the database.

    :param values: what it holds already.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self._values = {key: json.dumps(value) for key, value in (values or {}).items()}

    @property
    def values(self) -> dict[str, Any]:
        return {key: json.loads(value) for key, value in self._values.items()}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self._values[key]) if key in self._values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._values[key] = json.dumps(value)

    def clear(self) -> None:
        self._values.clear()


class Variables(dict[str, str]):
    """Airflow's Variables."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def context(store: Store, *, try_number: int = 1, id: Any = None, max_tries: int = 3) -> dict[str, Any]:
    """What Airflow hands to a task.

    :param id: of this try; every try has another one.
    """
    instance = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="dial",
        map_index=-1,
        id=id or try_number,
        try_number=try_number,
        max_tries=max_tries,
    )
    run = SimpleNamespace(run_after=datetime.now(UTC) - timedelta(minutes=1), clear_number=0)
    return {"ti": instance, "dag_run": run, "task_state_store": store}


def connection_json(simulator: Simulator, **extra: Any) -> str:
    """The connection to a simulator, for ``AIRFLOW_CONN_VOLUBILE_DEFAULT``."""
    return json.dumps(
        {
            "conn_type": "volubile",
            "host": simulator.url,
            "password": simulator.primary_key,
            "extra": {"secondary_api_key": simulator.secondary_key, **extra},
        }
    )
