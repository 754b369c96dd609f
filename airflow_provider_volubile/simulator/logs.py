"""Logs: accepted submissions, and the requests that reached the two ports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Submission:
    """One accepted request that dials.

    :param answer: ``delivered``, or the kind of fault that the client met.
    """

    seq: int
    operation: str
    wall: float
    simulated: float
    agent_id: str
    name: str | None
    campaign_id: str | None
    recipients: int
    answer: str = "delivered"


@dataclass(slots=True)
class RequestEntry:
    """One request to the API.

    :param wall: when it arrived.
    :param status: the status sent, None if the connection was closed without an answer.
    :param credential: ``primary``, ``secondary``, ``token``, ``none`` or ``bad``.
    """

    seq: int
    wall: float
    operation: str
    method: str
    route: str
    path: str
    query: str
    credential: str
    scopes: list[str] | None
    status: int | None = None
    fault: str | None = None


@dataclass(slots=True)
class MediaRequest:
    """One request to the media port; ``headers`` holds the names of its headers."""

    wall: float
    method: str
    path: str
    headers: list[str]
    status: int


@dataclass(slots=True)
class Delivery:
    """One webhook: the receiver's answer, or the error that prevented it."""

    call_id: str
    wall: float
    status: int | None
    error: str | None
