"""What Volubile answers, as typed and frozen objects.

Fields were added to the API over time and more will come, so every model keeps members it does not know (in
``model_extra``), statuses are plain strings, and everything but an ``id`` may be missing. Moments are aware and in
UTC, as the `call page <https://docs.volubile.ai/api-reference/calls/get>`__ says; one that comes without a zone is
taken as UTC. ``model_dump(by_alias=True)`` gives the API's own names back.

A printed model shows ids, statuses and masked numbers, never what somebody said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.masking import Secret, Unstorable, mask_phone

ItemT = TypeVar("ItemT", bound="ApiModel", covariant=True)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the calendar") from None


# What comes in UTC, as documented, never leaves pydantic's core: reading a page of calls costs a quarter less.
Moment = Annotated[
    datetime,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.union_schema(
            [
                core_schema.datetime_schema(tz_constraint=0),
                core_schema.no_info_after_validator_function(_utc, core_schema.datetime_schema()),
            ],
            mode="left_to_right",
        )
    ),
]
OpenStatus = Annotated[str, BeforeValidator(lambda status: "" if status is None else status)]


class ApiModel(BaseModel):
    """Base of the answers: camelCase on the wire, unknown members kept, nothing personal when printed."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        coerce_numbers_to_str=True,
    )
    #: Members without which an answer makes no sense.
    vital: ClassVar[frozenset[str]] = frozenset({"id"})
    #: Members that may be printed; a number only masked.
    shown: ClassVar[tuple[str, ...]] = ("id", "status")

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name in self.shown:
            value = getattr(self, name)
            yield name, mask_phone(value) if name == "phone" and value else value


class Agent(ApiModel):
    """A voice agent (https://docs.volubile.ai/api-reference/agents/get).

    Only an active one of type ``OUTBOUND`` can call people.

    :param telephony_configuration: ``phoneNumbers`` (E.164) and ``sipConnection``, as the API names them.
    :param configuration: ``extractors`` and ``classifiers``: what the agent reads out of its calls.
    """

    shown: ClassVar[tuple[str, ...]] = ("id", "name", "type", "active", "archived")

    id: str = Field(min_length=1)
    name: str | None = None
    type: str | None = None
    active: bool | None = None
    recordable: bool | None = None
    archived: bool | None = None
    telephony_configuration: dict[str, Any] | None = None
    configuration: dict[str, Any] | None = None


class Call(ApiModel):
    """One telephone call (https://docs.volubile.ai/api-reference/calls/get).

    :param phone: number of the other party, E.164; may be missing on an anonymous call.
    :param type: ``INBOUND`` or ``OUTBOUND``.
    :param status: one of :data:`wire.CALL_STATUSES`, or one that came later; empty when the answer had none.
    :param duration: seconds.
    :param extracted_data: the extractors as one flat object; webhooks call it ``extractorData``.
    :param classification_data: the classifiers as one flat object; webhooks call it ``classifierData``.
    :param context: as given at creation, and ``system``, which the service fills in.
    :param created: when the record was made; may be set late.
    """

    shown: ClassVar[tuple[str, ...]] = ("id", "status", "phone", "duration", "created")

    id: str = Field(min_length=1)
    agent_id: str | None = None
    phone: str | None = None
    type: str | None = None
    status: OpenStatus = ""
    duration: int | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    anonymous: bool | None = None
    recorded: bool | None = None
    summary: str | None = None
    extractors: list[Any] | None = None
    extracted_data: dict[str, Any] | None = Field(
        default=None,
        validation_alias=AliasChoices("extractedData", "extractorData"),
        serialization_alias="extractedData",
    )
    classifiers: list[Any] | None = None
    classification_data: dict[str, Any] | None = Field(
        default=None,
        validation_alias=AliasChoices("classificationData", "classifierData"),
        serialization_alias="classificationData",
    )
    context: dict[str, Any] | None = None
    created: Moment | None = None

    def model_post_init(self, context: Any, /) -> None:
        extra = self.model_extra or {}
        # Of two spellings in one answer pydantic takes the first, although it may be null, and leaves the other one.
        for name, other in (("extracted_data", "extractorData"), ("classification_data", "classifierData")):
            if getattr(self, name) is None and isinstance(extra.get(other), dict):
                self.__dict__[name] = extra.pop(other)

    @property
    def time(self) -> datetime | None:
        """The moment that decides on which day the call was: ``created``, which may be set late, else another time."""
        return self.created or self.start_time or self.end_time

    @property
    def is_final(self) -> bool:
        """Whether the call is over. A status that is not known is not final."""
        return self.status in wire.FINAL_CALL_STATUSES


class TranscriptEvent(ApiModel):
    """Something that happened in a call (https://docs.volubile.ai/api-reference/calls/get-transcript).

    :param action: ``RING``, ``ANSWER``, ``HUMAN_SPEAK``, ``AGENT_SPEAK``, ``ANSWERING_MACHINE_BEEP``, ``HANG_UP``,
        ``TRANSFER_CALL``, or one that came later.
    :param actor: ``UNKNOWN``, ``HUMAN``, ``AGENT``, ``ANSWERING_MACHINE``.
    :param message: what was said, where someone speaks.
    """

    vital: ClassVar[frozenset[str]] = frozenset()
    shown: ClassVar[tuple[str, ...]] = ("action", "time", "actor")

    action: OpenStatus = ""
    time: Moment | None = None
    actor: str | None = None
    message: str | None = None


class CampaignTimeSlot(ApiModel):
    """``HH:MM`` to ``HH:MM`` on the campaign's clock."""

    vital: ClassVar[frozenset[str]] = frozenset()
    shown: ClassVar[tuple[str, ...]] = ("start_time", "end_time")

    start_time: str | None = None
    end_time: str | None = None


class CampaignRetry(ApiModel):
    """What happens when somebody is not reached. The unit of ``delay`` is not documented (:mod:`wire`)."""

    vital: ClassVar[frozenset[str]] = frozenset()
    shown: ClassVar[tuple[str, ...]] = ("max", "delay", "retry_on")

    max: int | None = None
    delay: int | None = None
    retry_on: list[str] | None = None


class Campaign(ApiModel):
    """A campaign (https://docs.volubile.ai/api-reference/campaigns/update-status).

    It tells neither its recipients nor its progress, and knows no "completed".

    :param status: ``ACTIVE``, ``PAUSED``, ``CANCELLED``; empty when the answer had none.
    :param batch_size: calls per day.
    :param timezone: IANA name of the clock of ``start_date`` and ``time_slots``.
    """

    shown: ClassVar[tuple[str, ...]] = ("id", "name", "status")

    id: str = Field(min_length=1)
    name: str | None = None
    agent_id: str | None = None
    status: OpenStatus = ""
    start_date: date | None = None
    time_slots: list[CampaignTimeSlot] | None = None
    batch_size: int | None = None
    retry: CampaignRetry | None = None
    days: list[str] | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """One page of a list (https://docs.volubile.ai/api-reference/calls/list).

    :param content: the items that were asked for.
    :param page: number of this page, from 1; None when the answer did not tell (so with all the numbers).
    :param received: items the server sent; more than ``content`` when it ignored a filter that we then applied.
    :param sort: the order that was asked for; None when the server refused it, and the order is unknown.
    """

    content: tuple[ItemT, ...]
    page: int | None = None
    size: int | None = None
    total_elements: int | None = None
    total_pages: int | None = None
    received: int = 0
    sort: str | None = None


@dataclass(frozen=True, slots=True)
class AcceptedCall:
    """A call the server took. Both may be missing: the answer is not documented. Then look in the list of calls."""

    id: str | None = None
    phone: str | None = None

    def __repr__(self) -> str:
        return f"AcceptedCall(id={self.id!r}, phone={mask_phone(self.phone) if self.phone else None!r})"


@dataclass(frozen=True, slots=True)
class IssuedToken(Unstorable):
    """A bearer token (https://docs.volubile.ai/api-reference/auth/create-token). Never log or push it.

    :param secret: the token, which nothing shows or stores.
    :param scopes: what it may do.
    :param lifetime: seconds it is good for, from when it was received.
    :param expires_at: the same as a moment of this machine's clock, aware.
    """

    secret: Secret
    scopes: frozenset[str]
    lifetime: float
    expires_at: datetime

    @property
    def token(self) -> str:
        """The token itself."""
        return self.secret.reveal()
