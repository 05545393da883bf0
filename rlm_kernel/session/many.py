"""Many questions with the same settings: what they have in common is made ready once, and kernels are started
before they are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel.config import Settings, parse_size, with_changes
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.engine.purse import Purse
from rlm_kernel.errors import RLMError, UsageError, backstop
from rlm_kernel.loops import to_its_end
from rlm_kernel.session.answering import Asked, Family, answer
from rlm_kernel.session.ask import look_at
from rlm_kernel.session.delivery import Give, answer_first
from rlm_kernel.session.environment import Host, Say, ledger_of, silent
from rlm_kernel.session.inputs import Context
from rlm_kernel.session.listeners import with_spans
from rlm_kernel.session.models import ModelSet, models_of
from rlm_kernel.session.pool import KernelPool
from rlm_kernel.session.result import Result
from rlm_kernel.session.running import GivenFiles, RunningKernel, new_kernel
from rlm_kernel.session.setup import Ready, set_up
from rlm_kernel.session.stock import Stock
from rlm_kernel.session.toolbox import opened

if TYPE_CHECKING:
    from rlm_kernel.tools.tool import AllowCall, Tool, ToolSource

MOST = 64
"""Questions at once, whatever the memory."""
LOOK_SECONDS = 1.0
"""Between two looks at who else waits, while kernels are in stock."""
_COUNT_EVERY = 5
"""Looks between two counts of how many kernels there is room for."""
_MOST_LATE, _LATE_BYTES = 20, 64 << 20
"""Files, and their bytes, that a kernel which runs is given. More are mounted where they lie, in a container
that is made for them.
"""
_CORES = os.cpu_count() or 1


class Asker:
    """Asks questions, each in a container of its own, with a trace of its own.

    An async context manager, of one event loop. When it has been left, nothing of it is there any more.
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
        self._host = Host(settings, say, tools=tools, allow_call=allow_call)
        self._given, self._purse = models, purse
        self._stack = AsyncExitStack()
        self._ready: Ready | None = None
        self._stock = Stock(self._start)
        self._seats = _Seats()
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def places(self) -> int:
        """How many questions can be answered at once, now."""
        return self._seats.many

    async def __aenter__(self) -> Self:
        """Open the models and tools, and find the image. Raises SetupError, ConfigError, UsageError."""
        if self._ready is not None:
            raise UsageError("This asker was entered already.", hint="Make another one.")
        try:
            self._host = host = await self._stack.enter_async_context(opened(self._host))
            models = models_of(host.settings, self._given, host.say)
            self._ready = await self._stack.enter_async_context(set_up(host, models))
            await self._count()
            self._watching = asyncio.create_task(self._watch())
            self._stock.fill()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: Any) -> None:
        """Questions that are asked still are the caller's to cancel before."""
        await to_its_end(self._leave())

    async def _leave(self) -> None:
        try:
            if self._watching is not None:
                await _stop(self._watching)  # else it might begin others
            self._stock.most = 0
            await self._stock.empty()
            await asyncio.gather(*self._ending, return_exceptions=True)
        finally:
            await self._stack.aclose()

    @backstop
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
        """As `session.ask.ask`; it waits until there is a place.

        `changes`: settings of this question alone, by dotted name. Raises what `session.ask.ask` raises.
        """
        if self._ready is None:
            raise UsageError("This asker was not entered.", hint="async with Asker(…) as asker: …")
        ready, changed = self._ready, changes or {}
        host = replace(self._host, settings=with_changes(self._host.settings, changed))

        async def work(give: Give) -> Result:
            asked, files = await look_at(question, context, schema, trace, host)
            asked = replace(asked, view=await with_spans(view, host.say))
            await self._seats.take()
            try:
                running = await self._kernel(host, ready, files, changed)
            except BaseException:
                self._seats.free()
                raise
            try:
                async with self._models(host, ready, changed) as models:
                    return await self._answered(asked, running, models, give)
            finally:
                self._afterwards(self._end(running))

        return await answer_first(work, lambda _result: None, host.say)

    async def _answered(self, asked: Asked, running: RunningKernel, models: ModelSet, give: Give) -> Result:
        environment = running.environment
        environment.run.describe(trace=asked.trace, question=asked.question.text)
        async with KernelPool(environment.host, environment.image) as kernels:
            outcome, totals = await answer(
                asked,
                running,
                Family(models, kernels),
                ledger_of(environment.host, purse=self._purse),
                lambda outcome, totals: give(Result.of(outcome, totals, asked.trace)),
            )
        return Result.of(outcome, totals, asked.trace)

    @contextlib.asynccontextmanager
    async def _models(self, host: Host, ready: Ready, changed: Mapping[str, Any]) -> AsyncIterator[ModelSet]:
        """The models of all questions, or those of one that is asked of others, or in other words."""
        if all(name.startswith(("limits.", "sandbox.", "trace.")) for name in changed):
            yield ready.chosen
            return
        async with models_of(host.settings, self._given, host.say) as own:
            yield own

    async def _kernel(
        self, host: Host, ready: Ready, files: GivenFiles, changed: Mapping[str, Any]
    ) -> RunningKernel:
        """A kernel with the files of a question: of the stock, or for it alone. Raises what these raise."""
        alike = not any(name.startswith("sandbox.") or name == "limits.cell_timeout" for name in changed)
        if not alike or await asyncio.to_thread(_are_many, files.paths):
            return await new_kernel(host, ready.image, files)
        running = await self._stock.take()
        grants = running.environment.grants
        if grants.shares.sent and files.paths:  # at once, they are sent to such an engine once for all
            self._stock.put_back(running)
            return await new_kernel(host, ready.image, files)
        try:
            await asyncio.to_thread(grants.allow, files.named)
            for path, name in itertools.zip_longest(files.paths, files.known_as):
                await grants.add(path, host.say, name)
        except BaseException:
            self._afterwards(_close(running))
            raise
        running.environment = replace(running.environment, host=host)
        return running

    async def _start(self) -> RunningKernel:
        assert self._ready is not None
        running = await new_kernel(self._host, self._ready.image, GivenFiles())
        await running.start()
        return running

    async def _end(self, running: RunningKernel) -> None:
        try:
            await _close(running)
        finally:
            self._seats.free()

    def _afterwards(self, ending: Coroutine[Any, Any, None]) -> None:
        """Done in the background, and waited for when this is left."""
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _watch(self) -> None:
        """Have as many places as there is room for, and kernels in stock, but while others wait."""
        from rlm_kernel.sandbox.room import others_wait

        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            with contextlib.suppress(RLMError):  # the engine is gone: whoever asks is told
                if await asyncio.to_thread(others_wait):
                    self._stock.most = 0
                    await self._stock.empty()
                elif looks % _COUNT_EVERY == 0:
                    await self._count()
                    self._stock.fill()

    async def _count(self) -> None:
        """Have a third of the room for kernels that start, as far as these keep the processors busy."""
        from rlm_kernel.sandbox.room import fitting

        memory = parse_size(self._host.settings.sandbox.memory)
        more = await asyncio.to_thread(fitting, memory)
        kernels = max(1, min(MOST, self._seats.taken + len(self._stock) + more))
        self._stock.most = min(_CORES, kernels // 3)
        self._seats.have(kernels - self._stock.most)


class _Seats:
    """Places that are taken in the order in which they are asked for."""

    def __init__(self) -> None:
        self.many = 1
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def have(self, many: int) -> None:
        """From now on there are so many."""
        self.many = many
        self._let_in()

    async def take(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._let_in()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.free()
            raise

    def free(self) -> None:
        self.taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.taken < self.many:
            if not (future := self._waiting.popleft()).done():
                self.taken += 1
                future.set_result(None)


def _are_many(paths: Sequence[Path]) -> bool:
    """Whether the files are too many or too large to be given to a kernel that runs. Blocking."""
    if len(paths) > _MOST_LATE or any(path.is_dir() for path in paths):
        return True
    return sum(path.stat().st_size for path in paths) > _LATE_BYTES


async def _close(running: RunningKernel) -> None:
    with contextlib.suppress(RLMError):  # the engine is gone, and with it the container
        await running.close()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
