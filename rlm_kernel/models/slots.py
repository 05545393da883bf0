"""How many calls a model is given at one time: as many as were allowed, fewer while the provider says that it
is too much.

The rule is TCP's (additive increase, multiplicative decrease): a refusal cuts the number, each round of
successes adds one again. Where several processes ask one provider, `SharedSlots` says how many of the places
each of them has (`Slots.allow`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

CUT = 0.7
"""What a refusal leaves of the number."""


def slots_of(models: object) -> Mapping[str, Slots]:
    """The places for calls of each model, by its name and address; none where they have no limit, as of
    scripted models.
    """
    return getattr(models, "slots", {})


class Slots:
    """Places for calls: `async with` one. Waiting is in order. Belongs to one event loop."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._allowed = most
        self._limit = float(most)
        self.on_refusal: Callable[[float | None], None] = lambda _retry_after: None
        """Hears of refusals that tell something new; with the seconds in which no call is to begin."""
        self._now = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = -1.0
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def most(self) -> int:
        """Calls at one time by the settings."""
        return self._most

    @property
    def limit(self) -> int:
        """Calls at one time, now."""
        return min(self._allowed, max(1, int(self._limit)))

    @property
    def in_use(self) -> int:
        """Calls that are made."""
        return self._now

    @property
    def wanted(self) -> int:
        """Calls that are made or wait for a place."""
        return self._now + sum(not future.done() for future in self._waiting)

    def allow(self, places: int) -> None:
        """Have so many of the places, and at most those of the settings, from now on; 0: none begins. Calls
        that are being made go on.
        """
        self._allowed = max(0, min(places, self._most))
        self._wake()

    def hold(self, seconds: float) -> None:
        """Have no call begin for so long from now."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def __aenter__(self) -> float:
        """When the call began, for `refused`."""
        waited = False
        while not self._free() or (self._waiting and not waited):
            future = asyncio.get_running_loop().create_future()
            (self._waiting.appendleft if waited else self._waiting.append)(future)
            self._wake()
            try:
                await future
            except asyncio.CancelledError:
                if future in self._waiting:
                    self._waiting.remove(future)
                else:
                    self._wake()  # the place was for this one
                raise
            waited = True
        self._now += 1
        return self._clock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._now -= 1
        self._wake()

    def refused(self, began: float, retry_after: float | None) -> None:
        """The provider said that there are too many calls, to one that `began` then.

        `retry_after`: seconds in which none is to begin.
        """
        if retry_after is not None:
            self.hold(retry_after)
        if began > self._cut_at:
            # Calls that began before the last cut tell of the number before it.
            self._cut_at = self._clock()
            self._limit = max(1.0, min(self._limit, self._now) * CUT)
            self.on_refusal(retry_after)

    def pause(self) -> float:
        """Seconds in which no call begins, from now."""
        return max(0.0, self._paused_until - self._clock())

    def succeeded(self) -> None:
        """A call had its reply: grow by one in as many of them as there are places."""
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def _free(self) -> bool:
        return self._now < self.limit and self._clock() >= self._paused_until

    def _wake(self) -> None:
        pause = self._paused_until - self._clock()
        if pause > 0:
            if self._waiting and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(pause, self._resume)
            return
        room = self.limit - self._now
        while room > 0 and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    def _resume(self) -> None:
        self._timer = None
        self._wake()
