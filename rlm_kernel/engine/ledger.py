"""The one account of a run and of the child RLMs beneath it: money, tokens, calls, turns, time, and the
limits on them.

A model call is reserved before it is made and settled after. Near a limit of money or tokens calls wait for
those in flight (`Admission`). Some is kept back for the last answer. A run that shares a budget with others
asks their purse, too, after its own limits. Lives on one event loop.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

from rlm_kernel.engine.admission import Admission, Left
from rlm_kernel.engine.approval import Approval
from rlm_kernel.engine.call import Call, Lost
from rlm_kernel.engine.expected import Expectation
from rlm_kernel.engine.inflight import Asked, Dearest
from rlm_kernel.engine.limits import LIMITS, ROUNDING, UNITS, LimitName, refused, unit
from rlm_kernel.engine.limits import Limits as Limits
from rlm_kernel.engine.limits import ModelLimits as ModelLimits
from rlm_kernel.engine.paying import Paying, Waiting
from rlm_kernel.engine.purse import BATCH, Payment, Purse
from rlm_kernel.engine.totals import Share, Shares, Totals, Usage
from rlm_kernel.engine.values import Completion, Role
from rlm_kernel.errors import BudgetExceeded

_SPENT: tuple[Literal["cost", "tokens"], ...] = ("cost", "tokens")
"""Limits of what is known only after a call."""
NEARLY = 0.8
"""Share of a limit at which the root model is told."""
KEPT = 0.1
"""Share of a limit at most that is kept for the last answer."""


class Ledger:
    """Counts, and refuses when a limit is reached.

    That of a child RLM counts in those above it, too, whose limits hold for it.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        spent: Totals | None = None,
        clock: Callable[[], float] = time.monotonic,
        parent: Ledger | None = None,
        approval: Approval | None = None,
        purse: Purse | None = None,
    ) -> None:
        """`spent`: what an earlier part of the run has used; it counts against the limits.

        `approval`: asks the user before code spends much; by default all is allowed. `purse`: what the run
        may use together with others.
        """
        self._totals = replace(spent) if spent is not None else Totals()
        self.limits = limits
        self._parent = parent
        self._top: Ledger = parent._top if parent is not None else self
        self._clock = clock
        self._started = clock() - self._totals.seconds
        self.paying: Paying = parent.paying if parent is not None else Paying(purse, clock)
        self._waited = self.paying.waited()
        self._told: set[str] = set()
        self._own_calls = 0
        """Calls of a child RLM's own root model: calls in the accounts above, turns in its own."""
        self._open: list[Ledger] = []
        """Child RLMs at work."""
        self.approval: Approval = parent.approval if parent is not None else approval or Approval()
        self.expected: Expectation = parent.expected if parent is not None else Expectation()
        # Of the whole tree, so used at its top alone:
        self._admission = Admission(self._left_for)
        self._last = Dearest()

    def child(self, model: str = "root") -> Ledger:
        """That of a child RLM: it has the same turns, one level less beneath it, and all else from here.

        `model`: which is its root model. Raises BudgetExceeded where no child may be made.
        """
        if self.limits.depth <= 0:
            raise BudgetExceeded(
                "The limit of depth is reached: no child RLM may be made here.", limit="depth"
            )
        self.check(calls=True)
        self._top._check_model(model)
        return Ledger(
            Limits(turns=self.limits.turns, depth=self.limits.depth - 1), clock=self._clock, parent=self
        )

    def waited(self, seconds: float) -> None:
        """So many seconds were waited before there was room on the machine: they are not of the run."""
        self._started += seconds

    def begin(self) -> None:
        """This child RLM has begun: it counts as one of those above."""
        if self._parent is not None:
            self._parent._count(children=1)
            self._parent._open.append(self)

    def end(self) -> None:
        """This child RLM has ended, if it had begun. Idempotent."""
        if self._parent is not None and self in self._parent._open:
            self._parent._open.remove(self)

    def came_to_nothing(self) -> None:
        """This child RLM failed or was given up.

        Before its first turn it counts as a call: else code could have such without end.
        """
        if not self._totals.calls:
            self._count(calls=1, failed=1)

    @property
    def cost_limit(self) -> float | None:
        """US dollars that the whole tree may use; None without a limit."""
        return self._top.limits.cost

    @property
    def is_child(self) -> bool:
        return self._parent is not None

    def check_turn(self) -> None:
        """Before the root model is asked. Raises BudgetExceeded."""
        self._top._check()
        if self._totals.turns >= self.limits.turns:
            raise refused("turns", self._totals.turns, self.limits.turns)

    def count_turn(self) -> None:
        """The root model has replied."""
        self._totals.turns += 1

    def add(self, used: Totals) -> None:
        """Count what was used elsewhere, as by calls of an earlier run whose answers are used again. Of the
        topmost RLM's account.
        """
        self._totals = self._totals + used

    def call(
        self,
        role: Role,
        prompt: float,
        *,
        model: str | None = None,
        last: bool = False,
        prices: tuple[float, float] | None = None,
        waiting: Waiting = nullcontext,
    ) -> Call:
        """A call of `model`, by the role of its card, with a prompt of about so many tokens; by default of
        the role's own.

        Waits for calls in flight where they may use up what is left. `last`: for the last answer, which is
        always made. `prices`: as of `Asked`. `waiting` is entered while calls of other runs are waited for.
        One that is given up on its way counts against the limits as what it may have used. Raises
        BudgetExceeded: then nothing is to be sent.
        """
        return Call(self, Asked(role, model or role, prompt, last, prices), waiting)

    async def reserve(
        self, asked: Asked, stack: contextlib.AsyncExitStack, waiting: Waiting
    ) -> Payment | None:
        """Hold back what the call may use, here and of the purse, for as long as the stack is open; `waiting`
        is entered while the purse is waited for.

        Raises BudgetExceeded, and what the purse raises.
        """
        calls, turns = int(asked.role == "sub" or self.is_child), int(asked.role == "root" and self.is_child)
        top = self._top
        try:
            if calls:
                top._check_calls()
                top._check_model(asked.model)
            self._count(calls=calls, child_turns=turns, models=Shares.one(asked.model, calls=1))
            self._own_calls += turns
            try:
                ticket = await top._admission.admit(asked, lambda: top._check_asked(asked))
                stack.callback(top._admission.release, ticket)
                return await self.paying.pay(asked, stack, waiting)
            except BaseException:
                self._count(calls=-calls, child_turns=-turns, models=Shares.one(asked.model, calls=-1))
                self._own_calls -= turns
                raise
        except BudgetExceeded as refusal:
            if refusal.limit != BATCH:
                self._tell_left(refusal, asked.model)
            raise

    def _tell_left(self, refusal: BudgetExceeded, model: str = "") -> None:
        """Code that is refused a call is told what is left of the limits there are."""
        left = self.left()
        told = [f"{left[name]:g} {UNITS[name]}" for name in LIMITS if left[name] is not None]
        told += [
            f"{rest:g} {UNITS[name]} of {model}"
            for name, rest in left.get("models", {}).get(model, {}).items()
        ]
        refusal.hint = f"Left: {', '.join(told)}."

    def settle(self, asked: Asked, reply: Completion) -> None:
        """The call had this reply."""
        role, spent = asked.role, {"known_cost": reply.cost or 0.0, "unpriced": int(reply.cost is None)}
        share = Shares.one(asked.model, usage=reply.usage, **spent)
        self._count(**{f"{role}_usage": reply.usage}, **spent, stored=int(reply.stored), models=share)
        if reply.stored:
            return  # nothing is learnt of what a call costs
        self.expected.see(asked, reply)
        if role == "sub" or self.is_child:
            self.approval.spend(reply.cost or 0.0)
        used = reply.cost or 0.0, reply.usage.total
        self._top._admission.flight.see(asked, *used)
        if role == "root" and not self.is_child:
            self._last.see(*used, asked.prompt)

    def failed(self, asked: Asked) -> None:
        """The call had no reply."""
        if asked.role == "sub" or self.is_child:
            self._count(failed=1)

    def lost(self, asked: Asked, heard: float | None, before: Lost) -> Lost:
        """Count a call that was given up on its way: code could make such calls without end. What it may have
        used of money and tokens: as such a call may use, or where some of the reply was `heard`, as prompt
        and reply so far by an estimate of their tokens; nothing for None, where no attempt was under way.
        What attempts had used `before` comes to it.
        """
        cost, tokens = self._top._admission.flight.given_up(asked) if heard is not None else (0.0, 0.0)
        if heard:
            known, reckoned = asked.reckoned(heard)
            cost = known if asked.prices else cost * reckoned / tokens if tokens else 0.0
            tokens = reckoned
        cost, tokens = cost + before[0], tokens + before[1]
        if asked.role == "sub" or self.is_child:
            self.approval.spend(cost)
        share = Shares.one(asked.model, lost_cost=cost)
        self._count(lost_tokens=tokens, lost_cost=cost, models=share)
        return cost, tokens

    def _count(self, **counts: float | Usage | Shares) -> None:
        """Here and above."""
        ledger: Ledger | None = self
        while ledger is not None:
            ledger._totals.count(counts)
            ledger = ledger._parent

    def count_tool_call(self) -> None:
        """Code calls a function of the host. Raises BudgetExceeded."""
        most, made = self._top.limits.tool_calls, self._top._totals.tool_calls
        if most is not None and made >= most:
            raise BudgetExceeded(
                f"The limit of calls of tools is reached: {made:,} of {most:,} used (limits.tool_calls).",
                limit="tool_calls",
            )
        self._count(tool_calls=1)

    def seconds_left(self) -> float | None:
        """Seconds until the time limit; None without one."""
        limit = self._top.limits.seconds
        return None if limit is None else max(0.0, limit - self._top._seconds())

    def late(self) -> BudgetExceeded:
        """The refusal at the time limit."""
        return refused("seconds", self._top._seconds(), self._top.limits.seconds or 0.0)

    def totals(self) -> Totals:
        """What was used, child RLMs and all; `turns` are those of this RLM alone, and in no other number."""
        return self._own(self._totals)

    def closed(self) -> Totals:
        """The same without child RLMs that are still at work."""
        return self._own(self._totals - sum((child._above() for child in self._open), Totals()))

    def _own(self, totals: Totals) -> Totals:
        own = self._own_calls
        return replace(
            totals, calls=totals.calls - own, child_turns=totals.child_turns - own, seconds=self._seconds()
        )

    def _above(self) -> Totals:
        """What of this child RLM counts in its parent's account."""
        return replace(self._totals, turns=0, children=self._totals.children + 1, seconds=0.0)

    @property
    def calls(self) -> int:
        """The model calls that this RLM and those beneath it have made, as they count in those above."""
        return self._totals.calls

    def left(self) -> dict[str, Any]:
        """What is left of each limit; None where there is none."""
        left: dict[str, Any] = {}
        for name in LIMITS:
            ledger = self if name == "turns" else self._top
            limit = getattr(ledger.limits, name)
            rest = (
                None if limit is None else round(max(0, limit - ledger._spent(name) - ledger._kept(name)), 6)
            )
            left[name] = int(rest) if rest is not None and name in ("turns", "calls", "tokens") else rest
        if (most := self._top.limits.tool_calls) is not None:
            left["tool_calls"] = max(0, most - self._top._totals.tool_calls)
        models = {name: self._top._left_of(name) for name in self._top.limits.models}
        return left | {"depth": self.limits.depth} | ({"models": models} if models else {})

    def _left_of(self, model: str) -> dict[str, float]:
        """What is left of a model's own limits."""
        limits, share = self.limits.models[model], self._share(model)
        left: dict[str, float] = {}
        if limits.calls is not None:
            left["calls"] = max(0, limits.calls - share.calls)
        if limits.cost is not None:
            left["cost"] = round(max(0.0, limits.cost - share.spent), 6)
        return left

    def _share(self, model: str) -> Share:
        return self._totals.models.get(model) or Share()

    def newly_near(self) -> list[str]:
        """What to tell of limits that are used up nearly; each once."""
        top, told = self._top, []
        found = [(name, "", getattr(top.limits, name), top._spent(name)) for name in LIMITS[1:]]
        for model, limits in top.limits.models.items():
            share = top._share(model)
            found += [
                ("calls", model, limits.calls, share.calls),
                ("cost", model, limits.cost, share.spent),
            ]
        for name, model, limit, spent in found:
            what = f"{name} of the model {model}" if model else name
            if limit and spent >= NEARLY * limit and what not in self._told:
                self._told.add(what)
                told.append(
                    f"{NEARLY:.0%} of the limit of {what} are used: {spent:.6g} of {limit:g}{unit(name)}."
                )
        return told

    # Of the whole tree

    def _check_asked(self, asked: Asked) -> None:
        self._check()
        self._check_model(asked.model, reserved=True)

    def _left_for(self, asked: Asked) -> list[Left]:
        """What is left for a call, with calls in flight or without."""
        left = [
            Left(name, limit - self._kept(name) - self._spent(name))
            for name in _SPENT
            if (limit := getattr(self.limits, name)) is not None
        ]
        own = self.limits.models.get(asked.model, ModelLimits()).cost
        if own is not None:
            left.append(Left("cost", own - self._share(asked.model).spent, asked.model))
        return left

    def _kept(self, name: LimitName) -> float:
        """What is kept for the last answer."""
        limit = getattr(self.limits, name)
        if limit is None or name not in ("cost", "tokens"):
            return 0.0
        return float(min(getattr(self._last, name), KEPT * limit))

    def _spent(self, name: LimitName) -> float:
        totals = self._totals
        match name:
            case "turns":
                return totals.turns
            case "calls":
                return totals.calls
            case "cost":
                return totals.known_cost + totals.lost_cost
            case "tokens":
                return totals.root_usage.total + totals.sub_usage.total + totals.lost_tokens
        return self._seconds()

    def _seconds(self) -> float:
        return self._clock() - self._started - (self.paying.waited() - self._waited)

    def check(self, *, calls: bool = False) -> None:
        """Raises BudgetExceeded if money, tokens or time are used up, and with `calls` also if these are; a
        child RLM's turns are such.
        """
        try:
            self._top._check()
            if calls or self.is_child:
                self._top._check_calls()
        except BudgetExceeded as refusal:
            self._tell_left(refusal)
            raise

    def _check(self) -> None:
        for name in ("cost", "tokens", "seconds"):
            limit = getattr(self.limits, name)
            if limit is not None and self._spent(name) >= limit - self._kept(name) - ROUNDING:
                raise refused(name, self._spent(name), limit, self._kept(name))

    def _check_calls(self) -> None:
        if self.limits.calls is not None and self._totals.calls >= self.limits.calls:
            raise refused("calls", self._totals.calls, self.limits.calls)

    def _check_model(self, model: str, *, reserved: bool = False) -> None:
        """Raise BudgetExceeded if the model's own limits are used up.

        A call that is `reserved` is among those counted.
        """
        if model in self.limits.models:
            self.limits.models[model].check(self._share(model), model, reserved=reserved)
