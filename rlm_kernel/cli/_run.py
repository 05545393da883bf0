"""How a command runs: signals, exit codes, and what is printed of a run's result."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from rlm_kernel import system
from rlm_kernel.cli._streams import lost, settle
from rlm_kernel.cli._text import json_line, printable, shown_path
from rlm_kernel.errors import RLMError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.session.ask import Result

_T = TypeVar("_T")
NOTHING_ASKED = " before a model was asked; nothing was spent."
NO_ANSWER = 1
INTERRUPTED = 130
_END_SECONDS = 5.0
"""How long the process has to end once all is done and the answer told."""
_SHOW_CURSOR = "\x1b[?25h\n"
_LEFT = "rlm: ended at once. The container ends by itself. The trace may lack what the running cell has printed.\n"


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

    The first Ctrl-C, SIGTERM or SIGHUP cancels it, the second ends the process at once (and its container ends with it). `so_far`: what is
    told then, or where it fails: what was done, what it cost, how to go on; `before`: what is told as long as it has nothing to say.
    `answered`: the result, as soon as that is told to the user; whatever comes then, it is the result.
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
    """All is done and the answer told: a signal between here and the end of the process must not make a failure of it."""
    import asyncio

    from rlm_kernel.loops import ignore_signals

    ignore_signals(asyncio.get_running_loop(), system.ENDING)


def stopping() -> bool:
    """Whether the task that calls this was told to stop: with an answer, that alone ends what comes after it."""
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def exit_now() -> NoReturn:
    """End the process as it is; the terminal has its cursor back, which a live line had hidden. With an answer that was told it is no
    failure.
    """
    answered = _told()
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
    """The result; once a cancelled run has closed all it opened, the process ends without waiting for threads, such as an image's build.

    With an answer that was told nothing that hangs keeps the process: the timer in `ending` does not wait for the loop's threads.
    """
    import asyncio

    try:
        result = await running
    except asyncio.CancelledError:
        told = answered()
        if told is None:
            print(f"rlm: interrupted{so_far() or before}", file=sys.stderr)
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


class Report:
    """What a command prints of its result: the answer as soon as it is there, what it took in the end.

    `result`: what was told; None as long as there is no answer.
    """

    def __init__(self, view: LiveView, *, as_json: bool, quiet: bool) -> None:
        self._view = view
        self._json = as_json
        self._quiet = quiet
        self.result: Result | None = None

    def answered(self, result: Result) -> None:
        """Print the answer, or the JSON object; flushed, so that it is out whatever comes next."""
        self._view.above(self._worded(result))
        self.result = result

    def _worded(self, result: Result) -> str:
        return json_line(result.as_json()) if self._json else shown(result.answer or "")

    def end(self, result: Result) -> None:
        """Print the rest. Raises typer.Exit if there is no answer."""
        if self.result is None and (self._json or result.answer is not None):  # none, or what shows it has failed
            print(self._worded(result))
        if line := outcome_line(result):
            print(line, file=sys.stderr)
        if not self._quiet:
            print(result.totals.line(), file=sys.stderr)
        if not self._quiet or lost() is not None:
            print(f"trace: {printable(shown_path(result.trace))}", file=sys.stderr)
        if result.answer is None:
            raise typer.Exit(NO_ANSWER)


def so_far_of(view: LiveView, trace: Callable[[], Path], go_on: str = "") -> Callable[[], str]:
    """For `run_to_end`: " after 3 turns … To go on: rlm resume TRACE". `go_on`: the command to type, instead of `rlm resume TRACE`."""

    def tell() -> str:
        if view.ended is None:
            return ""
        outcome, totals = view.ended
        if totals.nothing and not view.asked:
            return ""
        path = system.quoted(shown_path(trace()))
        if outcome.answer is not None:
            return f" after the answer, which is in the trace: {path}"
        done = f"after {totals.line()}" if totals.turns else "during the root model's first reply, for which the provider may charge"
        return f" {done}. The trace has all of it; to go on: {go_on or f'rlm resume {path}'}"

    return tell


def worded(question: str) -> str:
    """A question as it was typed, in bytes of any encoding; `-` is standard input. Raises UsageError."""
    try:
        typed = os.fsencode(question)
        if question == "-":
            if sys.stdin.isatty():
                raise UsageError("Standard input is a terminal: there is no question in it.", hint="cat question.txt | rlm ask - -f FILE")
            typed = sys.stdin.buffer.read()
    except UnicodeEncodeError:
        typed = question.encode(errors="replace")
    except OSError as error:
        raise UsageError(f"The question cannot be read from standard input: {error.strerror or error}.") from error
    return typed.decode(errors="replace").strip()


def outcome_line(result: Result) -> str:
    """Why there is no answer, or that it is a best-effort answer; "" of an answer as it should be."""
    if result.answer is None:
        return f"rlm: no answer ({result.stop_reason}). {printable(result.detail)}".rstrip()
    return f"rlm: best-effort answer. {printable(result.detail)}" if result.forced else ""


def shown(answer: str) -> str:
    """An answer as it is printed: in a terminal made safe for it, in a pipe as it is."""
    return printable(answer) if sys.stdout.isatty() else answer
