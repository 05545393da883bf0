"""Kernels for child RLMs: started before they are asked for, and no more at once than the machine's memory
has room for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import parse_size
from rlm_kernel.errors import RLMError
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.environment import Host
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.stock import Stock, discard
from rlm_kernel.tools.tool import Tool

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Grant
    from rlm_kernel.sandbox.image import ImageInfo

MOST = 64
"""Child RLMs at once, whatever the memory."""
_NO_FILES = GivenFiles()


class KernelPool:
    """The kernels of one run's child RLMs. A context manager: those that nobody took are ended with it.

    As soon as one was asked for, another is started for the next.
    """

    def __init__(self, host: Host, image: ImageInfo) -> None:
        # A child gets what it is handed, and of the opened tools those that are for children, too.
        lent = tuple(tool for tool in host.tools if isinstance(tool, Tool) and tool.children)
        self._host = replace(host, consent=None, tools=lent)
        self._image = image
        self._places: dict[int, asyncio.Semaphore] = {}
        self._counting: asyncio.Task[int] | None = None
        self._stock = Stock(self._start)
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> KernelPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_its_end(self._leave())

    async def _leave(self) -> None:
        await asyncio.gather(self._stock.empty(), *self._ending, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def kernel(
        self, level: int, grants: Sequence[Grant] = (), check: Callable[[], None] = lambda: None
    ) -> AsyncIterator[RunningKernel]:
        """A kernel for a child RLM so many levels beneath the topmost, as soon as there is a place.

        With `grants`, files of the parent, it is started anew, as these are mounted. `check` may refuse when
        there is a place. Afterwards the kernel is ended, which nobody has to wait for. Raises SetupError,
        FileRefused, KernelError.
        """
        place = await self._place(level)
        await place.acquire()
        try:
            check()
            running = await (self._with(grants) if grants else self._stock.take())
        except BaseException:
            place.release()
            raise
        try:
            yield running
        finally:
            self._afterwards(self._end(running, place))

    async def _place(self, level: int) -> asyncio.Semaphore:
        """The places of a level.

        Each has its own: those above wait for those below, and must not keep them from starting.
        """
        if level not in self._places:
            if self._counting is None:
                self._counting = asyncio.create_task(self._count())
            at_once = await asyncio.shield(self._counting)
            self._places.setdefault(
                level, asyncio.Semaphore(max(1, at_once // max(1, self._host.settings.limits.depth)))
            )
        return self._places[level]

    async def _count(self) -> int:
        """How many children there may be at once."""
        from rlm_kernel.sandbox.room import fitting

        sandbox = self._host.settings.sandbox
        return sandbox.children or min(MOST, await asyncio.to_thread(fitting, parse_size(sandbox.memory)))

    async def _end(self, running: RunningKernel, place: asyncio.Semaphore) -> None:
        try:
            await running.close()
        except RLMError:
            pass  # the engine is gone, and with it the container
        finally:
            place.release()

    async def _with(self, grants: Sequence[Grant]) -> RunningKernel:
        files = GivenFiles([grant.source for grant in grants], [grant.path for grant in grants])
        task = asyncio.create_task(self._start(files))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._afterwards(discard(task))
            raise

    def _afterwards(self, ending: Coroutine[Any, Any, None]) -> None:
        """Done in the background, and waited for at the end of the run."""
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _start(self, files: GivenFiles = _NO_FILES) -> RunningKernel:
        running = await new_kernel(self._host, self._image, files, queued=False)
        await running.start()
        return running
