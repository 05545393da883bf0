"""`rlm test`: traces as a test suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete, _suite_table
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli.options import (
    ALLOW_CHANGED,
    INPUT,
    LIMITS,
    MODELS,
    OUTPUT,
    SANDBOX,
    RunOptions,
    option,
    with_options,
)
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlm_kernel.session.regression.alike import Measure
    from rlm_kernel.session.regression.results import CaseResult, Suite
    from rlm_kernel.session.regression.several import Comparison

DIFFERENT = 1
_ALONE = "rlm"
"""The suite's name in a report where no model is compared with another."""


@with_options
def test(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder with traces, or one trace.",
            show_default=False,
            autocompletion=_complete.files,
        ),
    ],
    files: Annotated[
        Path | None,
        option(
            INPUT,
            "--files",
            metavar="FOLDER",
            help="Folder with the traces' input files. Default: their old places, or beside the trace.",
            autocompletion=_complete.files,
        ),
    ] = None,
    allow_changed: ALLOW_CHANGED = False,
    model: Annotated[
        list[str] | None,
        option(
            MODELS,
            "--model",
            "-m",
            metavar="MODEL",
            help="Root model: provider/model, or local. Repeatable: a column for each.",
            autocompletion=_complete.models,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        option(
            MODELS,
            "--prompt",
            metavar="NAME",
            help="Use another system prompt; takes what --profile takes.",
            autocompletion=_complete.profiles,
        ),
    ] = None,
    live: Annotated[
        bool,
        option(
            MODELS,
            "--live",
            help="Ask the traces' own models if a request is not recorded. This costs money.",
        ),
    ] = False,
    compare: Annotated[
        str,
        option(
            INPUT,
            "--compare",
            metavar="HOW",
            help="How to compare answers: auto, exact, number, list, json, text or judge.",
        ),
    ] = "auto",
    tolerance: Annotated[
        float | None,
        option(INPUT, "--tolerance", metavar="SHARE", help="Relative tolerance of numbers. Default: 1e-9."),
    ] = None,
    judge: Annotated[
        str | None,
        option(
            MODELS,
            "--judge",
            metavar="MODEL",
            help="Model that judges whether two different texts mean the same.",
            autocompletion=_complete.models,
        ),
    ] = None,
    max_cost_judge: Annotated[
        float | None,
        option(
            LIMITS,
            "--max-cost-judge",
            metavar="USD",
            min=0,
            help="US dollars that the judge may use in all. Default: no limit.",
        ),
    ] = None,
    jobs: Annotated[
        int,
        option(SANDBOX, "--jobs", "-j", min=1, metavar="N", help="Number of traces tested at the same time."),
    ] = 1,
    update: Annotated[
        bool, option(OUTPUT, "--update", help="Accept the new answers as the expected ones.")
    ] = False,
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--out",
            metavar="FOLDER",
            help="Folder for the new traces. Default: a temporary folder, kept only if an answer differs.",
            autocompletion=_complete.files,
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--junit",
            metavar="FILE",
            help="Write a report in JUnit XML.",
            autocompletion=_complete.files,
        ),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Ask the questions of recorded traces again, and compare the answers.

    Requests that are the same as recorded are answered from the trace. Without --model, --sub-model, --prompt
    or --live no model is asked and nothing is spent. Tools are called only if --tools or --mcp gives them.
    FOLDER/rlm-test.toml may say which answers are expected. Exit
    codes: 0 all the same, 1 some differ or failed, 2 wrong usage, 3 missing set-up, 130 interrupted.
    """
    from rlm_kernel.cli._consent import calls_in
    from rlm_kernel.session.regression.results import Suite
    from rlm_kernel.session.regression.several import run_suites
    from rlm_kernel.session.regression.suite import run_suite

    changes, tools, models = options.changes(), options.given_tools(), model or []
    if prompt is not None:
        changes["prompt.profile"] = prompt
    if len(models) == 1:
        changes["root_llm.model"] = models[0]
    if len(models) > 1 and update:
        raise UsageError("Answers of several models cannot be accepted.", hint="Name one --model.")
    measure = _measure(compare, tolerance)

    async def main() -> Suite | Comparison:
        with options.view(lines=False) as view:

            def tell(tested: CaseResult, by: str = "") -> None:
                if not options.as_json and not options.quiet:
                    more = f"  {by}" if by else ""
                    view.above(
                        printable(f"{tested.verdict:8} {tested.trace.name}{more}  {tested.seconds:.1f} s")
                    )

            given: dict[str, Any] = {
                "config_file": options.config,
                "changes": changes,
                **tools,
                "allow_call": calls_in(view) if options.may_ask else None,
                "live": live,
                "files": files,
                "allow_changed": allow_changed,
                "measure": measure,
                "judge": judge,
                "max_cost_judge": max_cost_judge,
                "jobs": jobs,
                "out": out,
                "say": view.say,
            }
            if len(models) < 2:
                return await run_suite(folder, update=update, tell=tell, **given)
            return await run_suites(folder, models, tell=lambda by, tested: tell(tested, by), **given)

    found = run_to_end(main(), before="; the traces are unchanged.")
    if junit is not None:
        _write(junit, {_ALONE: found} if isinstance(found, Suite) else found.suites)
    if options.as_json:
        print(json_line(found.as_json()))
    else:
        table = _suite_table.lines(found) if isinstance(found, Suite) else _suite_table.compared(found)
        for line in table:
            print(printable(line))
    if not found.same:
        raise typer.Exit(DIFFERENT)


def _measure(compare: str, tolerance: float | None) -> Measure:
    from rlm_kernel.nearest import did_you_mean, nearest
    from rlm_kernel.session.regression.alike import HOWS, TOLERANCE, Measure

    how = next((name for name in HOWS if name == compare), None)
    if how is None:
        hint = did_you_mean(nearest(compare, HOWS)) or f"Choose from {', '.join(HOWS)}."
        raise UsageError(f"There is no comparison {compare!r}.", hint=hint)
    if tolerance is not None and not 0 <= tolerance < 1:
        raise UsageError("--tolerance must be a number from 0 to 1, such as 0.01.")
    return Measure(how, TOLERANCE if tolerance is None else tolerance)


def _write(path: Path, suites: Mapping[str, Suite]) -> None:
    from rlm_kernel.session.regression.junit import as_xml

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_xml(suites))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
