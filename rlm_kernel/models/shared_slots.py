"""The places for calls of one model, over several processes: how many of them each has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rlm_kernel.models.slots import CUT

_ROUND = 1.0
"""Seconds in which refusals tell of the same number of calls."""
_TURN = 10.0
"""Seconds for which a process keeps its places while another one has none."""
_SILENT = 3.0
"""Seconds after which nobody waits for a process that has not asked again."""


@dataclass
class _Holder:
    """A process: what it wants, was given last, and may have in use until it asks again.

    `since`: when it began to have places, or to wait for one. `asked`: when it asked last.
    """

    wanted: int = 0
    given: int = 0
    held: int = 0
    since: float = 0.0
    asked: float = 0.0

    @property
    def waits(self) -> bool:
        """It wants places and has none."""
        return self.wanted > 0 and not self.given


class SharedSlots:
    """Gives the places of one model to the processes that want them, evenly. Lives in one of them.

    Each process asks again and again, one request after the other, and passes on to its `Slots` what it is
    given (`allow`, `hold`). What it was given counts as its own until it has asked once more: so there are
    never more calls at one time than places, but for those in progress when a refusal cuts their number.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._limit = float(most)
        self._clock = clock
        self._cut_at = float("-inf")
        self._grown_at = clock()
        self._paused_until = float("-inf")
        self._holders: dict[str, _Holder] = {}

    @property
    def limit(self) -> int:
        """Calls at one time, of all processes."""
        return max(1, int(self._limit))

    def ask(self, holder: str, wanted: int, in_use: int) -> tuple[int, float]:
        """A process has so many calls in progress or waiting (`wanted`), and so many in progress: how many
        places it has from now on, and for how many seconds it is to begin no call.

        Where places are left it has one more than it wants, so that its next call need not wait.
        """
        self._grow()
        own = self._holders.setdefault(holder, _Holder())
        own.asked = now = self._clock()
        if not own.wanted:
            own.since = now
        own.wanted = max(0, wanted)
        others = [other for other in self._holders.values() if other is not own]
        free = self.limit - sum(other.held for other in others)
        given = max(0, min(self._share(own) + self._ahead(own, others), free))
        given = self._leaves(own, others, given, free)
        if bool(given) != bool(own.given):
            own.since = now
        # Until it hears of this, it goes by what it was given before.
        own.held, own.given = max(own.given, given, in_use), given
        return given, max(0.0, self._paused_until - now)

    def refused(self, retry_after: float | None = None) -> None:
        """The provider said to one of the processes that there are too many calls."""
        now = self._clock()
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + retry_after)
        if now - self._cut_at >= _ROUND:
            self._cut_at = self._grown_at = now
            in_use = sum(min(one.held, one.wanted) for one in self._holders.values()) or self._limit
            self._limit = max(1.0, min(self._limit, in_use) * CUT)

    def forget(self, holder: str) -> None:
        """The process is gone: its places are free. Idempotent."""
        self._holders.pop(holder, None)

    def _grow(self) -> None:
        """By one place for each round without a refusal."""
        rounds = int((self._clock() - self._grown_at) / _ROUND)
        self._grown_at += rounds * _ROUND
        self._limit = min(float(self._most), self._limit + rounds)

    def _share(self, own: _Holder) -> int:
        """What is left of the places when those who want fewer than their share have what they want."""
        wanting = sorted(holder.wanted for holder in self._holders.values() if holder.wanted)
        left = self.limit
        for number, wanted in enumerate(wanting):
            many = len(wanting) - number
            if wanted * many > left:
                return min(own.wanted, max(1, -(-left // many)))
            left -= wanted
        return own.wanted

    def _ahead(self, own: _Holder, others: list[_Holder]) -> int:
        """One more, where all have what they want and others leave it."""
        wanted = own.wanted + sum(other.wanted for other in others)
        return int(self.limit - wanted > sum(max(0, other.given - other.wanted) for other in others))

    def _leaves(self, own: _Holder, others: list[_Holder], given: int, free: int) -> int:
        """What it has when it leaves a place to each process that has none: where there are fewer places than
        processes that want one, they take turns.
        """
        waiting = [other for other in others if other.waits and own.asked - other.asked < _SILENT]
        if not own.given:  # those who have waited for longer are first
            return max(0, min(given, free - sum(other.since < own.since for other in waiting)))
        least = 0 if own.asked - own.since >= _TURN else 1
        return max(min(given, least), min(given, free - len(waiting)))
