"""`rlm chat`: many questions over one live kernel."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rlm_kernel.cli import _events
from rlm_kernel.cli._report import NOTHING_ASKED, so_far_of
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli.options import FILES, SESSION, RunOptions, with_options
from rlm_kernel.cli.session import open_

if TYPE_CHECKING:
    from rlm_kernel.cli._chat import Chat


@with_options
def chat(file: FILES = None, session: SESSION = "default", *, options: RunOptions) -> None:
    """Ask many questions in one live kernel.

    Uses the kernel of this folder's session, and starts a session if there is none.

    Type a question, or /help for the commands. Ctrl-C stops the running question; Ctrl-D leaves. The session
    continues, with its files, variables and conversation. From a pipe, each line is a message, and only the
    answers go to stdout.
    """
    changes = options.changes()

    from rlm_kernel.cli._chat import Chat
    from rlm_kernel.cli._consent import asking_in

    tools = options.given_tools()
    view = options.view(lines=False)
    traces: list[Path] = []
    _events.trace_is(lambda: str(traces[-1]))
    chats: list[Chat] = []

    async def main() -> int:
        asks: dict[str, Any] = (asking_in(view) if options.may_ask else {}) | tools
        async with contextlib.AsyncExitStack() as stack:
            with view:
                kept = await stack.enter_async_context(
                    open_(session, file, options.config, changes, view, "rlm chat", **asks)
                )
            traces.append(kept.trace)
            chats.append(Chat(kept, view, quiet=options.quiet, as_json=options.as_json))
            return await chats[0].run()

    def answered() -> int | None:
        return 0 if chats and chats[0].settled else None

    code = run_to_end(
        main(), so_far_of(view, lambda: traces[-1], "rlm chat"), before=NOTHING_ASKED, answered=answered
    )
    if code:
        raise typer.Exit(code)
