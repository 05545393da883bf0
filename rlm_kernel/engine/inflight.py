"""Calls in flight, and what each may use: an estimate by the calls before."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Literal

from rlm_kernel.engine.values import Role


@dataclass(frozen=True)
class Asked:
    """A call to be made: for a sub model or a root model, which of them (the role of its card), with a prompt
    of about so many tokens. `last`: for the last answer. `prices`: of the model, in US dollars per million
    tokens of a prompt and of a reply; None where they are not known.
    """

    role: Role
    model: str
    prompt: float
    last: bool = False
    prices: tuple[float, float] | None = None

    def reckoned(self, heard: float = 0.0) -> tuple[float, float]:
        """Money and tokens of the prompt, with so many tokens of a reply. Without prices no money."""
        read, written = self.prices or (0.0, 0.0)
        return (self.prompt * read + heard * written) / 1e6, self.prompt + heard


@dataclass
class Dearest:
    """What the dearest call of a model has used so far, and the estimated tokens of the longest prompt, which
    used no more than that.
    """

    cost: float = 0.0
    tokens: float = 0.0
    prompt: float = 0.0

    def of(self, name: Literal["cost", "tokens"], prompt: float) -> float:
        """What another call may use, with a prompt of about so many tokens."""
        used: float = getattr(self, name)
        return used * max(1.0, prompt / self.prompt) if self.prompt else used

    def see(self, cost: float, tokens: float, prompt: float) -> None:
        """A call with a prompt of about so many tokens has used so much."""
        self.tokens, self.cost = max(self.tokens, tokens), max(self.cost, cost)
        self.prompt = max(self.prompt, prompt)


class _Held:
    """The calls in flight of one model, or of all: how many, and what they may use."""

    def __init__(self) -> None:
        self.calls, self.cost, self.tokens = 0, 0.0, 0.0

    def add(self, calls: int, cost: float, tokens: float) -> None:
        self.calls += calls
        # Sums of many fractions drift: with no call in flight they are nothing again.
        self.cost, self.tokens = (self.cost + cost, self.tokens + tokens) if self.calls else (0.0, 0.0)


class InFlight:
    """The calls that are made at the moment under limits that they have in common."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Asked, float, float]] = {}
        """Each, and what it may use of money and tokens."""
        self._sums: defaultdict[str | None, _Held] = defaultdict(_Held)
        """By model; None: of all."""
        self._tickets = 0
        self._dearest: dict[str, Dearest] = {}

    def hold(self, asked: Asked) -> int:
        """A call is made: a ticket for it."""
        self._tickets += 1
        self._hold(self._tickets, asked)
        return self._tickets

    def release(self, ticket: int) -> str | None:
        """The call has ended: which model it was of. None if it had before."""
        return self._release(ticket).model if ticket in self._held else None

    def _hold(self, ticket: int, asked: Asked) -> None:
        estimate = self.likely(asked.model) or Dearest()
        cost, tokens = estimate.of("cost", asked.prompt), estimate.of("tokens", asked.prompt)
        self._held[ticket] = asked, cost, tokens
        for sums in (self._sums[asked.model], self._sums[None]):
            sums.add(1, cost, tokens)

    def _release(self, ticket: int) -> Asked:
        asked, cost, tokens = self._held.pop(ticket)
        for sums in (self._sums[asked.model], self._sums[None]):
            sums.add(-1, -cost, -tokens)
        return asked

    def of(self, model: str | None = None) -> tuple[int, float, float]:
        """How many calls there are, of one model or of all, and what they may use of money and tokens."""
        sums = self._sums.get(model) or _Held()
        return sums.calls, sums.cost, sums.tokens

    def see(self, asked: Asked, cost: float, tokens: float) -> None:
        """The call has used so much. Those in flight that are estimated by such calls may, too."""
        before = self.likely(asked.model)
        known = replace(before) if before is not None else None
        self._dearest.setdefault(asked.model, Dearest()).see(cost, tokens, asked.prompt)
        if self.likely(asked.model) != known:
            for ticket in list(self._held):
                self._hold(ticket, self._release(ticket))

    def given_up(self, asked: Asked) -> tuple[float, float]:
        """What a call may have used of money and tokens that was given up on its way: as the dearest of its
        kind, and before the first of these its prompt, which its provider has read.
        """
        likely = self.likely(asked.model) or self.likely("sub")
        if likely is None or not (likely.cost or likely.tokens):
            return asked.reckoned()
        return likely.of("cost", asked.prompt), likely.of("tokens", asked.prompt)

    def likely(self, model: str) -> Dearest | None:
        """What a call of the model may use, at the most; before the first of the sub model, what the root
        model's have. None if unknown.
        """
        if model in self._dearest:
            return self._dearest[model]
        # Another model may be far dearer than both.
        root = self._dearest.get("root") if model in ("root", "sub") else None
        return root if root is not None and root.tokens else None
