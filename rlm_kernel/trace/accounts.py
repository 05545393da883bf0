"""The account of a run in its trace: what was used, of all and of each model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlm_kernel.engine.protocols import ROLES, TOKENS, Share, Shares, Totals, Usage
from rlm_kernel.trace.fields import Amount, Cost, Count, Part, same, shared


class ShareMeta(Part):
    """What one model has used: the fields of `engine.totals.Share`, of its usage one by one."""

    calls: Count = 0
    prompt: Count = 0
    completion: Count = 0
    cached: Count = 0
    written: Count = 0
    reasoning: Count = 0
    known_cost: Amount = 0.0
    unpriced: Count = 0
    lost_cost: Amount = 0.0


ModelName = Annotated[str, Field(max_length=64)]
"""`root`, `sub`, or the name of a model in the settings."""
SharesMeta = dict[ModelName, ShareMeta]


def metas_of(shares: Shares) -> SharesMeta:
    """What each model has used, as a trace keeps it."""
    return {
        name: ShareMeta(**same(_SHARE, share), **same(TOKENS, share.usage)) for name, share in shares.items()
    }


def shares_of(metas: SharesMeta) -> Shares:
    """What each model has used, as the engine knows it."""
    return Shares(
        {name: Share(**same(_SHARE, meta), usage=Usage(**same(TOKENS, meta))) for name, meta in metas.items()}
    )


class TotalsMeta(Part):
    """The account of the run and of the child RLMs beneath it; while it runs, so far, and without children
    that are still at work.

    The fields are those of `engine.totals.Totals`. `cost` is null where the price of any reply is unknown;
    `known_cost` is that of the others. `models`: the same by model.
    """

    turns: Count
    calls: Count
    root_prompt: Count
    root_completion: Count
    root_cached: Count
    sub_prompt: Count
    sub_completion: Count
    sub_cached: Count
    cost: Cost
    seconds: Amount
    children: Count = 0
    child_turns: Count = 0
    stored: Count = 0
    failed: Count = 0
    known_cost: Amount = 0.0
    unpriced: Count = 0
    lost_tokens: Amount = 0.0
    lost_cost: Amount = 0.0
    root_written: Count = 0
    root_reasoning: Count = 0
    sub_written: Count = 0
    sub_reasoning: Count = 0
    models: SharesMeta = {}
    tool_calls: Count = 0

    @classmethod
    def of(cls, totals: Totals) -> TotalsMeta:
        tokens = {
            f"{role}_{name}": getattr(usage, name) for role, usage in _by_role(totals) for name in TOKENS
        }
        return cls(
            **same(_TOTALS, totals),
            **tokens,
            cost=totals.cost,
            seconds=round(totals.seconds, 3),
            models=metas_of(totals.models),
        )

    def totals(self) -> Totals:
        """The account as the engine knows it."""
        root, sub = (Usage(**{name: getattr(self, f"{role}_{name}") for name in TOKENS}) for role in ROLES)
        # Older traces have the one number for both.
        known = {"known_cost": self.cost} if self.cost is not None else {"unpriced": self.unpriced or 1}
        return Totals(
            root_usage=root,
            sub_usage=sub,
            models=shares_of(self.models),
            **same(_TOTALS, self) | {"seconds": self.seconds} | known,
        )


def _by_role(totals: Totals) -> tuple[tuple[str, Usage], tuple[str, Usage]]:
    return ("root", totals.root_usage), ("sub", totals.sub_usage)


_TOTALS = shared(TotalsMeta, Totals)
_SHARE = shared(ShareMeta, Share)
