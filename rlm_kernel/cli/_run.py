"""How a command runs: signals, exit codes, and what is printed of a run's result."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from rlm_kernel.cli._text import json_line, printable

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rlm_kernel.session.ask import Result

_T = TypeVar("_T")
NO_ANSWER = 1
INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h\n"


def run_to_end(running: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's coroutine.

    The first Ctrl-C or SIGTERM cancels it, the second ends the process at once (the lease ends the container).
    """
    import asyncio

    async def main() -> _T:
        stop_on_signals()
        return await running

    return asyncio.run(_or_exit(main()))


def stop_on_signals() -> None:
    """Cancel the task that calls this at the first signal."""
    import asyncio

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop() -> None:
        if not task.cancelling():
            task.cancel()
        else:
            exit_now()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop)


def exit_now() -> NoReturn:
    """End the process as it is; the terminal has its cursor back, which a live line had hidden."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)  # not by sys.stderr, which is the live line's
    os._exit(INTERRUPTED)


async def _or_exit(running: Coroutine[Any, Any, _T]) -> _T:
    """The result; once a cancelled run has closed all it opened, the process ends without waiting for threads, such as an image's build."""
    import asyncio

    try:
        return await running
    except asyncio.CancelledError:
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def outcome_line(result: Result) -> str:
    """Why there is no answer, or that it was forced; "" of an answer as it should be."""
    if result.answer is None:
        return f"rlm: no answer ({result.stop_reason}). {printable(result.detail)}".rstrip()
    return f"rlm: the answer was forced: {printable(result.detail)}" if result.forced else ""


def shown(answer: str) -> str:
    """An answer as it is printed: in a terminal made safe for it, in a pipe as it is."""
    return printable(answer) if sys.stdout.isatty() else answer


def report(result: Result, *, as_json: bool, quiet: bool, told: bool = False) -> None:
    """Print the answer, unless it was `told` already, and what it took. Raises typer.Exit if there is none."""
    if as_json:
        print(json_line(result.as_json()))
    elif result.answer is not None and not told:
        print(shown(result.answer))
    if line := outcome_line(result):
        print(line, file=sys.stderr)
    if not quiet:
        print(f"{result.totals.line()}\ntrace: {printable(os.path.relpath(result.trace))}", file=sys.stderr)
    if result.answer is None:
        raise typer.Exit(NO_ANSWER)
