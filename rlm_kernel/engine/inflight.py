"""Calls in flight, and what each may use: an estimate by the calls before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlm_kernel.engine.values import Completion, Role


@dataclass(frozen=True)
class Asked:
    """A call to be made: for a sub model or a root model, which of them (the role of its card), with a prompt
    of so many characters. `last`: for the last answer.
    """

    role: Role
    model: str
    chars: int
    last: bool = False


@dataclass
class Dearest:
    """What the dearest call of a model has used so far, and the characters of the longest prompt, which used
    no more than that.
    """

    cost: float = 0.0
    tokens: float = 0.0
    chars: int = 0

    def of(self, name: Literal["cost", "tokens"], chars: int) -> float:
        """What another call may use."""
        used: float = getattr(self, name)
        return used * max(1.0, chars / self.chars) if self.chars else used

    def see(self, reply: Completion, chars: int) -> None:
        """A call with a prompt of so many characters had this reply."""
        self.tokens, self.cost = max(self.tokens, reply.usage.total), max(self.cost, reply.cost or 0.0)
        self.chars = max(self.chars, chars)


class InFlight:
    """The calls of a whole tree of RLMs that are made at the moment."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[str, float, float]] = {}
        """The model of each, and what it may use of money and tokens."""
        self._tickets = 0
        self._dearest: dict[str, Dearest] = {}

    def hold(self, asked: Asked) -> int:
        """A call is made: a ticket for it."""
        self._tickets += 1
        estimate = self.likely(asked.model) or Dearest()
        self._held[self._tickets] = (
            asked.model,
            estimate.of("cost", asked.chars),
            estimate.of("tokens", asked.chars),
        )
        return self._tickets

    def release(self, ticket: int) -> None:
        """The call has ended. Idempotent."""
        self._held.pop(ticket, None)

    def of(self, model: str | None = None) -> tuple[int, float, float]:
        """How many calls there are, of one model or of all, and what they may use of money and tokens."""
        held = [one for one in self._held.values() if model in (None, one[0])]
        return len(held), sum(one[1] for one in held), sum(one[2] for one in held)

    def see(self, asked: Asked, reply: Completion) -> None:
        """The call had this reply."""
        self._dearest.setdefault(asked.model, Dearest()).see(reply, asked.chars)

    def likely(self, model: str) -> Dearest | None:
        """What a call of the model may use, at the most; before the first of the sub model, what the root
        model's have. None if unknown.
        """
        if model in self._dearest:
            return self._dearest[model]
        # Another model may be far dearer than both.
        root = self._dearest.get("root") if model in ("root", "sub") else None
        return root if root is not None and root.tokens else None
