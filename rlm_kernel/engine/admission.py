"""Which model calls may be made at once under limits of money and tokens: the one rule, for the limits of a
run (`Ledger`) as for those that several runs share (`LocalPurse`).

What a call uses is known only when it is over. Until then an estimate is held back for it: what the dearest
call of its model has used so far, and more in proportion for a longer prompt. Near a limit calls therefore
wait for those in flight, and the limit is passed by no more than one call, as far as calls use what was
estimated.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlm_kernel.engine.inflight import Asked, InFlight
from rlm_kernel.engine.limits import ROUNDING


@dataclass(frozen=True)
class Left:
    """What is left of a limit of money (US dollars) or of tokens, with nothing held back for calls in flight.

    `model`: whose limit it is; None: that of all.
    """

    name: Literal["cost", "tokens"]
    amount: float
    model: str | None = None


class Admission:
    """Lets calls through, and has them wait in order, each model's by itself. Lives on one event loop."""

    def __init__(self, left: Callable[[Asked], Sequence[Left]]) -> None:
        """`left`: what is left for a call, of each limit that holds for it."""
        self.flight = InFlight()
        self._left = left
        self._waiting: defaultdict[str, OrderedDict[asyncio.Event, None]] = defaultdict(OrderedDict)

    async def admit(self, asked: Asked, check: Callable[[], None]) -> int:
        """A ticket for the call, once there is room for it. A last answer does not wait, and is not refused.

        `check` raises what refuses the call, now or as long as it waits.
        """
        if not asked.last:
            await self._room(asked, check)
        return self.flight.hold(asked)

    def release(self, ticket: int) -> None:
        """The call has ended. Idempotent."""
        if self.flight.release(ticket) is not None:
            for model in list(self._waiting):
                self._wake(model)

    def look_again(self) -> None:
        """Have all calls that wait checked again."""
        for queue in self._waiting.values():
            for turn in queue:
                turn.set()

    async def _room(self, asked: Asked, check: Callable[[], None]) -> None:
        queue, turn = self._waiting[asked.model], asyncio.Event()
        try:
            check()
            while not self._may(asked, first=next(iter(queue), turn) is turn):
                queue[turn] = None
                turn.clear()
                await turn.wait()
                check()
        finally:
            if queue.pop(turn, turn) is None:
                self._wake(asked.model)  # there may be room for the next one, too

    def _wake(self, model: str) -> None:
        if turn := next(iter(self._waiting[model]), None):
            turn.set()

    def _may(self, asked: Asked, *, first: bool) -> bool:
        left = self._left(asked)
        return not left or (first and (not self.flight.of()[0] or self._fits(asked, left)))

    def _fits(self, asked: Asked, left: Sequence[Left]) -> bool:
        """Whether a call can be afforded beside those in flight."""
        dearest = self.flight.likely(asked.model)
        if dearest is None:  # what such a call uses is not known yet: one goes ahead
            return not self.flight.of(asked.model)[0]
        for limit in left:
            _, cost, tokens = self.flight.of(limit.model)
            held = cost if limit.name == "cost" else tokens
            if dearest.of(limit.name, asked.prompt) > limit.amount - held + ROUNDING:
                return False
        return True
