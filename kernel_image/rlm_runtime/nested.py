"""asyncio.run() and its like in a cell, where the kernel's own event loop runs already.

A cell waits for its code. So the kernel's loop may step aside meanwhile: another loop runs in its place, in
the same thread and context, where interrupts, outputs and host calls belong to the cell. Asked to run itself
(`get_event_loop().run_until_complete(...)`), the kernel's loop goes on with what it has, from inside of the
cell. Tasks stay asyncio's own, unlike with nest_asyncio, whose `apply()` has nothing left to do here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

_runs_inside = [0]
"""How many runs of the kernel's loop are under way inside of a cell."""


def install(loop: Any) -> None:
    """Called once, with the loop of the kernel."""
    stop = loop.stop
    # What scripts do at their end with the loop that they got: with the kernel's it would end the kernel.
    loop.stop = lambda: stop() if _runs_inside[0] else None
    loop.close = lambda: None
    base: Any = asyncio.BaseEventLoop
    base.run_until_complete = _stepping_aside(base.run_until_complete)
    base.run_forever = _stepping_aside(base.run_forever)
    runner: Any = asyncio.Runner
    runner.run = _stepping_aside(runner.run)
    asyncio.run = asyncio.runners.run = _stepping_aside(asyncio.run)
    for name in ("nest_asyncio", "nest_asyncio2"):
        module: Any = types.ModuleType(name, "Nothing to do: event loops run in cells as they are.")
        module.apply = lambda *_, **__: None
        sys.modules[name] = module


def _stepping_aside(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        running = asyncio._get_running_loop()
        if running is None:
            return method(self, *args, **kwargs)
        with _aside(running), _going_on(self) if self is running else contextlib.nullcontext():
            return method(self, *args, **kwargs)

    return run


@contextlib.contextmanager
def _aside(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """No loop runs in this thread, and no task; an interrupt raises, wherever code is."""
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio.tasks._leave_task(loop, task)  # type: ignore[attr-defined]
    asyncio._set_running_loop(None)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, _interrupt) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        asyncio._set_running_loop(loop)
        asyncio.set_event_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)  # type: ignore[attr-defined]


def _interrupt(*_: Any) -> None:
    # Not signal.default_int_handler: in its place asyncio.run() puts one that a loop without `await` does not
    # hear.
    raise KeyboardInterrupt


@contextlib.contextmanager
def _going_on(loop: Any) -> Iterator[None]:
    """A loop that runs may be run once more.

    What it counted as ready before is there afterwards, in number: it takes them by that.
    """
    thread, ready = loop._thread_id, len(loop._ready)
    loop._thread_id = None
    _runs_inside[0] += 1
    try:
        yield
    finally:
        _runs_inside[0] -= 1
        loop._thread_id = thread
        while len(loop._ready) < ready:
            nothing = asyncio.Handle(lambda: None, (), loop)
            nothing.cancel()
            loop._ready.append(nothing)
