"""A clock that stands still now and then, and time-outs that stand still with it: what a run waits for that
is none of its doing is not of its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from rlm_kernel.engine.values import PauseTimer


class Standstill:
    """Of a whole tree of RLMs. Lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._before = 0.0
        self._reasons = 0
        self._timed: dict[asyncio.Timeout, float | None] = {}
        """What runs within a time of its own, and what is left of that while it stands still."""

    def seconds(self) -> float:
        """For how long it has stood still so far."""
        return self._before + (0.0 if self._since is None else self._clock() - self._since)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """It stands still until the last of those who have entered this leaves."""
        self._reasons += 1
        self.stop()
        try:
            yield
        finally:
            self._reasons -= 1
            if not self._reasons:
                self.go_on()

    def beside(self, pause_timer: PauseTimer) -> PauseTimer:
        """`standing_still`, with the time of a cell standing still, too."""

        @contextlib.contextmanager
        def both() -> Iterator[None]:
            with pause_timer(), self.standing_still():
                yield

        return both

    def stop(self) -> None:
        """Idempotent."""
        if self._since is None:
            self._since = self._clock()
            for limit in self._timed:
                self._stop(limit)

    def go_on(self) -> None:
        """Idempotent."""
        self._before, self._since = self.seconds(), None
        for limit, left in self._timed.items():
            if left is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + left)
            self._timed[limit] = None

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        """As `asyncio.timeout`, but it stands still with the clock."""
        async with asyncio.timeout(seconds) as limit:
            self._timed[limit] = None
            if self._since is not None:
                self._stop(limit)
            try:
                yield limit
            finally:
                del self._timed[limit]

    def _stop(self, limit: asyncio.Timeout) -> None:
        if (end := limit.when()) is not None and not limit.expired():
            self._timed[limit] = end - asyncio.get_running_loop().time()
            limit.reschedule(None)
