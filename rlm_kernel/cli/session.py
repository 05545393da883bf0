"""`rlm init`, `rlm run`, `rlm status`, `rlm stop`: a session that is kept between commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._report import run_and_report, worded
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line, print_lines, shown_path
from rlm_kernel.cli.ask import QUESTION
from rlm_kernel.cli.options import FILES, JSON, SESSION, RunOptions, SettingsOptions, with_options
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rlm_kernel.session.result import Result
    from rlm_kernel.session.session import Session
    from rlm_kernel.session.status import SessionStatus
    from rlm_kernel.views.live import LiveView


@with_options
def init(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Files, folders and globs to load; - is stdin.",
            show_default=False,
            autocompletion=_complete.files,
        ),
    ] = None,
    file: FILES = None,
    session: SESSION = "default",
    *,
    options: RunOptions,
) -> None:
    """Start a session: load files into a kernel that keeps running.

    Then ask with rlm run or rlm chat. The folder .rlm_state/ remembers it. Models, limits, profile and
    runtime that you give here apply to all its questions.
    """
    changes, tools = options.changes(), options.given_tools()

    async def main() -> SessionStatus:
        with options.view() as view:
            loaded = [*(files or ()), *(file or ())]
            more: dict[str, Any] = {"new": True, "with_models": False, **tools}
            async with open_(session, loaded, options.config, changes, view, "rlm init", **more) as kept:
                return await kept.status()

    begun = run_to_end(main(), before="; no session was started.")
    if options.as_json:
        print(json_line(begun.as_json()))
    elif not options.quiet:
        print_lines(begun.lines(), sys.stderr)


@with_options
def run(question: QUESTION, file: FILES = None, session: SESSION = "default", *, options: RunOptions) -> None:
    """Ask a question in this folder's session.

    A session is started if there is none. The question sees the session's files, variables and conversation.
    The answer goes to stdout, everything else to stderr. Exit codes: as for rlm ask.
    """
    question = worded(question)
    changes = options.changes()
    traces: list[Path] = []

    async def start(
        *,
        view: LiveView,
        say: Callable[[str], None],
        answered: Callable[[Result], None],
        **asks: Any,
    ) -> Result:
        async with open_(session, file, options.config, changes, view, "rlm run", **asks) as kept:
            traces.append(kept.trace)
            for line in kept.opened:
                view.tell(line)
            return await kept.ask(question, answered)

    run_and_report(options, start, lambda: traces[-1], go_on="rlm run QUESTION")


@with_options
def status(session: SESSION = "default", as_json: JSON = False, *, options: SettingsOptions) -> None:
    """Show a session: files, variables, cost, time left."""
    from rlm_kernel.session.status import look_at

    found = run_to_end(look_at(session, config_file=options.config, changes=options.changes()))
    if as_json:
        print(json_line(found.as_json()))
    else:
        print_lines(found.lines())


@with_options
def stop(
    session: SESSION = "default",
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Remove only the container; the next question rebuilds it from the trace."
        ),
    ] = False,
    *,
    options: SettingsOptions,
) -> None:
    """End a session: remove its container, keep its trace."""
    from rlm_kernel.session.manager import stop_session

    state = run_to_end(
        stop_session(session, keep=keep, config_file=options.config, changes=options.changes())
    )
    trace = shown_path(state.trace)
    if keep:
        print(
            "rlm: the container was removed. `rlm run` or `rlm chat` rebuilds the session from "
            f"{printable(trace)}.",
            file=sys.stderr,
        )
    else:
        print(f"rlm: the session has ended. Its trace: {printable(trace)}", file=sys.stderr)


def open_(
    session: str,
    files: list[Path] | None,
    config: Path | None,
    changes: dict[str, Any],
    view: LiveView,
    command: str,
    *,
    new: bool | None = None,
    with_models: bool = True,
    **asks: Any,
) -> AbstractAsyncContextManager[Session]:
    """The session of a command's options; `asks`: as of `open_session`."""
    from rlm_kernel.session.manager import open_session

    return open_session(
        session,
        paths=files or (),
        new=new,
        command=command,
        config_file=config,
        changes=changes,
        with_models=with_models,
        view=view,
        say=view.say,
        **asks,
    )
