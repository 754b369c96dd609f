"""Stated schemas: the columns of every exported table, the same from run to run whatever the data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal["string", "integer", "boolean", "timestamp", "json"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    :param kind: what it holds. ``timestamp`` is an aware moment, written in UTC; ``json`` is any JSON value,
        nested as it is in JSON lines and as its text in Parquet and CSV.
    """

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Schema:
    """A table's name, version and columns.

    :param version: raised when a column changes its meaning or goes; a new column does not raise it.
    """

    name: str
    version: int
    columns: tuple[Column, ...]

    def with_columns(self, columns: Iterable[Column]) -> Schema:
        return replace(self, columns=(*self.columns, *columns))

    def describe(self) -> dict[str, Any]:
        """The schema as the manifest states it."""
        columns = [{"name": column.name, "type": column.kind} for column in self.columns]
        return {"name": self.name, "version": self.version, "columns": columns}

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """One row as a line of JSON, without its end: columns in their order, absent ones as null.

        :raises ValueError: a column that the schema lacks, a naive moment, an integer of more than 64 bits,
            or a value that is not JSON.
        """
        if unknown := row.keys() - {column.name for column in self.columns}:
            raise ValueError(f"{self.name} has no column {', '.join(sorted(unknown))}")
        values = {column.name: _plain(column, row.get(column.name)) for column in self.columns}
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        # A lone surrogate (half an emoji, cut off by someone) has no UTF-8; it becomes a question mark.
        return text.encode("utf-8", "replace")


def _plain(column: Column, value: Any) -> Any:
    if column.kind == "integer" and value is not None and not -(2**63) <= value < 2**63:
        raise ValueError(f"{column.name} has more than 64 bits")
    if column.kind != "timestamp" or value is None:
        return value
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{column.name} is a moment without a time zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _schema(name: str, version: int, **columns: Kind) -> Schema:
    return Schema(name, version, tuple(Column(column, kind) for column, kind in columns.items()))


CALLS = _schema(
    "calls",
    1,
    call_id="string",
    agent_id="string",
    phone="string",
    type="string",
    status="string",
    created="timestamp",
    start_time="timestamp",
    end_time="timestamp",
    duration="integer",
    anonymous="boolean",
    recorded="boolean",
    summary="string",
    context="json",
    extracted_data="json",
    classification_data="json",
    extractors="json",
    classifiers="json",
    extra="json",
)
"""One row per call (https://docs.volubile.ai/api-reference/calls/get). ``duration`` is in seconds; ``extra``
holds what the service answered beyond the known fields, by its own names."""

TRANSCRIPTS = _schema(
    "transcripts",
    1,
    call_id="string",
    position="integer",
    time="timestamp",
    action="string",
    actor="string",
    message="string",
    extra="json",
)
"""One row per event (https://docs.volubile.ai/api-reference/calls/get-transcript); ``position`` counts a
call's events from 0."""

TRANSCRIPT_TEXTS = _schema(
    "transcript_texts", 1, call_id="string", started="timestamp", utterances="integer", text="string"
)
"""One row per call: what was said, a line for each utterance, such as ``AGENT: Bonjour``."""

OUTCOMES = _schema(
    "outcomes",
    1,
    phone="string",
    status="string",
    settled="boolean",
    attempts="integer",
    last_call_id="string",
    duration="integer",
    reason="string",
)
"""One row per recipient (:class:`airflow_provider_volubile.waiting.outcomes.Outcome`)."""
