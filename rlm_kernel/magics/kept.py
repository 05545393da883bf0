"""The kernel that a notebook keeps over several questions: a session in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.config import Settings
from rlm_kernel.errors import UsageError
from rlm_kernel.magics.variables import Files
from rlm_kernel.scratch import Scratch
from rlm_kernel.session.answertypes import AnswerType
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.contexts import TABLES
from rlm_kernel.session.manager import stop_session
from rlm_kernel.session.result import Result
from rlm_kernel.session.rlm import RLM
from rlm_kernel.session.running import discard
from rlm_kernel.session.session import Session
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.session.status import look_at
from rlm_kernel.session.watching import Watched

_NAME = "notebook"
_IDLE = 1800
"""Seconds without a question after which its container ends; the next one rebuilds it."""


@dataclass(frozen=True)
class Asking:
    """A question over variables by their names. `trace`: where the notebook of a new kernel goes."""

    question: str
    values: Mapping[str, Any]
    answer_type: Any = None
    cite: bool | None = None
    trace: Path | None = None


class Kept:
    """Takes up its kernel for each question, and lets go of it: nothing of it runs between cells."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None
        self._files: Files | None = None

    @property
    def is_there(self) -> bool:
        """Whether a question has begun it."""
        return self._scratch is not None

    async def ask(self, rlm: RLM, asking: Asking) -> Result:
        """Ask in it, once it has the values as files. Raises what `Session.ask` raises, and UsageError for
        another trace than it has.
        """
        wanted = None if asking.answer_type is None else AnswerType(asking.answer_type)
        trace = None if asking.trace is None else trace_path(rlm.settings, asking.question, asking.trace)
        begun = self._scratch is None
        self._scratch = self._scratch or Scratch("notebook")
        place = self._scratch.path
        try:
            with Watched(True) as shown:
                async with self._session(rlm, place, trace, shown) as session:
                    begun = False
                    shown.trace = session.trace
                    _check_trace(session, trace)
                    self._files = self._files or Files(session.trace.with_suffix(TABLES))
                    await self._load(session, self._files, asking.values)
                    schema = None if wanted is None else wanted.schema
                    result = shown.done(
                        await session.ask(asking.question, progress=False, schema=schema, cite=asking.cite)
                    )
        finally:
            if begun:
                self._forget()
        return result if wanted is None else wanted.of(result)

    def _session(
        self, rlm: RLM, place: Path, trace: Path | None, shown: Watched
    ) -> AbstractAsyncContextManager[Session]:
        idle = rlm.settings.session.idle
        changes = {
            # A session remembers the limits with which it was begun; here they are the question's own.
            **{f"limits.{name}": "none" if limit is None else limit for name, limit in rlm.settings.limits},
            "session.dir": place,
            "session.idle": _IDLE if idle == Settings().session.idle else idle,
        }
        hear: dict[str, Any] = {"view": shown.view, "say": shown.say, "progress": False}
        return rlm.session(_NAME, command="a cell of a notebook", changes=changes, trace=trace, **hear)

    async def _load(self, session: Session, files: Files, values: Mapping[str, Any]) -> None:
        try:
            if paths := await asyncio.to_thread(files.add, values):
                await session.load(paths)
        except BaseException:
            files.forget(values)  # they are not there, and come with the next question
            raise

    async def stop(self) -> Path | None:
        """End it; where its trace is. None if there is none."""
        if self._scratch is None:
            return None
        state = await stop_session(_NAME, changes={"session.dir": self._scratch.path})
        self._forget()
        return state.trace

    async def status(self) -> list[str]:
        """What it has, in lines for people."""
        if self._scratch is None:
            return ["kernel      none; --keep keeps the kernel for the next question"]
        return (await look_at(_NAME, changes={"session.dir": self._scratch.path})).lines()

    def discard(self) -> None:
        """End it as the notebook's process ends. Blocking; without an event loop, and without threads."""
        with contextlib.suppress(Exception):
            if self._scratch is not None:
                folder = SessionFolder(self._scratch.path, _NAME)
                if (state := folder.read()) is not None:
                    discard(state.run)
                    folder.remove(state)
        self._forget()

    def _forget(self) -> None:
        if self._scratch is not None:
            self._scratch.remove()
        self._scratch = self._files = None


def _check_trace(session: Session, trace: Path | None) -> None:
    if trace is not None and trace != session.trace:
        raise UsageError(
            f"The kept kernel has a trace already: {session.trace}.",
            hint="Leave --trace out, or start another kernel: --new",
        )
