"""What litellm's tables say of models and providers, read as JSON: litellm itself takes seconds to import.

`providers.json` has the providers whose wire is OpenAI's, which `scripts/providers.py` finds out by asking
litellm. Prices and windows are in the table inside litellm's package.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_TABLE = "model_prices_and_context_window_backup.json"
_PROVIDERS = "provider_endpoints_support_backup.json"
_SCHEMAS = frozenset({"predibase", "fireworks_ai", "lm_studio", "nebius", "databricks"})
"""Providers of which litellm says that all their models take a schema."""
_SAME_WIRE = {"aiohttp_openai": "openai"}
"""Other names of litellm's, by which it asks with a client of its own."""
ANTHROPIC = "anthropic"
ANTHROPIC_TOKEN = "ANTHROPIC_AUTH_TOKEN"
"""The variable of a gateway's token, which Anthropic's own clients send as a bearer's."""


@dataclass(frozen=True)
class Provider:
    """A provider that is asked directly.

    `base`: where, unless one of the variables in `base_env` says. `key_env`: variables with its key. `drops`:
    parameters that it is not sent; `renames`: those that it knows by another name. `prefix` stands before a
    model's name on the wire, and `also` is in each request.
    """

    base: str | None = None
    base_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)


_ANTHROPIC = Provider(
    "https://api.anthropic.com",
    ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
    ("ANTHROPIC_API_KEY", ANTHROPIC_TOKEN),
)


@functools.cache
def providers() -> Mapping[str, Provider]:
    """The providers that can be asked directly, by litellm's names."""
    rows = json.loads((_HERE / "providers.json").read_text("utf-8"))
    made: dict[str, Provider] = {
        name: Provider(**{part: _frozen(value) for part, value in row.items()}) for name, row in rows.items()
    }
    return {**made, ANTHROPIC: _ANTHROPIC}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def find(model: str) -> tuple[str, str, Mapping[str, Any] | None] | None:
    """Provider, name at the provider, and line in the table of a model that can be asked directly.

    None for all others, also where only litellm can tell. `model` as the user writes it.
    """
    provider, slash, name = model.partition("/")
    if not slash:
        entry = _line(model)
        provider, name = str((entry or {}).get("litellm_provider")), model
    elif (provider := _SAME_WIRE.get(provider, provider)) in providers():
        entry = next((line for key in (model, name) if (line := _of(key, provider)) is not None), None)
    else:
        return None
    if provider not in providers() or (entry or {}).get("mode", "chat") != "chat":
        return None
    return provider, name, entry


def takes_schemas(provider: str, entry: Mapping[str, Any] | None) -> bool | None:
    """Whether a model takes a JSON schema for its reply; None where that is not known."""
    if "response_format" in providers()[provider].drops:
        return False
    if provider in _SCHEMAS:
        return True
    return None if entry is None else bool(entry.get("supports_response_schema"))


def _of(key: str, provider: str) -> Mapping[str, Any] | None:
    entry = _line(key)
    ours = entry is not None and str(entry.get("litellm_provider", "")).startswith(provider)
    return entry if ours else None


def _line(key: str) -> Mapping[str, Any] | None:
    """A line of the table: found as text, since parsing all of it takes ten times as long."""
    text = _text()
    at = text.find(f"\n    {json.dumps(key)}: {{")
    if at < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, text.index("{", at + len(json.dumps(key)) + 5))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@functools.cache
def _text() -> str:
    return _read(_TABLE)


def _read(file: str) -> str:
    """A file of litellm's package; nothing where it is not there."""
    try:
        found = importlib.util.find_spec("litellm")
        folders = found.submodule_search_locations if found is not None else None
        return Path((folders or ["."])[0], file).read_text("utf-8")
    except (OSError, ValueError, ImportError):
        return ""


def known_providers() -> set[str]:
    """All providers that litellm knows; none if it keeps its tables elsewhere."""
    listed = json.loads(_read(_PROVIDERS) or "{}").get("providers")
    names = set(listed) if isinstance(listed, dict) else set()
    names |= {str(entry.get("litellm_provider")) for entry in table().values()} - {"None"}
    return {name for name in names if name.replace("_", "a").isalnum()}


def provider_of(name: str) -> str | None:
    """The provider that is meant by its name, by `provider/model`, or by a model of litellm's table; None
    for what is none of these.
    """
    known = known_providers()
    provider = name.partition("/")[0].strip().lower()
    return provider if provider in known or not known else (_line(name) or {}).get("litellm_provider")


def entry_of(model: str) -> Mapping[str, Any]:
    """What the table says of `provider/model`; nothing of a model that it does not have."""
    provider, _, name = model.partition("/")
    return next((line for key in (model, name) if (line := _of(key, provider)) is not None), {})


def warm_up() -> None:
    """Read the files, which takes a moment, in a thread say."""
    providers()
    _text()


@functools.cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each model, by its name."""
    found = json.loads(_text() or "{}")
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}
