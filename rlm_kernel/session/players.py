"""Who plays root and sub: models by litellm, with the embedded local model started where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rlm_kernel.config import LLMSettings, Settings, parse_size
from rlm_kernel.engine.prompts import PROFILES, Profile, constant_prefix, load_profile, parse_profile, profile_of
from rlm_kernel.engine.protocols import ROLES, Message, Models, Role
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from rlm_kernel.models.litellm_models import LitellmModels

_LOCAL = "local"
_LOCAL_REPLY_TOKENS = {"root_llm": 512, "sub_llm": 1024}
"""At most: a root's reply is a sentence and a short cell, and one that does not end takes a minute."""


def _is_local(model: str | None) -> bool:
    return model is not None and model.split(":")[0] == _LOCAL


def profile_for(settings: Settings, models: Models | None = None) -> Profile:
    """The prompt profile of the settings, else the one that suits the root model. Its window is known once the models are ready.

    Raises ConfigError for a file of the user's that is no profile.
    """
    chosen = settings.prompt.profile
    if chosen is None:
        local = _is_local(settings.root_llm.model)
        window = models.window("root") if models else settings.root_llm.window
        return load_profile("small" if local else profile_of(settings.root_llm.model or "", window))
    if known := next((name for name in PROFILES if name == chosen), None):
        return load_profile(known)
    try:
        return parse_profile(chosen, Path(chosen).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The prompt profile {chosen} cannot be used: {why}.", hint="docs/prompts.md says what such a file holds."
        ) from error


def model_names(settings: Settings, models: Models) -> dict[Role, str]:
    """Who plays, as the user named them, so that a run can be taken up: a local model's own name is that of its server."""
    root = settings.root_llm.model
    asked: dict[Role, str | None] = {"root": root, "sub": settings.sub_llm.model or root}
    return {role: name if name is not None and _is_local(name) else models.name(role) for role, name in asked.items()}


@contextlib.asynccontextmanager
async def open_models(settings: Settings, say: Callable[[str], None]) -> AsyncIterator[Models]:
    """The models of the settings, ready to be called; servers of local ones run as long as the context is open.

    With `cache.enabled`, replies of sub models at temperature 0 are kept, and found again. `say` hears what is set up, and what the
    cache has to say.

    Raises ConfigError (no model), ModelError (missing key, unknown provider), LocalModelError.
    """
    from rlm_kernel.models.litellm_models import LitellmModels

    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, LLMSettings] = {}
        changes: dict[str, LLMSettings] = {}
        for section in ("root_llm", "sub_llm"):
            llm: LLMSettings = getattr(settings, section)
            if llm.model is not None and _is_local(llm.model):
                if llm.model not in servers:
                    prefix = constant_prefix(profile_for(settings)) if section == "root_llm" else ()
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


def _cached(stack: contextlib.AsyncExitStack, models: Models, asked: Settings, playing: Settings, say: Callable[[str], None]) -> Models:
    """The models with the cache before them."""
    from rlm_kernel.models.cache import CachedModels, ReplyCache, cache_path
    from rlm_kernel.models.weights import find_model

    def answering(llm: LLMSettings, named: str | None) -> LLMSettings:
        # A local server's address is another one each time; what answers there are the weights.
        return llm.model_copy(update={"api_base": find_model(named).sha256}) if named is not None and _is_local(named) else llm

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
    unknown = sorted({models.name(role) for role in ROLES if not models.priced(role)})
    if unknown:
        raise ConfigError(
            f"The cost limit cannot be held: no price is known for {' and '.join(unknown)}.",
            hint="Set input_price and output_price (US dollars a million tokens) of root_llm and sub_llm, or limit tokens instead.",
        )


async def _start_local(
    stack: contextlib.AsyncExitStack, llm: LLMSettings, begins_with: Sequence[Message], say: Callable[[str], None]
) -> LLMSettings:
    """Start a local model's server; the settings by which litellm reaches it. `begins_with`: what all its conversations do."""
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
