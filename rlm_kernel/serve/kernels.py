"""Kernels of chats: one is kept for as long as its chat may go on, and found again by what was said in it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.engine.events import Event, Listener
from rlm_kernel.errors import RLMError
from rlm_kernel.serve.files import FILES
from rlm_kernel.serve.parts import Attached, distinct

if TYPE_CHECKING:
    from rlm_kernel.session.session import Session


@dataclass
class Kernel:
    """A chat's session and what it has heard: the chat program's instructions, and files by their digest.

    `view` hears the events of the question that is asked. `keeps`: its files stay when it ends.
    """

    name: str
    trace: Path
    session: Session | None = None
    instructions: str = ""
    loaded: dict[str, str] = field(default_factory=dict)
    view: Listener | None = None
    keeps: bool = True
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _idle: asyncio.TimerHandle | None = None

    @property
    def folder(self) -> Path:
        """Of the files that clients sent: beside the trace."""
        return self.trace.with_suffix(FILES)

    def hear(self, event: Event) -> None:
        if self.view is not None:
            self.view(event)

    async def begin(self, opened: AbstractAsyncContextManager[Session]) -> None:
        async with AsyncExitStack() as stack:
            self.session = await stack.enter_async_context(opened)
            stack.push_async_callback(self.session.stop)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """End it: its container is removed, its trace stays."""
        self.rest()
        try:
            await self._stack.aclose()
        finally:
            if not self.keeps:
                await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def wait(self, end: asyncio.TimerHandle) -> None:
        """It waits for its chat until this ends it."""
        self._idle = end

    def rest(self) -> None:
        """Its idle time does not count any more."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def lacking(self, files: Sequence[Attached]) -> list[Attached]:
        """Those that it has not loaded, under names that are free."""
        new = [file for file in files if file.digest not in self.loaded]
        return distinct(new, self.loaded.values())

    def keep_files(self, named: Sequence[Attached]) -> list[Path]:
        """Write files that it lacks into its folder. Blocking. Raises OSError."""
        folder = self.folder
        if named:
            folder.mkdir(parents=True, exist_ok=True)
        for file in named:
            (folder / file.name).write_bytes(file.data)
            self.loaded[file.digest] = file.name
        return [(folder / file.name).absolute() for file in named]


class Kernels:
    """The kernels that wait for their chats to go on: so many at most, each for so many seconds."""

    def __init__(self, most: int, idle: float) -> None:
        self._most = most
        self._idle = idle
        self._waiting: dict[str, Kernel] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def folders(self) -> set[Path]:
        """With the files of chats that may go on."""
        return {kernel.folder for kernel in self._waiting.values()}

    def take(self, known_as: str) -> Kernel | None:
        """The kernel of a chat, which nobody else has then."""
        kernel = self._waiting.pop(known_as, None)
        if kernel is not None:
            kernel.rest()
        return kernel

    def put(self, known_as: str, kernel: Kernel) -> None:
        """Keep it for the chat; the one that was used least recently goes where there are too many."""
        if (other := self.take(known_as)) is not None:
            self.end(other)
        self._waiting[known_as] = kernel
        loop = asyncio.get_running_loop()
        kernel.wait(loop.call_later(self._idle, self._is_idle, known_as, kernel))
        while len(self._waiting) > self._most:
            self.end_oldest()

    def end_oldest(self) -> asyncio.Task[None] | None:
        if not self._waiting:
            return None
        oldest = self.take(next(iter(self._waiting)))
        assert oldest is not None
        return self.end(oldest)

    def end(self, kernel: Kernel) -> asyncio.Task[None]:
        """End it, beside whatever goes on."""
        task = asyncio.get_running_loop().create_task(_closed(kernel))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def close(self) -> None:
        """End them all."""
        while self.end_oldest() is not None:
            pass
        while self._ending:
            await asyncio.wait(set(self._ending))

    def _is_idle(self, known_as: str, kernel: Kernel) -> None:
        if self._waiting.get(known_as) is kernel:
            del self._waiting[known_as]
            self.end(kernel)


async def _closed(kernel: Kernel) -> None:
    with contextlib.suppress(RLMError, OSError):  # what is left of it ends by itself
        await kernel.close()


def new_name(key: str) -> str:
    """A session's name that tells whose it is."""
    return f"{key}-{secrets.token_hex(4)}"
