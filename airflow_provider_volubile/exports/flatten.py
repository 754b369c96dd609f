"""Columns made of what an agent reads out of its calls. Which there are never depends on the calls."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports.columns import CALLS, Column, to_json

if TYPE_CHECKING:
    from airflow_provider_volubile.api.models import Agent, Call

# What a user calls the two kinds of extracted data, and the member of a call that has them.
MEMBERS = {"extracted": "extracted_data", "classification": "classification_data"}
EXAMPLE = "flatten={'extracted': ['visit.day'], 'classification': ['outcome']}"

_ACCENTS = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")  # after NFKD separated them from their Latin letters


def flat_columns(flatten: Any, agent: Agent | None = None) -> tuple[Column, ...]:
    """The columns that ``flatten`` asks for.

    :param flatten: nothing; True for the fields that the agent's configuration names
        (https://docs.volubile.ai/api-reference/agents/get); or lists of fields: ``visit.day`` under ``extracted``
        becomes ``extracted_visit_day``. A template's text for any of these is understood, as JSON or Python.
    :raises VolubileInputError: it is none of these, the agent's configuration is not known, or two columns of the
        table would have the same name, to engines that ignore case.
    """
    fields = _read(flatten)
    if not fields:
        return ()
    if fields is True:
        fields = _fields_of(agent)
    if unknown := fields.keys() - MEMBERS.keys():
        raise VolubileInputError(f"flatten: '{min(unknown)}' is neither 'extracted' nor 'classification'")
    columns = tuple(_column(kind, path) for kind in MEMBERS for path in _names(fields, kind))
    names = Counter(column.name.lower() for column in (*CALLS.columns, *columns))
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise VolubileInputError(
            f"flatten: more than one column would be called {', '.join(twice)}; list the fields, and of these "
            "one at most. What they hold is in extracted_data and classification_data too."
        )
    return columns


def _read(value: Any) -> Any:
    """A mapping, True, or nothing."""
    found = value
    if isinstance(value, str):
        text = value.strip()
        found = {"true": True, "false": False, "none": None, "null": None, "": None}.get(text.lower(), value)
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                found = read(text)
    if found is None or isinstance(found, bool | Mapping):
        return found
    raise VolubileInputError(f"flatten is {value!r}; it must be true, false or a mapping such as {EXAMPLE}.")


def _names(fields: Mapping[str, Any], kind: str) -> Collection[str]:
    names: Any = fields.get(kind, ())
    is_list = isinstance(names, Collection) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str) and name for name in names):
        raise VolubileInputError(f"flatten: '{kind}' must be a list of names")
    return list(names)


def _fields_of(agent: Agent | None) -> dict[str, list[str]]:
    if agent is None:
        raise VolubileInputError(
            f"flatten=True needs agent_id, whose configuration names the columns; without it, list them: {EXAMPLE}."
        )
    if agent.configuration is None:
        raise VolubileInputError(
            f"flatten: the service does not show what agent {agent.id} extracts; list the fields instead: {EXAMPLE}."
        )
    return {
        "extracted": list(_paths(agent.configuration.get("extractors"))),
        "classification": list(_paths(agent.configuration.get("classifiers"))),
    }


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


def _column(kind: str, path: str) -> Column:
    """The column of a path. Its name has letters of any script; accents on Latin ones are left out."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", path))
    name = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", plain))

    def read(call: Call) -> str | None:
        value = _find(getattr(call, MEMBERS[kind]), path)
        return value if value is None or isinstance(value, str) else to_json(value)

    return Column(f"{kind}_{name}", "string", read)


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
