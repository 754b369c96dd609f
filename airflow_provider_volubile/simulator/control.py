"""The control interface under ``/_sim``: reports what was dialled, and controls the simulator."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_volubile.simulator.bodies import problem
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.clock import precise_time
from airflow_provider_volubile.simulator.faults import FaultSpec
from airflow_provider_volubile.simulator.loading import LoadSpec, load
from airflow_provider_volubile.simulator.logs import Submission
from airflow_provider_volubile.simulator.routes import OPERATIONS
from airflow_provider_volubile.simulator.state import State

T = TypeVar("T")
KeyStatus = Literal["active", "revoked"]


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid")
    primary: KeyStatus | None = None
    secondary: KeyStatus | None = None


class Advance(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seconds: float = Field(ge=0, le=3_200_000_000)  # a century


class Reset(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: AwareDatetime | None = Field(None, description="Another simulated time to begin with.")


def control_app(state: State) -> FastAPI:
    """Return the application mounted under ``/_sim``."""
    app = FastAPI(title="Volubile simulator: control interface", docs_url="/docs", redoc_url=None)
    _add_reports(app, state)
    _add_controls(app, state)
    return app


def _add_reports(app: FastAPI, state: State) -> None:
    @app.get("/state", summary="Clocks, counts, configuration, agents")
    async def show_state() -> Any:
        state.engine.run()
        calls = state.engine.calls.in_order_dialled
        return {
            "seed": state.options.seed,
            "media_url": state.media_url,
            "wall": precise_time(state.clock.wall()),
            "simulated": precise_time(state.engine.now),
            "calls": len(calls),
            "in_progress": sum(call.ended_wall is None for call in calls),
            "pending": state.engine.pending,
            "submissions": len(state.submissions),
            "requests": state.request_count,
            "keys": _keys(state),
            "outcomes": state.engine.outcomes,
            "config": state.config.model_dump(),
            "campaigns": [
                campaign.view
                | {
                    "recipients": len(campaign.recipients),
                    "queued": len(campaign.queue),
                    "in_progress": campaign.in_progress,
                }
                for campaign in state.dialler.campaigns.values()
            ],
            "agents": list(state.agents.values()),
        }

    @app.get("/ledger", summary="Every attempt dialled, oldest first")
    async def ledger(campaign: str | None = None, phone: str | None = None, submission: int | None = None) -> Any:
        state.engine.run()
        calls = _chosen(state, campaign, phone, submission)
        return _streamed(calls, lambda call: _ledger_entry(call, state))

    @app.get("/ledger/summary", summary="Counts of the ledger")
    async def ledger_summary(
        campaign: str | None = None, phone: str | None = None, submission: int | None = None
    ) -> Any:
        state.engine.run()
        calls = _chosen(state, campaign, phone, submission)
        attempts = Counter((call.submission, call.phone) for call in calls)
        submissions = defaultdict(set)
        for call in calls:
            submissions[call.phone].add(call.submission)
        return {
            "calls": len(calls),
            "people": len(submissions),
            "statuses": dict(Counter(call.status for call in calls)),
            "max_attempts": max(attempts.values(), default=0),
            "dialled_by_several_submissions": sorted(p for p, by in submissions.items() if len(by) > 1),
        }

    @app.get("/submissions", summary="Every accepted request that dials, oldest first")
    async def submissions() -> Any:
        return _streamed(state.submissions, _submission_entry)

    @app.get("/requests", summary="Requests to the API, oldest first")
    async def requests(since: int = 0) -> Any:
        return _streamed([entry for entry in state.requests if entry.seq > since], asdict)

    @app.get("/requests/summary", summary="Requests to the API, counted by operation and status")
    async def requests_summary(since: int = 0) -> Any:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for entry in state.requests:
            if entry.seq > since:
                counts[entry.operation]["none" if entry.status is None else str(entry.status)] += 1
        return counts

    @app.get("/media/requests", summary="Requests to the media port, oldest first")
    async def media_requests() -> Any:
        return _streamed(state.media_requests, asdict)

    @app.get("/webhooks", summary="Webhooks sent, oldest first")
    async def webhooks() -> Any:
        return _streamed(state.webhooks.deliveries, asdict)


def _add_controls(app: FastAPI, state: State) -> None:
    @app.patch("/config", summary="Change the configuration")
    async def configure(changes: dict[str, Any]) -> Any:
        try:
            state.configure(changes)
        except ValidationError as error:
            raise HTTPException(400, problem(error)) from None
        return state.config.model_dump()

    @app.post("/faults", status_code=201, summary="Order a fault")
    async def add_fault(spec: FaultSpec) -> Any:
        known = {"*", "getMedia", *(operation.id for operation in OPERATIONS)}
        if spec.operation not in known:
            raise HTTPException(400, f"operation {spec.operation!r} is none of {', '.join(sorted(known))}")
        return state.faults.add(spec).show()

    @app.get("/faults", summary="Faults ordered, and how often each was applied")
    async def show_faults() -> Any:
        return state.faults.show()

    @app.delete("/faults", summary="Forget all faults")
    async def clear_faults() -> Any:
        state.faults.clear()
        return {}

    @app.put("/keys", summary="Revoke an API key, or make it active again")
    async def set_keys(keys: Keys) -> Any:
        for name, status in keys.model_dump(exclude_none=True).items():
            state.auth.active[name] = status == "active"
        return _keys(state)

    @app.delete("/tokens", summary="Revoke every token issued so far")
    async def revoke_tokens() -> Any:
        return {"revoked": state.auth.revoke_tokens()}

    @app.put("/outcomes", summary="Set how the attempts at a number (or `*`) end, from now on")
    async def set_outcomes(outcomes: dict[str, list[str]]) -> Any:
        state.engine.outcomes = {phone: statuses for phone, statuses in outcomes.items() if statuses}
        return state.engine.outcomes

    @app.post("/calls", status_code=201, summary="Load many calls at once")
    async def load_calls(spec: LoadSpec) -> Any:
        state.engine.run()
        try:
            submission, calls = load(state, spec)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse(
            {"submission": submission.seq, "count": len(calls), "ids": [call.id for call in calls]}, 201
        )

    @app.post("/advance", summary="Let simulated time pass at once")
    async def advance(by: Advance) -> Any:
        state.advance(by.seconds)
        return {"wall": precise_time(state.clock.wall()), "simulated": precise_time(state.engine.now)}

    @app.post("/reset", summary="Start again with no calls and the initial configuration")
    async def reset(to: Reset | None = None) -> Any:
        state.reset(to.start.timestamp() if to and to.start else None)
        return {}


def _keys(state: State) -> dict[str, dict[str, str]]:
    values = {"primary": state.options.primary_key, "secondary": state.options.secondary_key}
    return {
        name: {"value": values[name], "status": "active" if active else "revoked"}
        for name, active in state.auth.active.items()
    }


def _chosen(state: State, campaign: str | None, phone: str | None, submission: int | None) -> list[Call]:
    return [
        call
        for call in state.engine.calls.in_order_dialled
        if campaign in (None, call.campaign_name)
        and phone in (None, call.phone)
        and submission in (None, call.submission)
    ]


def _ledger_entry(call: Call, state: State) -> dict[str, Any]:
    ready = call.transcript_at
    return {
        "seq": call.seq,
        "call_id": call.id,
        "phone": call.phone,
        "agent_id": call.agent_id,
        "type": call.type,
        "source": call.source,
        "campaign_id": call.campaign_id,
        "campaign_name": call.campaign_name,
        "submission": call.submission,
        "recipient_index": call.recipient_index,
        "attempt": call.attempt,
        "status": call.status,
        "duration": call.duration,
        "recorded": call.recorded,
        "context": call.context,
        "created_wall": precise_time(call.created_wall),
        "created_simulated": precise_time(call.created_simulated),
        "ended_wall": call.ended_wall and precise_time(call.ended_wall),
        "ended_simulated": call.ended_simulated and precise_time(call.ended_simulated),
        "transcript_ready": ready is not None and ready <= state.engine.now,
    }


def _submission_entry(submission: Submission) -> dict[str, Any]:
    return asdict(submission) | {
        "wall": precise_time(submission.wall),
        "simulated": precise_time(submission.simulated),
    }


def _streamed(items: Iterable[T], show: Callable[[T], dict[str, Any]]) -> StreamingResponse:
    """Send the present items as a JSON list, piece by piece, so that other requests are served in between."""
    present = list(items)

    async def pieces() -> AsyncIterator[str]:
        block, opening = [], "["
        for item in present:
            block.append(json.dumps(show(item), separators=(",", ":")))
            if len(block) == 200:
                yield opening + ",\n".join(block)
                block, opening = [], ",\n"
                await asyncio.sleep(0)
        yield (opening + ",\n".join(block) if block or opening == "[" else "") + "]"

    return StreamingResponse(pieces(), media_type="application/json")
