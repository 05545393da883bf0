"""The models of the settings, made ready: litellm for those behind an API, a server for those that run here,
the cache before them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rlm_kernel.config import LLMSettings, Settings, parse_size
from rlm_kernel.engine.protocols import ROLES, Message, Models
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from rlm_kernel.models.litellm_models import LitellmModels

_LOCAL = "local"
_LOCAL_REPLY_TOKENS = {"root_llm": 512, "sub_llm": 1024}
"""At most: a root's reply is a sentence and a short cell, and one that does not end takes a minute."""


def is_local(model: str | None) -> bool:
    """Whether a model, as the user names it, runs on this machine."""
    return model is not None and model.split(":")[0] == _LOCAL


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
        servers: dict[str, LLMSettings] = {}
        changes: dict[str, LLMSettings] = {}
        for section in ("root_llm", "sub_llm"):
            llm: LLMSettings = getattr(settings, section)
            if llm.model is not None and is_local(llm.model):
                if llm.model not in servers:
                    prefix = begins_with() if section == "root_llm" else ()
                    servers[llm.model] = await _start_local(stack, llm, prefix, say)
                tokens = llm.max_tokens or _LOCAL_REPLY_TOKENS[section]
                changes[section] = servers[llm.model].model_copy(update={"max_tokens": tokens})
        playing = settings.model_copy(update=changes)
        models = LitellmModels(playing, say)
        stack.push_async_callback(models.aclose)
        await models.warm_up()
        if settings.limits.cost is not None:
            _check_prices(models)
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
    if sub.temperature != 0:
        say("The cache is on, but sub_llm.temperature is not 0, so nothing is kept; set it to 0.")
    cache = ReplyCache(cache_path(asked.cache.dir), parse_size(asked.cache.size), say)
    cached = CachedModels(models, cache, root=root, sub=sub)
    stack.push_async_callback(cached.aclose)
    return cached


def _check_prices(models: LitellmModels) -> None:
    """A limit of money cannot be held without prices. Raises ConfigError."""
    cards = [*(models.card(role) for role in ROLES), *models.others]
    unknown = sorted({card.name for card in cards if card.input_price is None})
    if unknown:
        raise ConfigError(
            f"The cost limit cannot be held: no price is known for {' and '.join(unknown)}.",
            hint="Set input_price and output_price (US dollars a million tokens) of root_llm and sub_llm, "
            "or limit tokens instead.",
        )


async def _start_local(
    stack: contextlib.AsyncExitStack,
    llm: LLMSettings,
    begins_with: Sequence[Message],
    say: Callable[[str], None],
) -> LLMSettings:
    """Start a local model's server; the settings by which litellm reaches it.

    `begins_with`: what all its conversations do.
    """
    from rlm_kernel.models.local import LocalServer
    from rlm_kernel.models.local_prefix import prime

    assert llm.model is not None
    server = await LocalServer.start(llm.model, on_progress=say)
    stack.push_async_callback(server.aclose)
    if begins_with:
        await prime(server, begins_with, say)
    return llm.model_copy(
        update={
            "model": server.model_name,
            "api_base": server.api_base,
            "api_key": SecretStr("local-no-key"),
            "window": server.context,
            # On a few cores requests at once are slower than one after the other.
            "concurrency": 1,
            "temperature": 0.0 if llm.temperature is None else llm.temperature,
            "input_price": 0.0,
            "output_price": 0.0,
        }
    )
