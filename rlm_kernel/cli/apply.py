"""`rlm apply`: a trace's code on another input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from rlm_kernel.cli import _complete
from rlm_kernel.cli._report import run_and_report
from rlm_kernel.cli.options import INPUT, MODELS, TRACE, TRACE_OUT, RunOptions, option, with_options


@with_options
def apply(
    trace: TRACE,
    file: Annotated[
        list[str] | None,
        option(
            INPUT,
            "--file",
            "-f",
            metavar="PATH",
            help="New file, folder or glob; - is stdin. OLD=PATH says which file of the trace it replaces. "
            "Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None,
    question: Annotated[
        int | None,
        option(
            INPUT,
            "--question",
            metavar="N",
            help="Apply the code up to this question of the trace. Default: all questions.",
        ),
    ] = None,
    root: Annotated[
        bool,
        option(
            MODELS,
            "--root/--no-root",
            help="Whether rlm may ask the root model where it is needed. Default: yes.",
        ),
    ] = True,
    reuse: Annotated[
        bool,
        option(MODELS, "--reuse", help="Use the trace's answers for sub-calls with exactly the same prompt."),
    ] = False,
    out: TRACE_OUT = None,
    *,
    options: RunOptions,
) -> None:
    """Run a trace's code on other files.

    Its cells run with live sub-calls and without the root model, in a new notebook. The root model is asked
    only if a cell fails, the input has another form, a result is empty, or the code contains something that
    the root model read in the earlier files. Models and limits that you do not give are taken from the
    trace; limits count from here. Exit codes: as for rlm ask.
    """
    from rlm_kernel.session.applying.apply import apply as run

    changes, made = options.changes(), [trace]
    paths, named = split(file or [])
    run_and_report(
        options,
        lambda **hear: run(
            trace,
            paths or None,
            files=named,
            question=question,
            root=root,
            reuse=reuse,
            out=out,
            config_file=options.config,
            changes=changes,
            placed=made.append,
            **hear,
        ),
        lambda: made[-1],
    )


def split(given: list[str]) -> tuple[list[Path], dict[str, Path]]:
    """Paths, and OLD=PATH; a path that is there may have a `=` in it."""
    paths: list[Path] = []
    named: dict[str, Path] = {}
    for text in given:
        old, found, new = text.partition("=")
        if found and old and new and not os.path.lexists(Path(text).expanduser()):
            named[old] = Path(new)
        else:
            paths.append(Path(text))
    return paths, named
