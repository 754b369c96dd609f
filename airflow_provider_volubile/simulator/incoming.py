"""A request to the API: reads body, path and query, and refuses invalid ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response

from airflow_provider_volubile.simulator import bodies
from airflow_provider_volubile.simulator.logs import Submission
from airflow_provider_volubile.simulator.render import to_json
from airflow_provider_volubile.simulator.state import State

UUID = re.compile(bodies.UUID_PATTERN)
PHONE = re.compile(bodies.PHONE_PATTERN)
_DEFAULT_SIZE = 20
B = TypeVar("B", bound=BaseModel)


class Refused(Exception):
    """The simulator answers the request with an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Incoming:
    """An authenticated request.

    :param submission: set by an operation that dials, once it has accepted the request.
    """

    state: State
    path: Mapping[str, str]
    query: QueryParams
    headers: Headers
    body: bytes
    submission: Submission | None = None


def json_response(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def no_body(status: int) -> Response:
    return Response(b"", status)


def read_json(incoming: Incoming) -> Any:
    """Return the decoded body."""
    kind = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"Content-Type {kind!r} is not supported, send application/json")
    try:
        return from_json(incoming.body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"Body is not JSON: {error}") from None


def parse(incoming: Incoming, model: type[B]) -> B:
    """Return the body as a model."""
    try:
        return model.model_validate(read_json(incoming))
    except ValidationError as error:
        raise Refused(400, bodies.problem(error)) from None


def path_id(incoming: Incoming) -> str:
    value = incoming.path["id"]
    if not UUID.fullmatch(value):
        raise Refused(400, f"{value!r} is not a UUID")
    return value.lower()


def dialling_agent(state: State, agent_id: str) -> dict[str, Any]:
    agent = state.agents.get(agent_id.lower())
    if agent is None:
        raise Refused(400, f"Agent {agent_id} does not exist")
    if agent["type"] != "OUTBOUND":
        raise Refused(400, f"Agent {agent_id} is not an OUTBOUND agent")
    if agent["archived"] or not agent["active"]:
        raise Refused(400, f"Agent {agent_id} is not active")
    return agent


def paging(query: QueryParams) -> tuple[int, int]:
    return _whole(query, "page", 1, 2**31 - 1, 1), _whole(query, "size", 1, 100, _DEFAULT_SIZE)


def _whole(query: QueryParams, name: str, low: int, high: int, default: int) -> int:
    value = query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,10}", value) or not low <= int(value) <= high:
        raise Refused(400, f"{name} must be a whole number from {low} to {high}")
    return int(value)


def sorting(incoming: Incoming, properties: tuple[str, ...], default: str) -> tuple[str, bool]:
    """Return the property to sort by, and whether the highest comes first."""
    handling = incoming.state.config.sort
    asked = incoming.query.get("sort")
    if asked is not None and handling == "refused":
        raise Refused(400, "sort is not supported")
    if asked is None or handling == "ignored":
        asked = default
    prop, _, way = asked.partition(",")
    if prop not in properties or way not in ("ASC", "DESC"):
        raise Refused(400, f"sort must be <property>,ASC or <property>,DESC of {', '.join(properties)}")
    return prop, way == "DESC"


def days(query: QueryParams, zone: ZoneInfo) -> tuple[float, float]:
    """Return the bounds of ``from`` and ``to``, both days included, as wall times; infinite without them."""
    first, last = _day(query, "from"), _day(query, "to")
    if first is None and last is None:
        return -math.inf, math.inf
    if first is None or last is None:
        raise Refused(400, "from and to must be given together")
    if first > last:
        raise Refused(400, "from must not be after to")
    end = math.inf if last == date.max else datetime.combine(last + timedelta(days=1), time(), zone).timestamp()
    return datetime.combine(first, time(), zone).timestamp(), end


def _day(query: QueryParams, name: str) -> date | None:
    value = query.get(name)
    if value is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise Refused(400, f"{name} {value!r} is not a date, YYYY-MM-DD")


def page_response(shown: list[bytes], page: int, size: int, total: int) -> Response:
    pages = -(-total // size)
    envelope = f'],"size":{size},"page":{page},"totalElements":{total},"totalPages":{pages}}}'
    return Response(b'{"content":[' + b",".join(shown) + envelope.encode(), media_type="application/json")
