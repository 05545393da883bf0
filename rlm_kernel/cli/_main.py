"""The one place where what goes wrong becomes a message and an exit code, for every command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from typer.exceptions import TyperException

from rlm_kernel.cli import _events
from rlm_kernel.cli._app import app
from rlm_kernel.cli._signals import INTERRUPTED
from rlm_kernel.cli._streams import make_safe, settle
from rlm_kernel.cli._text import print_lines
from rlm_kernel.errors import InternalError, RLMError, UsageError
from rlm_kernel.printable import printable
from rlm_kernel.system import ENDING


def main() -> NoReturn:
    """Entry point of `rlm`.

    Exit codes: 0 answered, 1 no answer (or it could not be written), 2 usage, 3 set-up, 130 interrupted.
    """
    make_safe()
    _no_tracebacks()
    try:
        _signals_interrupt()
        code = settle(_run())
    except KeyboardInterrupt:  # before the command began, or while its end was told
        code = INTERRUPTED
        _events.end(code)
    for number in ENDING:  # nothing is left to be told while Python ends
        with contextlib.suppress(ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup, or because the answer was told
                signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # outside of what `run_to_end` runs, which tells more
            print("rlm: interrupted.", file=sys.stderr)
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return _wrong_usage(error)
    except KeyboardInterrupt:
        print("rlm: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except RLMError as error:
        if isinstance(error, InternalError) and isinstance(error.__cause__, OSError) and not _here():
            return _gone()
        return _failed(error.message, error.hint, error.exit_code)
    except EOFError:
        return _failed("The input ended before you answered.", "", UsageError.exit_code)
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, OSError) and not _here():
            return _gone()
        failure = InternalError.of(error)
        return _failed(failure.message, failure.hint, failure.exit_code)


def _gone() -> int:
    return _failed(
        "The current folder no longer exists.", "Change to a folder that exists.", UsageError.exit_code
    )


def _here() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _failed(message: str, hint: str, code: int) -> int:
    if os.environ.get("RLM_DEBUG"):
        traceback.print_exc()
    head, _, traced = message.partition(
        "Traceback (most recent call last)"
    )  # as some libraries, and the container, have it in their text
    message = "\n".join([head.rstrip(), *traced.rstrip().splitlines()[-1:]])
    _events.failed(f"{message}\n{hint}".rstrip())
    print_lines([f"rlm: {message}"], sys.stderr)
    if hint:  # a command in it stays in one piece, to be copied
        print(printable(hint), file=sys.stderr)
    return code


def _wrong_usage(error: Any) -> int:
    """What Typer says of a command line that it does not understand, and what to type instead."""
    message: str = getattr(error, "message", str(error))
    if message.startswith("Usage:"):  # nothing was typed, and this is the help
        print(message, file=sys.stderr)
        return UsageError.exit_code
    with contextlib.suppress(AttributeError):
        message = error.format_message() if not hasattr(error, "possibilities") else error.message
    message = f"{message.rstrip('.')}." if message[-1:] not in "?!" else message
    if near := getattr(error, "possibilities", None):
        message += f" Did you mean {near[0]}?"
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rlm"
    return _failed(
        message, "\n".join(_advice(message, command)), getattr(error, "exit_code", UsageError.exit_code)
    )


_ELSEWHERE = {
    "'exec'": "To run your own code in the session's kernel: rlm attach",
    "'export-buffers'": "rlm status counts the buffers; rlm attach shows them: print(buffers)",
    "'reset'": "rlm stop ends the session, and rlm init FILE starts another.",
    "'init-repo'": "rlm init FOLDER loads all files of a folder.",
    "'init-dir'": "rlm init FOLDER loads all files of a folder.",
    "--workspace": "The setting session.dir says where rlm keeps sessions: RLM_SESSION__DIR=FOLDER",
    "--env-file": "rlm reads API keys from .env in the current directory.",
    "--state": "Name a session with --session NAME.",
}
"""Commands and options of an earlier RLM command line, and what does the same here."""


def _advice(message: str, command: str) -> list[str]:
    if message.startswith("No such") and (found := [to for of, to in _ELSEWHERE.items() if of in message]):
        return found
    advice = []
    if message.startswith("No such command") and " " in message.partition("'")[2].partition("'")[0]:
        advice.append('To ask a question: rlm ask "How many …?" -f FILE')
    if message.startswith("Got unexpected extra argument"):
        advice.append("Put quotes around a question or a name that has spaces. Name files with -f FILE.")
    if message.startswith("No such option") and "Did you mean" not in message:
        advice.append(f"If the text itself begins with a dash, put it last, after --: {command} … -- TEXT")
    return [*advice, f"`{command} -h` shows the help."]


def _no_tracebacks() -> None:
    """What happens where nobody can catch it (a thread, a finalizer), and what a cell is told of, is for
    --debug alone.
    """
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda event: unraisable(event) if os.environ.get("RLM_DEBUG") else None
    for name in ("asyncio", "rlm_kernel.sandbox.broker"):
        logging.getLogger(name).addFilter(lambda _record: bool(os.environ.get("RLM_DEBUG")))


def _signals_interrupt() -> None:
    """SIGTERM, and SIGHUP unless it is ignored (nohup), end a command as Ctrl-C does."""
    for number in ENDING:
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
