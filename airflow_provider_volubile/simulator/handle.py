"""Start and control a simulator from Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, cast

import requests

from airflow_provider_volubile.simulator.config import PRIMARY_KEY, SECONDARY_KEY

Json = dict[str, Any]
Key = Literal["primary", "secondary"]

_READY = re.compile(r"listening on (\S+) \(media (\S+)\)")
_START_TIMEOUT = 60
_CONTROL_TIMEOUT = 120


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused a control request."""


class LedgerEntry(TypedDict):
    """One attempt to reach one person, as the simulator dialled it.

    ``*_wall`` and ``*_simulated`` are ISO 8601 in UTC, in wall time and in simulated time.
    """

    seq: int
    call_id: str
    phone: str
    agent_id: str
    type: str
    source: Literal["campaign", "bulk", "call", "load"]
    campaign_id: str | None
    campaign_name: str | None
    submission: int
    recipient_index: int
    attempt: int
    status: str
    duration: int | None
    recorded: bool
    context: Json
    created_wall: str
    created_simulated: str
    ended_wall: str | None
    ended_simulated: str | None
    transcript_ready: bool


class LedgerSummary(TypedDict):
    """Counts of the ledger. ``max_attempts`` is per submission and phone."""

    calls: int
    people: int
    statuses: dict[str, int]
    max_attempts: int
    dialled_by_several_submissions: list[str]


class Simulator:
    """A simulator in a separate process, on a free port, until the ``with`` block ends.

    :doc:`/simulator` shows it as a test fixture.

    :param seed: seed of all random draws; the same seed gives the same calls.
    :param port: of the API, 0 for any free one.
    :param start: simulated time to begin with, aware; None for the present.
    :param primary_key: API key to accept, None for the default one. ``secondary_key`` likewise.
    :param config: the initial configuration, such as ``speed`` or ``limit``.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        port: int = 0,
        start: datetime | None = None,
        primary_key: str = PRIMARY_KEY,
        secondary_key: str = SECONDARY_KEY,
        **config: Any,
    ) -> None:
        #: URL of the API, without a path.
        self.url = ""
        #: URL of presigned links, without a path.
        self.media_url = ""
        self.primary_key = primary_key
        self.secondary_key = secondary_key
        self._process: subprocess.Popen[str] | None = None
        self._command = [sys.executable, "-m", "airflow_provider_volubile.simulator", "--until-stdin-closes"]
        self._command += [f"--port={port}", f"--seed={seed}"]
        self._command += [f"--primary-key={primary_key}", f"--secondary-key={secondary_key}"]
        if start is not None:
            self._command.append(f"--start={start.isoformat()}")
        self._command += [f"--set={name}={json.dumps(value)}" for name, value in config.items()]

    @classmethod
    def attach(cls, url: str) -> Self:
        """Return a handle on a simulator that runs already; closing the handle leaves it running.

        :param url: URL of the API, such as ``http://127.0.0.1:8765``.
        """
        simulator = cls()
        simulator.url = url.rstrip("/")
        state = simulator.state()
        simulator.media_url = state["media_url"]
        simulator.primary_key = state["keys"]["primary"]["value"]
        simulator.secondary_key = state["keys"]["secondary"]["value"]
        return simulator

    def __enter__(self) -> Self:
        if not self.url:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it listens.

        :raises SimulatorError: it did not start; the message holds its output.
        """
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(  # noqa: S603
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            self._process = process
            overdue = threading.Timer(_START_TIMEOUT, process.kill)
            overdue.start()
            line = process.stdout.readline() if process.stdout else ""
            overdue.cancel()
            ready = _READY.search(line)
            if ready is None:
                self.stop()
                errors.seek(0)
                raise SimulatorError(f"The simulator did not start: {line}{errors.read().strip()}")
        self.url, self.media_url = ready[1], ready[2]

    def stop(self) -> None:
        """Stop the process, if this handle started it."""
        process, self._process = self._process, None
        if process is None:
            return
        self.url = self.media_url = ""
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # Reports

    def ledger(
        self, *, campaign: str | None = None, phone: str | None = None, submission: int | None = None
    ) -> list[LedgerEntry]:
        """Return every attempt dialled, oldest first.

        :param campaign: only of campaigns with this name.
        :param phone: only to this number.
        :param submission: only those that this accepted request placed.
        """
        query = {"campaign": campaign, "phone": phone, "submission": submission}
        return cast("list[LedgerEntry]", self._control("GET", "/ledger", params=query))

    def summary(
        self, *, campaign: str | None = None, phone: str | None = None, submission: int | None = None
    ) -> LedgerSummary:
        """Return the counts of the (filtered) ledger."""
        query = {"campaign": campaign, "phone": phone, "submission": submission}
        return cast("LedgerSummary", self._control("GET", "/ledger/summary", params=query))

    def submissions(self) -> list[Json]:
        """Return every accepted request that dials, and whether its answer was delivered."""
        return cast("list[Json]", self._control("GET", "/submissions"))

    def requests(self, *, since: int = 0) -> list[Json]:
        """Return the requests that the API received, oldest first.

        :param since: only requests after the one with this ``seq``.
        """
        return cast("list[Json]", self._control("GET", "/requests", params={"since": since}))

    def request_summary(self, *, since: int = 0) -> dict[str, dict[str, int]]:
        """Return the number of requests by operation and status (``none``: no answer)."""
        return cast("dict[str, dict[str, int]]", self._control("GET", "/requests/summary", params={"since": since}))

    def media_requests(self) -> list[Json]:
        """Return the requests that the media port received, with the names of their headers."""
        return cast("list[Json]", self._control("GET", "/media/requests"))

    def webhooks(self) -> list[Json]:
        """Return the webhooks sent, each with the receiver's answer."""
        return cast("list[Json]", self._control("GET", "/webhooks"))

    def state(self) -> Json:
        """Return clocks, counts, configuration, campaigns and agents."""
        return cast("Json", self._control("GET", "/state"))

    # Controls

    def configure(self, **changes: Any) -> Json:
        """Change the configuration; return all of it.

        :raises SimulatorError: a key is unknown or a value not allowed.
        """
        return cast("Json", self._control("PATCH", "/config", json=changes))

    def fault(self, operation: str, kind: str, *, times: int | None = 1, **details: Any) -> int:
        """Order a fault; return its id.

        :param operation: operationId of the OpenAPI file, ``getMedia``, or ``*``.
        :param kind: ``drop``, ``reset``, ``status``, ``delay``, ``rate_limit``, ``malformed``, ``empty``,
            ``truncated``, ``html``, ``redirect`` or ``huge``.
        :param times: how often it is applied, None for always.
        :param details: ``skip`` (requests to let through first), ``probability`` of each hit, ``accept`` (whether the
            request takes effect first), ``status``, ``seconds`` before it, ``location``, ``bytes``.
        """
        spec = {"operation": operation, "kind": kind, "times": times, **details}
        return int(self._control("POST", "/faults", json=spec)["id"])

    def faults(self) -> list[Json]:
        """Return the faults ordered, and how often each was applied."""
        return cast("list[Json]", self._control("GET", "/faults"))

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._control("DELETE", "/faults")

    def revoke_key(self, which: Key) -> None:
        """Revoke an API key."""
        self._control("PUT", "/keys", json={which: "revoked"})

    def restore_key(self, which: Key) -> None:
        """Accept an API key again."""
        self._control("PUT", "/keys", json={which: "active"})

    def revoke_tokens(self) -> int:
        """Revoke every token issued so far; return their number."""
        return int(self._control("DELETE", "/tokens")["revoked"])

    def outcomes(self, statuses: Mapping[str, Sequence[str]]) -> None:
        """Set how calls dialled from now on end. This replaces earlier settings.

        :param statuses: phone, or ``*`` for all others, to the statuses of the first, second… attempt; the
            last one repeats. ``IN_PROGRESS`` never ends.
        """
        self._control("PUT", "/outcomes", json={phone: list(ends) for phone, ends in statuses.items()})

    def load_calls(self, count: int, **details: Any) -> list[str]:
        """Put many calls into the account as if dialled earlier; return their ids.

        :param details: ``status``, ``agent_id``, ``campaign``, ``phones``, ``created_from``, ``created_to``
            (aware datetimes), ``ends_within``, ``final_status``, ``type``, ``transcripts``.
        """
        spec = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in details.items()}
        return cast("list[str]", self._control("POST", "/calls", json={"count": count, **spec})["ids"])

    def advance(self, seconds: float) -> None:
        """Advance simulated time by some seconds at once."""
        self._control("POST", "/advance", json={"seconds": seconds})

    def reset(self, *, start: datetime | None = None) -> None:
        """Start again with no calls and the initial configuration.

        :param start: another simulated time to begin with, aware.
        """
        self._control("POST", "/reset", json={} if start is None else {"start": start.isoformat()})

    def wait_until(self, condition: Callable[[], object], timeout: float = 60, interval: float = 0.02) -> None:
        """Wait until a condition holds.

        :param timeout: wall seconds.
        :raises TimeoutError: the condition did not hold in time.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not within {timeout} s: {condition}")
            time.sleep(interval)

    def wait_until_quiet(self, timeout: float = 60) -> None:
        """Wait until no event is left: campaigns are complete, calls have ended, transcripts are there.

        :param timeout: wall seconds.
        :raises TimeoutError: an event is still due.
        """
        self.wait_until(lambda: self.state()["pending"] == 0, timeout, interval=0.05)

    def _control(self, method: str, path: str, **request: Any) -> Any:
        # Use a new session for each request: threads share a handle, and a handle survives forks.
        with requests.Session() as session:
            session.trust_env = False  # ignore proxies on the loopback
            answer = session.request(method, f"{self.url}/_sim{path}", timeout=_CONTROL_TIMEOUT, **request)
        if not answer.ok:
            raise SimulatorError(f"{method} /_sim{path}: {answer.status_code} {answer.text}")
        return answer.json()
