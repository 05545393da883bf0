"""Turns: who waits for one, and who is next. No client keeps another from its turn by asking more."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from rlm_kernel.serve.refusals import Refused

_RETRY = 10
Hear = Callable[[int], None]


@dataclass(eq=False)
class _Waiting:
    key: str
    most: int
    hear: Hear
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    told: int = 0


class Turns:
    """`at_once` turns are taken at one time, and at most `waiting` more requests are let in.

    The next turn goes to the client with the fewest of them, and of these to who had none for longest.
    """

    def __init__(self, at_once: int, waiting: int, *, shared: bool = False) -> None:
        """`shared`: by several clients, none of which may have more than half of the places."""
        self.at_once = at_once
        self._most = at_once + waiting
        self._share = (self._most + 1) // 2 if shared else self._most
        self._inside: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._line: list[_Waiting] = []
        self._served: dict[str, int] = {}
        self._count = 0

    @property
    def taken(self) -> int:
        return self._taken.total()

    @property
    def inside(self) -> int:
        return self._inside.total()

    @contextlib.asynccontextmanager
    async def entered(self, key: str) -> AsyncIterator[None]:
        """A place for a request, before it is read. Raises Refused."""
        if self._inside.total() >= self._most or self._inside[key] >= self._share:
            raise Refused(
                429,
                f"The server is busy: it already has {self._inside.total()} requests.",
                code="rate_limit_exceeded",
                retry_after=_RETRY,
            )
        self._inside[key] += 1
        try:
            yield
        finally:
            self._inside[key] -= 1
            self._inside += Counter()

    @contextlib.asynccontextmanager
    async def turn(
        self, key: str, most: int | None = None, hear: Hear = lambda _: None
    ) -> AsyncIterator[None]:
        """Wait for a turn, of which a client has at most so many at one time.

        `hear` hears the place in the line, from 1, whenever it changes.
        """
        waiting = _Waiting(key, most or self.at_once, hear)
        self._line.append(waiting)
        self._go_on()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._line:
                self._line.remove(waiting)
                self._go_on()
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self._give_back(key)
            raise
        try:
            yield
        finally:
            self._give_back(key)

    def _give_back(self, key: str) -> None:
        self._taken[key] -= 1
        self._taken += Counter()
        self._go_on()

    def _go_on(self) -> None:
        taken, served, count = self._taken.copy(), dict(self._served), self._count
        order: list[_Waiting] = []
        left = list(self._line)
        while left:
            able = [one for one in left if taken[one.key] < one.most] or left
            chosen = min(able, key=lambda one: (taken[one.key], served.get(one.key, 0)))
            left.remove(chosen)
            taken[chosen.key] += 1
            count += 1
            served[chosen.key] = count
            order.append(chosen)
        for one in order:
            full = self.taken >= self.at_once or self._taken[one.key] >= one.most
            if full or one.turn.done():  # it was cancelled at this moment
                continue
            self._line.remove(one)
            self._taken[one.key] += 1
            self._count += 1
            self._served[one.key] = self._count
            one.turn.set_result(None)
        for place, one in enumerate((one for one in order if one in self._line), 1):
            if one.told != place:
                one.told = place
                one.hear(place)
