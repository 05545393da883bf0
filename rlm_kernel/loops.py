"""Event loops, as operating systems have them: the one that everything runs on, its signals, unix sockets and
named pipes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
HAS_UNIX_SOCKETS = sys.platform != "win32"
"""Whether the event loop and Jupyter's programs have them."""
Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on the one kind of loop that does all we need: on Windows that is the proactor, the
    usual one, which alone has named pipes (Docker's) and child processes. Who set a policy for Jupyter's sake
    does not change it.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform == "win32":
        factory = asyncio.ProactorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def waited_for(asking: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
    """What it gives, for code that waits for it: from a loop of its own, and where one is running in this
    thread already, as in a notebook, from one in another thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(asking(*args, **options))
    return _in_thread(asking(*args, **options))


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """What it gives, from a loop in a thread. An interrupt of the thread that waits, as by a notebook's stop
    button, cancels the work, as in `result_of`.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def main() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1) as pool:
        # In this context: Jupyter's kernel tells by it which cell an output belongs to, and OpenTelemetry
        # which span is current.
        running = pool.submit(contextvars.copy_context().run, run, main())

        def cancel() -> None:
            loop, task = begun.result()
            assert task is not None
            loop.call_soon_threadsafe(task.cancel)

        return result_of(running, cancel)


_LOOK = 0.5
"""Seconds between two looks for an interrupt."""


def result_of(working: Future[T], cancel: Callable[[], object]) -> T:
    """What work in another thread gives. An interrupt of the thread that waits, or of its task, has the work
    cancelled, and is raised when that has ended; what the work gives all the same is given.
    """
    try:
        return _result_of(working, _cancelled_here())
    except BaseException as interrupt:
        if working.done():
            raise
        cancel()
        try:
            return _result_of(working)
        except asyncio.CancelledError:
            raise interrupt from None


def _result_of(working: Future[T], stopped: Callable[[], bool] = lambda: False) -> T:
    # In steps: on Windows nothing interrupts a wait without an end, and elsewhere one that comes just before
    # the wait, or in another thread, does not.
    while not working.done():
        if stopped():
            raise asyncio.CancelledError
        wait((working,), _LOOK)
    return working.result()


def _cancelled_here() -> Callable[[], bool]:
    """Whether the task of this thread has been cancelled since then. `asyncio.run` takes Ctrl-C so, and its
    loop, which stands still while something here is waited for, would not come to it.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    before = 0 if task is None else task.cancelling()
    return lambda: task is not None and task.cancelling() > before


PATIENCE = 5.0
"""Seconds in which what must come to its end does so, after it was cancelled a second time."""


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What the work gives, which a cancellation does not cut off: it is raised when the work has ended, the
    very one, as anyio knows those of its own by what they say.

    Cancelled again, the caller waits PATIENCE at most; then the work goes on by itself.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    until = None
    while not task.done() and (until is None or time.monotonic() < until):
        try:
            await asyncio.wait({task}, timeout=None if until is None else until - time.monotonic())
        except asyncio.CancelledError as error:
            if cancelled is not None and until is None:
                until = time.monotonic() + PATIENCE
            cancelled = cancelled or error
    if cancelled is None:
        return task.result()
    if task.done() and not task.cancelled():
        task.exception()  # the cancellation comes before it
    raise cancelled


async def serve_unix(carry: Carry, path: str) -> asyncio.Server:
    """A server at a unix socket, which does not serve yet. Raises OSError."""
    if sys.platform == "win32":
        raise NotImplementedError
    return await asyncio.start_unix_server(carry, path, start_serving=False)


async def connect_unix(protocol: Callable[[], asyncio.BaseProtocol], path: str) -> None:
    """Connect to a unix socket. Raises OSError."""
    if sys.platform == "win32":
        raise NotImplementedError
    await asyncio.get_running_loop().create_unix_connection(protocol, path)


async def connect_pipe(protocol: Callable[[], asyncio.BaseProtocol], path: str) -> None:
    """Connect to a named pipe of Windows, written with either slash. Raises OSError."""
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "create_pipe_connection"):
        raise OSError(
            errno.ENOTSUP,
            "this event loop does not support named pipes: use asyncio.ProactorEventLoop, or Docker over tcp",
            path,
        )
    await loop.create_pipe_connection(protocol, path.replace("/", "\\"))


def on_signal(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], object]) -> None:
    """Have `call` called on the loop when the signal comes. To be called in the main thread."""
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # Windows: the signal wakes the loop all the same
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))


def ignore_signals(loop: asyncio.AbstractEventLoop, numbers: tuple[signal.Signals, ...]) -> None:
    """Have these signals do nothing from now on, without a moment in which they would do what the system does
    by itself.
    """
    before = None
    if sys.platform != "win32":
        # Held back meanwhile: the loop would put the system's own handlers in the place of ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32" and before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_hangup_ignored(number: int) -> bool:
    """Whether a signal of a closed terminal is ignored, as by nohup."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN
