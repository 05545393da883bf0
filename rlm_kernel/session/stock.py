"""Kernels that are started before they are asked for, each for the one who takes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from rlm_kernel.errors import RLMError
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.running import RunningKernel


class Stock:
    """Kernels in stock. Owned by one event loop; `empty` ends those that nobody took."""

    def __init__(self, start: Callable[[], Awaitable[RunningKernel]]) -> None:
        """`start`: gives a kernel that runs; cancelled, it leaves nothing."""
        self._start = start
        self._ready: deque[asyncio.Task[RunningKernel]] = deque()
        self.most = 1
        """How many are kept ready."""

    def __len__(self) -> int:
        return len(self._ready)

    async def take(self) -> RunningKernel:
        """One that runs: of the stock, or started now. Raises what starting one raises."""
        while True:
            ahead = bool(self._ready)
            task = self._ready.popleft() if ahead else self._started()
            try:
                running = await asyncio.shield(task)
            except asyncio.CancelledError:
                self._ready.appendleft(task)  # for the next
                raise
            except RLMError:
                if not ahead:
                    raise
                continue  # the machine may have had no room then, and have it now
            self.fill()
            if running.kernel.alive:
                return running
            await _close(running)

    def put_back(self, running: RunningKernel) -> None:
        """One that was taken and has done nothing."""

        async def given() -> RunningKernel:
            return running

        self._ready.appendleft(asyncio.create_task(given()))

    def fill(self) -> None:
        """Start as many as are to be ready."""
        while len(self._ready) < self.most:
            self._ready.append(self._started())

    async def empty(self) -> None:
        """End them all; those that start are stopped. A cancellation leaves none of them."""
        tasks = list(self._ready)
        self._ready.clear()
        await to_its_end(_discard_all(tasks))

    def _started(self) -> asyncio.Task[RunningKernel]:
        async def start() -> RunningKernel:
            return await self._start()

        task = asyncio.create_task(start())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever takes it is told
        return task


async def _discard_all(tasks: Sequence[asyncio.Task[RunningKernel]]) -> None:
    await asyncio.gather(*map(discard, tasks))


async def discard(task: asyncio.Task[RunningKernel]) -> None:
    """End a kernel that starts, or has started; if it has not, nobody is told."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await _close(task.result())


async def _close(running: RunningKernel) -> None:
    with contextlib.suppress(RLMError):  # the engine is gone, and with it the container
        await running.close()
