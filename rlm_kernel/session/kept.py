"""One kernel over several questions, for as long as a program wants it: what an entered RLM asks in.

It is a session (`session.manager`) in a folder of its own, which ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlm_kernel import loops
from rlm_kernel.config import Settings
from rlm_kernel.errors import RLMError, UsageError
from rlm_kernel.scratch import scratch
from rlm_kernel.session.ask import trace_path
from rlm_kernel.session.environment import Say, silent
from rlm_kernel.session.inputs import Context
from rlm_kernel.session.result import Result
from rlm_kernel.trace.reader import read_trace

if TYPE_CHECKING:
    from rlm_kernel.session.session import Session

_T = TypeVar("_T")
NAME = "kept"
MOST_IDLE = 300.0
"""Seconds that the container outlives a program that was killed, at most."""
Open = Callable[[Mapping[str, Any], Path, Say], AbstractAsyncContextManager["Session"]]


class Kept:
    """A kernel that is there from the first question to `close`. Of one event loop.

    Questions wait for one another, in the order in which they were asked.
    """

    def __init__(self, settings: Settings, open_: Open) -> None:
        """`open_` opens a session, with these changes of settings, its trace, and who hears its set-up."""
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._open = open_
        self._turn = asyncio.Lock()
        self._asking: set[asyncio.Task[Any]] = set()
        self._stack = AsyncExitStack()
        self._session: Session | None = None
        self._closing: asyncio.Task[None] | None = None
        self._say: Say = silent
        """Of the question that is asked."""

    @property
    def closed(self) -> bool:
        return self._closing is not None

    async def ask(
        self, question: str, context: Context, trace: Path | None, *, say: Say, **options: Any
    ) -> Result:
        """Answer it as `Session.ask` does, with `options`, after the context has been loaded beside what is
        there; `say` hears what is being set up. Raises UsageError once the kernel has been closed.
        """
        self._check_open()
        task = self.loop.create_task(self._ask(question, context, trace, say, options))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        caller = asyncio.current_task()
        try:
            return await task
        except asyncio.CancelledError:
            if self._closing is not None and caller is not None and not caller.cancelling():
                raise _ended() from None
            raise

    async def _ask(
        self, question: str, context: Context, trace: Path | None, say: Say, options: Mapping[str, Any]
    ) -> Result:
        async with self._turn:
            self._check_open()
            self._say = say
            session = await self._begun(question, trace)
            if context is not None:
                await session.give(context)
            return await session.ask(question, **options)

    async def _begun(self, question: str, trace: Path | None) -> Session:
        """The session, which the first question begins."""
        if self._session is not None:
            if trace is not None and trace_path(self._settings, question, trace) != self._session.trace:
                raise UsageError(
                    f"All questions of one kernel go into the same trace: {self._session.trace}.",
                    hint="Give trace= only with the first question.",
                )
            return self._session
        if not question.strip():
            raise UsageError("The question is empty.", hint='Ask something: rlm.ask("How many …?", context)')
        place = trace_path(self._settings, question, trace)
        async with AsyncExitStack() as stack:
            folder = str(stack.enter_context(scratch("kept")))
            stack.callback(_remove_unasked, place)
            changes = {"session.dir": folder, "session.idle": min(MOST_IDLE, self._settings.session.idle)}
            self._session = await stack.enter_async_context(
                self._open(changes, place, lambda text: self._say(text))
            )
            stack.push_async_callback(self._session.stop)
            self._stack = stack.pop_all()
        return self._session

    async def close(self) -> None:
        """End it: what is asked is stopped, the container and the folder are removed. The trace stays.

        However often it is cancelled meanwhile, it comes to its end first.
        """
        if self._closing is None:
            self._closing = self.loop.create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.wait({self._closing})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        self._closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        while asking := list(self._asking):
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        self._session = None
        await self._stack.aclose()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise _ended()


class Background:
    """An event loop in a thread, for programs without one: work is handed to it, and waited for."""

    def __init__(self) -> None:
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._work, args=(begun,), name="rlm-kept", daemon=True)
        self._thread.start()
        self._loop = begun.result()

    def _work(self, begun: Future[asyncio.AbstractEventLoop]) -> None:
        async def main() -> None:
            self._over = asyncio.Event()
            begun.set_result(asyncio.get_running_loop())
            await self._over.wait()

        loops.run(main())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What it gives. An interrupt of the thread that waits cancels the work and waits for its end; what
        it gives all the same is given.
        """
        done: Future[_T] = Future()
        begun: list[asyncio.Task[_T]] = []
        # In this context: Jupyter's kernel tells by it which cell an output belongs to.
        context = contextvars.copy_context()

        def begin() -> None:
            begun.append(self._loop.create_task(work, context=context))
            begun[0].add_done_callback(lambda task: _pass_on(task, done))

        self._loop.call_soon_threadsafe(begin)
        return loops.result_of(done, lambda: self._loop.call_soon_threadsafe(lambda: begun[0].cancel()))

    def close(self) -> None:
        """End the loop and its thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def _remove_unasked(trace: Path) -> None:
    """Remove the trace of a kernel that ended before any question was put: it has nothing, and looks as if it
    was running still.
    """
    with contextlib.suppress(OSError, RLMError):
        meta = read_trace(trace).meta
        if meta.name == NAME and meta.status == "running" and not meta.question:
            trace.unlink()


def _pass_on(task: asyncio.Task[_T], done: Future[_T]) -> None:
    if task.cancelled():
        done.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


def _ended() -> UsageError:
    return UsageError(
        "The kernel of this RLM has ended, because its `with` block has ended.",
        hint="Ask inside the block, or enter a new one.",
    )
