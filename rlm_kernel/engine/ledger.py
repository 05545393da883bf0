"""The one account of a run: money, tokens, calls, turns, time, and the limits on them.

A call is reserved before it is made and settled after, so a limit is passed by no more than the calls in flight. Lives on one event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rlm_kernel.engine.protocols import Completion, Role, Totals, Usage
from rlm_kernel.errors import BudgetExceeded

LimitName = Literal["turns", "calls", "cost", "tokens", "seconds"]


@dataclass(frozen=True)
class Limits:
    """None is no limit. `cost` in US dollars; `tokens` counts prompt and completion of root and sub models; `calls` are sub-model calls."""

    turns: int = 30
    calls: int | None = None
    cost: float | None = None
    tokens: int | None = None
    seconds: float | None = None


class Ledger:
    """Counts, and refuses when a limit is reached."""

    def __init__(self, limits: Limits, *, spent: Totals | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`spent`: what an earlier part of the run has used; it counts against the limits."""
        spent = spent or Totals()
        self.limits = limits
        self._clock = clock
        self._started = clock() - spent.seconds
        self._turns = spent.turns
        self._calls = spent.calls
        self._usage: dict[Role, Usage] = {"root": spent.root_usage, "sub": spent.sub_usage}
        self._cost: float = spent.cost or 0.0
        self._unpriced = spent.cost is None

    def reserve_turn(self) -> None:
        """Count a turn. Raises BudgetExceeded."""
        self.check()
        if self._turns >= self.limits.turns:
            raise _refusal("turns", self._turns, self.limits.turns)
        self._turns += 1

    def reserve_call(self) -> None:
        """Count a sub-model call that is about to be made. Raises BudgetExceeded."""
        if self.limits.calls is not None and self._calls >= self.limits.calls:
            raise _refusal("calls", self._calls, self.limits.calls)
        self.check()
        self._calls += 1

    def settle(self, role: Role, reply: Completion) -> None:
        """Add what a call used. Tokens count as soon as they are known; an unknown price makes the total unknown."""
        self._usage[role] += reply.usage
        if reply.cost is None:
            self._unpriced = True
        else:
            self._cost += reply.cost

    def seconds_left(self) -> float | None:
        """Seconds until the time limit; None without one."""
        return None if self.limits.seconds is None else max(0.0, self.limits.seconds - self._seconds())

    def totals(self) -> Totals:
        cost = None if self._unpriced else self._cost
        return Totals(self._turns, self._calls, self._usage["root"], self._usage["sub"], cost, self._seconds())

    def left(self) -> dict[str, Any]:
        """What is left of each limit; None where there is none."""
        spent = self._spent()
        limits: dict[LimitName, float | None] = {
            "turns": self.limits.turns,
            "calls": self.limits.calls,
            "cost": self.limits.cost,
            "tokens": self.limits.tokens,
            "seconds": self.limits.seconds,
        }
        return {name: None if limit is None else round(max(0, limit - spent[name]), 6) for name, limit in limits.items()}

    def _spent(self) -> dict[LimitName, float]:
        tokens = self._usage["root"].total + self._usage["sub"].total
        return {"turns": self._turns, "calls": self._calls, "cost": self._cost, "tokens": tokens, "seconds": self._seconds()}

    def _seconds(self) -> float:
        return self._clock() - self._started

    def check(self) -> None:
        """Raises BudgetExceeded if money, tokens or time are used up."""
        spent = self._spent()
        names: tuple[LimitName, ...] = ("cost", "tokens", "seconds")
        for name in names:
            limit = getattr(self.limits, name)
            if limit is not None and spent[name] >= limit:
                raise _refusal(name, spent[name], limit)


def _refusal(limit: LimitName, spent: float, allowed: float) -> BudgetExceeded:
    unit = {"cost": " US dollars", "seconds": " s"}.get(limit, "")
    return BudgetExceeded(f"The limit of {limit} is reached: {spent:.6g} of {allowed:g}{unit} used.", limit=limit)
