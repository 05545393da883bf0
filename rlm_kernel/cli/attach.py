"""`rlm attach`: a console on the kernel of a run in progress, beside the model."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.printable import printable

_SHOWN = 200
"""Characters of the question."""


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

    You and the model share variables, and your cells wait for each other. The model is told of your cells,
    and the trace records them as yours. Only the model can call sub-models, load files and give the answer.
    Ctrl-C stops your cell; Ctrl-D leaves, and the run continues.
    """
    from rlm_kernel.session.attach import find_session

    found = find_session(session)
    question = " ".join(found.about.question.split())[:_SHOWN]
    print(
        f"session {found.about.session}: {printable(question)}\ntrace: {printable(str(found.about.trace))}",
        file=sys.stderr,
    )
    open_console(found.connection)


def open_console(connection: Path) -> None:
    """Have a person at the terminal use the kernel of that connection file, until they leave.

    Blocking. Raises UsageError, SetupError.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "A console needs a terminal.",
            hint=f"Other Jupyter clients can use the connection file {connection}",
        )
    if find_spec("jupyter_console") is None:
        raise SetupError("The console needs jupyter_console.", hint="pip install 'rlm-kernel[console]'")
    with _without_ctrl_c():
        # -P: the current folder is no place to import from.
        subprocess.run([sys.executable, "-P", "-m", "rlm_kernel.cli._console", str(connection)], check=False)


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
