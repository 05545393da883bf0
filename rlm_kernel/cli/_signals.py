"""How a command runs to its end: signals, and what the process exits with."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rlm_kernel import system
from rlm_kernel.cli import _events
from rlm_kernel.cli._streams import settle
from rlm_kernel.cli._text import print_lines
from rlm_kernel.errors import RLMError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")
NO_ANSWER = 1
INTERRUPTED = _events.INTERRUPTED
_END_SECONDS = 5.0
"""How long the process has to end once all is done and the answer told."""
_AT_ONCE = 0.5
"""How long one who wants to leave at once waits for the reader of `--json-events`."""
_SHOW_CURSOR = "\x1b[?25h\n"
_LEFT = "rlm: killed. The container stops by itself. The trace may lack the output of the running cell.\n"


def _told() -> bool:
    """Whether the command's answer was told; replaced by that of the command in progress."""
    return False


def run_to_end(
    running: Coroutine[Any, Any, _T],
    so_far: Callable[[], str] = lambda: "",
    *,
    before: str = ".",
    answered: Callable[[], _T | None] = lambda: None,
) -> _T:
    """Run a command's coroutine.

    The first Ctrl-C, SIGTERM or SIGHUP cancels it, the second ends the process at once (and its container
    ends with it). `so_far`: what is told then, or where it fails: what was done, what it cost, how to go on;
    `before`: what is told as long as it has nothing to say. `answered`: the result, as soon as that is told
    to the user; whatever comes then, it is the result.
    """
    from rlm_kernel.loops import run

    global _told
    _told = lambda: answered() is not None  # noqa: E731

    async def main() -> _T:
        stop_on_signals()
        return await running

    ending: list[threading.Timer] = []
    try:
        return run(_or_exit(main(), so_far, before, answered, ending))
    finally:
        for timer in ending:
            timer.cancel()


def stop_on_signals() -> None:
    """Cancel the task that calls this at the first signal."""
    import asyncio

    from rlm_kernel.loops import is_hangup_ignored, on_signal

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop() -> None:
        if not task.cancelling():
            task.cancel()
        else:
            exit_now()

    for number in system.ENDING:
        if not is_hangup_ignored(number):
            on_signal(loop, number, stop)


def _hear_no_more_signals() -> None:
    """All is done and the answer told: a signal between here and the end of the process must not make a
    failure of it.
    """
    import asyncio

    from rlm_kernel.loops import ignore_signals

    ignore_signals(asyncio.get_running_loop(), system.ENDING)


def stopping() -> bool:
    """Whether the task that calls this was told to stop: with an answer, that alone ends what comes after
    it.
    """
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def exit_now() -> NoReturn:
    """End the process as it is; the terminal has its cursor back, which a live line had hidden.

    With an answer that was told it is no failure.
    """
    answered = _told()
    if _events.on():
        _events.end(0 if answered else INTERRUPTED, _AT_ONCE)
        os._exit(0 if answered else INTERRUPTED)
    with contextlib.suppress(OSError):  # not by sys.stderr, which is the live line's
        os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}{'' if answered else _LEFT}".encode())
    os._exit(settle(0) if answered else INTERRUPTED)


async def _or_exit(
    running: Coroutine[Any, Any, _T],
    so_far: Callable[[], str],
    before: str,
    answered: Callable[[], _T | None],
    ending: list[threading.Timer],
) -> _T:
    """The result; once a cancelled run has closed all it opened, the process ends without waiting for
    threads, such as an image's build.

    With an answer that was told nothing that hangs keeps the process: the timer in `ending` does not wait for
    the loop's threads.
    """
    import asyncio

    try:
        result = await running
    except asyncio.CancelledError:
        told = answered()
        if told is None:
            said, _, command = f"rlm: interrupted{so_far() or before}".partition("\n")
            print_lines([said], sys.stderr)
            if command:  # in one piece, to be copied
                print(command, file=sys.stderr)
            os._exit(settle(INTERRUPTED))
        result = told
    except RLMError as error:
        told = answered()
        if told is None:
            if so_far_told := so_far():
                error.hint = f"{error.hint}\nThe run ended{so_far_told}".lstrip()
            raise
        print(f"rlm: {printable(str(error))}", file=sys.stderr)
        result = told
    if answered() is not None:
        ending.append(threading.Timer(_END_SECONDS, lambda: os._exit(settle(0))))
        ending[0].daemon = True
        ending[0].start()
        _hear_no_more_signals()
    return result
