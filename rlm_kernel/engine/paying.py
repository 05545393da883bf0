"""What a run pays of a budget that it shares with others, and its clock, which stands still while it does
nothing but wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.purse import Payment, Purse
from rlm_kernel.engine.standstill import Standstill

Waiting = Callable[[], AbstractContextManager[None]]
"""Entered while a call waits for others, so that this takes no time of its cell."""


class Paying:
    """Of a whole tree of RLMs. Lives on one event loop."""

    def __init__(self, purse: Purse | None, clock: Callable[[], float]) -> None:
        self._purse = purse
        self._standstill = Standstill(clock)
        self._waiting = self._made = 0
        """Calls that wait for the purse, and those that it has let through."""
        self._refused = False
        """The purse did not let the last call through: to ask it again, far away, is no waiting, as code that
        does so for ever must come to the end of its time.
        """

    def waited(self) -> float:
        """Seconds so far in which the run did nothing but wait for the purse."""
        return self._standstill.seconds()

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """As `asyncio.timeout`, but it stands still with the run's clock."""
        return self._standstill.timeout(seconds)

    async def pay(self, asked: Asked, stack: contextlib.AsyncExitStack, waiting: Waiting) -> Payment | None:
        """Have the purse, if there is one, let the call through, for as long as the stack is open. Raises
        what the purse raises.
        """
        if self._purse is None:
            return None
        try:
            with nullcontext() if self._refused else self._waits(waiting):
                payment = await stack.enter_async_context(self._purse.paying(asked))
        except Exception:
            self._refused = True
            raise
        self._refused = False
        self._count(made=1)
        stack.callback(self._count, made=-1)
        return payment

    @contextlib.contextmanager
    def _waits(self, waiting: Waiting) -> Iterator[None]:
        self._count(waiting=1)
        try:
            with waiting():
                yield
        finally:
            self._count(waiting=-1)

    def _count(self, *, waiting: int = 0, made: int = 0) -> None:
        self._waiting, self._made = self._waiting + waiting, self._made + made
        # A call that is made holds money back, for which others of the run may wait: its time-outs go on.
        if self._waiting and not self._made:
            self._standstill.stop()
        else:
            self._standstill.go_on()
