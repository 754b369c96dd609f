"""Put many calls into the account without dialling, for benchmarks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from airflow_provider_volubile.simulator import chance, telephony
from airflow_provider_volubile.simulator.agents import REMINDER_AGENT_ID
from airflow_provider_volubile.simulator.bodies import PHONE_PATTERN
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.engine import finish
from airflow_provider_volubile.simulator.logs import Submission
from airflow_provider_volubile.simulator.state import State


class LoadSpec(BaseModel):
    """Calls to put into the account as if they had been dialled earlier."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, le=200_000)
    agent_id: str = REMINDER_AGENT_ID
    status: str = Field(
        "COMPLETED",
        description="Status of every call; `IN_PROGRESS` leaves them running, `*` draws from the distribution.",
    )
    ends_within: float | None = Field(
        None, gt=0, description="Simulated seconds within which calls left IN_PROGRESS end, spread evenly."
    )
    final_status: str = Field("COMPLETED", description="Final status of those calls.")
    campaign: str | None = Field(None, description="Campaign name to file the calls under.")
    type: Literal["OUTBOUND", "INBOUND"] = "OUTBOUND"
    phones: list[Annotated[str, Field(pattern=PHONE_PATTERN)]] | None = Field(
        None, min_length=1, description="Numbers, used in turn; by default 20,000 fictional ones."
    )
    created_from: AwareDatetime | None = Field(
        None, description="Creation of the first call on the wall clock; by default an hour before the last."
    )
    created_to: AwareDatetime | None = Field(None, description="Creation of the last call; by default now.")
    transcripts: bool = Field(True, description="Whether answered calls already have their transcripts.")


def load(state: State, spec: LoadSpec) -> tuple[Submission, list[Call]]:
    """Put calls into the account, evenly spread over a time range.

    :raises ValueError: the agent is unknown, or the range ends before it begins or in the future.
    """
    agent = state.agents.get(spec.agent_id)
    if agent is None:
        raise ValueError(f"agent {spec.agent_id} does not exist")
    first, last = _range(state.clock.wall(), spec.created_from, spec.created_to)
    submission = state.submit("load", spec.agent_id, spec.count, name=spec.campaign)
    calls = [
        _call(state, spec, submission, index, first + (last - first) * (index + 1) / spec.count)
        for index in range(spec.count)
    ]
    state.engine.calls.add_past(calls)
    return submission, calls


def _range(now: float, first: datetime | None, last: datetime | None) -> tuple[float, float]:
    stop = now if last is None else last.timestamp()
    start = stop - 3600 if first is None else first.timestamp()
    if start > stop:
        raise ValueError("created_from must not be after created_to")
    if stop > now:
        raise ValueError("created_to must not be in the future")
    return start, stop


def _call(state: State, spec: LoadSpec, submission: Submission, index: int, created: float) -> Call:
    seed, engine = state.options.seed, state.engine
    phone = spec.phones[index % len(spec.phones)] if spec.phones else _fictional_phone(index)
    age = state.clock.wall() - created
    simulated = engine.now - age
    call = Call(
        seq=len(engine.calls) + index + 1,
        id=chance.uuid4(seed, "call", submission.seq, index, 1),
        phone=phone,
        type=spec.type,
        agent_id=spec.agent_id,
        source="load",
        campaign_id=None,
        campaign_name=spec.campaign,
        submission=submission.seq,
        recipient_index=index,
        attempt=1,
        context={},
        created_simulated=simulated,
        created_wall=created,
        start_wall=created,
        recordable=state.agents[spec.agent_id]["recordable"],
    )
    course = telephony.course(seed, phone, 1, None if spec.status == "*" else spec.status)
    if course.length is None:
        if spec.ends_within is not None:
            when = engine.now + spec.ends_within * (index + 1) / spec.count
            ending = telephony.course(seed, phone, 1, spec.final_status)
            engine.end_later(call, when, ending.status, ending.duration)
    else:
        length = min(course.length, age)
        finish(call, course.status, course.duration, simulated + length, created + length, 0)
        if not spec.transcripts:
            call.transcript_at = None
    return call


def _fictional_phone(index: int) -> str:
    """Return one of 20,000 numbers from ranges that are reserved for fiction."""
    prefix = "+3363998" if index // 10_000 % 2 == 0 else "+3319900"
    return f"{prefix}{index % 10_000:04}"
