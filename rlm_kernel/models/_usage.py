"""The tokens of a reply, by whichever names a provider counts them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rlm_kernel.engine.protocols import Usage

_MOST_TOKENS = 10**12
"""Of one call; what is more is no count."""
_DIGITS = 40
"""Characters of a number in a text that are read."""
_COUNT = re.compile(r"(?:token|count)s?$", re.IGNORECASE)
"""Names of counts, among those of costs and kinds.

A name in `_details` is of an object with more counts, one in `Details` of a list.
"""


def usage(
    found: Mapping[str, Any],
    sent: float,
    received: float,
    *,
    stopped: bool = False,
) -> Usage:
    """What a reply used.

    What is not told, or makes no sense, is what was `sent` and `received` by an estimate of its tokens, and
    the whole is marked. `stopped`: what is told of the reply may not be all of it.
    """
    told = _of(found, "usage") or _of(found, "usageMetadata")
    prompt = _count(told, "prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count")
    completion = _count(told, "completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count")
    total = _count(told, "total_tokens")
    if prompt is None and total is not None and completion is not None and total >= completion:
        prompt = total - completion
    if completion is None and total is not None and prompt is not None and total >= prompt:
        completion = total - prompt
    out = _of(told, "completion_tokens_details") or _of(told, "output_tokens_details")
    reasoning = _count(out, "reasoning_tokens") or _count(told, "thoughtsTokenCount") or 0
    if (
        reasoning
        and None not in (prompt, completion)
        and total == (prompt or 0) + (completion or 0) + reasoning
    ):
        completion = (completion or 0) + reasoning  # some do not count it as part of the reply
    if stopped:
        completion = max(completion or 0, math.ceil(received))
    estimated = stopped or not prompt or completion is None or (completion == 0 and received > 0)
    prompt = prompt or math.ceil(sent)
    completion = completion or math.ceil(received)
    details = _of(told, "prompt_tokens_details") or _of(told, "input_tokens_details")
    cached = (
        _count(details, "cached_tokens")
        or _count(told, "prompt_cache_hit_tokens", "cache_read_input_tokens")
        or 0
    )
    written = (
        _count(told, "cache_creation_input_tokens")
        or _count(details, "cache_creation_tokens", "cache_write_tokens")
        or 0
    )
    cached = min(cached, prompt)
    return Usage(
        prompt, completion, cached, estimated, min(written, prompt - cached), min(reasoning, completion)
    )


def checked(told: Any) -> Any:
    """Counts as a reply tells them, each a number that can be counted with: litellm loses a reply for one
    that is none.
    """
    found: dict[str, Any] = {}
    for name, value in told.items() if isinstance(told, Mapping) else ():
        if _COUNT.search(name):
            found |= {name: _whole(value) or 0} if value is not None else {}
        elif isinstance(value, Mapping) and not name.endswith("Details"):
            found[name] = checked(value)
        elif isinstance(value, list) and not name.endswith("_details"):
            found[name] = [checked(part) for part in value if isinstance(part, Mapping)]
        elif not name.lower().endswith("details"):
            found[name] = value
    return found


def _count(told: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a count."""
    return next((count for name in names if (count := _whole(told.get(name))) is not None), None)


def _whole(value: Any) -> int | None:
    """A count; a number in a text is one, less than nothing is none."""
    if isinstance(value, str):
        try:
            value = float(value[:_DIGITS])
        except ValueError:
            return None
    # Neither NaN nor infinity is within.
    counts = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return int(value) if counts else None


def _of(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}
