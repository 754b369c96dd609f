"""The whole simulated account in one place."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from airflow_provider_volubile.simulator.agents import initial_agents
from airflow_provider_volubile.simulator.auth import Auth
from airflow_provider_volubile.simulator.calls import Call
from airflow_provider_volubile.simulator.campaigns import Dialler
from airflow_provider_volubile.simulator.clock import Clock
from airflow_provider_volubile.simulator.config import Options
from airflow_provider_volubile.simulator.engine import Engine
from airflow_provider_volubile.simulator.faults import FaultBoard
from airflow_provider_volubile.simulator.logs import MediaRequest, RequestEntry, Submission
from airflow_provider_volubile.simulator.ratelimit import RateWindow
from airflow_provider_volubile.simulator.render import webhook_body
from airflow_provider_volubile.simulator.webhooks import WebhookSender

#: Logged requests per port.
_LOG_SIZE = 500_000


class State:
    """One account with its clock, agents, campaigns, calls, credentials, faults and logs.

    :param media_url: URL of the media port, without a path.
    """

    def __init__(self, options: Options, media_url: str) -> None:
        self.options = options
        self.media_url = media_url
        self.webhooks = WebhookSender()
        self.reset()

    def reset(self, start: float | None = None) -> None:
        """Start again with no calls and the initial configuration.

        :param start: another simulated time to begin with.
        """
        options = self.options
        self.config = options.config.model_copy(deep=True)
        self.clock = Clock(options.start if start is None else start, self.config.speed)
        self.webhooks.close()
        self.webhooks = WebhookSender()
        self.engine = Engine(options.seed, self.clock, self.config, partial(self._on_final, self.webhooks))
        self.dialler = Dialler(self.engine, self.config)
        keys = {"primary": options.primary_key, "secondary": options.secondary_key}
        self.auth = Auth(keys, options.seed, self.clock, self.config)
        self.window = RateWindow(self.clock, self.config)
        self.faults = FaultBoard(options.seed)
        self.agents = initial_agents()
        self.submissions: list[Submission] = []
        self.requests: deque[RequestEntry] = deque(maxlen=_LOG_SIZE)
        self.media_requests: deque[MediaRequest] = deque(maxlen=_LOG_SIZE)
        self.request_count = 0

    def configure(self, changes: dict[str, Any]) -> None:
        """Change the configuration from now on.

        :raises pydantic.ValidationError: a key is unknown or a value not allowed.
        """
        self.engine.run()
        self.config.update(changes)
        self.clock.set_speed(self.config.speed)
        self.engine.calls.forget_views()
        self.dialler.wake_all()

    def advance(self, seconds: float) -> None:
        """Advance simulated time at once."""
        self.engine.run()
        self.clock.advance(seconds)
        self.engine.run()

    def submit(
        self,
        operation: str,
        agent_id: str,
        recipients: int,
        *,
        name: str | None = None,
        campaign_id: str | None = None,
    ) -> Submission:
        """Record an accepted request that dials."""
        submission = Submission(
            seq=len(self.submissions) + 1,
            operation=operation,
            wall=self.clock.wall(),
            simulated=self.engine.now,
            agent_id=agent_id,
            name=name,
            campaign_id=campaign_id,
            recipients=recipients,
        )
        self.submissions.append(submission)
        return submission

    def _on_final(self, webhooks: WebhookSender, call: Call) -> None:
        url = self.config.webhook_url
        if url is not None:
            body = webhook_body(call, self.config, self.options.seed, self.clock.wall())
            webhooks.send(url, self.config.webhook_secret, call.id, body)
