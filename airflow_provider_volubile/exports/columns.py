"""The exported tables: one list of columns each, the same from run to run whatever the data.

A column says its name, its kind, and where a record has its value. A new column is one line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from airflow_provider_volubile.exports.days import iso

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import TranscriptEvent

Kind = Literal["string", "integer", "boolean", "timestamp", "json"]
Cell: TypeAlias = str | int | bool | None
Row: TypeAlias = tuple[Cell, ...]

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    :param kind: what it holds. ``timestamp`` is an aware moment, written in UTC; ``json`` is any JSON value,
        nested as it is in JSON lines and as its text in Parquet and CSV.
    :param read: takes the value from a record; by default, the record's attribute of this name.
    """

    name: str
    kind: Kind
    read: Callable[[Any], Any] | None = None

    def cell(self, record: Any) -> Cell:
        """The value as text, number or truth value; a moment becomes ISO text, a JSON value its text.

        :raises ValueError: an integer of more than 64 bits, or a value that is not JSON.
        """
        value = self.read(record) if self.read else getattr(record, self.name)
        if value is None or self.kind == "boolean":
            return value  # type: ignore[no-any-return]
        if self.kind == "integer":
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"{self.name} has more than 64 bits")
            return int(value)
        text = iso(value) if self.kind == "timestamp" else to_json(value) if self.kind == "json" else str(value)
        # A lone surrogate (half an emoji, cut off by someone) has no UTF-8; it becomes a question mark.
        return text if text.isascii() else text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Table:
    """A table's name, version and columns.

    :param version: raised when a column changes its meaning or goes; a new column does not raise it.
    """

    name: str
    version: int
    columns: tuple[Column, ...]

    def with_columns(self, columns: Iterable[Column]) -> Table:
        return replace(self, columns=(*self.columns, *columns))

    def describe(self) -> dict[str, Any]:
        """The table as the manifest states it."""
        columns = [{"name": column.name, "type": column.kind} for column in self.columns]
        return {"name": self.name, "version": self.version, "columns": columns}

    def row(self, record: Any) -> Row:
        """A record's cells in the order of the columns.

        :raises ValueError: as :meth:`Column.cell` does.
        """
        return tuple(column.cell(record) for column in self.columns)


class TranscriptLine(NamedTuple):
    """A record of :data:`TRANSCRIPTS`."""

    call_id: str
    position: int
    event: TranscriptEvent


class Transcript(NamedTuple):
    """A record of :data:`TRANSCRIPT_TEXTS`."""

    call_id: str
    events: Sequence[TranscriptEvent]

    @property
    def lines(self) -> Iterator[TranscriptLine]:
        return (TranscriptLine(self.call_id, position, event) for position, event in enumerate(self.events))

    @property
    def started(self) -> datetime | None:
        return next((event.time for event in self.events if event.time), None)

    @property
    def utterances(self) -> int:
        return sum(bool(event.message) for event in self.events)

    @property
    def text(self) -> str:
        return "\n".join(f"{event.actor or 'UNKNOWN'}: {event.message}" for event in self.events if event.message)


CALLS = Table(
    "calls",
    1,
    (
        Column("call_id", "string", attrgetter("id")),
        Column("agent_id", "string"),
        Column("phone", "string"),
        Column("type", "string"),
        Column("status", "string", lambda call: call.status or None),
        Column("created", "timestamp"),
        Column("start_time", "timestamp"),
        Column("end_time", "timestamp"),
        Column("duration", "integer"),
        Column("anonymous", "boolean"),
        Column("recorded", "boolean"),
        Column("summary", "string"),
        Column("context", "json"),
        Column("extracted_data", "json"),
        Column("classification_data", "json"),
        Column("extractors", "json"),
        Column("classifiers", "json"),
        Column("extra", "json", lambda call: call.model_extra or None),
    ),
)
"""One row per call (https://docs.volubile.ai/api-reference/calls/get). ``duration`` is in seconds; ``extra``
holds what the service answered beyond the known fields, by its own names."""

TRANSCRIPTS = Table(
    "transcripts",
    1,
    (
        Column("call_id", "string"),
        Column("position", "integer"),
        Column("time", "timestamp", attrgetter("event.time")),
        Column("action", "string", attrgetter("event.action")),
        Column("actor", "string", attrgetter("event.actor")),
        Column("message", "string", attrgetter("event.message")),
        Column("extra", "json", lambda line: line.event.model_extra or None),
    ),
)
"""One row per event (https://docs.volubile.ai/api-reference/calls/get-transcript); ``position`` counts a
call's events from 0."""

TRANSCRIPT_TEXTS = Table(
    "transcript_texts",
    1,
    (
        Column("call_id", "string"),
        Column("started", "timestamp"),
        Column("utterances", "integer"),
        Column("text", "string"),
    ),
)
"""One row per call: what was said, a line for each utterance, such as ``AGENT: Bonjour``."""

OUTCOMES = Table(
    "outcomes",
    1,
    (
        Column("phone", "string", itemgetter("phone")),
        Column("status", "string", itemgetter("status")),
        Column("settled", "boolean", itemgetter("settled")),
        Column("attempts", "integer", itemgetter("attempts")),
        Column("last_call_id", "string", itemgetter("last_call_id")),
        Column("duration", "integer", itemgetter("duration")),
        Column("reason", "string", itemgetter("reason")),
    ),
)
"""One row per recipient (:class:`airflow_provider_volubile.waiting.outcomes.Outcome`)."""
