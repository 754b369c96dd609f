"""The request bodies of the API, validated as strictly as the OpenAPI file says."""

from __future__ import annotations

from datetime import date, time
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from airflow_provider_volubile.simulator.schedule import WEEKDAYS

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
PHONE_PATTERN = r"^\+[1-9]\d{1,14}$"

AgentRef = Annotated[str, Field(pattern=UUID_PATTERN)]
TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
T = TypeVar("T")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Recipient(_Body):
    phone: Annotated[str, Field(pattern=PHONE_PATTERN)]
    context: dict[str, Any] = Field(default_factory=dict)


class CreateCall(_Body):
    agentId: AgentRef
    recipient: Recipient


class CreateBulkCalls(_Body):
    agentId: AgentRef
    recipients: list[Recipient] = Field(min_length=1, max_length=1000)


class TimeSlot(_Body):
    startTime: TimeOfDay
    endTime: TimeOfDay


class Retry(_Body):
    max: int = Field(0, ge=0)
    delay: int = Field(0, ge=0)
    retryOn: list[str] = Field(default_factory=list)


class CreateCampaign(_Body):
    name: str
    agentId: AgentRef
    startDate: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    timeSlots: list[TimeSlot] = Field(min_length=1, max_length=2)
    batchSize: int = Field(ge=1, le=1000)
    days: list[Literal[WEEKDAYS]] = Field(min_length=1)  # type: ignore[valid-type]
    retry: Retry | None = None
    recipients: list[Recipient] | None = Field(None, min_length=1, max_length=1000)
    timezone: str | None = None

    @field_validator("startDate")
    @classmethod
    def _is_date(cls, value: str) -> str:
        if date.fromisoformat(value).year > 9000:
            raise ValueError("is too far away")
        return value

    @model_validator(mode="after")
    def _slots_in_order(self) -> Self:
        slots = self.slots()
        if any(start >= end for start, end in slots):
            raise ValueError("timeSlots must end after they start")
        if any(first[1] > second[0] for first, second in pairwise(sorted(slots))):
            raise ValueError("timeSlots must not overlap")
        return self

    def slots(self) -> list[tuple[time, time]]:
        return [(time.fromisoformat(slot.startTime), time.fromisoformat(slot.endTime)) for slot in self.timeSlots]


class UpdateAgent(_Body):
    name: str = ""
    active: bool = True
    recordable: bool = True
    archived: bool = False


class TokenRequest(_Body):
    scope: list[str]


CampaignStatus = TypeAdapter(Literal["ACTIVE", "PAUSED", "CANCELLED"])


def problem(error: ValidationError) -> str:
    """Say in one line what is wrong with a body."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
