"""The limits of a run, and the words in which they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlm_kernel.engine.totals import Share
from rlm_kernel.errors import BudgetExceeded

LimitName = Literal["turns", "calls", "cost", "tokens", "seconds"]
LIMITS: tuple[LimitName, ...] = ("turns", "calls", "cost", "tokens", "seconds")
UNITS = {"turns": "turns", "calls": "calls", "cost": "US dollars", "tokens": "tokens", "seconds": "s"}
ROUNDING = 1e-9
"""US dollars: sums of prices are not exact."""


@dataclass(frozen=True)
class ModelLimits:
    """Of one model, for the whole tree of a run. None is no limit; `cost` in US dollars."""

    calls: int | None = None
    cost: float | None = None

    def check(self, share: Share, model: str, *, reserved: bool = False) -> None:
        """Raise BudgetExceeded if what the model has used is all. A call that is `reserved` is counted."""
        if self.calls is not None and not reserved and share.calls >= self.calls:
            raise refused("calls", share.calls, self.calls, model=model)
        if self.cost is not None and share.spent >= self.cost - ROUNDING:
            raise refused("cost", share.spent, self.cost, model=model)


@dataclass(frozen=True)
class Limits:
    """None is no limit.

    `cost` in US dollars; `tokens` counts prompt and completion of root and sub models; `calls` are all model
    calls but the root's own: sub-model calls, and turns of child RLMs. `turns` hold for each RLM by itself;
    `depth`: how deep child RLMs may nest. `models`: of those that have limits of their own, by the role of
    their cards. `tool_calls`: of functions of the host, in the whole tree; None where there are none.
    """

    turns: int = 30
    calls: int | None = None
    cost: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    depth: int = 0
    models: Mapping[str, ModelLimits] = field(default_factory=dict)
    tool_calls: int | None = None


def unit(limit: LimitName) -> str:
    """What stands behind a number of it."""
    return f" {UNITS[limit]}" if limit in ("cost", "seconds") else ""


def refused(
    limit: LimitName, spent: float, allowed: float, kept: float = 0.0, *, model: str = ""
) -> BudgetExceeded:
    """The error of a call that the limit refuses. `kept`: for the last answer; `model`: whose limit it is."""
    whose = f" of the model {model}" if model else ""
    rest = f", and {kept:.6g} kept for the last answer" if kept > ROUNDING else ""
    return BudgetExceeded(
        f"The limit of {limit}{whose} is reached: {spent:.6g} of {allowed:g}{unit(limit)} used{rest}.",
        limit=limit,
    )
