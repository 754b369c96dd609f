"""What the API answers, as rows of the stated schemas."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports.schemas import CALLS, Column

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Agent, Call, TranscriptEvent

_ACCENTS = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")  # once they are apart from their Latin letters


def call_row(call: Call) -> dict[str, Any]:
    """A call as a row of :data:`~airflow_provider_volubile.exports.schemas.CALLS`."""
    return {
        "call_id": call.id,
        "agent_id": call.agent_id,
        "phone": call.phone,
        "type": call.type,
        "status": call.status or None,
        "created": call.created,
        "start_time": call.start_time,
        "end_time": call.end_time,
        "duration": call.duration,
        "anonymous": call.anonymous,
        "recorded": call.recorded,
        "summary": call.summary,
        "context": call.context,
        "extracted_data": call.extracted_data,
        "classification_data": call.classification_data,
        "extractors": call.extractors,
        "classifiers": call.classifiers,
        "extra": call.model_extra or None,
    }


def event_rows(call_id: str, events: Iterable[TranscriptEvent]) -> Iterator[dict[str, Any]]:
    """A transcript as rows of :data:`~airflow_provider_volubile.exports.schemas.TRANSCRIPTS`."""
    for position, event in enumerate(events):
        yield {
            "call_id": call_id,
            "position": position,
            "time": event.time,
            "action": event.action,
            "actor": event.actor,
            "message": event.message,
            "extra": event.model_extra or None,
        }


def text_row(call_id: str, events: Sequence[TranscriptEvent]) -> dict[str, Any]:
    """A transcript as a row of :data:`~airflow_provider_volubile.exports.schemas.TRANSCRIPT_TEXTS`."""
    said = [event for event in events if event.message]
    return {
        "call_id": call_id,
        "started": next((event.time for event in events if event.time), None),
        "utterances": len(said),
        "text": "\n".join(f"{event.actor or 'UNKNOWN'}: {event.message}" for event in said),
    }


@dataclass(frozen=True, slots=True)
class FlatColumns:
    """Columns made of what an agent reads out of its calls; which there are never depends on the calls

    :param extracted: paths into ``extractedData``, such as ``visit.day``, which becomes
        ``extracted_visit_day``.
    :param classification: names in ``classificationData``; each becomes ``classification_<name>``.
    :raises VolubileInputError: two columns of the table would have the same name, to engines that know no case.
    """

    extracted: tuple[str, ...] = ()
    classification: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = Counter(column.name.lower() for column in (*CALLS.columns, *self.columns()))
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise VolubileInputError(
                f"flatten: more than one column would be called {', '.join(twice)}; list the fields, and of these "
                "one at most. What they hold is in extracted_data and classification_data too."
            )

    @classmethod
    def of(cls, fields: Mapping[str, Collection[str]]) -> FlatColumns:
        """The columns a user lists: ``{"extracted": [...], "classification": [...]}``.

        :raises VolubileInputError: another key, or a value that is no list of names.
        """
        for key, names in fields.items():
            if key not in ("extracted", "classification"):
                raise VolubileInputError(f"flatten: '{key}' is neither 'extracted' nor 'classification'")
            is_list = isinstance(names, Collection) and not isinstance(names, str)
            if not is_list or not all(isinstance(name, str) and name for name in names):
                raise VolubileInputError(f"flatten: '{key}' must be a list of names")
        return cls(tuple(fields.get("extracted", ())), tuple(fields.get("classification", ())))

    @classmethod
    def of_agent(cls, agent: Agent) -> FlatColumns:
        """The columns that an agent's configuration names (https://docs.volubile.ai/api-reference/agents/get).

        :raises VolubileInputError: the service does not show the configuration.
        """
        if agent.configuration is None:
            raise VolubileInputError(
                f"flatten: the service does not show what agent {agent.id} extracts; list the fields "
                "instead, such as flatten={'extracted': ['visit.day'], 'classification': ['outcome']}"
            )
        return cls(
            tuple(_paths(agent.configuration.get("extractors"))),
            tuple(_paths(agent.configuration.get("classifiers"))),
        )

    def columns(self) -> list[Column]:
        return [Column(name, "string") for name, _, _ in self._sources()]

    def values(self, call: Call) -> dict[str, str | None]:
        """A call's cells. Text stays as it is; anything else becomes the text of its JSON."""
        data = {"extracted": call.extracted_data or {}, "classification": call.classification_data or {}}
        return {name: _text(_find(data[kind], path)) for name, kind, path in self._sources()}

    def _sources(self) -> Iterator[tuple[str, str, str]]:
        for kind, paths in (("extracted", self.extracted), ("classification", self.classification)):
            for path in paths:
                yield f"{kind}_{_column_name(path)}", kind, path


def read_flatten(value: Any) -> Mapping[str, Collection[str]] | bool | None:
    """``flatten`` as a user gives it: also the text that a template makes of it, as JSON or as Python writes it.

    :raises VolubileInputError: it is nothing of that kind.
    """
    found = value
    if isinstance(value, str):
        text = value.strip()
        found = {"true": True, "false": False, "none": None, "null": None, "": None}.get(text.lower(), value)
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                found = read(text)
    if found is None or isinstance(found, bool | Mapping):
        return found
    raise VolubileInputError(
        f"flatten is {value!r}; it must be true, false or a mapping such as "
        '{"extracted": ["visit.day"], "classification": ["outcome"]}.'
    )


def _column_name(path: str) -> str:
    """A path as part of a column's name: letters of any script, of which accents on Latin ones are left out."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", path))
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", plain))


def _paths(definitions: Any, prefix: str = "") -> Iterator[str]:
    """Paths of an agent's extractors, which may be nested, or of its classifiers, which are not."""
    for definition in definitions if isinstance(definitions, list) else ():
        if not isinstance(definition, Mapping) or not isinstance(definition.get("name"), str):
            continue
        path = prefix + definition["name"]
        if definition.get("extractors"):
            yield from _paths(definition["extractors"], f"{path}.")
        else:
            yield path


def _find(data: Any, path: str) -> Any:
    """The value at a path; a name with dots of its own is found too."""
    if not isinstance(data, Mapping):
        return None
    if path in data:
        return data[path]
    for at, character in enumerate(path):
        if character == "." and path[:at] in data:
            return _find(data[path[:at]], path[at + 1 :])
    return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
