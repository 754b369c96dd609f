"""How long an event loop is held up, from one look at what is ready to the next; and how long garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

BLOCK = 0.06  # seconds that the self-check holds the loop up


class LoopWatch:
    """Watches a loop from the moment it is made, on the clock on the wall.

    Everything that the loop does between two calls of its selector counts as one hold-up: meanwhile nothing else gets
    its turn. Garbage collections, which stop the whole process from whatever thread, are told apart: Python decides on
    them, and a full one walks through all that the process holds.

    :ivar longest: the longest hold-up since :meth:`reset`, without collections, in seconds.
    :ivar longest_collection: the longest garbage collection, in whatever thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.longest = self.longest_collection = 0.0
        self._selector: Any = loop._selector  # type: ignore[attr-defined]
        self._select = self._selector.select
        self._woke = self._collecting_since = time.monotonic()
        self._collected = 0.0  # since it woke
        self._selector.select = self._look
        gc.callbacks.append(self._collecting)

    def close(self) -> None:
        self._selector.select = self._select
        gc.callbacks.remove(self._collecting)

    def reset(self) -> None:
        self.longest = self.longest_collection = 0.0

    def _look(self, timeout: float | None = None) -> Any:
        self.longest = max(self.longest, time.monotonic() - self._woke - self._collected)
        try:
            return self._select(timeout)
        finally:
            self._woke, self._collected = time.monotonic(), 0.0

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
            return
        now = time.monotonic()
        self._collected += now - max(self._collecting_since, self._woke)
        self.longest_collection = max(self.longest_collection, now - self._collecting_since)

    async def check(self, times: int = 10) -> None:
        """Hold the loop up, after waking it in the two ways in which it is woken, and see that it is noted each time.

        :raises RuntimeError: it was not.
        """
        noted = 0
        for number in range(times):
            await (asyncio.to_thread(time.sleep, 0.0137) if number % 2 else asyncio.sleep(0.0137))
            self.reset()
            until = time.monotonic() + BLOCK
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0)
            noted += self.longest >= 0.9 * BLOCK
        self.reset()
        await asyncio.to_thread(gc.collect)
        if noted < times or not self.longest_collection:
            raise RuntimeError(
                f"Of {times} blocks of {BLOCK * 1000:.0f} ms {noted} were noted, and a collection of "
                f"{self.longest_collection * 1000:.0f} ms: the watch does not work."
            )
        self.reset()


if __name__ == "__main__":

    async def main() -> None:
        await LoopWatch(asyncio.get_running_loop()).check(20)

    asyncio.run(main())
    print("All of 20 blocks were noted, and a collection in another thread.")
