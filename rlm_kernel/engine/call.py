"""A model call on the account of a run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol, Self

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.paying import Waiting
from rlm_kernel.engine.purse import Payment
from rlm_kernel.engine.totals import Usage
from rlm_kernel.engine.values import Completion

Lost = tuple[float, float]
"""Money and tokens that a call may have used that was given up."""


class Booked(Protocol):
    """Where a call is booked: what it needs of a ledger."""

    async def reserve(
        self, asked: Asked, stack: contextlib.AsyncExitStack, waiting: Waiting
    ) -> Payment | None: ...

    def settle(self, asked: Asked, reply: Completion) -> None: ...

    def failed(self, asked: Asked) -> None: ...

    def lost(self, asked: Asked, heard: float | None, before: Lost) -> Lost: ...


class Call:
    """A model call, for as long as it is entered: `Ledger.call`.

    Whoever makes it says when the request goes out, and what came of it.
    """

    def __init__(self, ledger: Booked, asked: Asked, waiting: Waiting) -> None:
        """`waiting` is entered while calls of other runs are waited for."""
        self._ledger = ledger
        self._for = asked
        self._waiting = waiting
        self._held = contextlib.AsyncExitStack()
        """What is held back for it: released when it has ended."""
        self._payment: Payment | None = None
        self._open = False
        """It was sent, and what it used is not known."""
        self._heard = 0.0
        """Tokens of its reply that have come, about."""
        self._before: Lost = 0.0, 0.0
        """What the attempts at it have used that have ended."""

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._payment = await self._ledger.reserve(self._for, stack, self._waiting)
            self._held = stack.pop_all()
        return self

    def sent(self) -> None:
        self._open = True

    def attempted(self, usage: Usage, cost: float | None) -> None:
        """An attempt at it has ended. All so far have used so much, which the reply tells, too."""
        self._open, self._heard, self._before = False, 0.0, (cost or 0.0, usage.total)

    def heard(self, tokens: float) -> None:
        """About so many tokens more of its reply have come."""
        self._heard += tokens

    def settle(self, reply: Completion) -> None:
        self._open = False
        self._ledger.settle(self._for, reply)
        if self._payment is not None:
            self._payment.settle(reply)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Any
    ) -> None:
        if error is not None:
            self._ledger.failed(self._for)
            if isinstance(error, asyncio.CancelledError) and (self._open or any(self._before)):
                self._give_up()
        await self._held.__aexit__(kind, error, trace)

    def _give_up(self) -> None:
        """It may be billed, though nobody waits for its reply."""
        cost, tokens = self._ledger.lost(self._for, self._heard if self._open else None, self._before)
        if self._payment is not None:
            # Of a reply that had not begun a purse knows more than this run does.
            known = self._heard or any(self._before)
            self._payment.lost(*((cost, tokens) if known else (0.0, 0.0)))
