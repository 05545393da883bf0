"""Many questions with the same settings: what they have in common is made ready once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import Purse
from rlm_kernel.session.ask import ask
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.inputs import Context
from rlm_kernel.session.result import Result

if TYPE_CHECKING:
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource


class Asker:
    """Asks questions, each in a container of its own, with a trace of its own.

    An async context manager, of one event loop.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models | None = None,
        say: Say = silent,
        tools: Sequence[Tool | ToolSource] = (),
        allow_call: AllowCall | None = None,
        purse: Purse | None = None,
    ) -> None:
        """`purse`: what all the questions may use together."""
        self._settings, self._models, self._say, self._purse = settings, models, say, purse
        self._tools: dict[str, Any] = {"tools": tools, "allow_call": allow_call}
        self._stack = AsyncExitStack()

    @property
    def places(self) -> int:
        """How many questions can be answered at once, now."""
        return 4

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.aclose()

    async def ask(
        self,
        question: str,
        context: Context = None,
        *,
        trace: Path,
        schema: Mapping[str, Any] | None = None,
        view: Listener | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Result:
        """As `session.ask.ask`. `changes`: settings of this question alone, by dotted name."""
        return await ask(
            question,
            context,
            settings=self._settings,
            trace=trace,
            models=self._models,
            view=view,
            say=self._say,
            schema=schema,
            purse=self._purse,
            **self._tools,
        )
