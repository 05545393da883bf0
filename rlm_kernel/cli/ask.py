"""`rlm ask`: one question, the answer on stdout, the trace beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlm_kernel.cli._report import run_and_report, worded
from rlm_kernel.cli.options import FILES, TRACE_OUT, RunOptions, with_options

QUESTION = Annotated[
    str, typer.Argument(metavar="QUESTION", help="The question, in quotes; - is stdin.", show_default=False)
]


@with_options
def ask(question: QUESTION, file: FILES = None, trace: TRACE_OUT = None, *, options: RunOptions) -> None:
    """Ask one question about files of any size.

    Prints the answer on stdout, progress and cost on stderr. Exit codes: 0 answered, 1 no answer, 2 wrong
    usage, 3 missing set-up, 130 interrupted.
    """
    question = worded(question)
    settings = options.settings()
    from rlm_kernel.session.ask import ask as run
    from rlm_kernel.session.ask import trace_path

    path: Path = trace_path(settings, question, trace)
    run_and_report(
        options, lambda **hear: run(question, file, settings=settings, trace=path, **hear), lambda: path
    )
