"""Asks the user before code spends more than an amount, where no limit on the cost would stop it.

What counts is what the calls of code have cost and are about to cost, in the whole tree of RLMs: calls of sub
models, and all of child RLMs. What code says of its plans has the question asked early, before the first call
of a batch; what it really sends has it asked in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from rlm_kernel.engine.standstill import Standstill
from rlm_kernel.errors import BudgetExceeded

FURTHER = 2.0
"""The user is asked again when this many times what they allowed is reached."""


@dataclass(frozen=True)
class Expected:
    """What the user is asked to allow.

    `calls` that the code is known to make now, most of them of `model`, for about `cost` US dollars; `spent`:
    about what the code's calls have cost before, with those that are under way.
    """

    calls: int
    model: str
    cost: float
    spent: float = 0.0


Approve = Callable[[Expected], Awaitable[bool | Literal["always"]] | bool | Literal["always"]]
"""Whether the calls may be made; "always": and all others of the run, too. May be async."""


@dataclass
class _Plan:
    """What code has said it will call, and has not called yet."""

    model: str
    calls: int = 0
    cost: float = 0.0
    barred: int = 0
    """Calls that the user did not allow, and that are refused as they come."""

    def add(self, calls: int, cost: float) -> None:
        self.calls, self.cost = self.calls + calls, self.cost + cost

    def bar(self) -> None:
        self.barred, self.calls, self.cost = self.barred + self.calls, 0, 0.0

    def take(self) -> bool:
        """One of the calls is made; whether it may be."""
        if self.barred:
            self.barred -= 1
            return False
        if self.calls:
            self.cost -= self.cost / self.calls
            self.calls -= 1
        return True


class Approval:
    """Of a whole tree of RLMs. Lives on one event loop. Without `ask` everything is allowed."""

    def __init__(self, ask: Approve | None = None, above: float = math.inf) -> None:
        """`above`: US dollars up to which nobody is asked."""
        self._ask = ask
        self._allowed = above if ask is not None else math.inf
        self._spent = self._flight = 0.0
        self._plans: dict[object, _Plan] = {}
        self._refused: BudgetExceeded | None = None
        """The last no, since the cell of the topmost RLM began."""
        self._refusals = 0
        self._one = asyncio.Lock()
        self.asking = Standstill()
        """While the user is asked, whatever it is about: of the same tree."""

    def begin(self) -> None:
        """A cell of the topmost RLM begins: after a no the user may be asked again."""
        self._refused = None

    def plan(self, who: object, model: str, calls: int, cost: float) -> None:
        """The cell `who` is about to make so many calls more, for about so many dollars."""
        self._plans.setdefault(who, _Plan(model)).add(calls, cost)
        self._plans[who].model = model

    def planned_no_more(self, who: object) -> None:
        """Of what was planned the rest is not made."""
        self._plans.pop(who, None)

    def spend(self, cost: float) -> None:
        """Calls of code have cost so much."""
        self._spent += cost

    def take(self, who: object) -> bool:
        """The cell makes one of the calls that it had planned; whether it may be sent."""
        return who not in self._plans or self._plans[who].take()

    async def check(
        self, who: object, model: str, cost: float | None, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Before a call of the cell `who` is sent, for about so many dollars.

        `waiting` is entered while the user thinks. Raises BudgetExceeded if they do not allow it.
        """
        cost = cost or 0.0
        if self._total(cost) <= self._allowed:
            return
        refusals = self._refusals
        with waiting():
            async with self._one:  # one question for all calls that come together
                if self._refused is not None and self._refusals != refusals:
                    raise _again(self._refused)
                if self._total(cost) > self._allowed:
                    await self._put(who, model, cost)

    @contextlib.contextmanager
    def sent(self, cost: float | None) -> Iterator[None]:
        """A call is under way, for about so many dollars."""
        cost = cost or 0.0
        self._flight += cost
        try:
            yield
        finally:
            self._flight -= cost

    def _total(self, cost: float) -> float:
        """What is spent when this call and all that is planned are made."""
        return self._spent + self._flight + cost + sum(plan.cost for plan in self._plans.values())

    async def _put(self, who: object, model: str, cost: float) -> None:
        plans = list(self._plans.values())
        planned = self._plans.get(who)
        calls = 1 + sum(plan.calls for plan in plans)
        wanted = Expected(
            calls,
            model=planned.model if planned is not None and planned.calls else model,
            # Since the plan was told, the calls before may have shown what such a call really costs.
            cost=max(cost * calls, cost + sum(plan.cost for plan in plans)),
            spent=max(0.0, self._spent + self._flight),
        )
        total = self._total(cost)
        if self._refused is not None or self._ask is None:
            raise self._refuse(who, wanted)
        try:
            with self.asking.standing_still():
                found = self._ask(wanted)
                said = await found if isinstance(found, Awaitable) else found
        except Exception as error:
            raise BudgetExceeded(
                f"Whether {_worded(wanted)} may be made could not be asked: {error}.", limit="cost"
            ) from error
        if said == "always":
            self._allowed = math.inf
        elif said:
            self._allowed = FURTHER * total
        else:
            raise self._refuse(who, wanted)

    def _refuse(self, who: object, wanted: Expected) -> BudgetExceeded:
        if who in self._plans:
            self._plans[who].bar()
        self._refusals += 1
        self._refused = _not_allowed(wanted, self._allowed)
        return self._refused

    @property
    def refusal(self) -> BudgetExceeded:
        """The error of a call that the user has not allowed."""
        return _again(self._refused) if self._refused is not None else _not_allowed(_ONE, self._allowed)


_ONE = Expected(1, "a model", 0.0)


def _again(refusal: BudgetExceeded) -> BudgetExceeded:
    return BudgetExceeded(refusal.message, limit=refusal.limit, hint=refusal.hint)


def _worded(wanted: Expected) -> str:
    calls = f"{wanted.calls:,} calls" if wanted.calls != 1 else "a call"
    return f"{calls} of {wanted.model} for about {dollars(wanted.cost)}"


def _not_allowed(wanted: Expected, allowed: float) -> BudgetExceeded:
    spent = f" beside the {dollars(wanted.spent)} that calls have cost so far" if wanted.spent else ""
    left = max(0.0, allowed - wanted.spent)
    return BudgetExceeded(
        f"The user did not allow {_worded(wanted)}{spent}: nothing was sent.",
        limit="cost",
        hint=(
            f"Calls for about {dollars(left)} more are made without a question. Go on with fewer or shorter "
            "ones: filter by code first, take larger pieces or a sample, or answer from what there is."
        ),
    )


def dollars(amount: float) -> str:
    """An amount for people: $12.40, $0.0031."""
    if amount == int(amount) and amount < 1e15:
        return f"${int(amount):,}"
    return f"${amount:,.2f}" if amount >= 0.1 else f"${amount:,.4f}"
