"""The models of a run: those of the settings or those that were given, how the trace names them, and the
prompt that suits them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.prompts import (
    PROFILES,
    Profile,
    constant_prefix,
    load_profile,
    parse_profile,
    profile_of,
)
from rlm_kernel.engine.protocols import ROLES, UNWATCHED, Card, Completion, Message, Models, Role, Watch
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.factory import is_local, open_models
from rlm_kernel.session.environment import Say


@dataclass(frozen=True)
class ModelSet:
    """The models of a run.

    `names`: as the user knows them, and as the trace has them; `profile`: the root model's prompt.
    """

    models: Models
    names: Mapping[str, str]
    profile: Profile

    def led_by(self, model: str, settings: Settings) -> ModelSet:
        """The same with another root model, by the role of its card."""
        led = _Led(self.models, model)
        return ModelSet(led, {**self.names, "root": self.names[model]}, profile_for(settings, led))


@dataclass(frozen=True)
class _Led:
    """Models of which another than usual plays the root."""

    _models: Models
    _root: str

    def name(self, role: Role) -> str:
        return self.card(role).name

    def card(self, which: str) -> Card:
        return self._models.card(self._root if which == "root" else which)

    @property
    def others(self) -> Sequence[Card]:
        return self._models.others

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        if role == "root" and model is None:
            model = self._root if self._root not in ROLES else self._models.name(self._root)
        return await self._models.complete(messages, role=role, model=model, schema=schema, watch=watch)

    async def aclose(self) -> None:
        """What has them closes them."""


@contextlib.asynccontextmanager
async def models_of(settings: Settings, given: Models | None, say: Say) -> AsyncIterator[ModelSet]:
    """The models that were `given`, which the caller closes, or else those of the settings, which are closed
    here.

    Raises what `models.factory.open_models` and `profile_for` raise.
    """
    if given is not None:
        names = {role: given.name(role) for role in ROLES} | {card.role: card.name for card in given.others}
        yield ModelSet(given, names, profile_for(settings, given))
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
        root = models.card("root") if models else Card("root", "", settings.root_llm.window)
        llm = settings.models.get(root.role) or settings.root_llm if root.role != "sub" else settings.sub_llm
        name = llm.model or root.name
        return load_profile("small" if is_local(name) else profile_of(name, root.window))
    if known := next((name for name in PROFILES if name == chosen), None):
        return load_profile(known)
    try:
        return parse_profile(chosen, Path(chosen).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The prompt profile {chosen} cannot be used: {why}.",
            hint="docs/prompts.md describes the format of such a file.",
        ) from error


def model_names(settings: Settings, models: Models) -> dict[str, str]:
    """The models of the settings as the user named them, so that a run can be taken up: a local model's own
    name is that of its server.
    """
    root = settings.root_llm.model
    asked: dict[str, str | None] = {"root": root, "sub": settings.sub_llm.model or root}
    asked |= {card.role: settings.models[card.role].model for card in models.others}
    return {
        role: name if name is not None and is_local(name) else models.card(role).name
        for role, name in asked.items()
    }
