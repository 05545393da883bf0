"""`rlm attach`: a console on the kernel of a run in progress, beside the model."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.printable import printable

_SHOWN = 200
"""Characters of the question."""
CANCELLED = 130
"""The console's exit code where Ctrl-C ended it as it opened."""
ENDED_BY_ITSELF = 3
"""The console's exit code where its kernel or the run ended first."""
_QUIET, _LONGEST = 1.0, 10.0
"""Seconds. A line that somebody is typing as the run ends is not for their shell: keys are taken away until
none came for so long, and for so long at most.
"""
_USUAL = "\x1b[?2004l\x1b[?25h\x1b[0m"
"""What a program that was killed leaves undone: no bracketed paste, the cursor shown, the usual colours."""


def attach(
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The run's id, the start of its id, or the path of its trace. Default: the only run.",
            show_default=False,
            autocompletion=_complete.running,
        ),
    ] = None,
) -> None:
    """Open a console on the kernel of a running question.

    You and the model share variables, and your cells wait for each other. The model learns about your cells,
    and the trace records them as yours. Only the model can call sub-models, load files and give the answer.
    Ctrl-C stops your cell; Ctrl-D leaves, and the run continues. When the run ends, so does the console.
    """
    from rlm_kernel.session.attach import find_session

    found = find_session(session)
    question = " ".join(found.about.question.split())[:_SHOWN]
    trace = printable(str(found.about.trace))
    print(f"session {found.about.session}: {printable(question)}\ntrace: {trace}", file=sys.stderr)
    raise typer.Exit(open_console(found.connection, over=f"The run has ended. Its trace: {trace}"))


def open_console(connection: Path, *, over: str = "The run has ended.") -> int:
    """Have a person at the terminal use the kernel of that connection file, until they leave or the run ends.

    Afterwards the terminal is as it was. Where the run or its kernel ended first, that is said (`over`), and
    what is being typed at that moment is taken away: the next to read it would be the shell.

    Returns an exit code: 0 also where the run has ended. Blocking. Raises UsageError, SetupError.
    """
    from rlm_kernel.sandbox.rundir import is_owned

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "A console needs a terminal.",
            hint=f"Other Jupyter clients can use the connection file {connection}",
        )
    if find_spec("jupyter_console") is None:
        raise SetupError("The console needs jupyter_console.", hint="pip install 'rlm-kernel[console]'")
    from rlm_kernel.cli import _terminal

    with _without_ctrl_c(), _terminal.as_it_was(sys.stdin.fileno()) as swallow:
        # -P: the current folder is no place to import from.
        command = [sys.executable, "-P", "-m", "rlm_kernel.cli._console", str(connection)]
        code = subprocess.run(command, check=False).returncode
        if code < 0:
            print(_USUAL, end="", flush=True)
        ended = not is_owned(connection.parent)
        if not ended and code in (0, CANCELLED):
            return code
        if ended:
            print(over, file=sys.stderr)
        elif code == ENDED_BY_ITSELF:
            print(
                "The kernel has ended. If the run continues, `rlm attach` finds its new kernel.",
                file=sys.stderr,
            )
        with suppress(OSError):  # the terminal may be gone
            swallow(_QUIET, _LONGEST)
        return 0 if ended or code == ENDED_BY_ITSELF else max(code, 1)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Leave Ctrl-C to the console. In another than the main thread that is for the caller to see to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Not SIG_IGN, which the console would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
