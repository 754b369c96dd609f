"""From an answer's bytes to models. What cannot be read becomes a :class:`VolubileProtocolError`, nothing else."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.models import AcceptedCall, ApiModel, Page, TranscriptEvent
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.api.transport import Answer
from airflow_provider_volubile.exceptions import VolubileProtocolError

log = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=ApiModel)


class _Envelope(BaseModel, Generic[ModelT]):
    model_config = ConfigDict(alias_generator=to_camel)

    content: list[ModelT]
    page: int | None = None
    size: int | None = None
    total_elements: int | None = None
    total_pages: int | None = None


@cache
def _envelope(model: type[ApiModel]) -> type[_Envelope[Any]]:
    return _Envelope[model]  # type: ignore[valid-type]


_EVENTS = TypeAdapter(list[TranscriptEvent])


def is_empty(answer: Answer) -> bool:
    """Whether a success came without content."""
    return answer.status == 204 or (answer.body is not None and not answer.body.strip())


def read_json(route: Route, answer: Answer) -> Any:
    """Parse a body.

    :raises VolubileProtocolError: it is empty, too large or not JSON.
    """
    if answer.body is None:
        raise unreadable(route, answer, answer.flaw)
    with suppress(ValueError, RecursionError):
        return _whole(json.loads(answer.body))
    raise unreadable(route, answer, "is not JSON" if answer.body.strip() else "is empty")


def read_one(route: Route, answer: Answer, model: type[ModelT], asked: str | None = None) -> ModelT:
    """Read one object.

    :param asked: the id that was asked for. Ids are UUIDs, so their case does not count.
    :raises VolubileProtocolError: also when the answer is about another object.
    """
    found = None
    if answer.body:
        with suppress(ValidationError):  # looked at again below, member by member
            found = model.model_validate_json(answer.body)
    if found is None:
        found = read_object(route, answer, read_json(route, answer), model)
    if asked is not None and str(found.id).lower() != str(asked).lower():  # type: ignore[attr-defined]
        raise unreadable(route, answer, "is about another object than the one that was asked for")
    return found


def read_object(route: Route, answer: Answer, data: Any, model: type[ModelT]) -> ModelT:
    """Read an object that is already parsed. Members of a wrong shape are left out, unless they are vital."""
    if not isinstance(data, dict):
        raise unreadable(route, answer, f"holds {_kind(data)} where an object was expected")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        places = {
            problem["loc"][0]
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
            if problem["loc"]
        }
    wrong = {name: keys for name, keys in _members(model).items() if keys & places}
    if not wrong or wrong.keys() & model.vital:
        raise unreadable(route, answer, f"has no usable {', '.join(sorted(wrong)) or 'members'}")
    log.warning(
        "%s: %s of a %s came in an unexpected shape and is left out",
        route.operation,
        ", ".join(sorted(wrong)),
        model.__name__,
    )
    left_out = frozenset().union(*wrong.values())
    return model.model_validate({key: value for key, value in data.items() if key not in left_out})


def read_page(route: Route, answer: Answer, model: type[ModelT], size: int, sort: str | None = None) -> Page[ModelT]:
    """Read one page of a list (https://docs.volubile.ai/api-reference/calls/list).

    :param size: items that were asked for.
    :raises VolubileProtocolError: also when there are more.
    """
    page = _read_page(route, answer, model, sort)
    if page.received > size:
        raise unreadable(route, answer, f"holds {page.received} items, more than the {size} that were asked for")
    return page


def _read_page(route: Route, answer: Answer, model: type[ModelT], sort: str | None) -> Page[ModelT]:
    with suppress(ValidationError):  # looked at again below, item by item
        envelope = _envelope(model).model_validate_json(answer.body or b"")
        return Page(
            content=tuple(envelope.content),
            page=envelope.page,
            size=envelope.size,
            total_elements=envelope.total_elements,
            total_pages=envelope.total_pages,
            received=len(envelope.content),
            sort=sort,
        )
    data = read_json(route, answer)
    if not isinstance(data, dict) or not isinstance(data.get("content"), list):
        raise unreadable(route, answer, "is no page: it has no list 'content'")
    numbers = {name: value if isinstance(value, int) else None for name, value in data.items()}
    return Page(
        content=tuple(read_object(route, answer, item, model) for item in data["content"]),
        page=numbers.get("page"),
        size=numbers.get("size"),
        total_elements=numbers.get("totalElements"),
        total_pages=numbers.get("totalPages"),
        received=len(data["content"]),
        sort=sort,
    )


def read_transcript(route: Route, answer: Answer) -> list[TranscriptEvent]:
    """Read a transcript in any of the forms :func:`wire.transcript_events` knows."""
    with suppress(ValidationError):
        found = _EVENTS.validate_json(answer.body or b"")
        if not any(event.model_fields_set.isdisjoint(TranscriptEvent.model_fields) for event in found):
            return found
    events = None
    with suppress(ValueError, RecursionError):
        events = [_whole(event) for event in wire.transcript_events(answer.body or b"")]
    if events is None:
        raise unreadable(route, answer, "is no transcript")
    return [read_object(route, answer, event, TranscriptEvent) for event in events]


def read_accepted(route: Route, answer: Answer) -> list[AcceptedCall]:
    """What an answer tells of calls that were taken. Whatever it looks like, the 2xx says that they were."""
    with suppress(ValueError, RecursionError):
        return [
            AcceptedCall(identifier, phone) for identifier, phone in wire.accepted_calls(json.loads(answer.body or b""))
        ]
    log.warning("%s was accepted (%s), but the answer tells no calls; look them up.", route.operation, answer.status)
    return []


def unreadable(route: Route, answer: Answer, why: str) -> VolubileProtocolError:
    """The error for an answer that cannot be read; its content is not shown."""
    return VolubileProtocolError(
        f"{route.operation}: the answer ({answer.status}) {why}. Check that the connection's host is Volubile's API; "
        "if it is, report this to Volubile's support.",
        operation=route.operation,
        status=answer.status,
    )


@cache
def _members(model: type[ApiModel]) -> dict[str, frozenset[str]]:
    """The members of a model, and the keys each may have in an answer."""
    members = {}
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        keys = alias.choices if isinstance(alias, AliasChoices) else [alias or info.alias or name]
        members[name] = frozenset({name, *map(str, keys)})
    return members


def _kind(data: Any) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(data), "a value")


#: How deeply an answer may be nested. pydantic's parser reads as far; where Python's gives up depends on its version.
DEEPEST = 200


def _whole(data: Any, depth: int = 0) -> Any:
    """Replace halves of characters, which JSON can express and no file can store.

    :raises RecursionError: it is nested too deeply.
    """
    if depth > DEEPEST:
        raise RecursionError(f"nested more than {DEEPEST} levels deep")
    if isinstance(data, str):
        return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(data, list):
        return [_whole(entry, depth + 1) for entry in data]
    if isinstance(data, dict):
        return {_whole(key): _whole(value, depth + 1) for key, value in data.items()}
    return data
