"""Everything about the wire that Volubile's public documentation leaves open, and what we assume about it.

Each assumption says how sure it is:

- **documented**: seen on the page that is named;
- **inferred**: follows from something visible, but no page says it;
- **assumed**: our guess. The code copes when it is wrong, in the way that is described.

No other module knows a query name, a body or a shape that is not documented.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID
from zoneinfo import ZoneInfo

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import mask_digits, mask_phone, mask_phones, mask_secrets

# --- statuses -----------------------------------------------------------------------------------------------------

#: Documented (https://docs.volubile.ai/api-reference/calls/get); the list has grown before.
CALL_STATUSES = frozenset(
    {
        "IN_PROGRESS",
        "CANCELED",
        "COMPLETED",
        "NO_ANSWER",
        "VOICE_BOX",
        "UNREACHABLE",
        "FAILED",
        "TRANSFERRED",
        "REJECTED",
        "FAILOVER",
    }
)
#: Inferred: every known status but ``IN_PROGRESS`` is an end. One that is not known is not final.
FINAL_CALL_STATUSES = CALL_STATUSES - {"IN_PROGRESS"}
#: Assumed: a single call refused so is refused for its number or context. Other statuses refuse every recipient.
PERSON_REFUSALS = frozenset({400, 422})
#: Inferred: where somebody, or a voice box, was heard, a transcript will appear; how late is not documented.
TRANSCRIBED_CALL_STATUSES = frozenset({"COMPLETED", "TRANSFERRED", "VOICE_BOX", "FAILOVER"})
#: Inferred: where somebody was talked to.
REACHED_CALL_STATUSES = frozenset({"COMPLETED", "TRANSFERRED"})
#: Documented (https://docs.volubile.ai/api-reference/campaigns/update-status). Two L, unlike calls.
CAMPAIGN_STATUSES = ("ACTIVE", "PAUSED", "CANCELLED")

#: Documented: items per page (https://docs.volubile.ai/api-reference/calls/list).
MAX_PAGE_SIZE = 100
#: Documented for campaigns (https://docs.volubile.ai/api-reference/campaigns/create), assumed for bulk calls.
MAX_RECIPIENTS = 1000
#: Assumed: seconds after which a call that was placed is in the list of calls.
LIST_LAG = 5.0
#: Assumed: the unit of a campaign's ``retry.delay``, in seconds. No page names it; minutes suit its range best.
RETRY_DELAY_UNIT = 60

# --- paths and queries --------------------------------------------------------------------------------------------

# Documented: ids are UUIDs. Other plain tokens are let through in case that changes; nothing that moves in a path.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Documented: E.164 (https://docs.volubile.ai/api-reference/calls/create).
_PHONE = re.compile(r"\+[1-9][0-9]{1,14}")
_SORT = re.compile(r"[A-Za-z][A-Za-z0-9_.]*,(?:ASC|DESC)")


def path(template: str, identifier: str | None = None, *, what: str = "id") -> str:
    """Fill the id into a route's path.

    :raises VolubileInputError: it could leave its place in the path (empty, slashes, dots, too long).
    """
    if identifier is None:
        return template
    return template.replace("{id}", quote(check_id(identifier, what), safe=""))


def check_id(identifier: Any, what: str = "id") -> str:
    """Return an id that is safe in a path and in a query."""
    text = str(identifier)
    if not isinstance(identifier, str | UUID) or not _ID.fullmatch(text):
        raise VolubileInputError(
            f"{what} {mask_phones(text[:80])!r} is not an id: expected a UUID, "
            "or 1 to 64 letters, digits, hyphens and underscores."
        )
    return text


def _shown(value: Any) -> str:
    """What a message says of a value that was given: it may be a number in the wrong place."""
    return mask_digits(repr(value)[:80])


def page_query(page: int, size: int, sort: str | None = None) -> dict[str, str | int]:
    """Paging. Documented: pages from 1, at most 100 items, the form of ``sort``. Inferred: the three names."""
    if page < 1:
        raise VolubileInputError(f"page {page} does not exist: pages are counted from 1.")
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise VolubileInputError(f"size {size} is outside 1 to {MAX_PAGE_SIZE}, the API's limits for a page.")
    query: dict[str, str | int] = {"page": page, "size": size}
    if sort is not None:
        if not _SORT.fullmatch(sort):
            raise VolubileInputError(f"sort {_shown(sort)} is not of the form 'property,ASC' or 'property,DESC'.")
        query["sort"] = sort
    return query


def call_query(
    *,
    agent_id: str | None = None,
    phone: str | None = None,
    campaign: str | None = None,
    from_date: date | None = None,
    to_date: date | None = None,
) -> dict[str, str | int]:
    """Filters of the call list (https://docs.volubile.ai/api-reference/calls/list).

    Documented: that the filters exist, ``from`` and ``to`` as whole days that must come together. Inferred: the names
    ``agentId`` and ``phone``; whether they were applied is checked (:func:`is_wanted`). Assumed: the name
    ``campaign``, whose effect cannot be checked, since calls do not name their campaign.
    """
    query: dict[str, str | int] = {}
    if agent_id is not None:
        query["agentId"] = check_id(agent_id, "agent_id")
    if phone is not None:
        query["phone"] = check_phone(phone)
    if campaign is not None:
        if not campaign.strip():
            raise VolubileInputError("campaign is empty: give the campaign's name, or leave the filter out.")
        query["campaign"] = campaign
    if (from_date is None) != (to_date is None):
        raise VolubileInputError("from_date and to_date must be given together: the API accepts no open interval.")
    if from_date is not None and to_date is not None:
        for name, day in (("from_date", from_date), ("to_date", to_date)):
            if isinstance(day, datetime) or not isinstance(day, date):
                raise VolubileInputError(f"{name} must be a date: the API filters by whole days.")
        if from_date > to_date:
            raise VolubileInputError(f"from_date {from_date} is after to_date {to_date}.")
        query["from"] = from_date.isoformat()
        query["to"] = to_date.isoformat()
    return query


class Listed(Protocol):
    """What is looked at in a call."""

    @property
    def agent_id(self) -> str | None: ...

    @property
    def phone(self) -> str | None: ...


#: Assumed: calls can be sorted by their creation; the sortable properties are not documented.
NEWEST_FIRST = "created,DESC"


def days_around(begin: datetime, end: datetime) -> tuple[date, date]:
    """Days to filter the call list by, so that no call between two moments is left out.

    Assumed: whatever clock and zone the filter follows, they differ from UTC by less than a day; so one day more is
    asked for on both sides, and the calls' own times decide.
    """
    day = timedelta(days=1)
    return begin.astimezone(UTC).date() - day, end.astimezone(UTC).date() + day


def is_wanted(call: Listed, *, agent_id: str | None, phone: str | None) -> bool:
    """Whether a listed call passes the filters that were asked for: a server may ignore a name it does not know.

    Numbers are compared by their digits and from the end, so that another notation of the same number passes. A call
    without a number never matches a phone filter.
    """
    if agent_id is not None and call.agent_id is not None and call.agent_id.lower() != agent_id.lower():
        return False
    if phone is None:
        return True
    ours, theirs = significant_digits(phone), significant_digits(call.phone or "")
    return len(theirs) >= 6 and (ours.endswith(theirs) or theirs.endswith(ours))


def significant_digits(phone: str) -> str:
    """The digits of a number without ``+``, spaces and the zeros of an international or national prefix."""
    return re.sub(r"\D", "", phone).lstrip("0")


# --- bodies -------------------------------------------------------------------------------------------------------


class HasPhone(Protocol):
    """A person to call."""

    @property
    def phone(self) -> str:
        """E.164."""

    @property
    def context(self) -> Mapping[str, Any]:
        """Values for the placeholders of the agent's prompt."""


RecipientLike = HasPhone | Mapping[str, Any]


def check_phone(phone: Any) -> str:
    """Return a number that is E.164; the message of the error shows it masked."""
    if not isinstance(phone, str) or not _PHONE.fullmatch(phone):
        raise VolubileInputError(
            f"{mask_phone(str(phone))} is not a number in E.164: '+', country code, number, no spaces."
        )
    return phone


def recipient_body(recipient: RecipientLike) -> dict[str, Any]:
    """A person as ``{"phone", "context"}``.

    Documented for a single call (https://docs.volubile.ai/api-reference/calls/create), inferred for campaigns and
    bulk calls, whose pages do not show the members of a recipient. Assumed: ``context`` may be left out.
    """
    if isinstance(recipient, Mapping):
        phone, context = recipient.get("phone"), recipient.get("context")
    else:
        phone, context = getattr(recipient, "phone", None), getattr(recipient, "context", None)
    body: dict[str, Any] = {"phone": check_phone(phone)}
    if context is not None and not isinstance(context, Mapping):
        raise VolubileInputError(f"the context of {mask_phone(body['phone'])} is no mapping of names to values.")
    if context:
        body["context"] = context_values(context)
    return body


def context_values(context: Mapping[str, Any]) -> dict[str, Any]:
    """The context as it is sent.

    The documentation shows strings only, so strings are sent: numbers in their shortest form (``7.0`` becomes
    ``"7"``, as an agent would say it), ``True`` as ``"true"``. None is left out. Objects and lists of JSON are sent
    as they are (assumed: the context is called a free object).

    :raises VolubileInputError: a value that is not JSON, or a key that is no text or is ``system``, which the service
        fills in itself (https://docs.volubile.ai/en/product/prompt/context). Names the key, not the value.
    """
    sent: dict[str, Any] = {}
    for key, value in context.items():
        if not isinstance(key, str) or not key:
            raise VolubileInputError(f"context key {_shown(key)} is not a text: the agent's prompt could not name it.")
        if key == "system":
            raise VolubileInputError("context key 'system' is reserved: the service fills it in itself.")
        if value is None:
            continue
        sent[key] = _context_value(key, value)
    return sent


_LARGEST_NUMBER = 10**18


def _context_value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _not_json(key, "text that is not Unicode") from None
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Real | Decimal):
        return _number_text(key, value)
    if isinstance(value, Mapping | list | tuple):
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
            return value if not isinstance(value, Mapping) else dict(value)
        except (TypeError, ValueError, RecursionError):
            raise _not_json(key, f"a {type(value).__name__} that is not JSON") from None
    raise _not_json(key, f"a {type(value).__name__}")


def _number_text(key: str, value: Any) -> str:
    with suppress(ValueError, OverflowError):  # of numbers that are none
        if math.isfinite(value) and abs(value) <= _LARGEST_NUMBER:
            return str(int(value)) if value == int(value) else str(value)
    raise _not_json(key, "not a number that can be said")


def _not_json(key: str, what: str) -> VolubileInputError:
    return VolubileInputError(
        f"context value of {mask_digits(key)!r} cannot be sent, it is {what}: make it a text, a number, true or false."
    )


def call_body(agent_id: str, recipient: RecipientLike) -> dict[str, Any]:
    """Documented (https://docs.volubile.ai/api-reference/calls/create)."""
    return {"agentId": check_id(agent_id, "agent_id"), "recipient": recipient_body(recipient)}


def bulk_body(agent_id: str, recipients: Iterable[RecipientLike]) -> dict[str, Any]:
    """Assumed: no page shows the body of ``POST /v1/bulk/calls``. One agent for all, recipients as in a campaign."""
    return {"agentId": check_id(agent_id, "agent_id"), "recipients": _recipients(recipients)}


#: The members of a request that creates a campaign.
CAMPAIGN_MEMBERS = frozenset(
    {"name", "agentId", "startDate", "timeSlots", "batchSize", "days", "recipients", "retry", "timezone"}
)


def campaign_body(
    *,
    name: str,
    agent_id: str,
    start_date: date,
    time_slots: Sequence[tuple[time, time]],
    days: Sequence[str],
    batch_size: int,
    recipients: Iterable[RecipientLike],
    retry: Mapping[str, Any] | None = None,
    timezone: str | None = None,
) -> dict[str, Any]:
    """A new campaign (https://docs.volubile.ai/api-reference/campaigns/create).

    Documented: all members but the following. Inferred from answers: the members of ``retry`` (``max``, ``delay``,
    ``retryOn``). Inferred: the members of a recipient. Assumed: ``timezone`` is accepted (the client sends again
    without it when it is refused).
    """
    body: dict[str, Any] = {
        "name": name,
        "agentId": check_id(agent_id, "agent_id"),
        "startDate": start_date.isoformat(),
        "timeSlots": [{"startTime": f"{start:%H:%M}", "endTime": f"{end:%H:%M}"} for start, end in time_slots],
        "batchSize": batch_size,
        "days": list(days),
        "recipients": _recipients(recipients),
    }
    if retry:
        body["retry"] = dict(retry)
    if timezone is not None:
        body["timezone"] = timezone
    return body


def check_timezone(name: Any) -> None:
    """Raise unless it is an IANA name, so that a 400 about it can only mean the member itself."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise VolubileInputError(f"timezone {_shown(name)} is not an IANA name such as Europe/Paris.") from None


def _recipients(recipients: Iterable[RecipientLike]) -> list[dict[str, Any]]:
    bodies = [recipient_body(recipient) for recipient in recipients]
    if not 1 <= len(bodies) <= MAX_RECIPIENTS:
        raise VolubileInputError(
            f"{len(bodies)} recipients in one request: the API takes 1 to {MAX_RECIPIENTS}; split them in parts."
        )
    return bodies


#: Documented as an example (https://docs.volubile.ai/api-reference/agents/patch); a partial update is inferred.
AGENT_CHANGES: Mapping[str, type] = {"name": str, "active": bool, "recordable": bool, "archived": bool}


def agent_body(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Check the changes of an agent."""
    if not changes:
        raise VolubileInputError(f"no changes given: an agent can change {', '.join(AGENT_CHANGES)}.")
    for name, value in changes.items():
        if name not in AGENT_CHANGES:
            raise VolubileInputError(f"an agent's {_shown(name)} cannot be changed, only {', '.join(AGENT_CHANGES)}.")
        if type(value) is not AGENT_CHANGES[name] or value == "":
            raise VolubileInputError(f"an agent's {name!r} must be a {AGENT_CHANGES[name].__name__}, and not empty.")
    return dict(changes)


# --- answers ------------------------------------------------------------------------------------------------------


def accepted_calls(data: Any) -> Iterator[tuple[str | None, str | None]]:
    """Ids and numbers of calls that were taken, in any form a server may choose to tell them.

    The answers to ``POST /v1/calls`` (the page says there is none) and to ``POST /v1/bulk/calls`` are not documented.
    Assumed: an object with ``id``; ``{"calls": [...]}`` or a bare list of such objects or of ids. What is missing
    from the answer may have been taken all the same.
    """
    if isinstance(data, Mapping):
        inner = next((data[key] for key in ("calls", "content") if isinstance(data.get(key), list)), None)
        if inner is None:
            inner = [data["call"] if isinstance(data.get("call"), Mapping) else data]
        data = inner
    elif not isinstance(data, list):
        data = [data]
    for entry in data:
        if isinstance(entry, Mapping):
            identifier = next((entry[key] for key in ("id", "callId") if is_id(entry.get(key))), None)
            phone = entry.get("phone")
            yield identifier, phone if isinstance(phone, str) and phone else None
        elif is_id(entry):
            yield entry, None


def is_id(value: Any) -> bool:
    """Whether an id that a server gave is safe in a path and in a query."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def may_have_transcript(status: str | None) -> bool:
    """Whether a call that ended so may have a transcript. Assumed of a status that is not known."""
    return status not in FINAL_CALL_STATUSES - TRANSCRIBED_CALL_STATUSES


def has_ended(status: str | None, *, has_end: bool) -> bool:
    """Whether a call that is looked at once, and not waited for, is over.

    Assumed of a status that came later than this package: it is, when the call has an ``endTime``.
    """
    return status in FINAL_CALL_STATUSES or (status not in CALL_STATUSES and has_end)


def transcript_events(body: bytes) -> list[Any]:
    """The events of a transcript as plain JSON.

    Documented is a single event (https://docs.volubile.ai/api-reference/calls/get-transcript), which can hardly be
    all. Assumed: a list; understood too: one object, one object per line, a list in ``content`` or ``events``.

    :raises ValueError: none of these.
    """
    try:
        data = json.loads(body)
    except json.JSONDecodeError:
        return [json.loads(line) for line in body.splitlines() if line.strip()]
    if isinstance(data, Mapping):
        data = next((data[key] for key in ("content", "events") if isinstance(data.get(key), list)), [data])
    if not isinstance(data, list) or not all(_is_event(event) for event in data):
        raise ValueError("not events")
    return data


def is_whole_transcript(actions: Iterable[str]) -> bool:
    """Whether a transcript is one of a call that has ended, by its events.

    The actions are documented (https://docs.volubile.ai/api-reference/calls/get-transcript). Inferred: nothing comes
    after this one.
    """
    return "HANG_UP" in actions


def _is_event(data: Any) -> bool:
    return isinstance(data, Mapping) and not data.keys().isdisjoint({"action", "time", "actor", "message"})


def recording_link(data: Any) -> str | None:
    """The link in a JSON answer to ``GET /v1/calls/{id}/recording``. Assumed: the page of this route is not known."""
    if isinstance(data, str):
        return data or None
    if isinstance(data, Mapping):
        for key in ("url", "link", "href", "downloadUrl", "recordingUrl", "recording"):
            if isinstance(data.get(key), str) and data[key]:
                return str(data[key])
    return None


_MESSAGE_LIMIT = 300


def server_message(body: bytes | None, secrets: Iterable[str] = ()) -> str:
    """What an error answer says, in one bounded line with numbers and ``secrets`` masked; empty when it says nothing.

    The members of ``ErrorResponse`` are not documented. Assumed: ``message`` (or ``detail``, ``error``, ``title``),
    perhaps with a list ``errors``; any other text is shown as it is, unless it is a web page.
    """
    if not body:
        return ""
    try:
        text = "; ".join(dict.fromkeys(_messages(json.loads(body))))
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        if text.lstrip().startswith("<"):
            return ""
    # Secrets first: neither what hides numbers nor the limit must cut one in two.
    return _one_line(mask_secrets(text, secrets))


def _messages(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, list):
        for entry in data[:5]:
            yield from _messages(entry)
    elif isinstance(data, Mapping):
        for key in ("message", "detail", "defaultMessage", "error_description", "error", "title"):
            if isinstance(data.get(key), str) and data[key].strip():
                yield data[key]
                break
        if isinstance(data.get("errors"), list):
            yield from _messages(data["errors"])


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2**16]).split())
    masked = mask_digits(line[: 4 * _MESSAGE_LIMIT])
    return masked if len(masked) <= _MESSAGE_LIMIT else masked[: _MESSAGE_LIMIT - 1] + "…"


def refuses_timezone(reason: str) -> bool:
    """Whether a 400 seems to be about the ``timezone`` of a new campaign, which is documented in answers only."""
    return re.search(r"time[\s_-]?zone", reason, re.IGNORECASE) is not None
