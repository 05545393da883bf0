"""The user is asked something: the time-outs that code gave its calls stand still meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from rlm_kernel.engine.values import PauseTimer


class Asking:
    """Of a whole tree of RLMs: whether the user is being asked, whatever it is about. Lives on one event
    loop.
    """

    def __init__(self) -> None:
        self._questions = 0
        self._since = self._before = 0.0
        self._timed: dict[asyncio.Timeout, float | None] = {}
        """What runs within a time of its own, and what is left of that while it stands still."""

    def seconds(self) -> float:
        """Seconds so far in which the user was asked."""
        return self._before + (time.monotonic() - self._since if self._questions else 0.0)

    @contextlib.contextmanager
    def question(self) -> Iterator[None]:
        """Entered for as long as the user thinks; questions may overlap."""
        if not self._questions:
            self._since = time.monotonic()
            for limit in self._timed:
                self._stop(limit)
        self._questions += 1
        try:
            yield
        finally:
            before = self.seconds()
            self._questions -= 1
            if not self._questions:
                self._before = before
                self._go_on()

    def beside(self, pause_timer: PauseTimer) -> PauseTimer:
        """`question`, with the time of the cell that the question is about standing still, too."""

        @contextlib.contextmanager
        def asking() -> Iterator[None]:
            with pause_timer(), self.question():
                yield

        return asking

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        """As `asyncio.timeout`, but it stands still while the user is asked."""
        async with asyncio.timeout(seconds) as limit:
            self._timed[limit] = None
            if self._questions:
                self._stop(limit)
            try:
                yield limit
            finally:
                del self._timed[limit]

    def _stop(self, limit: asyncio.Timeout) -> None:
        if (end := limit.when()) is not None and not limit.expired():
            self._timed[limit] = end - asyncio.get_running_loop().time()
            limit.reschedule(None)

    def _go_on(self) -> None:
        for limit, left in self._timed.items():
            if left is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + left)
            self._timed[limit] = None
