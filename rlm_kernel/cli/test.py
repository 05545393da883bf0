"""`rlm test`: traces as a test suite."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line, shown_path
from rlm_kernel.cli.options import (
    ALLOW_CHANGED,
    INPUT,
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
    from rlm_kernel.engine.protocols import Totals
    from rlm_kernel.session.regression.alike import Measure
    from rlm_kernel.session.regression.suite import CaseResult, Suite

DIFFERENT = 1
_ANSWER = 24
_NAME = 32
_NOTHING = 1e-9
"""US dollars: what is left where sums of the same amounts are taken from each other."""


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
    from rlm_kernel.session.regression.suite import run_suite

    changes, tools = options.changes(), options.given_tools()
    if prompt is not None:
        changes["prompt.profile"] = prompt
    measure = _measure(compare, tolerance)

    async def main() -> Suite:
        with options.view(lines=False) as view:
            allow_call = calls_in(view) if options.may_ask else None

            def tell(tested: CaseResult) -> None:
                if not options.as_json and not options.quiet:
                    view.above(printable(f"{tested.verdict:8} {tested.trace.name}  {tested.seconds:.1f} s"))

            return await run_suite(
                folder,
                config_file=options.config,
                changes=changes,
                **tools,
                allow_call=allow_call,
                live=live,
                files=files,
                allow_changed=allow_changed,
                measure=measure,
                judge=judge,
                jobs=jobs,
                out=out,
                update=update,
                tell=tell,
                say=view.say,
            )

    suite = run_to_end(main(), before="; the traces are unchanged.")
    if junit is not None:
        _write(junit, suite)
    if options.as_json:
        print(json_line(suite.as_json()))
    else:
        for line in _lines(suite):
            print(printable(line))
    if not suite.same:
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


def _write(path: Path, suite: Suite) -> None:
    from rlm_kernel.session.regression.junit import as_xml

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_xml(suite))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


# The table


def _lines(suite: Suite) -> Iterator[str]:
    rows = [_row(one) for one in suite.traces]
    head = ["trace", "verdict", "answer", "turns", "calls", "cost"]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for one in suite.traces:
        told = [one.detail] if one.detail else []
        if told or one.remarks:
            yield ""
            yield f"{one.trace.name}: {one.verdict}"
            yield from (f"  {line}" for line in (*told, *one.remarks))
        if not one.good and one.out is not None:
            yield f"  rlm diff {shown_path(one.trace)} {shown_path(one.out)}"
    yield ""
    yield _sum(suite)
    if suite.accepted is not None:
        yield f"The new answers are now the expected ones: {shown_path(suite.accepted)}"
    if suite.out is not None:
        print(f"rlm: the new traces are in {printable(str(suite.out))}", file=sys.stderr)


def _sum(suite: Suite) -> str:
    names = ("same", "differs", "failed", "skipped")
    counts = ", ".join(f"{suite.count(name)} {name}" for name in names if suite.count(name))  # type: ignore[arg-type]
    judge = f" ({suite.judged.money()} of it for the judge)" if suite.judged.calls else ""
    return f"{counts} in {suite.seconds:.1f} s. Model calls: {_paid(suite.spent)}{judge}."


def _paid(spent: Totals) -> str:
    return "nothing" if not spent.usage.total and abs(spent.known_cost) < _NOTHING else spent.money()


def _row(one: CaseResult) -> list[str]:
    return [
        _cut(one.trace.name, _NAME),
        one.verdict,
        _change(_answers(one.then), _answers(one.now), one),
        _change(str(one.before.turns), str(one.used.turns), one),
        _change(str(one.before.calls), str(one.used.calls), one),
        _change(one.before.money(), one.used.money(), one),
    ]


def _change(then: str, now: str, one: CaseResult) -> str:
    if one.verdict == "skipped":
        return ""
    if not one.now:
        return f"{then} → –"
    return then if then == now else f"{then} → {now}"


def _answers(answers: Sequence[str | None]) -> str:
    last = answers[-1] if answers else None
    more = f" (+{len(answers) - 1})" if len(answers) > 1 else ""
    return f"{'no answer' if last is None else _cut(' '.join(last[:400].split()), _ANSWER)}{more}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
