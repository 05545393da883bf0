"""What a reply costs, by litellm's table, as the provider's price list has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlm_kernel.config import LLMSettings
from rlm_kernel.engine.protocols import Usage

_MOST_COST = 1e6
"""US dollars of one call; what is more was made of counts that make no sense."""
_ABOVE = re.compile(r"input_cost_per_token_above_(\d+)k_tokens$")
_TIERS = ("flex", "priority")


def known(settings: LLMSettings, entry: Mapping[str, Any] | None) -> bool:
    """Whether the price is known: from the settings, else from the table."""
    return settings.input_price is not None or _listed(entry or {})


def per_million(settings: LLMSettings, entry: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """US dollars for a million tokens of a prompt, and of a reply; None where they are not known."""
    if settings.input_price is not None and settings.output_price is not None:
        return settings.input_price, settings.output_price
    if entry is None or not _listed(entry):
        return None
    return float(entry["input_cost_per_token"]) * 1e6, float(entry["output_cost_per_token"]) * 1e6


def cost(
    settings: LLMSettings, entry: Mapping[str, Any] | None, usage: Usage, told: Any = None, tier: str = ""
) -> float | None:
    """US dollars of a reply; None where they are not known.

    `told`: what the provider says that it bills, which counts before the table. `tier`: the service tier that
    it says it gave. Cached and written tokens have prices of their own where the table has them.
    """
    if settings.input_price is not None and settings.output_price is not None:
        return (usage.prompt * settings.input_price + usage.completion * settings.output_price) / 1e6
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= _MOST_COST:
        return float(told)
    entry = entry or {}
    if not _listed(entry):
        return None
    ends = _ends(entry, usage.prompt, tier)
    fresh = usage.prompt - usage.cached - usage.written
    whole = _price(entry, "input_cost_per_token", ends) or 0.0
    read = _price(entry, "cache_read_input_token_cost", ends)
    written = _price(entry, "cache_creation_input_token_cost", ends)
    reasoning = _price(entry, "output_cost_per_reasoning_token", ends)
    out = _price(entry, "output_cost_per_token", ends) or 0.0
    return max(
        0.0,
        fresh * whole
        + usage.cached * (whole if read is None else read)
        + usage.written * (whole if written is None else written)
        + (usage.completion - usage.reasoning) * out
        + usage.reasoning * (out if reasoning is None else reasoning),
    )


def _listed(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(f"{part}_cost_per_token"), int | float) for part in ("input", "output"))


def _ends(entry: Mapping[str, Any], prompt: int, tier: str) -> list[str]:
    """What the names of prices end with, the most special first: of long prompts, of a service tier."""
    steps = sorted(int(found[1]) for name in entry if (found := _ABOVE.match(name)))
    over = [step for step in steps if prompt > step * 1000]
    tiers = [f"_{tier}", ""] if tier in _TIERS else [""]
    lengths = [f"_above_{over[-1]}k_tokens", ""] if over else [""]
    return [length + end for length in lengths for end in tiers]


def _price(entry: Mapping[str, Any], name: str, ends: list[str]) -> float | None:
    found = (entry.get(name + end) for end in ends)
    return next((float(price) for price in found if isinstance(price, int | float)), None)
