"""Which model somebody meant whose name no provider has."""

from __future__ import annotations

from typing import Any

from rlm_kernel.models.weights import MODELS
from rlm_kernel.nearest import nearest

_LIKE = 0.7
_MODES = ("chat", "responses")
_COMMON = ("openai", "anthropic", "gemini", "deepseek", "mistral", "xai", "groq", "openrouter", "ollama")
"""Of several providers of a model, these are thought of first."""


def nearest_model(litellm: Any, wanted: str) -> str | None:
    """A model by provider/model, from litellm's table and ours, that is most like what was written; None if
    none is.
    """
    names: dict[str, str] = {model.name: model.name for model in MODELS}
    table = (
        (name, str(entry.get("litellm_provider")))
        for name, entry in litellm.model_cost.items()
        if entry.get("mode") in _MODES
    )
    for name, provider in sorted(table, key=_commonness):
        full = name if "/" in name else f"{provider}/{name}"
        names.setdefault(name.rpartition("/")[2], full)
        names[full] = full
    provider, slash, model = wanted.partition("/")
    if not slash:
        return names.get(wanted) or _full(names, wanted)
    near = nearest(provider, map(str, getattr(litellm, "provider_list", ())), _LIKE)
    if near is not None and near != provider:
        return _full(names, f"{near}/{model}") or f"{near}/{model}"
    return _full(names, wanted)


def _full(names: dict[str, str], wanted: str) -> str | None:
    found = names[near] if (near := nearest(wanted, names, _LIKE)) is not None else None
    return found if found != wanted else None


def _commonness(row: tuple[str, str]) -> tuple[int, int, str]:
    name, provider = row
    return _COMMON.index(provider) if provider in _COMMON else len(_COMMON), len(name), name
