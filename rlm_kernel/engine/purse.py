"""A budget that several runs share, whichever process or machine they are in.

The ledger of each run asks its purse before each model call. `LocalPurse` counts; `RemotePurse` is what
another process has of it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from rlm_kernel.engine.admission import Admission, Left
from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.limits import ROUNDING, unit
from rlm_kernel.engine.values import Completion
from rlm_kernel.errors import BudgetExceeded

BATCH: Final = "batch"
"""`BudgetExceeded.limit` of what a purse refuses, whoever shares it."""
_REMEMBERED = 10_000
"""Tickets that were given up, and whose requests may still be on their way."""


class Payment(Protocol):
    """A call that a purse has let through."""

    def settle(self, reply: Completion) -> None:
        """It had this reply. A call that ends with neither this nor `lost` has cost nothing."""
        ...

    def lost(self, cost: float, tokens: float) -> None:
        """It was given up on its way, and may be billed so much; zeros: as much as such a call may use."""
        ...


class Purse(Protocol):
    """What a ledger asks beside its own limits, before each model call of its run."""

    def paying(self, asked: Asked) -> AbstractAsyncContextManager[Payment]:
        """Hold back what a call may use, for as long as the context lasts.

        Entering it waits while the calls in flight may use up what is left, and raises BudgetExceeded, with
        `limit="batch"`, where nothing is left, for a last answer, too. The limit is passed by no more than
        one call, over all runs that share the purse.
        """
        ...


@dataclass(frozen=True)
class Ticket:
    """A call that asks a purse: the `number`-th of the process that is called `holder`."""

    holder: str
    number: int


@dataclass(frozen=True)
class Used:
    """What a call has used. `lost`: as of `Payment`; `stored`: the reply was from the cache, and tells
    nothing of what such calls use.
    """

    cost: float = 0.0
    tokens: float = 0.0
    replied: bool = False
    stored: bool = False
    lost: bool = False


NOTHING: Final = Used()
Admit = Callable[[Ticket, Asked], Awaitable[str]]
End = Callable[[Ticket, Used], None]


class _Payment:
    """Implements `Payment`; what is told first counts."""

    def __init__(self) -> None:
        self.used = NOTHING

    def settle(self, reply: Completion) -> None:
        self._use(Used(reply.cost or 0.0, reply.usage.total, replied=True, stored=reply.stored))

    def lost(self, cost: float, tokens: float) -> None:
        self._use(Used(cost, tokens, lost=True))

    def _use(self, used: Used) -> None:
        if self.used is NOTHING:
            self.used = used


class RemotePurse:
    """Implements `Purse` by a `LocalPurse` that may be elsewhere.

    `admit` and `end` are those of `LocalPurse`, or send to them. `admit` may take long, fail, and be
    cancelled; `end` returns at once and raises nothing. Each ticket is ended once, but for those that were
    refused.
    """

    def __init__(self, holder: str, admit: Admit, end: End) -> None:
        """`holder`: the name of this process, which no other has or had, for `LocalPurse.forget`."""
        self._holder, self._admit, self._end = holder, admit, end
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def paying(self, asked: Asked) -> AsyncIterator[Payment]:
        ticket, payment = Ticket(self._holder, next(self._numbers)), _Payment()
        try:
            refusal = await self._admit(ticket, asked)
        except BaseException:
            self._end(ticket, NOTHING)  # it may be admitted all the same
            raise
        if refusal:
            raise BudgetExceeded(refusal, limit=BATCH, hint="Allow more in all, and ask this question again.")
        try:
            yield payment
        finally:
            self._end(ticket, payment.used)


@dataclass(frozen=True)
class Spent:
    """What the runs of a purse have used together: US dollars, tokens, and model calls, those of root models,
    too. Calls that were given up count as what they may have used.
    """

    cost: float = 0.0
    tokens: float = 0.0
    calls: int = 0


class LocalPurse:
    """Implements `Purse`: counts what all runs use, and refuses when a limit is reached.

    Belongs to one event loop. Other processes have a `RemotePurse`, whose `admit` and `end` come here, in
    whatever order: an end may come before the request that it ends.
    """

    def __init__(
        self,
        *,
        cost: float | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        spent: Spent | None = None,
        whose: str = "The batch",
    ) -> None:
        """The limits, as of `Spent`; None is no limit. `spent`: what earlier runs have used, which counts
        against them. `whose` limits they are, for people.
        """
        self._limits: dict[Literal["cost", "tokens", "calls"], float | None] = {
            "cost": cost,
            "tokens": tokens,
            "calls": calls,
        }
        self._spent = spent or Spent()
        self._whose = whose
        self._admission = Admission(self._left_for)
        self._held: dict[Ticket, tuple[int, Asked]] = {}
        self._waiting: set[Ticket] = set()
        self._given_up: OrderedDict[Ticket, None] = OrderedDict()
        self._forgotten: set[str] = set()
        self._here = RemotePurse("", self.admit, self.end)

    @property
    def spent(self) -> Spent:
        return self._spent

    @property
    def in_flight(self) -> Spent:
        """What the calls that are on their way may use."""
        calls = [self._admission.flight.given_up(asked) for _, asked in self._held.values()]
        return Spent(sum(cost for cost, _ in calls), sum(tokens for _, tokens in calls), len(calls))

    def allow(self, *, cost: float | None = None, tokens: int | None = None) -> None:
        """From now on so much may be used in all, with what was used before; None is no limit. Calls that
        wait are looked at again.
        """
        self._limits |= {"cost": cost, "tokens": tokens}
        self._admission.look_again()

    def check(self) -> None:
        """Raise BudgetExceeded, with `limit="batch"`, if nothing is left, as of a question to be begun."""
        for name, limit in self._limits.items():
            spent = getattr(self._spent, name)
            if limit is not None and spent >= limit - ROUNDING:
                end = unit(name)
                raise BudgetExceeded(
                    f"{self._whose}'s limit of {name} is reached: {spent:.6g} of {limit:g}{end} used.",
                    limit=BATCH,
                )

    def paying(self, asked: Asked) -> AbstractAsyncContextManager[Payment]:
        return self._here.paying(asked)

    async def admit(self, ticket: Ticket, asked: Asked) -> str:
        """Wait for room for a call. "" when it may be made: then `end` is to be called; else why not.

        A request that comes twice is one.
        """

        def check() -> None:
            if ticket in self._given_up or ticket.holder in self._forgotten:
                raise BudgetExceeded("The call was given up.", limit=BATCH)
            self.check()

        if ticket in self._held:
            return ""
        self._waiting.add(ticket)
        try:
            number = await self._admission.admit(replace(asked, last=False), check)
        except BudgetExceeded as refusal:
            self._given_up.pop(ticket, None)
            return refusal.message
        finally:
            self._waiting.discard(ticket)
        self._held[ticket] = number, asked
        self._spent = replace(self._spent, calls=self._spent.calls + 1)
        return ""

    def end(self, ticket: Ticket, used: Used = NOTHING) -> None:
        """The call has ended, or nobody waits for it. What comes a second time counts for nothing."""
        held = self._held.pop(ticket, None)
        if held is None:
            self._give_up(ticket)
            return
        number, asked = held
        cost, tokens = used.cost, used.tokens
        if used.lost and not (cost or tokens):
            cost, tokens = self._admission.flight.given_up(asked)
        if used.replied and not used.stored:
            self._admission.flight.see(asked, cost, tokens)
        self._spent = replace(self._spent, cost=self._spent.cost + cost, tokens=self._spent.tokens + tokens)
        self._admission.release(number)

    def forget(self, holder: str) -> None:
        """This process is gone: what it has settled stays, and its calls in flight count as what they may
        have used. Idempotent.
        """
        self._forgotten.add(holder)
        for ticket in [ticket for ticket in self._held if ticket.holder == holder]:
            self.end(ticket, Used(lost=True))
        self._admission.look_again()

    def _give_up(self, ticket: Ticket) -> None:
        if ticket.holder in self._forgotten:
            return
        self._given_up[ticket] = None
        if len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)
        if ticket in self._waiting:
            self._admission.look_again()

    def _left_for(self, _asked: Asked) -> list[Left]:
        limits = self._limits["cost"], self._limits["tokens"]
        left = [
            Left("cost", limits[0] - self._spent.cost) if limits[0] is not None else None,
            Left("tokens", limits[1] - self._spent.tokens) if limits[1] is not None else None,
        ]
        return [one for one in left if one is not None]
