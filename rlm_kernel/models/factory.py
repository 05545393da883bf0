"""The models of the settings, made ready: litellm for those behind an API, a server for those that run here,
the cache before them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pydantic import SecretStr

from rlm_kernel.config import LLMSettings, Settings, parse_size
from rlm_kernel.engine.protocols import ROLES, Card, Message, Models
from rlm_kernel.errors import ConfigError

_LOCAL = "local"
_SECTIONS = {"root": "root_llm", "sub": "sub_llm"}
_LOCAL_REPLY_TOKENS = {"root": 512, "sub": 1024}
"""At most: a root's reply is a sentence and a short cell, and one that does not end takes a minute."""


def is_local(model: str | None) -> bool:
    """Whether a model, as the user names it, runs on this machine."""
    return model is not None and model.split(":")[0] == _LOCAL


def known_card(role: str, name: str, llm: LLMSettings) -> Card:
    """What the settings and litellm's table say of a model that is not opened: no key and no network is
    needed. Blocking.
    """
    from rlm_kernel.models import _catalog, _prices

    entry = _catalog.entry_of(name) or None
    read, written = _prices.per_million(llm, entry) or (None, None)
    sees = None if entry is None else bool(entry.get("supports_vision"))
    return Card(role, name, llm.window or (entry or {}).get("max_input_tokens"), read, written, sees)


@contextlib.asynccontextmanager
async def open_models(
    settings: Settings, say: Callable[[str], None], begins_with: Callable[[], Sequence[Message]] = tuple
) -> AsyncIterator[Models]:
    """The models of the settings, ready to be called; servers of local ones run as long as the context is
    open.

    With `cache.enabled`, replies of sub models at temperature 0 are kept, and found again. `say` hears what
    is set up, and what the cache has to say. `begins_with` gives the messages that all conversations with the
    root model begin with: a local server reads them ahead.

    Raises ConfigError (no model), ModelError (missing key, unknown provider), LocalModelError.
    """
    from rlm_kernel.models.litellm_models import LitellmModels

    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, dict[str, Any]] = {}

        async def served(name: str, llm: LLMSettings) -> LLMSettings:
            """The settings by which a model that may be a local one is reached."""
            if llm.model is None or not is_local(llm.model):
                return llm
            if llm.model not in servers:
                prefix = begins_with() if name == "root" else ()
                servers[llm.model] = await _start_local(stack, llm.model, prefix, say)
            tokens = llm.max_tokens or _LOCAL_REPLY_TOKENS["root" if name == "root" else "sub"]
            more = {"max_tokens": tokens, "temperature": llm.temperature or 0.0}
            return llm.model_copy(update=servers[llm.model] | more)

        playing = settings.model_copy(
            update={
                "root_llm": await served("root", settings.root_llm),
                "sub_llm": await served("sub", settings.sub_llm),
                "models": {name: await served(name, llm) for name, llm in settings.models.items()},
            }
        )
        models = LitellmModels(playing, say)
        stack.push_async_callback(models.aclose)
        await models.warm_up()
        _check_prices(models, settings)
        yield _cached(stack, models, settings, playing, say) if settings.cache.enabled else models


def _cached(
    stack: contextlib.AsyncExitStack,
    models: Models,
    asked: Settings,
    playing: Settings,
    say: Callable[[str], None],
) -> Models:
    """The models with the cache before them."""
    from rlm_kernel.models.cache import CachedModels, ReplyCache, cache_path
    from rlm_kernel.models.weights import find_model

    def answering(llm: LLMSettings, named: str | None) -> LLMSettings:
        # A local server's address is another one each time; what answers there are the weights.
        return (
            llm.model_copy(update={"api_base": find_model(named).sha256})
            if named is not None and is_local(named)
            else llm
        )

    root = answering(playing.root_llm, asked.root_llm.model)
    sub = answering(playing.sub_llm, asked.sub_llm.model) if playing.sub_llm.model else root
    others = {name: answering(llm, asked.models[name].model) for name, llm in playing.models.items()}
    if all(llm.temperature != 0 for llm in (sub, *others.values())):
        say("The cache is on, but stores nothing, because sub_llm.temperature is not 0. Set it to 0.")
    cache = ReplyCache(cache_path(asked.cache.dir), parse_size(asked.cache.size), say)
    cached = CachedModels(models, cache, {"root": root, "sub": sub, **others})
    stack.push_async_callback(cached.aclose)
    return cached


def _check_prices(models: Models, settings: Settings) -> None:
    """A limit of money cannot be held without prices. Raises ConfigError."""
    cards = [*(models.card(role) for role in ROLES), *models.others]
    limited = [
        card
        for card in cards
        if settings.limits.cost is not None
        or (card.role not in ROLES and settings.models[card.role].cost is not None)
    ]
    unknown = [card for card in limited if card.input_price is None or card.output_price is None]
    if unknown:
        sections = " and ".join(_SECTIONS.get(card.role, f"models.{card.role}") for card in unknown)
        raise ConfigError(
            "rlm cannot keep the cost limit, because it knows no price for "
            f"{' and '.join(sorted({card.name for card in unknown}))}.",
            hint=f"Set input_price and output_price (US dollars per million tokens) of {sections}, or limit "
            f"{'tokens' if settings.limits.cost is not None else 'calls'} instead.",
        )


async def _start_local(
    stack: contextlib.AsyncExitStack,
    name: str,
    begins_with: Sequence[Message],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Start a local model's server; the settings by which it is reached.

    `begins_with`: what all its conversations do.
    """
    from rlm_kernel.models.local import LocalServer
    from rlm_kernel.models.local_prefix import prime

    server = await LocalServer.start(name, on_progress=say)
    stack.push_async_callback(server.aclose)
    if begins_with:
        await prime(server, begins_with, say)
    return {
        "model": server.model_name,
        "api_base": server.api_base,
        "api_key": SecretStr("local-no-key"),
        "window": server.context,
        # On a few cores requests at once are slower than one after the other.
        "concurrency": 1,
        "input_price": 0.0,
        "output_price": 0.0,
    }
