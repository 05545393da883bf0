"""What calls that are still to be made are expected to cost, by what the calls before them took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlm_kernel.engine.inflight import Asked
from rlm_kernel.engine.values import Card, Completion

REPLY_TOKENS = 250
"""Tokens of a reply, as long as the model has not given one in this run."""
CHILD_TURNS = 4
"""Replies of its root model that a child RLM takes, as long as none has answered in this run."""


@dataclass
class _Seen:
    """Of the calls of one model, but for those from the cache: `estimated` tokens of the prompts, and what it
    said.
    """

    calls: int = 0
    estimated: float = 0.0
    prompt: int = 0
    completion: int = 0
    priced: int = 0
    cost: float = 0.0


class Expectation:
    """Learns from the calls of a whole tree of RLMs.

    All results are US dollars, None where they are unknown.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._children = _Seen()

    def see(self, asked: Asked, reply: Completion) -> None:
        """A call had this reply."""
        seen = self._seen.setdefault(asked.model, _Seen())
        seen.calls += 1
        seen.estimated += asked.prompt
        seen.prompt += reply.usage.prompt
        seen.completion += reply.usage.completion
        if reply.cost is not None:
            seen.priced += 1
            seen.cost += reply.cost

    def see_child(self, cost: float | None) -> None:
        """A child RLM has ended, and has cost so much with all beneath it."""
        if cost is not None:
            self._children.priced += 1
            self._children.cost += cost

    def of_calls(self, card: Card, calls: int, prompts: float) -> float | None:
        """So many calls of the model, with prompts of about so many tokens together."""
        seen = self._seen.get(card.role) or _Seen()
        if card.prices is not None:
            of_prompt, of_reply = card.prices
            read = seen.prompt / seen.estimated if seen.prompt and seen.estimated else 1.0
            written = seen.completion / seen.calls if seen.calls else REPLY_TOKENS
            return _amount((prompts * read * of_prompt + calls * written * of_reply) / 1e6)
        return _amount(calls * seen.cost / seen.priced) if seen.priced else None

    def of_children(self, card: Card, calls: int) -> float | None:
        """So many child RLMs that the model leads: by those before, else by the replies of this model."""
        if self._children.priced:
            return _amount(calls * self._children.cost / self._children.priced)
        seen = self._seen.get(card.role) or _Seen()
        prompt = seen.estimated / seen.calls if seen.calls else 0.0
        return self.of_calls(card, calls * CHILD_TURNS, calls * CHILD_TURNS * prompt)


def _amount(dollars: float) -> float | None:
    return dollars if math.isfinite(dollars) else None
