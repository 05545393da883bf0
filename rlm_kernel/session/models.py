"""The models of a run: those of the settings or those that were given, how the trace names them, and the
prompt that suits them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel.config import Settings
from rlm_kernel.engine.prompts import (
    PROFILES,
    Profile,
    constant_prefix,
    load_profile,
    parse_profile,
    profile_of,
)
from rlm_kernel.engine.protocols import ROLES, Models, Role
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.factory import is_local, open_models
from rlm_kernel.session.environment import Say


@dataclass(frozen=True)
class ModelSet:
    """The models of a run.

    `names`: as the user knows them, and as the trace has them; `profile`: the root model's prompt.
    """

    models: Models
    names: Mapping[Role, str]
    profile: Profile


@contextlib.asynccontextmanager
async def models_of(settings: Settings, given: Models | None, say: Say) -> AsyncIterator[ModelSet]:
    """The models that were `given`, which the caller closes, or else those of the settings, which are closed
    here.

    Raises what `models.factory.open_models` and `profile_for` raise.
    """
    if given is not None:
        yield ModelSet(given, {role: given.name(role) for role in ROLES}, profile_for(settings, given))
        return
    async with open_models(settings, say, lambda: constant_prefix(profile_for(settings))) as models:
        yield ModelSet(models, model_names(settings, models), profile_for(settings, models))


@contextlib.asynccontextmanager
async def opening(models: AbstractAsyncContextManager[ModelSet]) -> AsyncIterator[asyncio.Task[ModelSet]]:
    """The models, opened while other things are done: the task gives them. Closed in the end."""
    async with contextlib.AsyncExitStack() as stack:
        task = asyncio.create_task(stack.enter_async_context(models))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # whoever waited for them was told


def profile_for(settings: Settings, models: Models | None = None) -> Profile:
    """The prompt profile of the settings, else the one that suits the root model.

    Its window is known once the models are ready.

    Raises ConfigError for a file of the user's that is no profile.
    """
    chosen = settings.prompt.profile
    if chosen is None:
        local = is_local(settings.root_llm.model)
        window = models.card("root").window if models else settings.root_llm.window
        return load_profile("small" if local else profile_of(settings.root_llm.model or "", window))
    if known := next((name for name in PROFILES if name == chosen), None):
        return load_profile(known)
    try:
        return parse_profile(chosen, Path(chosen).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The prompt profile {chosen} cannot be used: {why}.",
            hint="docs/prompts.md says what such a file holds.",
        ) from error


def model_names(settings: Settings, models: Models) -> dict[Role, str]:
    """The models of the settings as the user named them, so that a run can be taken up: a local model's own
    name is that of its server.
    """
    root = settings.root_llm.model
    asked: dict[Role, str | None] = {"root": root, "sub": settings.sub_llm.model or root}
    return {
        role: name if name is not None and is_local(name) else models.name(role)
        for role, name in asked.items()
    }
