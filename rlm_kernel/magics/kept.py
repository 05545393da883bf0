"""The kernel that a notebook keeps over several questions: a session in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.magics.variables import Files
from rlm_kernel.session.contexts import TABLES
from rlm_kernel.session.manager import open_session, stop_session
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


class Kept:
    """Takes up its kernel for each question, and lets go of it: nothing of it runs between cells."""

    def __init__(self) -> None:
        self._place: Path | None = None
        self._files: Files | None = None

    @property
    def is_there(self) -> bool:
        """Whether a question has begun it."""
        return self._place is not None

    async def ask(self, rlm: RLM, question: str, values: Mapping[str, Any]) -> Result:
        """Ask in it, once it has the values as files. Raises what `Session.ask` raises."""
        begun = self._place is None
        place = self._place = self._place or Path(tempfile.mkdtemp(prefix="rlm-notebook-"))
        given = rlm._configured()
        changes = {"session.idle": _IDLE, **given.pop("changes"), "session.dir": place}
        try:
            with Watched(True) as shown:
                hear: dict[str, Any] = {"view": shown.view, "say": shown.say}
                async with open_session(
                    _NAME, command="a cell of a notebook", changes=changes, **given, **hear
                ) as session:
                    begun = False
                    shown.trace = session.trace
                    self._files = self._files or Files(session.trace.with_suffix(TABLES))
                    await self._load(session, self._files, values)
                    return shown.done(await session.ask(question, progress=False))
        finally:
            if begun:
                self._forget()

    async def _load(self, session: Session, files: Files, values: Mapping[str, Any]) -> None:
        try:
            if paths := await asyncio.to_thread(files.add, values):
                await session.load(paths)
        except BaseException:
            files.forget(values)  # they are not there, and come with the next question
            raise

    async def stop(self) -> Path | None:
        """End it; where its trace is. None if there is none."""
        if self._place is None:
            return None
        state = await stop_session(_NAME, changes={"session.dir": self._place})
        self._forget()
        return state.trace

    async def status(self) -> list[str]:
        """What it has, in lines for people."""
        if self._place is None:
            return ["kernel      none is kept: --keep keeps one for the next question"]
        return (await look_at(_NAME, changes={"session.dir": self._place})).lines()

    def discard(self) -> None:
        """End it as the notebook's process ends. Blocking; without an event loop, and without threads."""
        with contextlib.suppress(Exception):
            if self._place is not None:
                folder = SessionFolder(self._place, _NAME)
                if (state := folder.read()) is not None:
                    discard(state.run)
                    folder.remove(state)
        self._forget()

    def _forget(self) -> None:
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
        self._place = self._files = None
