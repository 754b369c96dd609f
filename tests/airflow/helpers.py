"""What several tests of operators use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.sdk import task

from airflow_provider_volubile.simulator import Simulator

REMINDER = "5b0f3c52-8a0e-4a4e-9d0c-6f2b1c7e9a10"
FOLLOW_UP = "8c4d1f0a-3e57-4b1d-a7c2-91d6e0b45f21"
INBOUND = "2e9b7d14-6c08-4f5a-b3e1-0d87c5a2f632"
INACTIVE = "d17a6e93-52bf-4c86-8f04-7ba3e19c0d43"
ARCHIVED = "f6308b2d-9e41-4d7c-95ab-c2e05f71d854"
UNKNOWN = "00000000-0000-4000-8000-000000000000"

DIALLING = ("createCampaign", "createCall", "createBulkCalls")


def numbers() -> Iterator[str]:
    """Numbers of a range reserved for fiction, each once."""
    return (f"+3363998{number:04d}" for number in range(10_000))


def phones(count: int, source: Iterator[str]) -> list[str]:
    return [next(source) for _ in range(count)]


def configure(simulator: Simulator, **config: Any) -> Any:
    """A task that changes how the simulator answers from then on."""

    @task(task_id=re.sub(r"\W", "_", "_".join(f"{name}_{value}" for name, value in config.items())))
    def change() -> None:
        simulator.configure(**config)

    return change()


class Failures:
    """An ``on_failure_callback`` that keeps what each task failed with."""

    def __init__(self) -> None:
        self._errors: dict[str, BaseException] = {}

    def __call__(self, context: Mapping[str, Any]) -> None:
        self._errors[context["ti"].task_id] = context["exception"]

    def __getitem__(self, task_id: str) -> str:
        return str(self._errors[task_id])
