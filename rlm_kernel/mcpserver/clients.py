"""What belongs to one client: its kept sessions and the traces of its runs. No other client sees them, and
they end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.mcpserver.kernels import Kernels
from rlm_kernel.scratch import Scratch

_T = TypeVar("_T")
MAX_TRACES = 1_000
"""Traces of a client that are remembered."""


@dataclass
class Kept:
    """A kept session. `lock`: it does one thing at a time."""

    name: str
    trace: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    used: float = field(default_factory=time.monotonic)


class Client:
    """One client of the server.

    `ended`: nothing new is begun for it any more.
    """

    def __init__(self, kernels: Kernels, stop: Callable[[Client, str], Coroutine[Any, Any, None]]) -> None:
        """`stop` ends a session's kernel."""
        self._scratch = Scratch("mcp", f"{os.getpid()}-")
        self.folder = self._scratch.path
        self.sessions: dict[str, Kept] = {}
        self.traces: OrderedDict[str, Path] = OrderedDict()
        self.roots: list[Path] | None = None
        """The client's, as long as they are known; None if they are to be asked for."""
        self.ended = False
        self._kernels = kernels
        self._stop = stop
        self._works: set[asyncio.Task[Any]] = set()

    def remember(self, trace: Path) -> str:
        """A trace that the client may read; the name by which it asks for it."""
        self.traces[trace.stem] = trace
        self.traces.move_to_end(trace.stem)
        while len(self.traces) > MAX_TRACES:
            self.traces.popitem(last=False)
        return trace.stem

    def session(self, name: str) -> Kept:
        """One of its sessions. Raises UsageError."""
        try:
            return self.sessions[name]
        except KeyError:
            raise UsageError(
                "You have no session with this id.",
                hint="It has ended, or was never started. To start one: session_start",
            ) from None

    def new_name(self) -> str:
        """An id that nobody guesses."""
        return f"s{secrets.token_hex(16)}"

    async def work(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What it gives, from a task of its own. Cancelled once, that stops its cell, closes its trace and
        removes its container, for which nobody waits but `end`: the protocol's library cancels again and
        again.
        """
        if self.ended:
            work.close()
            raise UsageError("The server was stopped.")
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._over)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._works.discard(task)
        if not task.cancelled():
            task.exception()  # told to the client, or nobody waits for it any more

    async def stop(self, name: str) -> None:
        """End a session. What runs in it is to be over."""
        self.sessions.pop(name)
        try:
            await self._stop(self, name)
        finally:
            self._kernels.give()

    async def stop_idle(self, idle: float) -> None:
        """End sessions that were not used for so many seconds: their containers have ended."""
        for name, kept in list(self.sessions.items()):
            # Another look may have ended it while this one waited.
            if name in self.sessions and not kept.lock.locked() and time.monotonic() - kept.used > idle:
                with contextlib.suppress(RLMError):
                    await self.stop(name)

    async def end(self) -> None:
        """End all that runs for it, and its sessions."""
        self.ended = True
        works = list(self._works)
        for task in works:
            if not task.cancelling():  # a second one would cut off what the first has it clean up
                task.cancel()
        if works:
            await asyncio.wait(works)
        for name in list(self.sessions):
            with contextlib.suppress(RLMError):
                await self.stop(name)
        await asyncio.to_thread(self._scratch.remove)
