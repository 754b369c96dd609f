"""Webhooks, sent from a separate thread so that the simulator never waits for the receiver."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from queue import SimpleQueue

import requests

from airflow_provider_volubile.simulator.logs import Delivery

#: Seconds the receiver has for its answer. Neither this nor any retry is documented: there is one attempt.
_TIMEOUT = 5


class WebhookSender:
    """Post one body after the other, and keep each receiver's answer."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._queue: SimpleQueue[tuple[str, str, bytes, dict[str, str]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, url: str, secret: str | None, call_id: str, body: bytes) -> None:
        """Queue a body for posting.

        :param secret: signs the body: hex HMAC-SHA256 of its bytes in ``X-Webhook-Signature``. The header is
            documented (https://docs.volubile.ai/en/integrations/webhooks), the way to compute it is assumed.
        """
        headers = {"Content-Type": "application/json"}
        if secret:
            headers["X-Webhook-Signature"] = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        self._queue.put((url, call_id, body, headers))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop once all queued bodies are sent."""
        self._queue.put(None)

    def _work(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while (job := self._queue.get()) is not None:
                url, call_id, body, headers = job
                status, error = None, None
                try:
                    status = session.post(url, body, headers=headers, timeout=_TIMEOUT).status_code
                except requests.RequestException as problem:
                    error = str(problem)
                self.deliveries.append(Delivery(call_id, time.time(), status, error))
