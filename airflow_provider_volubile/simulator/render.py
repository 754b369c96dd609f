"""Render calls and transcripts as the API shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import cycle
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_volubile.simulator import dialogue
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.clock import api_time
from airflow_provider_volubile.simulator.config import Config
from airflow_provider_volubile.simulator.schedule import WEEKDAYS

_CUSTOMER_ID = "0d9f6a41-7c25-4e8b-9f13-5ab8c0e7d264"
_CUSTOMER_ZONE = ZoneInfo("Europe/Paris")


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def call_json(call: Call, config: Config, seed: int, wall: float) -> bytes:
    """Return a call as ``GET /v1/calls/{id}`` shows it. The call keeps the result until it changes."""
    if call.view is None or wall >= call.view_until:
        call.view = to_json(call_dict(call, config, seed, wall))
        changes = (call.start_wall, call.created_wall + config.created_lag)
        call.view_until = min((change for change in changes if change > wall), default=math.inf)
    return call.view


def call_dict(call: Call, config: Config, seed: int, wall: float) -> dict[str, Any]:
    """Return a call as the API shows it at a wall time."""
    ended = call.ended_wall is not None
    created = call.created_wall + config.created_lag
    shown: dict[str, Any] = {
        "id": call.id,
        "agentId": call.agent_id,
        "phone": call.phone,
        "type": call.type,
        "status": call.status,
        "duration": call.duration,
        "startTime": api_time(call.start_wall) if ended or call.start_wall <= wall else None,
        "endTime": api_time(call.ended_wall) if call.ended_wall is not None else None,
        "anonymous": False,
        "recorded": call.recorded,
        "summary": None,
        "extractors": [],
        "extractedData": {},
        "classifiers": [],
        "classificationData": {},
        "context": call.context | {"system": _system(call)},
    }
    if config.created == "present":
        shown["created"] = api_time(created) if created <= wall else None
    if call.status == "COMPLETED":
        found = dialogue.findings(seed, call.id)
        shown |= {
            "summary": found.summary,
            "extractors": found.extractors,
            "extractedData": found.extracted_data,
            "classifiers": found.classifiers,
            "classificationData": found.classification_data,
        }
    return shown


def webhook_body(call: Call, config: Config, seed: int, wall: float) -> bytes:
    """Return a final call in the spelling that the newer webhook page shows."""
    shown = call_dict(call, config, seed, wall)
    shown["extractorData"] = shown.pop("extractedData")
    shown["classifierData"] = shown.pop("classificationData")
    shown["context"] = call.context | {f"system.{name}": value for name, value in _system(call).items()}
    return to_json(shown)


def _system(call: Call) -> dict[str, str]:
    local = datetime.fromtimestamp(call.created_wall, _CUSTOMER_ZONE)
    return {
        "callId": call.id,
        "agentId": call.agent_id,
        "customerId": _CUSTOMER_ID,
        "date": f"{local:%Y-%m-%d}",
        "dayOfWeek": WEEKDAYS[local.weekday()].lower(),
        "phone": _local_phone(call.phone),
        "phoneE164": call.phone,
        "now": f"{local:%Y-%m-%d %H:%M:%S}",
        "timeHHMM": f"{local:%H%M}",
        "year": f"{local:%Y}",
    }


def _local_phone(phone: str) -> str:
    if not phone.startswith("+33"):
        return phone
    national = "0" + phone[3:]
    return " ".join(national[start : start + 2] for start in range(0, len(national), 2))


def transcript_events(call: Call, seed: int) -> list[dict[str, Any]]:
    """Return the events of a call. Their times are spread between its start and its end in wall time."""
    first_name = call.context.get("firstName")
    end = call.start_wall if call.ended_wall is None else call.ended_wall
    events = []
    for event in dialogue.transcript(seed, call.id, call.status, first_name if isinstance(first_name, str) else None):
        shown: dict[str, Any] = {
            "action": event.action,
            "time": api_time(call.start_wall + event.offset * (end - call.start_wall)),
            "actor": event.actor,
        }
        if event.message is not None:
            shown["message"] = event.message
        events.append(shown)
    return events


def stretched(events: list[dict[str, Any]], size: int | None) -> Iterator[bytes]:
    """Yield the events as JSON, and repeat utterances until there are at least ``size`` bytes."""
    pieces = [to_json(event) for event in events]
    yield from pieces[:-1]
    missing = (size or 0) - sum(map(len, pieces))
    for piece in cycle([piece for piece, event in zip(pieces, events, strict=True) if "message" in event]):
        if missing <= 0:
            break
        yield piece
        missing -= len(piece)
    yield pieces[-1]
