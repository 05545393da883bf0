"""The conversation of `rlm chat`: messages and commands, from a terminal or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlm_kernel import system
from rlm_kernel.cli._answer import show_answer, show_evidence
from rlm_kernel.cli._chat_words import meant
from rlm_kernel.cli._report import outcome_line
from rlm_kernel.cli._signals import NO_ANSWER, exit_now, stop_on_signals, stopping
from rlm_kernel.cli._streams import lost
from rlm_kernel.cli._text import json_line, print_lines
from rlm_kernel.errors import InternalError, UsageError
from rlm_kernel.loops import on_signal
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.cli._chat_input import Pipe, Terminal
    from rlm_kernel.session.result import Result
    from rlm_kernel.session.session import Session

_T = TypeVar("_T")
COMMANDS = {
    "/help": "show this list",
    "/files": "list the loaded files",
    "/load PATH …": "load files, folders or globs into the session",
    "/status": "show files, variables, cost and the container",
    "/trace": "show the path of the notebook",
    "/cost": "show what the session has used so far",
    "/undo": "undo the last question",
    "/stop": "end the session and leave; the trace is kept",
    "/quit": "leave; the session continues",
}
_SHOWN = 300


class Chat:
    """A conversation in a terminal, or from a pipe."""

    def __init__(self, kept: Session, view: Any, *, quiet: bool = False, as_json: bool = False) -> None:
        self._kept = kept
        self._view = view
        self._quiet = quiet
        self._json = as_json
        self._answered = True
        self._left = self._stopped = False
        self.settled = False
        """The last message has its answer, and none is waited for."""
        self._stoppable_by_hand = sys.stdin.isatty()

    async def run(self) -> int:
        """Until the user leaves; the exit code: 1 if the last question had no answer."""
        lines = self._input()
        await self._greet()
        while True:
            self.settled = False
            try:
                # Bytes that are no UTF-8 come as lone surrogates, which no file, terminal or model takes.
                message = (await lines.line()).encode(errors="replace").decode().strip()
            except EOFError:
                self.settled = self._answered
                break
            except KeyboardInterrupt:
                self._tell("(Ctrl-D or /quit leaves)")
                continue
            if not message:
                continue
            await self._act_on(message)
            if (
                self._left or stopping() or lost() is not None
            ):  # nobody reads the answers any more, and each costs
                break
        if not self._stopped:
            from rlm_kernel.engine.totals import duration

            idle = duration(self._kept.idle)
            self._tell(
                "The session keeps running. `rlm chat` continues it, `rlm stop` ends it; it ends by itself "
                "after "
                f"{idle} without use."
            )
        return 0 if self._answered else NO_ANSWER

    def _input(self) -> Terminal | Pipe:
        from rlm_kernel.cli._chat_input import Pipe, Terminal

        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return Pipe()
        return Terminal(self._kept.folder.history, [command.split()[0] for command in COMMANDS], _is_free)

    async def _greet(self) -> None:
        self._tell_what_happened()
        root = self._kept.settings.root_llm.model or "none"
        models = {"root": root, "sub": self._kept.settings.sub_llm.model or root}
        lines = replace(await self._kept.status(), models=models).lines()
        for line in itertools.takewhile(lambda line: not line.startswith(("variables", "questions")), lines):
            self._tell(line)
        talk = await asyncio.to_thread(self._kept.conversation)
        if talk:
            question, answer = talk[-1]
            self._tell(
                f"{len(talk)} {'question' if len(talk) == 1 else 'questions'} so far, the last: "
                f"{_short(question)}"
            )
            self._tell(f"Its answer: {_short(answer)}" if answer is not None else "It has no answer.")
        self._tell("/help lists the commands; Ctrl-D leaves.")

    def _tell_what_happened(self) -> None:
        while self._kept.opened:
            self._tell(self._kept.opened.pop(0))

    async def _act_on(self, message: str) -> None:
        """What goes wrong with one message is told, and the chat goes on."""
        command = True
        try:
            message = meant(message)
            command = _is_command(message)
            await (self._stoppable(self._command(message)) if command else self._ask(message))
        except _Stopped:
            ended = self._view.ended if not command else None
            self._tell(f"Stopped{f' after {ended[1].line()}' if ended else ''}. The session continues.")
        except Exception as error:
            failure = InternalError.of(error)
            if self._json and not command:
                failed = {"question": message, "answer": None, "error": failure.message, "hint": failure.hint}
                print(json_line(failed), flush=True)
            if os.environ.get("RLM_DEBUG"):
                traceback.print_exc()
            print(f"rlm: {printable(str(failure))}", file=sys.stderr)

    async def _ask(self, question: str) -> None:
        self._answered = False
        with self._view:

            def answered(result: Result) -> None:
                with self._view.answering():
                    self._tell_what_happened()
                    self._show(question, result)
                self._answered = self.settled = True

            result = await self._stoppable(self._kept.ask(question, answered))
            if result.answer is None:
                with self._view.paused():
                    self._tell_what_happened()
                    self._show(question, result)
            with self._view.paused():
                self._tell(self._kept.used.line())

    async def _stoppable(self, doing: Coroutine[Any, Any, _T]) -> _T:
        """Run it, so that the first Ctrl-C stops it and nothing else: _Stopped; the second ends the process,
        and its container with it.

        Where messages come from a pipe, nobody could say what comes next: there Ctrl-C leaves.
        """
        if not self._stoppable_by_hand:
            return await doing
        task = asyncio.ensure_future(doing)
        with _interrupting(task):
            try:
                return await task
            except asyncio.CancelledError:
                if stopping():
                    raise
                raise _Stopped from None

    def _show(self, question: str, result: Result) -> None:
        if self._json:
            print(json_line({"question": question, **result.as_json()}), flush=True)
        elif result.answer is not None:
            show_answer(result.answer)
            if not self._quiet:
                show_evidence(result.evidence)
        if line := outcome_line(result):
            print_lines([line], sys.stderr)

    async def _command(self, message: str) -> None:
        word, *rest = message.split(maxsplit=1)
        known = {name.split()[0] for name in COMMANDS}
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            raise UsageError(
                f"There is no command {printable(word)}.",
                hint=f"Did you mean {near[0]}?" if near else "/help lists the commands.",
            )
        await getattr(self, f"_do_{word[1:]}")("".join(rest))

    async def _do_help(self, _rest: str) -> None:
        for name, what in COMMANDS.items():
            _print(f"{name:<14}{what}")
        _print(
            "Esc Enter, or a \\ at the end of a line, starts a new line. Text between ``` or triple quotes "
            "may have many lines."
        )

    async def _do_files(self, _rest: str) -> None:
        _print(*(await self._kept.status()).file_lines())

    async def _do_load(self, rest: str) -> None:
        try:
            paths = [Path(word) for word in system.words(rest)]
        except ValueError as error:
            raise UsageError(
                f"These are not valid paths: {error}.", hint="Put quotes around a path that has spaces."
            ) from None
        if not paths:
            raise UsageError("No file is named.", hint="/load PATH …")
        if Path("-") in paths:
            raise UsageError(
                "/load cannot read standard input: your messages come from there.",
                hint="Name a file instead.",
            )
        with self._view:
            lines = await self._kept.load(paths)
        from rlm_kernel.session.status import first_of

        self._tell_what_happened()
        _print(*first_of(lines))

    async def _do_status(self, _rest: str) -> None:
        _print(*(await self._kept.status()).lines())

    async def _do_trace(self, _rest: str) -> None:
        _print(str(self._kept.trace))

    async def _do_cost(self, _rest: str) -> None:
        _print((await self._kept.status()).spent())

    async def _do_undo(self, _rest: str) -> None:
        with self._view:
            said = await self._kept.undo()
        self._tell_what_happened()
        _print(said)

    async def _do_stop(self, _rest: str) -> None:
        await self._kept.stop()
        self._left = self._stopped = True
        self._tell(f"The session has ended. Its trace: {self._kept.trace}")

    async def _do_quit(self, _rest: str) -> None:
        self._left = True

    def _tell(self, line: str) -> None:
        if not self._quiet:
            self._view.tell(line)


class _Stopped(Exception):
    """The user has stopped what ran."""


def _print(*lines: str) -> None:
    """What a command has to say, on stderr: stdout is for answers."""
    print_lines(lines, sys.stderr)


def _is_command(message: str) -> bool:
    """A slash and a word. What looks like a path is a message."""
    word = message.split()[0]
    return word.startswith("/") and "/" not in word[1:] and "\n" not in message and not os.path.exists(word)


def _is_free(message: str) -> bool:
    """No model is asked."""
    try:
        return _is_command(meant(message))
    except UsageError:
        return True


def _short(text: str) -> str:
    line = " ".join(text.split())
    return printable(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")


@contextlib.contextmanager
def _interrupting(task: asyncio.Task[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if task.cancelling():
            exit_now()
        task.cancel()

    on_signal(loop, signal.SIGINT, stop)
    try:
        yield
    finally:
        stop_on_signals()
