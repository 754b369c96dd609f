"""Starting and steering a simulator from Python."""

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
    """The simulator did not start, or refused what it was told."""


class LedgerEntry(TypedDict):
    """One attempt to reach one person: the truth about what was dialled.

    ``*_wall`` and ``*_simulated`` are ISO 8601 in UTC, on the clients' clock and on the telephones'.
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
    """What the ledger adds up to. ``max_attempts`` is per submission and phone."""

    calls: int
    people: int
    statuses: dict[str, int]
    max_attempts: int
    dialled_by_several_submissions: list[str]


class Simulator:
    """A simulator in a process of its own, on a free port, for as long as the ``with`` block lasts.

    :doc:`/simulator` shows it as a fixture of tests.

    :param seed: what chance depends on; the same seed gives the same calls.
    :param port: of the API, 0 for any free one.
    :param start: simulated time to begin with, aware; None for the present.
    :param primary_key: API key to accept, None for the default one. ``secondary_key`` likewise.
    :param config: what the configuration begins with, such as ``speed`` or ``limit``.
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
        #: Where the API is, without a path.
        self.url = ""
        #: Where presigned links lead to, without a path.
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

        :param url: where it listens, such as ``http://127.0.0.1:8765``.
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

        :raises SimulatorError: it did not come up; the message holds what it printed.
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
        """Stop the process, if this handle has started it."""
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

    # The truth

    def ledger(
        self, *, campaign: str | None = None, phone: str | None = None, submission: int | None = None
    ) -> list[LedgerEntry]:
        """Return every attempt ever dialled, oldest first.

        :param campaign: only of campaigns with this name.
        :param phone: only to this number.
        :param submission: only those that this accepted request led to.
        """
        query = {"campaign": campaign, "phone": phone, "submission": submission}
        return cast("list[LedgerEntry]", self._control("GET", "/ledger", params=query))

    def summary(
        self, *, campaign: str | None = None, phone: str | None = None, submission: int | None = None
    ) -> LedgerSummary:
        """Return what the (filtered) ledger adds up to."""
        query = {"campaign": campaign, "phone": phone, "submission": submission}
        return cast("LedgerSummary", self._control("GET", "/ledger/summary", params=query))

    def submissions(self) -> list[Json]:
        """Return every accepted request that dials, and whether its answer was delivered."""
        return cast("list[Json]", self._control("GET", "/submissions"))

    def requests(self, *, since: int = 0) -> list[Json]:
        """Return the requests the API received, oldest first.

        :param since: only those after the one with this ``seq``.
        """
        return cast("list[Json]", self._control("GET", "/requests", params={"since": since}))

    def request_summary(self, *, since: int = 0) -> dict[str, dict[str, int]]:
        """Return how many requests there were, by operation and status (``none``: no answer)."""
        return cast("dict[str, dict[str, int]]", self._control("GET", "/requests/summary", params={"since": since}))

    def media_requests(self) -> list[Json]:
        """Return the requests the media port received, with the names of their headers."""
        return cast("list[Json]", self._control("GET", "/media/requests"))

    def webhooks(self) -> list[Json]:
        """Return the webhooks sent, and what became of each."""
        return cast("list[Json]", self._control("GET", "/webhooks"))

    def state(self) -> Json:
        """Return clocks, counts, configuration, campaigns and agents."""
        return cast("Json", self._control("GET", "/state"))

    # The levers

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
        :param times: how often it is applied, None for ever.
        :param details: ``skip`` so many requests first, ``probability`` of each hit, ``accept`` (whether the request
            takes effect first), ``status``, ``seconds`` it takes, ``location``, ``bytes``.
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
        """Refuse an API key from now on."""
        self._control("PUT", "/keys", json={which: "revoked"})

    def restore_key(self, which: Key) -> None:
        """Accept an API key again."""
        self._control("PUT", "/keys", json={which: "active"})

    def revoke_tokens(self) -> int:
        """Refuse every token issued so far; return how many there were."""
        return int(self._control("DELETE", "/tokens")["revoked"])

    def outcomes(self, statuses: Mapping[str, Sequence[str]]) -> None:
        """Settle how calls dialled from now on end, in place of what was settled before.

        :param statuses: phone, or ``*`` for everyone else, to the statuses of the first, second… attempt; the
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
        """Let so many simulated seconds pass at once."""
        self._control("POST", "/advance", json={"seconds": seconds})

    def reset(self, *, start: datetime | None = None) -> None:
        """Start again as if nothing had happened, with the configuration of the start.

        :param start: another simulated time to begin with, aware.
        """
        self._control("POST", "/reset", json={} if start is None else {"start": start.isoformat()})

    def wait_until(self, condition: Callable[[], object], timeout: float = 60, interval: float = 0.02) -> None:
        """Wait until a condition holds.

        :param timeout: wall seconds.
        :raises TimeoutError: it did not.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not within {timeout} s: {condition}")
            time.sleep(interval)

    def wait_until_quiet(self, timeout: float = 60) -> None:
        """Wait until nothing more will happen by itself: campaigns worked off, calls ended, transcripts there.

        :param timeout: wall seconds.
        :raises TimeoutError: something is still due.
        """
        self.wait_until(lambda: self.state()["pending"] == 0, timeout, interval=0.05)

    def _control(self, method: str, path: str, **request: Any) -> Any:
        # A session of its own for each request: a handle is shared by threads and survives forks.
        with requests.Session() as session:
            session.trust_env = False  # a proxy has no business on the loopback
            answer = session.request(method, f"{self.url}/_sim{path}", timeout=_CONTROL_TIMEOUT, **request)
        if not answer.ok:
            raise SimulatorError(f"{method} /_sim{path}: {answer.status_code} {answer.text}")
        return answer.json()
