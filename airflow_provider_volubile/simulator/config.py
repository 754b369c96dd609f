"""Settings: options fixed when the simulator starts, and a configuration that may change while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

PRIMARY_KEY = "sim-primary-key-0001"
SECONDARY_KEY = "sim-secondary-key-0002"


class Config(BaseModel):
    """Everything that ``PATCH /_sim/config`` can change.

    Where Volubile's documentation says nothing, the default is the form that the OpenAPI file assumes. The other
    values are forms that a client should handle.
    """

    model_config = ConfigDict(extra="forbid")

    # Clock and telephones
    speed: float = Field(
        1, ge=0, le=1_000_000, description="Simulated seconds per wall second; 0 stands still between advances."
    )
    ignore_windows: bool = Field(
        False, description="Campaigns dial at once: start date, days, time slots and batch size do not count."
    )
    lines: int = Field(20, ge=1, description="Calls one campaign may have in progress at once.")
    dial_interval: float = Field(1, ge=0, description="Simulated seconds between two dials of one campaign.")
    transcript_delay: float = Field(30, ge=0, description="Simulated seconds from the end of a call to its transcript.")
    latency: float = Field(0, ge=0, description="Wall seconds that every answer of the API takes.")

    # Rate window
    limit: int = Field(100, ge=1, description="Requests per window.")
    window: float = Field(15, gt=0, description="Wall seconds per window.")
    window_start: Literal["aligned", "first_request"] = Field(
        "aligned",
        description="Windows follow each other without a gap, or begin with the first request after one.",
    )
    rate_headers: Literal["present", "absent", "odd"] = Field("present", description="X-RateLimit-* headers.")
    retry_after: Literal["seconds", "date", "absent", "wrong"] = Field(
        "seconds", description="Retry-After of a 429; `wrong` says 0 although the window is not over."
    )

    # Tokens
    token_life: float = Field(900, gt=0, description="Wall seconds for which a new token is really accepted.")
    token_expires_in: int | None = Field(None, description="`expiresIn` to claim instead of the true life.")
    token_claims: dict[str, Any] = Field(
        default_factory=dict, description="Claims to put in (or, with null, leave out of) new tokens."
    )
    token_format: Literal["jwt", "opaque"] = Field("jwt", description="`opaque` tokens are no JWT.")

    # Answers whose form is not documented
    call_answer: Literal["id", "no_id", "empty", "204"] = Field("id", description="Answer of POST /v1/calls.")
    bulk_answer: Literal["calls", "list", "empty", "partial", "no_ids"] = Field(
        "calls", description="Answer of POST /v1/bulk/calls; `partial` leaves out every second call."
    )
    transcript_shape: Literal["array", "single", "ndjson"] = "array"
    transcript_size: int | None = Field(None, ge=1, description="Make every transcript at least this many bytes.")
    recording_answer: Literal["bytes", "redirect", "json", "empty"] = Field(
        "bytes", description="`redirect` and `json` lead to the media port."
    )
    recording_size: int = Field(8044, ge=44, description="Bytes of every recording.")
    recording_link_life: float = Field(
        300, ge=0, description="Wall seconds for which a link to the media port is good."
    )
    patch_answer: Literal["agent", "empty", "204"] = Field("agent", description="Answer of PATCH /v1/agents/{id}.")
    created: Literal["present", "missing"] = Field("present", description="Whether calls show `created`.")
    created_lag: float = Field(
        0,
        ge=0,
        description="Wall seconds until `created` appears, with that later time.",
    )
    campaign_timezone: Literal["accepted", "refused", "ignored"] = Field(
        "accepted", description="Handling of `timezone` in a new campaign; `ignored` uses Europe/Paris."
    )
    error_body: Literal["json", "empty", "html"] = "json"

    # The call list
    list_lag: float = Field(0, ge=0, description="Wall seconds until a call shows up in the call list.")
    sort: Literal["honoured", "ignored", "refused"] = "honoured"
    default_sort: str = Field("created,DESC", description="Order without (or with an ignored) `sort`.")
    date_filter: Literal["created", "startTime"] = Field("created", description="What `from` and `to` look at.")
    date_zone: str = Field("UTC", description="IANA zone in which `from` and `to` count days.")

    # Webhook
    webhook_url: str | None = Field(None, pattern=r"^https?://", description="Where final calls are posted to.")
    webhook_secret: str | None = Field(None, description="Signs webhooks: hex HMAC-SHA256 of the body (assumed).")

    @field_validator("date_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is no IANA time zone")
        return value

    @field_validator("default_sort")
    @classmethod
    def _sortable(cls, value: str) -> str:
        if value.partition(",")[::2] not in {(name, way) for name in CALL_SORTS for way in ("ASC", "DESC")}:
            raise ValueError(f"{value!r} is not <property>,ASC or <property>,DESC of {', '.join(CALL_SORTS)}")
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.date_zone)

    def update(self, changes: dict[str, Any]) -> None:
        """Apply all changes, or none.

        :raises pydantic.ValidationError: a key is unknown or a value not allowed.
        """
        changed = Config.model_validate(self.model_dump() | changes)
        for key in changes:
            setattr(self, key, getattr(changed, key))


#: Properties of a call that the list can be sorted by.
CALL_SORTS = ("created", "startTime", "endTime", "status", "phone", "duration", "type", "agentId", "id")


@dataclass(frozen=True)
class Options:
    """Options that stay fixed while the simulator runs.

    :param start: simulated time to begin with (POSIX seconds), None for the present.
    """

    seed: int = 0
    start: float | None = None
    primary_key: str = PRIMARY_KEY
    secondary_key: str = SECONDARY_KEY
    config: Config = field(default_factory=Config)
