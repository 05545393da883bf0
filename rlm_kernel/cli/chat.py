"""`rlm chat`: many questions over one live kernel."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import shlex
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rlm_kernel.cli._run import INTERRUPTED, NO_ANSWER, account, outcome_line, run_to_end, stop_on_signals
from rlm_kernel.cli._text import printable
from rlm_kernel.cli.session import CALLS, CONFIG, COST, FILES, MODEL, QUIET, SESSION, SUB_MODEL, TIMEOUT, TURNS, changes_of, open_
from rlm_kernel.errors import RLMError, UsageError

if TYPE_CHECKING:
    from rlm_kernel.cli._chat_input import Pipe, Terminal
    from rlm_kernel.session.ask import Result
    from rlm_kernel.session.kept import KeptSession

_T = TypeVar("_T")
COMMANDS = {
    "/help": "this list",
    "/files": "the loaded files",
    "/load PATH …": "load files, folders or globs into the session",
    "/status": "files, variables, what was spent, the container",
    "/trace": "where the notebook is",
    "/cost": "what the session has used so far",
    "/undo": "take the last question back",
    "/quit": "leave; the session stays",
}
_SHOWN = 300


def chat(
    file: FILES = None,
    session: SESSION = "default",
    model: MODEL = None,
    sub_model: SUB_MODEL = None,
    max_turns: TURNS = None,
    max_calls: CALLS = None,
    max_cost: COST = None,
    timeout: TIMEOUT = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each answer, as rlm ask does.")] = False,
    quiet: QUIET = False,
    config: CONFIG = None,
) -> None:
    """Ask many questions over one live kernel: that of the session of this folder, which is begun if there is none.

    A message is a question; /help lists the commands. Ctrl-C stops the running question, Ctrl-D leaves; the session stays, and with it
    files, variables and conversation. From a pipe, each line is a message, and only the answers go to stdout.
    """
    changes = changes_of(model, sub_model, max_turns, max_calls, max_cost, timeout)

    async def main() -> int:
        from rlm_kernel.cli._live import LiveView

        view = LiveView(quiet=quiet, lines=False)
        consent = sys.stdin.isatty() and not quiet and not as_json
        async with contextlib.AsyncExitStack() as stack:
            with view:
                kept = await stack.enter_async_context(open_(session, file, config, changes, view, "rlm chat", consent=consent))
            return await Chat(kept, view, quiet=quiet, as_json=as_json).run()

    code = run_to_end(main())
    if code:
        raise typer.Exit(code)


class Chat:
    """A conversation in a terminal, or from a pipe."""

    def __init__(self, kept: KeptSession, view: Any, *, quiet: bool = False, as_json: bool = False) -> None:
        self._kept = kept
        self._view = view
        self._quiet = quiet
        self._json = as_json
        self._answered = True

    async def run(self) -> int:
        """Until the user leaves; the exit code: 1 if the last question had no answer."""
        lines = self._input()
        await self._greet()
        while True:
            try:
                message = (await lines.line()).strip()
            except EOFError:
                break
            except KeyboardInterrupt:
                self._tell("(Ctrl-D or /quit leaves)")
                continue
            if message in ("/quit", "/exit"):
                break
            if message:
                await self._safely(self._command(message) if _is_command(message) else self._ask(message))
        from rlm_kernel.session.status import duration

        idle = duration(self._kept.idle)
        self._tell(f"The session stays: `rlm chat` takes it up, `rlm stop` ends it; it ends by itself after {idle} without use.")
        return 0 if self._answered else NO_ANSWER

    def _input(self) -> Terminal | Pipe:
        from rlm_kernel.cli._chat_input import Pipe, Terminal

        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return Pipe()
        return Terminal(self._kept.folder.history, [command.split()[0] for command in COMMANDS])

    async def _greet(self) -> None:
        for line in self._kept.opened:
            self._tell(line)
        status = await self._kept.status()
        for line in status.lines():
            if line.startswith(("session", "trace", "models", "files", "            ")):
                self._tell(line)
        talk = self._kept.conversation()
        if talk:
            question, answer = talk[-1]
            self._tell(f"{len(talk)} {'question' if len(talk) == 1 else 'questions'} so far, the last: {_short(question)}")
            self._tell(f"Its answer: {_short(answer)}" if answer is not None else "It has no answer.")
        self._tell("/help lists the commands; Ctrl-D leaves.")

    async def _safely(self, doing: Coroutine[Any, Any, None]) -> None:
        """What goes wrong with one message is told, and the chat goes on."""
        try:
            await doing
        except RLMError as error:
            if os.environ.get("RLM_DEBUG"):
                raise
            print(f"rlm: {printable(str(error))}", file=sys.stderr)

    async def _ask(self, question: str) -> None:
        self._answered = False
        with self._view:
            try:
                result = await _stoppable(self._kept.ask(question))
            except asyncio.CancelledError:
                if _leaving():
                    raise
                result = None
        if result is None:
            self._tell("Stopped. The session goes on.")
            return
        self._answered = result.answer is not None
        self._show(question, result)
        with self._view, contextlib.suppress(asyncio.CancelledError):
            await _stoppable(self._kept.remember())

    def _show(self, question: str, result: Result) -> None:
        if self._json:
            print(json.dumps({"question": question, **result.as_json()}, ensure_ascii=False), flush=True)
        elif result.answer is not None:
            show_answer(result.answer)
        if line := outcome_line(result):
            print(line, file=sys.stderr)
        self._tell(account(result))

    async def _command(self, message: str) -> None:
        word, _, rest = message.partition(" ")
        known = {name.split()[0] for name in COMMANDS}
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            raise UsageError(f"There is no {printable(word)}.", hint=f"Did you mean {near[0]}?" if near else "/help lists what there is.")
        await getattr(self, f"_do_{word[1:]}")(rest.strip())

    async def _do_help(self, _rest: str) -> None:
        for name, what in COMMANDS.items():
            print(f"{name:<14}{what}")
        print("Esc Enter, or a \\ at its end, begins a new line; what stands between ``` or triple quotes may have many.")

    async def _do_files(self, _rest: str) -> None:
        lines = (await self._kept.status()).file_lines()
        print(printable("\n".join(lines)))

    async def _do_load(self, rest: str) -> None:
        try:
            paths = [Path(word) for word in shlex.split(rest)]
        except ValueError as error:
            raise UsageError(f"That cannot be read as paths: {error}.", hint="Put a path with spaces into quotes.") from None
        if not paths:
            raise UsageError("Nothing to load.", hint="/load PATH …")
        with self._view:
            lines = await self._kept.load(paths)
        print(printable("\n".join(lines)))

    async def _do_status(self, _rest: str) -> None:
        print(printable("\n".join((await self._kept.status()).lines())))

    async def _do_trace(self, _rest: str) -> None:
        print(printable(str(self._kept.trace)))

    async def _do_cost(self, _rest: str) -> None:
        print((await self._kept.status()).spent())

    async def _do_undo(self, _rest: str) -> None:
        with self._view:
            said = await self._kept.undo()
        print(printable(said))

    def _tell(self, line: str) -> None:
        if not self._quiet:
            self._view.tell(line)


def show_answer(answer: str) -> None:
    """Markdown in a terminal, the text as it is in a pipe."""
    if not sys.stdout.isatty():
        print(answer, flush=True)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(printable(answer), hyperlinks=False))


def _is_command(message: str) -> bool:
    """A slash and a word. What looks like a path is a message."""
    word = message.split()[0]
    return word.startswith("/") and "/" not in word[1:] and "\n" not in message and not Path(word).exists()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return printable(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")


async def _stoppable(doing: Coroutine[Any, Any, _T]) -> _T:
    """Run it as a task that the first Ctrl-C cancels; the second ends the process, and the lease the container's owner."""
    task = asyncio.ensure_future(doing)
    with _interrupting(task):
        try:
            return await task
        except asyncio.CancelledError:
            if not task.done():  # it is we who are cancelled
                task.cancel()
                await asyncio.wait([task])
            raise


@contextlib.contextmanager
def _interrupting(task: asyncio.Task[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if task.cancelling():
            os._exit(INTERRUPTED)
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        stop_on_signals()


def _leaving() -> bool:
    """The chat itself is cancelled, not only its question."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
