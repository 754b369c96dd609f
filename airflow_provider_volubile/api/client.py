"""The Volubile API: one method per route."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import date
from types import TracebackType
from typing import Any, Self

from airflow_provider_volubile.api import routes, wire
from airflow_provider_volubile.api.addresses import check_base_url
from airflow_provider_volubile.api.answers import is_empty, read_accepted, read_one, read_page, read_transcript
from airflow_provider_volubile.api.auth import Credentials, issue_token
from airflow_provider_volubile.api.headers import RateLimit
from airflow_provider_volubile.api.models import (
    AcceptedCall,
    Agent,
    Call,
    Campaign,
    IssuedToken,
    Page,
    TranscriptEvent,
)
from airflow_provider_volubile.api.paging import walk
from airflow_provider_volubile.api.recordings import Recording, open_recording
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.api.sending import RetryBudget, Sender, Window
from airflow_provider_volubile.api.transport import JSON_LIMIT, Answer, Message, Transport
from airflow_provider_volubile.exceptions import (
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRequestRefused,
    VolubileUnknownOutcome,
    without_frames,
)
from airflow_provider_volubile.masking import mask_digits

log = logging.getLogger(__name__)

# One refusal may be a passing fault. After so many, lists are asked for without an order.
SORT_REFUSALS = 3

TRANSCRIPT_LIMIT = 64 * 2**20


class VolubileClient:
    """One account of Volubile. Threads may share a client.

    Every method raises the classes of :mod:`airflow_provider_volubile.exceptions` and nothing else; besides those
    named at a method: :class:`VolubileInputError` before anything is sent, :class:`VolubileAuthError`,
    :class:`VolubileRateLimitError`, :class:`VolubileRequestRefused`, :class:`VolubileUnavailable` and
    :class:`VolubileProtocolError`.

    :param base_url: such as ``https://api.eu.volubile.ai``; plain http to this machine only.
    :param credentials: an :class:`ApiKeyPair`, or :class:`BearerTokens` made of one.
    :param window: the account's rate window, shared by all its clients in a process.
    :param timeout: seconds without progress, or one number each for connecting and reading.
    :param private_storage: recordings may be on private addresses, such as a store in the same cluster.
    :param background: this client polls: it leaves the window's reserve to others.
    :param retry: how long a request is kept trying.
    :param on_secret: called with each token that :meth:`issue_token` hands out, so that logs can mask it.
    :param sleep: waits between attempts.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        window: Window,
        timeout: float | tuple[float, float] = 30.0,
        private_storage: bool = False,
        background: bool = False,
        retry: RetryBudget | None = None,
        on_secret: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self._on_secret = on_secret
        self._private_storage = private_storage
        self._sender = Sender(
            Transport(timeout),
            self.base_url,
            credentials,
            window,
            budget=retry or RetryBudget(),
            background=background,
            sleep=sleep,
        )
        #: Whether calls can be listed in an order: None until a page came in one, or was refused a few times.
        self._sorts: bool | None = None
        self._sort_refusals = 0
        self._filter_ignored = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client can still be used."""
        self._sender.transport.close()

    def wait_for_place(self) -> None:
        """Wait until the account's rate window lets a request through. Nothing is sent, and no place is taken."""
        self._sender.wait_for_place()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The account's limit and what is left of it, as the last answer told; None before that."""
        return self._sender.rate_limit

    # --- agents ---------------------------------------------------------------------------------------------------

    @without_frames
    def list_agents(self, page: int = 1, size: int = wire.MAX_PAGE_SIZE) -> Page[Agent]:
        """One page of the account's agents (https://docs.volubile.ai/api-reference/agents/list)."""
        answer = self._send(routes.LIST_AGENTS, params=wire.page_query(page, size))
        return read_page(routes.LIST_AGENTS, answer, Agent, size)

    def iter_agents(self) -> Iterator[Agent]:
        """All agents of the account."""
        return walk(routes.LIST_AGENTS.operation, self.list_agents)

    @without_frames
    def get_agent(self, agent_id: str) -> Agent:
        """One agent (https://docs.volubile.ai/api-reference/agents/get).

        :raises VolubileNotFound: no such agent.
        """
        answer = self._send(routes.GET_AGENT, wire.check_id(agent_id, "agent_id"))
        return read_one(routes.GET_AGENT, answer, Agent, agent_id)

    @without_frames
    def update_agent(self, agent_id: str, changes: Mapping[str, Any]) -> Agent:
        """Change ``name``, ``active``, ``recordable`` or ``archived``
        (https://docs.volubile.ai/api-reference/agents/patch).

        That others stay as they are is inferred. The agent is read back when the answer does not show it.

        :raises VolubileNotFound: no such agent.
        """
        answer = self._send(routes.UPDATE_AGENT, wire.check_id(agent_id, "agent_id"), body=wire.agent_body(changes))
        if is_empty(answer):
            return self.get_agent(agent_id)
        return read_one(routes.UPDATE_AGENT, answer, Agent, agent_id)

    # --- calls ----------------------------------------------------------------------------------------------------

    @without_frames
    def list_calls(
        self,
        *,
        agent_id: str | None = None,
        phone: str | None = None,
        campaign: str | None = None,
        from_date: date | None = None,
        to_date: date | None = None,
        page: int = 1,
        size: int = wire.MAX_PAGE_SIZE,
        sort: str | None = wire.NEWEST_FIRST,
    ) -> Page[Call]:
        """One page of calls (https://docs.volubile.ai/api-reference/calls/list).

        :param phone: E.164.
        :param campaign: a campaign's name, not its id. Whether the server applied this filter cannot be checked.
        :param from_date: first day, with ``to_date`` only. The clock and zone of these days are not documented: ask
            one day wider on both sides and decide by the timestamps.
        :param to_date: last day, inclusive.
        :param sort: ``property,ASC`` or ``property,DESC``. When the server refuses it, the page comes in an unknown
            order and its ``sort`` is None.
        """
        filters = wire.call_query(
            agent_id=agent_id, phone=phone, campaign=campaign, from_date=from_date, to_date=to_date
        )
        # Which properties can be sorted by is not documented. A listing that began without an order goes on so.
        if self._sorts is False or (self._sort_refusals and page > 1):
            sort = None
        query = filters | wire.page_query(page, size, sort)
        answer = None
        try:
            answer = self._send(routes.LIST_CALLS, params=query)
        except VolubileRequestRefused as refused:
            if refused.status != 400 or sort is None:
                raise
        if answer is None and self._sorts:  # the refusal was not about the order
            answer = self._send(routes.LIST_CALLS, params=query)
        elif answer is None:
            sort = None
            answer = self._send(routes.LIST_CALLS, params=filters | wire.page_query(page, size))
            self._sort_refusals += 1
            if self._sort_refusals == SORT_REFUSALS:
                self._sorts = False
                log.warning("listCalls refuses an order: calls are listed without one from now on.")
        if sort is not None:
            self._sorts, self._sort_refusals = True, 0
        found = read_page(routes.LIST_CALLS, answer, Call, size, sort)
        if agent_id is None and phone is None:
            return found
        wanted = tuple(call for call in found.content if wire.is_wanted(call, agent_id=agent_id, phone=phone))
        if len(wanted) == len(found.content):
            return found
        if not self._filter_ignored:
            self._filter_ignored = True
            log.warning("listCalls: the server ignored a filter; it is applied here, at the price of more pages.")
        return replace(found, content=wanted)

    def iter_calls(
        self,
        *,
        agent_id: str | None = None,
        phone: str | None = None,
        campaign: str | None = None,
        from_date: date | None = None,
        to_date: date | None = None,
        size: int = wire.MAX_PAGE_SIZE,
        sort: str | None = wire.NEWEST_FIRST,
    ) -> Iterator[Call]:
        """All calls that :meth:`list_calls` finds, each once, although new ones arrive meanwhile."""

        @without_frames
        def fetch(page: int) -> Page[Call]:
            return self.list_calls(
                agent_id=agent_id,
                phone=phone,
                campaign=campaign,
                from_date=from_date,
                to_date=to_date,
                page=page,
                size=size,
                sort=sort,
            )

        return walk(routes.LIST_CALLS.operation, fetch)

    @without_frames
    def get_call(self, call_id: str) -> Call:
        """One call (https://docs.volubile.ai/api-reference/calls/get).

        :raises VolubileNotFound: no such call.
        """
        answer = self._send(routes.GET_CALL, wire.check_id(call_id, "call_id"))
        return read_one(routes.GET_CALL, answer, Call, call_id)

    @without_frames
    def create_call(self, agent_id: str, recipient: wire.RecipientLike, *, not_after: float = math.inf) -> AcceptedCall:
        """Have an outbound agent call one person (https://docs.volubile.ai/api-reference/calls/create).

        :param recipient: has ``phone`` (E.164) and ``context``, as attributes or keys.
        :param not_after: as for :meth:`create_campaign`.
        :returns: the call; without its id when the server does not tell it, which is not documented.
        :raises VolubileUnknownOutcome: the person may or may not be called.
        """
        answer = self._send(routes.CREATE_CALL, body=wire.call_body(agent_id, recipient), not_after=not_after)
        return next(iter(read_accepted(routes.CREATE_CALL, answer)), AcceptedCall())

    @without_frames
    def create_bulk_calls(
        self, agent_id: str, recipients: Iterable[wire.RecipientLike], *, not_after: float = math.inf
    ) -> list[AcceptedCall]:
        """Have an outbound agent call up to 1,000 people; both bodies of this route are assumed (:mod:`.wire`).

        :param not_after: as for :meth:`create_campaign`.
        :returns: the calls the server told of: perhaps fewer than were sent, in any order, without ids or numbers.
            People who are missing may be called all the same: look in the list of calls.
        :raises VolubileUnknownOutcome: all, some or none may be called.
        """
        body = wire.bulk_body(agent_id, recipients)
        answer = self._send(routes.CREATE_BULK_CALLS, body=body, not_after=not_after)
        return read_accepted(routes.CREATE_BULK_CALLS, answer)

    @without_frames
    def get_transcript(self, call_id: str) -> list[TranscriptEvent]:
        """What happened and was said in a call (https://docs.volubile.ai/api-reference/calls/get-transcript).

        :returns: the events in the server's order; empty when the server answers with an empty list.
        :raises VolubileNotFound: no such call, or no transcript (yet).
        """
        route = routes.GET_TRANSCRIPT
        answer = self._send(route, wire.check_id(call_id, "call_id"), limit=TRANSCRIPT_LIMIT)
        if is_empty(answer):
            raise VolubileNotFound(
                f"{route.operation}: call {call_id} has no transcript yet ({answer.status} without content).",
                operation=route.operation,
                status=answer.status,
            )
        return read_transcript(route, answer)

    def open_recording(self, call_id: str, *, offset: int = 0) -> AbstractContextManager[Recording]:
        """Open the audio of a call; use it in a ``with`` statement and read ``iter_chunks()``.

        Only the route is documented. Audio, a redirect and a JSON link are understood. Credentials go to the API
        only; the link must be https, and lead to a public address unless the client has ``private_storage``.

        :param offset: bytes to skip. Look at the recording's own ``offset``: not every server can skip.
        :raises VolubileNotFound: no such call, or it was not recorded.
        :raises VolubileUnavailable: also while reading, when the audio breaks off.
        """
        if offset < 0:
            raise VolubileInputError(f"offset {offset} is negative: it counts the bytes to skip.")
        return open_recording(self._sender, wire.check_id(call_id, "call_id"), offset, self._private_storage)

    # --- campaigns ------------------------------------------------------------------------------------------------

    @without_frames
    def get_campaign(self, campaign_id: str) -> Campaign:
        """One campaign; the answer is assumed to be that of its creation.

        :raises VolubileNotFound: no such campaign.
        """
        answer = self._send(routes.GET_CAMPAIGN, wire.check_id(campaign_id, "campaign_id"))
        return read_one(routes.GET_CAMPAIGN, answer, Campaign, campaign_id)

    @without_frames
    def create_campaign(self, request: Mapping[str, Any], *, not_after: float = math.inf) -> Campaign:
        """Create a campaign (https://docs.volubile.ai/api-reference/campaigns/create).

        ``timezone`` is documented in answers only: when the server refuses it, the campaign is created without it,
        and a warning tells when the answer shows another one.

        :param request: the documented body, as :func:`wire.campaign_body` builds it.
        :param not_after: of :func:`time.monotonic`: once it has passed, nothing is sent.
        :raises VolubileUnavailable: it was not sent, or it certainly was not taken.
        :raises VolubileUnknownOutcome: it may or may not exist; its ``accepted`` is True when it does, but its id
            could not be read. Find its calls by the campaign's name.
        """
        body = dict(request)
        zone = body.get("timezone")
        if zone is not None:
            wire.check_timezone(zone)
        answer = None
        try:
            answer = self._send(routes.CREATE_CAMPAIGN, body=body, not_after=not_after)
        except VolubileRequestRefused as refused:
            if refused.status != 400 or zone is None or not wire.refuses_timezone(refused.reason):
                raise
        if answer is None:  # a 400 is a definite no, so nothing exists yet
            del body["timezone"]
            answer = self._send(routes.CREATE_CAMPAIGN, body=body, not_after=not_after)
            log.warning("createCampaign: the server takes no timezone; the campaign runs on the account's clock.")
        campaign = None
        with suppress(VolubileProtocolError):
            campaign = read_one(routes.CREATE_CAMPAIGN, answer, Campaign)
        if campaign is None:
            name = mask_digits(repr(body.get("name")))
            raise VolubileUnknownOutcome(
                f"createCampaign: the campaign {name} was accepted ({answer.status}), but the answer "
                "does not tell its id. Do not create it again: find its calls by its name, or look in the dashboard.",
                operation=routes.CREATE_CAMPAIGN.operation,
                status=answer.status,
                accepted=True,
            )
        if zone is not None and campaign.timezone not in (None, zone):
            log.warning(
                "Campaign %s runs on the clock of %s, not of %s as was asked: check its time slots.",
                campaign.id,
                campaign.timezone,
                zone,
            )
        return campaign

    @without_frames
    def update_campaign_status(self, campaign_id: str, status: str) -> Campaign:
        """Pause, resume or cancel a campaign (https://docs.volubile.ai/api-reference/campaigns/update-status).

        Setting the status it already has is a success, also where the server refuses it.

        :param status: ``ACTIVE``, ``PAUSED`` or ``CANCELLED``.
        :raises VolubileNotFound: no such campaign.
        """
        if status not in wire.CAMPAIGN_STATUSES:
            raise VolubileInputError(
                f"status {status!r} is not one of {', '.join(wire.CAMPAIGN_STATUSES)} (a campaign's has two L)."
            )
        route = routes.UPDATE_CAMPAIGN_STATUS
        refusal = None
        try:
            answer = self._send(route, wire.check_id(campaign_id, "campaign_id"), body=status)
        except VolubileRequestRefused as refused:
            refusal = refused
        if refusal is not None:
            # An earlier attempt whose answer was lost may have set it.
            campaign = self.get_campaign(campaign_id)
            if campaign.status != status:
                raise refusal
            return campaign
        if is_empty(answer):
            return self.get_campaign(campaign_id)
        return read_one(route, answer, Campaign, campaign_id)

    # --- tokens ---------------------------------------------------------------------------------------------------

    @without_frames
    def issue_token(self, scopes: Iterable[str]) -> IssuedToken:
        """Ask for a bearer token (https://docs.volubile.ai/api-reference/auth/create-token), with an API key always.

        :param scopes: such as ``calls:read``; one text for a single one.
        :raises VolubileProtocolError: the answer holds no token, or one whose life is over or unknown.
        """
        issued = issue_token(self._sender.send, self.base_url, scopes)
        if self._on_secret is not None:
            self._on_secret(issued.token)
        return issued

    # ----------------------------------------------------------------------------------------------------------------

    def _send(
        self,
        route: Route,
        identifier: str | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        limit: int = JSON_LIMIT,
        not_after: float = math.inf,
    ) -> Answer:
        url = self.base_url + wire.path(route.path, identifier)
        content = None if body is None else _encode(route, body)
        return self._sender.send(Message(route, url, params, content, limit=limit, not_after=not_after))


def _encode(route: Route, body: Any) -> bytes:
    with suppress(TypeError, ValueError, RecursionError):
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    raise VolubileInputError(
        f"{route.operation}: the request holds something that is not JSON: use texts, numbers, true, false, lists and "
        "objects only.",
        operation=route.operation,
    )
