"""What a server may spend, and how much it does at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from rlm_kernel.errors import BudgetExceeded, UsageError

MAX_WAITING = 64
"""Calls that wait for a kernel; more are refused."""


@dataclass
class Share:
    """What one question may spend, in US dollars, None for no limit; and what it has spent."""

    limit: float | None
    spent: float = 0.0


@dataclass
class Budget:
    """US dollars for the server's life, None for no limit.

    What runs has its whole limit set aside, so that questions at the same time cannot pass it together.
    """

    total: float | None = None
    spent: float = 0.0
    _aside: float = field(default=0.0, init=False)

    @contextlib.contextmanager
    def share(self, limit: float | None) -> Iterator[Share]:
        """Money for one question with a limit of its own. Raises BudgetExceeded if nothing is left."""
        if self.total is not None:
            left = self.total - self.spent - self._aside
            if left <= 0:
                running = (
                    f", and ${self._aside:.4g} is set aside for questions that run" if self._aside else ""
                )
                raise BudgetExceeded(
                    f"This server may spend ${self.total:.4g} in all; ${self.spent:.4g} is spent{running}.",
                    limit="cost",
                    hint="Ask again when others have ended, or start the server with more: --total-cost",
                )
            limit = left if limit is None else min(limit, left)
        share = Share(limit)
        self._aside += limit or 0.0
        try:
            yield share
        finally:
            self._aside -= limit or 0.0
            self.spent += share.spent


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
            raise UsageError(f"{MAX_WAITING} calls wait for a kernel already.", hint="Ask again later.")
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
