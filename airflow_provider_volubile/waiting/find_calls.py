"""Which calls somebody means: the handle of a submission, or ids."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.handles import SubmissionHandle, handles_and_ids
from airflow_provider_volubile.calling.sending_parts import calls_since, carried
from airflow_provider_volubile.exceptions import VolubileOutcomeGap
from airflow_provider_volubile.waiting.polling import READ_ONE_BY_ONE, pages
from airflow_provider_volubile.waiting.watches import CampaignWatch, campaign_watches

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import Call


class CallRef(NamedTuple):
    """What is kept of a call while many are handled.

    :param status: None when the call was not looked at.
    :param recorded: None likewise, or when the service does not tell.
    :param at: the call's time, aware: ``created``, else ``startTime``, else ``endTime``.
    :param has_end: whether the call has an ``endTime``.
    """

    call_id: str
    status: str | None = None
    recorded: bool | None = None
    at: datetime | None = None
    has_end: bool = False

    @classmethod
    def of(cls, call: Call) -> CallRef:
        return cls(call.id, call.status, call.recorded, time_of(call), call.end_time is not None)

    @property
    def has_ended(self) -> bool:
        return wire.has_ended(self.status, has_end=self.has_end)

    @property
    def expects_transcript(self) -> bool:
        """Whether a transcript may appear: somebody was heard, or that is not known."""
        nobody_was_heard = wire.FINAL_CALL_STATUSES - wire.TRANSCRIBED_CALL_STATUSES
        return self.status not in nobody_was_heard


def time_of(call: Call) -> datetime | None:
    """The moment that decides on which day a call was: ``created`` may be set late, or be missing."""
    return call.created or call.start_time or call.end_time


def complete(client: VolubileClient, handle: SubmissionHandle) -> SubmissionHandle:
    """The handle with the ids that were not known when it was returned: an answer may tell none, and lists are late.

    :raises VolubileOutcomeGap: calls that the service accepted are still not listed.
    """
    if "counts" in handle:  # whoever waited has looked already, and was content
        return handle
    ids = dict.fromkeys(handle.get("call_ids", ()))
    recipients = handle.get("recipients", len(ids))
    if "call_ids" not in handle or len(ids) >= recipients:
        return handle
    if (reference := handle.get("reference")) and (submitted_at := handle.get("submitted_at")):
        found: dict[str, str] = {}
        for call in calls_since(client, datetime.fromisoformat(submitted_at), agent_id=handle.get("agent_id")):
            # Somebody who was called twice on purpose counts once, with the call that is known already.
            if (carried(call) or "").startswith(f"{reference}-") and found.get(call.phone or call.id) not in ids:
                found[call.phone or call.id] = call.id
        ids |= dict.fromkeys(found.values())
    if len(ids) < recipients:
        raise VolubileOutcomeGap(
            f"{recipients} people were accepted, but only {len(ids)} of their calls are listed. Look in Volubile's "
            "dashboard for the others. Clearing this task looks once more, and calls no one."
        )
    return SubmissionHandle(**{**handle, "call_ids": list(ids)})


def find_calls(client: VolubileClient, calls: Any, *, now: datetime) -> list[CallRef]:
    """Find the calls of submissions, or take ids as they are, each once.

    The calls of a campaign are found by its name; those of many ids by listing their agent's calls, where the handle
    tells the agent and the time. Few or plain ids are not looked at: their ``status`` is None.

    :param calls: a handle that a dialling operator returned, an id, or a list of handles or ids.
    :raises VolubileInputError: it is none of these.
    :raises VolubileOutcomeGap: not all calls of a handle are listed.
    """
    found: dict[str, CallRef] = {}
    for item in handles_and_ids(calls, "calls"):
        if isinstance(item, str):
            found.setdefault(item, CallRef(item))
            continue
        for ref in _of_submission(client, item, now):
            found[ref.call_id] = ref
    return list(found.values())


def _of_submission(client: VolubileClient, handle: SubmissionHandle, now: datetime) -> Iterator[CallRef]:
    watches = campaign_watches(
        handle.get("campaigns", ()),
        agent_id=handle.get("agent_id"),
        since=handle.get("submitted_at"),
        redial=handle.get("redial"),
        wait_for="ended",
    )
    for watch in watches:
        yield from _of_campaign(client, watch, now)
    yield from _of_ids(client, complete(client, handle), now)


def _of_campaign(client: VolubileClient, watch: CampaignWatch, now: datetime) -> Iterator[CallRef]:
    refs: dict[str, CallRef] = {}
    filters = {"campaign": watch.campaign["name"], "agent_id": watch.agent_id}
    for page in pages(client, filters, horizon=None, since=watch.since, now=now):
        for call in page:
            watch.see(call, now)
            refs[call.id] = CallRef.of(call)
    watch.progress()  # raises when the list shows the calls of others
    for attempt in watch.attempts:
        yield refs[attempt.call_id]


def _of_ids(client: VolubileClient, handle: SubmissionHandle, now: datetime) -> Iterator[CallRef]:
    pending = dict.fromkeys(handle.get("call_ids", ()))
    if len(pending) > READ_ONE_BY_ONE and "submitted_at" in handle:
        since = datetime.fromisoformat(handle["submitted_at"])
        for page in pages(client, {"agent_id": handle.get("agent_id")}, horizon=since, since=since, now=now):
            for call in page:
                if call.id in pending:
                    del pending[call.id]
                    yield CallRef.of(call)
            if not pending:
                return
    for call_id in pending:
        yield CallRef(call_id)
