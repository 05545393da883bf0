"""Who plays root and sub: models by litellm, with the embedded local model started where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rlm_kernel.config import LLMSettings, Settings
from rlm_kernel.engine.prompts import ProfileName
from rlm_kernel.engine.protocols import ROLES, Models, Role
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from rlm_kernel.models.litellm_models import LitellmModels

_LOCAL = "local"
_LOCAL_REPLY_TOKENS = 1024


def _is_local(model: str | None) -> bool:
    return model is not None and model.split(":")[0] == _LOCAL


def profile_for(settings: Settings) -> ProfileName:
    """The prompt profile that suits the root model."""
    return "small" if _is_local(settings.root_llm.model) else "default"


def model_names(settings: Settings, models: Models) -> dict[Role, str]:
    """Who plays, as the user named them, so that a run can be taken up: a local model's own name is that of its server."""
    root = settings.root_llm.model
    asked: dict[Role, str | None] = {"root": root, "sub": settings.sub_llm.model or root}
    return {role: name if name is not None and _is_local(name) else models.name(role) for role, name in asked.items()}


@contextlib.asynccontextmanager
async def open_models(settings: Settings, say: Callable[[str], None]) -> AsyncIterator[LitellmModels]:
    """The models of the settings, ready to be called; servers of local ones run as long as the context is open.

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
                    servers[llm.model] = await _start_local(stack, llm, say)
                changes[section] = servers[llm.model]
        models = LitellmModels(settings.model_copy(update=changes))
        stack.push_async_callback(models.aclose)
        await models.warm_up()
        if settings.limits.cost is not None:
            _check_prices(models)
        yield models


def _check_prices(models: LitellmModels) -> None:
    """A limit of money cannot be held without prices. Raises ConfigError."""
    unknown = sorted({models.name(role) for role in ROLES if not models.priced(role)})
    if unknown:
        raise ConfigError(
            f"The cost limit cannot be held: no price is known for {' and '.join(unknown)}.",
            hint="Set input_price and output_price (US dollars a million tokens) of root_llm and sub_llm, or limit tokens instead.",
        )


async def _start_local(stack: contextlib.AsyncExitStack, llm: LLMSettings, say: Callable[[str], None]) -> LLMSettings:
    """Start a local model's server; the settings by which litellm reaches it."""
    from rlm_kernel.models.local import LocalServer

    assert llm.model is not None
    server = await LocalServer.start(llm.model, on_progress=say)
    stack.push_async_callback(server.aclose)
    return llm.model_copy(
        update={
            "model": server.model_name,
            "api_base": server.api_base,
            "api_key": SecretStr("local-no-key"),
            "window": server.context,
            # On a few cores requests at once are slower than one after the other.
            "concurrency": 1,
            "temperature": 0.0 if llm.temperature is None else llm.temperature,
            "max_tokens": llm.max_tokens or _LOCAL_REPLY_TOKENS,
            "input_price": 0.0,
            "output_price": 0.0,
        }
    )
