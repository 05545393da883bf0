"""The names of litellm's providers, from its tables read as JSON: to import it takes seconds."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def known_providers() -> set[str]:
    """All providers; none if litellm keeps its tables elsewhere."""
    listed = _read("provider_endpoints_support_backup.json").get("providers")
    names = set(listed) if isinstance(listed, dict) else set()
    return {name for name in names | set(_models().values()) if name.replace("_", "a").isalnum()}


def provider_of(name: str) -> str | None:
    """The provider that is meant by its name, by `provider/model`, or by a model of litellm's table; None
    for what is none of these.
    """
    models = _models()
    known = known_providers()
    provider = name.partition("/")[0].strip().lower()
    return provider if provider in known or not known else models.get(name)


def table_entry(model: str) -> Mapping[str, Any]:
    """What the table says of `provider/model`; nothing of a model that it does not have."""
    provider, _, name = model.partition("/")
    table = models_table()
    for key in (model, name):
        entry = table.get(key)
        if isinstance(entry, dict) and str(entry.get("litellm_provider", "")).startswith(provider):
            return entry
    return {}


def models_table() -> dict[str, Any]:
    """What is known of each model, by its name."""
    return _read("model_prices_and_context_window_backup.json")


def _models() -> dict[str, str]:
    """The provider of each model."""
    return {
        name: entry["litellm_provider"]
        for name, entry in models_table().items()
        if isinstance(entry, dict) and isinstance(entry.get("litellm_provider"), str)
    }


def _read(file: str) -> dict[str, Any]:
    try:
        found = importlib.util.find_spec("litellm")
        if found is None or found.origin is None:
            return {}
        table = json.loads(Path(found.origin).with_name(file).read_text("utf-8"))
    except (OSError, ValueError, ImportError):
        return {}
    return table if isinstance(table, dict) else {}
