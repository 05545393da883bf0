"""A budget that several runs share, whichever process or machine they are in."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.values import Completion


class Payment(Protocol):
    """A call that a purse has let through."""

    def settle(self, reply: Completion) -> None:
        """It had this reply. A call that ends with neither this nor `lost` has cost nothing."""
        ...

    def lost(self, cost: float, tokens: float) -> None:
        """It was given up on its way, and may be billed so much."""
        ...


class Purse(Protocol):
    """What a ledger asks beside its own limits, before each model call of its run."""

    def paying(self, asked: Asked) -> AbstractAsyncContextManager[Payment]:
        """Hold back what a call may use, for as long as the context lasts.

        Entering it waits while the calls in flight may use up what is left, and raises BudgetExceeded, with
        `limit="batch"`, where nothing is left. The limit is passed by no more than one call, over all
        runs that share the purse.
        """
        ...
