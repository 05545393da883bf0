"""What many short texts are: a sub model reads each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rlm_runtime import queries, wire


def classify(
    texts: Iterable[str], kinds: Sequence[str], what: str = "text", *, model: str | None = None
) -> list[str | wire.CallFailed]:
    """Have the sub model say which of these kinds each text is; the kinds in the texts' order.

    It sees one text a call, and is asked again, with a schema, where its reply names no kind or several.
    `kinds`: names that tell themselves apart, such as ["happy", "unhappy"]. `what`: what a text is, such as
    "review of a film". `model` as of llm_query. A text whose call failed has a falsy CallFailed. Raises
    TypeError, ValueError, and BudgetExceeded if all calls were refused for it.
    """
    if isinstance(texts, str):
        raise TypeError("classify takes a list of texts, such as context.splitlines()")
    names = [str(kind).strip() for kind in kinds] if not isinstance(kinds, str) else []
    if len({name.casefold() for name in names}) < max(2, len(names)) or not all(names):
        raise ValueError('kinds is a list of at least two different names, such as ["happy", "unhappy"]')
    asked = f"Which of these is the {what}: {', '.join(names)}? Reply with that alone."
    # What differs stands last: what comes before is read once, by models that keep what they have read.
    prompts = [f"{asked}\n\n{text}" for text in texts]
    found: list[str | wire.CallFailed | None] = [
        reply if isinstance(reply, wire.CallFailed) else _named(reply, names)
        for reply in queries.llm_query_batched(prompts, model)
    ]
    unclear = [place for place, kind in enumerate(found) if kind is None]
    strictly = queries.llm_query_batched([prompts[place] for place in unclear], model, schema={"enum": names})
    for place, kind in zip(unclear, strictly, strict=True):
        found[place] = kind
    return found  # type: ignore[return-value]


def _named(reply: str, names: Sequence[str]) -> str | None:
    """The one kind that a reply names; None if it names no kind or several."""
    said = reply.strip().strip("\"'`*.").casefold()
    for name in names:
        if said == name.casefold():
            return name
    there = [name for name in names if re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", said)]
    longest = max(there, key=len, default="")
    return longest if longest and all(name.casefold() in longest.casefold() for name in there) else None
