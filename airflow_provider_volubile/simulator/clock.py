"""The two clocks: simulated time drives the telephones, wall time is what clients see."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Simulated time that runs ``speed`` times as fast as wall time, and can be advanced.

    Both clocks are POSIX timestamps in seconds. The mapping between them is a line through one anchor. The anchor
    moves when the speed changes or the clock is advanced. Process all due events before it moves.

    :param start: simulated time to begin with, or None for the present.
    :param speed: simulated seconds per wall second; 0 stands still between advances.
    """

    def __init__(self, start: float | None, speed: float) -> None:
        # Use the monotonic clock: a step of the machine's clock must not move simulated time.
        self._offset = time.time() - time.monotonic()
        self._speed = speed
        self._anchor_wall = self.wall()
        self._anchor = self._anchor_wall if start is None else start

    def wall(self) -> float:
        return self._offset + time.monotonic()

    def now(self) -> float:
        """Return the simulated time."""
        return self._anchor + (self.wall() - self._anchor_wall) * self._speed

    def wall_at(self, simulated: float) -> float:
        """Return the wall time at which simulated time reaches an instant.

        For an instant that the last advance skipped, this is the time of the advance.
        """
        if simulated <= self._anchor or not self._speed:
            return self._anchor_wall
        return self._anchor_wall + (simulated - self._anchor) / self._speed

    def advance(self, seconds: float) -> None:
        """Move simulated time forward by ``seconds`` at once."""
        wall = self.wall()
        self._anchor = self._anchor + (wall - self._anchor_wall) * self._speed + seconds
        self._anchor_wall = wall

    def set_speed(self, speed: float) -> None:
        self.advance(0)
        self._speed = speed


def api_time(timestamp: float) -> str:
    """Return a timestamp as the API writes it: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp))


def precise_time(timestamp: float) -> str:
    """Return a timestamp as the control interface writes it: UTC, microseconds."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")
