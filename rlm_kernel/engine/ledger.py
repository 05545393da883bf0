"""The one account of a run and of the child RLMs beneath it: money, tokens, calls, turns, time, and the
limits on them.

A model call is reserved before it is made and settled after. What a reservation holds back is an estimate:
what the dearest call of its role has used so far, and more in proportion for a longer prompt. Near a limit of
money or tokens calls therefore wait for those in flight, and the limit is passed by no more than one call.
Some is kept back for the last answer. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from rlm_kernel.engine.totals import Totals, Usage
from rlm_kernel.engine.values import Completion, Role
from rlm_kernel.errors import BudgetExceeded

LimitName = Literal["turns", "calls", "cost", "tokens", "seconds"]
LIMITS: tuple[LimitName, ...] = ("turns", "calls", "cost", "tokens", "seconds")
_SPENT: tuple[Literal["cost", "tokens"], ...] = ("cost", "tokens")
"""Limits of what is known only after a call."""
NEARLY = 0.8
"""Share of a limit at which the root model is told."""
KEPT = 0.1
"""Share of a limit at most that is kept for the last answer."""
CHARS_PER_TOKEN = 4.0
"""Of what is reckoned from characters."""
_ROUNDING = 1e-9
"""US dollars: sums of prices are not exact."""


@dataclass(frozen=True)
class Limits:
    """None is no limit.

    `cost` in US dollars; `tokens` counts prompt and completion of root and sub models; `calls` are all model
    calls but the root's own: sub-model calls, and turns of child RLMs. `turns` hold for each RLM by itself;
    `depth`: how deep child RLMs may nest.
    """

    turns: int = 30
    calls: int | None = None
    cost: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    depth: int = 0


@dataclass
class _Dearest:
    """What the dearest call of a role has used so far, and the characters of the longest prompt, which used
    no more than that.
    """

    cost: float = 0.0
    tokens: float = 0.0
    chars: int = 0

    def of(self, name: Literal["cost", "tokens"], chars: int) -> float:
        """What another call may use."""
        used: float = getattr(self, name)
        return used * max(1.0, chars / self.chars) if self.chars else used


class Call:
    """A model call, for as long as it is entered: `Ledger.call`.

    Whoever makes it says when the request goes out, and what came of it.
    """

    def __init__(self, ledger: Ledger, role: Role, chars: int, last: bool) -> None:
        self._ledger = ledger
        self._for: tuple[Role, int] = (role, chars)
        self._last = last
        self._ticket = 0
        self._open = False
        """It was sent, and what it used is not known."""
        self._heard = 0
        """Characters of its reply that have come."""

    async def __aenter__(self) -> Self:
        try:
            self._ticket = await self._ledger._reserve(*self._for, self._last)
        except BudgetExceeded as refusal:
            self._ledger._tell_left(refusal)
            raise
        return self

    def sent(self) -> None:
        self._open = True

    def heard(self, chars: int) -> None:
        """So many characters more of its reply have come."""
        self._heard += chars

    def settle(self, reply: Completion) -> None:
        self._open = False
        self._ledger._settle(*self._for, reply)

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            lost = self._open and isinstance(error, asyncio.CancelledError)
            self._ledger._failed(*self._for, lost=lost, heard=self._heard)
        self._ledger._release(self._ticket)


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
    ) -> None:
        """`spent`: what an earlier part of the run has used; it counts against the limits."""
        self._totals = replace(spent) if spent is not None else Totals()
        self.limits = limits
        self._parent = parent
        self._top: Ledger = parent._top if parent is not None else self
        self._clock = clock
        self._started = clock() - self._totals.seconds
        self._told: set[LimitName] = set()
        self._own_calls = 0
        """Calls of a child RLM's own root model: calls in the accounts above, turns in its own."""
        self._open: list[Ledger] = []
        """Child RLMs at work."""
        # Of the whole tree, so used at its top alone:
        self._held: dict[int, tuple[Role, float, float]] = {}
        self._tickets = 0
        self._dearest: dict[Role, _Dearest] = {}
        self._last = _Dearest()
        self._settled = asyncio.Event()

    def child(self) -> Ledger:
        """That of a child RLM: it has the same turns, one level less beneath it, and all else from here.

        Raises BudgetExceeded where no child may be made.
        """
        if self.limits.depth <= 0:
            raise BudgetExceeded(
                "The limit of depth is reached: no child RLM may be made here.", limit="depth"
            )
        self.check(calls=True)
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
    def is_child(self) -> bool:
        return self._parent is not None

    def check_turn(self) -> None:
        """Before the root model is asked. Raises BudgetExceeded."""
        self._top._check()
        if self._totals.turns >= self.limits.turns:
            raise _refusal("turns", self._totals.turns, self.limits.turns)

    def count_turn(self) -> None:
        """The root model has replied."""
        self._totals.turns += 1

    def call(self, role: Role, chars: int, *, last: bool = False) -> Call:
        """A model call with a prompt of so many characters.

        Waits for calls in flight where they may use up what is left. `last`: for the last answer, which is
        always made. One that is given up on its way counts against the limits as what it may have used.
        Raises BudgetExceeded: then nothing is to be sent.
        """
        return Call(self, role, chars, last)

    async def _reserve(self, role: Role, chars: int, last: bool) -> int:
        calls, turns = int(role == "sub" or self.is_child), int(role == "root" and self.is_child)
        if calls:
            self._top._check_calls()
            self._count(calls=calls, child_turns=turns)
            self._own_calls += turns
        try:
            return await self._top._admit(role, chars, last=last)
        except BaseException:
            if calls:
                self._count(calls=-calls, child_turns=-turns)
                self._own_calls -= turns
            raise

    def _tell_left(self, refusal: BudgetExceeded) -> None:
        """Code that is refused a call is told what is left of the limits there are."""
        left = {name: rest for name, rest in self.left().items() if rest is not None and name != "depth"}
        refusal.hint = f"Left: {', '.join(f'{rest:g} {_UNITS[name]}' for name, rest in left.items())}."

    def _settle(self, role: Role, chars: int, reply: Completion) -> None:
        used = {f"{role}_usage": reply.usage}
        self._count(
            **used, known_cost=reply.cost or 0.0, unpriced=int(reply.cost is None), stored=int(reply.stored)
        )
        if reply.stored:
            return  # nothing is learnt of what a call costs
        dearest = self._top._dearest.setdefault(role, _Dearest())
        own_root = [self._last] if role == "root" and not self.is_child else []
        for seen in [dearest, *own_root]:
            seen.tokens, seen.cost = max(seen.tokens, reply.usage.total), max(seen.cost, reply.cost or 0.0)
            seen.chars = max(seen.chars, chars)

    def _failed(self, role: Role, chars: int, *, lost: bool, heard: int = 0) -> None:
        """`lost`: it may be billed, though nobody waits for its reply.

        It counts: code could make such calls without end. As what such a call may use, or where some of the
        reply was `heard`, as prompt and reply so far by their characters.
        """
        if role == "sub" or self.is_child:
            self._count(failed=1)
        if lost:
            likely = self._top._likely(role) or _Dearest()
            tokens, cost = likely.of("tokens", chars), likely.of("cost", chars)
            if heard:
                reckoned = (chars + heard) / CHARS_PER_TOKEN
                tokens, cost = reckoned, cost * reckoned / tokens if tokens else 0.0
            self._count(lost_tokens=tokens, lost_cost=cost)

    def _release(self, ticket: int) -> None:
        self._top._held.pop(ticket, None)
        self._top._settled.set()

    def _count(self, **counts: float | Usage) -> None:
        """Here and above."""
        ledger: Ledger | None = self
        while ledger is not None:
            ledger._totals.count(counts)
            ledger = ledger._parent

    def seconds_left(self) -> float | None:
        """Seconds until the time limit; None without one."""
        limit = self._top.limits.seconds
        return None if limit is None else max(0.0, limit - self._top._seconds())

    def late(self) -> BudgetExceeded:
        """The refusal at the time limit."""
        return _refusal("seconds", self._top._seconds(), self._top.limits.seconds or 0.0)

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
        return left | {"depth": self.limits.depth}

    def newly_near(self) -> list[str]:
        """What to tell of limits that are used up nearly; each once."""
        told = []
        for name in LIMITS[1:]:
            limit, spent = getattr(self._top.limits, name), self._top._spent(name)
            if limit and spent >= NEARLY * limit and name not in self._told:
                self._told.add(name)
                told.append(
                    f"{NEARLY:.0%} of the limit of {name} are used: {spent:.6g} of {limit:g}{_unit(name)}."
                )
        return told

    # Of the whole tree

    async def _admit(self, role: Role, chars: int, *, last: bool) -> int:
        limited = any(getattr(self.limits, name) is not None for name in _SPENT)
        while not last:
            self._check()
            if not self._held or not limited or self._fits(role, chars):
                break
            self._settled.clear()
            await self._settled.wait()
        self._tickets += 1
        estimate = self._likely(role) or _Dearest()
        self._held[self._tickets] = (role, estimate.of("cost", chars), estimate.of("tokens", chars))
        return self._tickets

    def _likely(self, role: Role) -> _Dearest | None:
        """What a call of the role may use, at the most; before the first of a sub model, what the root
        model's have. None if unknown.
        """
        seen = self._dearest.get(role) or self._dearest.get("root")
        return seen if seen is not None and (role in self._dearest or seen.tokens) else None

    def _fits(self, role: Role, chars: int) -> bool:
        """Whether a call can be afforded beside those in flight."""
        dearest = self._likely(role)
        if dearest is None:
            return not any(
                held[0] == role for held in self._held.values()
            )  # what such a call uses is not known yet: one goes ahead
        held = {
            "cost": sum(one[1] for one in self._held.values()),
            "tokens": sum(one[2] for one in self._held.values()),
        }
        for name in _SPENT:
            limit = getattr(self.limits, name)
            room = None if limit is None else limit - self._kept(name) - self._spent(name) - held[name]
            if room is not None and dearest.of(name, chars) > room + _ROUNDING:
                return False
        return True

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
        return self._clock() - self._started

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
            if limit is not None and self._spent(name) >= limit - self._kept(name) - _ROUNDING:
                raise _refusal(name, self._spent(name), limit, self._kept(name))

    def _check_calls(self) -> None:
        if self.limits.calls is not None and self._totals.calls >= self.limits.calls:
            raise _refusal("calls", self._totals.calls, self.limits.calls)


_UNITS = {"turns": "turns", "calls": "calls", "cost": "US dollars", "tokens": "tokens", "seconds": "s"}


def _unit(limit: LimitName) -> str:
    return f" {_UNITS[limit]}" if limit in ("cost", "seconds") else ""


def _refusal(limit: LimitName, spent: float, allowed: float, kept: float = 0.0) -> BudgetExceeded:
    rest = f", and {kept:.6g} kept for the last answer" if kept > _ROUNDING else ""
    return BudgetExceeded(
        f"The limit of {limit} is reached: {spent:.6g} of {allowed:g}{_unit(limit)} used{rest}.", limit=limit
    )
