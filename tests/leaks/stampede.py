"""The number of token requests when many threads of a process need a token at the same moment."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from airflow_provider_volubile.simulator import Simulator

THREADS = 500


@dataclass
class Asked:
    """The results of the threads.

    :param agents: number of agents that each thread read; threads that failed are missing.
    :param requests: the service's answers, by operation and status.
    """

    agents: list[int]
    requests: dict[str, dict[str, int]]

    @property
    def tokens(self) -> int:
        """Number of token requests."""
        return sum(self.requests["issueToken"].values())

    def report(self) -> str:
        """Return the figures as text."""
        refused = THREADS - len(self.agents)
        return f"threads    {THREADS} of a process, asking at once: {self.tokens} token asked for, {refused} failed\n"


def ask_at_once() -> Asked:
    """Let threads send requests, each with its own client, as tasks and triggers do."""
    with Simulator(seed=3, limit=100_000) as simulator:
        simulator.fault("issueToken", "delay", seconds=1, times=None)  # long enough for all threads to need a token
        credentials = BearerTokens(ApiKeyPair(simulator.primary_key, simulator.secondary_key))
        ready = threading.Barrier(THREADS)
        window = RateWindow()
        agents: list[int] = []

        def work() -> None:
            with VolubileClient(simulator.url, credentials, window=window, timeout=120) as client:
                ready.wait()
                agents.append(len(client.list_agents().content))

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Asked(agents, simulator.request_summary())
