"""What dialling operators hand over through XCom, and what sensors, exports and triggers take."""

from __future__ import annotations

from typing import Any, TypedDict

from airflow_provider_volubile.submissions import SubmissionKind
from airflow_provider_volubile.waiting import CampaignRef


class SubmissionHandle(TypedDict, total=False):
    """A submission: ids and counts, no people. What does not apply is left out.

    :ivar kind: ``campaign``, ``bulk`` or ``call``.
    :ivar agent_id: the agent.
    :ivar submitted_at: before this moment no call of it was made; ISO 8601.
    :ivar recipients: people the service accepted.
    :ivar rejected: rows that nobody was called for.
    :ivar campaigns: of a campaign submission: id, name and number of recipients of each part.
    :ivar redial: of a campaign submission: ``max``, ``delay``, ``retry_on``.
    :ivar call_ids: of bulk and single calls: their ids.
    :ivar counts: after waiting: number of people by outcome, ``NEVER_DIALED`` included.
    :ivar outcomes: where the outcomes table was written, if it was asked for.
    """

    kind: SubmissionKind
    agent_id: str
    submitted_at: str
    recipients: int
    rejected: int
    campaigns: list[CampaignRef]
    redial: dict[str, Any]
    call_ids: list[str]
    counts: dict[str, int]
    outcomes: str
