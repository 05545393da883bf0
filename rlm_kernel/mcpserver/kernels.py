"""How many kernels a server has at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rlm_kernel.errors import UsageError

MAX_WAITING = 64
"""Calls that wait for a kernel; more are refused."""


class Kernels:
    """So many kernels at once. Those of kept sessions count as long as they are kept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = self._waiting = 0
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for one. Raises UsageError where too many wait."""
        if self._waiting >= MAX_WAITING:
            raise UsageError(
                f"{MAX_WAITING} calls are already waiting for a kernel.", hint="Ask again later."
            )
        self._waiting += 1
        try:
            while self._used >= self.most:
                self._freed.clear()
                await self._freed.wait()
        finally:
            self._waiting -= 1
        self._used += 1
        try:
            yield
        finally:
            self.give()

    def take(self) -> None:
        """Have one for a session, at once. Raises UsageError if there is none."""
        if self._used >= self.most:
            raise UsageError(
                f"All {self.most} kernels of this server are in use.",
                hint="End a session (session_stop), or ask again later.",
            )
        self._used += 1

    def give(self) -> None:
        """Give back what was taken."""
        self._used -= 1
        self._freed.set()
