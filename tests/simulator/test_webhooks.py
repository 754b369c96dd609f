"""Webhooks: one signed request for each call that has ended."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_volubile.simulator import Simulator

from .raw_api import RawApi, bulk_body, call_body

SECRET = "a secret of the tests"


class Receiver:
    """Keep every request that is posted to it."""

    def __init__(self) -> None:
        received = self.received = list[tuple[dict[str, str], bytes]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/volubile"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def test_each_final_call_sends_one_signed_webhook(simulator: Simulator, api: RawApi, receiver: Receiver) -> None:
    simulator.configure(webhook_url=receiver.url, webhook_secret=SECRET)
    api.ok("POST", "/v1/bulk/calls", bulk_body(40))
    # The test sends no request meanwhile: webhooks leave without one.
    simulator.wait_until(lambda: len(receiver.received) == 40)
    ledger = {entry["call_id"]: entry for entry in simulator.ledger()}
    for headers, body in receiver.received:
        assert headers["x-webhook-signature"] == hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        call = json.loads(body)
        assert call["status"] == ledger[call["id"]]["status"] != "IN_PROGRESS"
    assert {json.loads(body)["id"] for _, body in receiver.received} == ledger.keys()
    simulator.wait_until(lambda: len(simulator.webhooks()) == 40)
    assert {delivery["status"] for delivery in simulator.webhooks()} == {204}


def test_webhooks_use_the_spelling_of_the_newer_page(simulator: Simulator, api: RawApi, receiver: Receiver) -> None:
    simulator.outcomes({"*": ["COMPLETED"]})
    simulator.configure(webhook_url=receiver.url)
    call_id = api.ok("POST", "/v1/calls", call_body("+33639980142", firstName="Lucie"))["id"]
    simulator.wait_until(lambda: receiver.received)
    [(headers, body)] = receiver.received
    posted, shown = json.loads(body), api.ok("GET", f"/v1/calls/{call_id}")
    assert "x-webhook-signature" not in headers, "no secret, no signature"
    assert posted.pop("extractorData") == shown.pop("extractedData")
    assert posted.pop("classifierData") == shown.pop("classificationData")
    assert posted["context"]["system.phone"] == shown["context"]["system"]["phone"]
    assert posted["context"]["firstName"] == "Lucie"
    del posted["context"], shown["context"]
    assert posted == shown


def test_a_dead_receiver_does_not_delay_the_simulator(simulator: Simulator, api: RawApi) -> None:
    simulator.configure(webhook_url="http://127.0.0.1:9/closed")
    api.ok("POST", "/v1/bulk/calls", bulk_body(5))
    simulator.wait_until_quiet()
    simulator.wait_until(lambda: len(simulator.webhooks()) == 5)
    assert all(delivery["status"] is None and delivery["error"] for delivery in simulator.webhooks())
