"""The account's rate limit: a number of requests per fixed window of wall time."""

from __future__ import annotations

import math
from email.utils import formatdate

from airflow_provider_volubile.simulator.clock import Clock
from airflow_provider_volubile.simulator.config import Config

Headers = dict[str, str]


class RateWindow:
    """Count the requests of the account in the present window."""

    def __init__(self, clock: Clock, config: Config) -> None:
        self._clock = clock
        self._config = config
        self._start = clock.wall()
        self._used = 0

    def take(self) -> bool:
        """Count one request; return False if the window is used up."""
        if self._over():
            self._begin()
        if self._used >= self._config.limit:
            return False
        self._used += 1
        return True

    def headers(self) -> Headers:
        """Return the headers of every answer."""
        used = 0 if self._over() else self._used
        limit, remaining = self._config.limit, max(self._config.limit - used, 0)
        match self._config.rate_headers:
            case "present":
                return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(remaining)}
            case "odd":
                return {
                    "X-RateLimit-Limit": f"{limit};w={self._config.window}",
                    "X-RateLimit-Remaining": "plenty",
                }
            case _:
                return {}

    def retry_after(self, seconds: float | None = None) -> Headers:
        """Return the header that says when to retry.

        :param seconds: the wait, None for the rest of the window.
        """
        wait = self._start + self._config.window - self._clock.wall() if seconds is None else seconds
        match self._config.retry_after:
            case "seconds":
                return {"Retry-After": str(max(math.ceil(wait), 0))}
            case "date":
                return {"Retry-After": formatdate(math.ceil(self._clock.wall() + wait), usegmt=True)}
            case "wrong":
                return {"Retry-After": "0"}
            case _:
                return {}

    def _over(self) -> bool:
        return self._clock.wall() >= self._start + self._config.window

    def _begin(self) -> None:
        wall, window = self._clock.wall(), self._config.window
        aligned = self._config.window_start == "aligned"
        self._start += (wall - self._start) // window * window if aligned else wall - self._start
        self._used = 0
