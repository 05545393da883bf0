"""`rlm resume` and `rlm fork`: go on from a trace."""

from __future__ import annotations

from typing import Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._report import run_and_report, worded
from rlm_kernel.cli._trace import chosen
from rlm_kernel.cli.options import (
    ALLOW_CHANGED,
    INPUT,
    MOVED_FILES,
    TRACE,
    TRACE_OR_LAST,
    TRACE_OUT,
    RunOptions,
    option,
    with_options,
)
from rlm_kernel.cli.replay import named_files


@with_options
def resume(
    trace: TRACE_OR_LAST = None,
    file: MOVED_FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    *,
    options: RunOptions,
) -> None:
    """Continue a run that was interrupted or hit a limit.

    Runs the trace's cells again with the recorded answers, then continues in the same notebook. Models and
    limits that you do not give are taken from the trace. Limits count the whole run: if one was reached, give
    a higher one. Exit codes: as for rlm ask.
    """
    from rlm_kernel.session.resume import resume as run

    changes, files = options.changes(), named_files(file)
    wanted = chosen(trace, options.settings, quiet=options.quiet)

    run_and_report(
        options,
        lambda **hear: run(
            wanted,
            config_file=options.config,
            changes=changes,
            files=files,
            allow_changed=allow_changed,
            **hear,
        ),
        lambda: wanted,
    )


@with_options
def fork(
    trace: TRACE,
    question: Annotated[
        str,
        typer.Argument(
            metavar="[QUESTION]", help="New question. Default: the trace's question.", show_default=False
        ),
    ] = "",
    at: Annotated[
        str | None,
        option(
            INPUT,
            "--at",
            metavar="CELL",
            help="Last cell to keep: a cell's id, or a turn's, such as turn-03. Default: all.",
            autocompletion=_complete.cells,
        ),
    ] = None,
    file: MOVED_FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    out: TRACE_OUT = None,
    *,
    options: RunOptions,
) -> None:
    """Continue from any cell of a trace, in a new notebook.

    Runs the cells up to there again as they are now, with your edits; then the models continue. The trace
    itself does not change. Models and limits that you do not give are taken from the trace; limits count
    from the fork. Exit codes: as for rlm ask.
    """
    from rlm_kernel.session.resume import fork as run

    changes, files, made = options.changes(), named_files(file), [trace]

    run_and_report(
        options,
        lambda **hear: run(
            trace,
            worded(question),
            at=at,
            out=out,
            config_file=options.config,
            changes=changes,
            files=files,
            allow_changed=allow_changed,
            placed=made.append,
            **hear,
        ),
        lambda: made[-1],
    )
