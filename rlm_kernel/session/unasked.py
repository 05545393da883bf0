"""The models of a trace by their names alone: no key is needed, and none can be called."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.protocols import ROLES, UNWATCHED, Card, Completion, Message, Role, Watch
from rlm_kernel.errors import NoRecord
from rlm_kernel.models.factory import known_card
from rlm_kernel.session.environment import silent
from rlm_kernel.session.models import ModelSet, models_of
from rlm_kernel.trace.reader import TraceFile


class Unasked:
    """Models that are known by name but cannot be called. Implements `engine.protocols.Models`."""

    def __init__(self, cards: Mapping[str, Card], how_to_ask: str) -> None:
        """`cards`: by role, root and sub among them; `how_to_ask`: the hint of the error of each call."""
        self._cards = cards
        self._how_to_ask = how_to_ask

    def name(self, role: Role) -> str:
        return self._cards[role].name

    def card(self, which: str) -> Card:
        return self._cards[which]

    @property
    def others(self) -> Sequence[Card]:
        return [card for role, card in self._cards.items() if role not in ROLES]

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        role: Role,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        watch: Watch = UNWATCHED,
    ) -> Completion:
        """Raises NoRecord."""
        raise NoRecord("No model is asked here.", hint=self._how_to_ask)

    async def aclose(self) -> None:
        """Nothing to free."""


@contextlib.asynccontextmanager
async def unasked_models(trace: TraceFile, settings: Settings, how_to_ask: str) -> AsyncIterator[ModelSet]:
    """The trace's models, as far as they are known without being opened.

    `how_to_ask`: the hint of the error that a call raises.
    """
    llms = {"root": settings.root_llm, "sub": settings.sub_llm, **settings.models}

    def known() -> Unasked:
        names = trace.meta.models
        cards = {
            role: known_card(role, name, llms.get(role, settings.sub_llm)) for role, name in names.items()
        }
        return Unasked(cards, how_to_ask)

    async with models_of(settings, await asyncio.to_thread(known), silent) as chosen:
        yield chosen
