"""`rlm diff`: what differs between two traces."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._text import json_line, shown_path
from rlm_kernel.cli.options import JSON, TRACE
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.report.diff import Difference
    from rlm_kernel.trace.reader import TraceFile

DIFFERENT = 1
_CALLS = 30
"""Calls that are named."""
_COLOURS = {"-": "\x1b[31m", "+": "\x1b[32m", "@": "\x1b[36m"}


def diff(
    one: TRACE,
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OTHER]",
            help="Another trace. Default: the one from which TRACE was forked.",
            show_default=False,
            autocompletion=_complete.traces,
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Show what differs between two traces.

    Compares question, models, prompt, files, cells, calls, answer and cost. Outputs that differ only in what
    changes in every run, such as times, count as the same. Cost and time alone do not count as a difference.
    Exit codes: 0 the same, 1 different, 2 wrong usage.
    """
    from rlm_kernel.report.diff import difference
    from rlm_kernel.trace.reader import read_trace

    later = read_trace(one)
    before, after = (read_trace(_origin(later)), later) if other is None else (later, read_trace(other))
    found = difference(before, after)
    if as_json:
        print(json_line({"a": str(before.path), "b": str(after.path), **found.as_json()}))
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in _lines(before, after, found):
            print(_painted(printable(line), coloured))
    if not found.same:
        raise typer.Exit(DIFFERENT)


def _origin(trace: TraceFile) -> Path:
    """The trace that this one was forked from, or whose code it applies. Raises UsageError."""
    forks = [origin for origin in trace.meta.origins if origin.kind in ("fork", "apply")]
    if forks and forks[-1].trace:
        place = Path(forks[-1].trace)
        for path in (place, trace.path.with_name(place.name)):
            if path.is_file() and path.absolute() != trace.path:
                return path
        raise UsageError(
            f"{trace.path.name} was made from {place}, which does not exist.",
            hint="Name both traces: rlm diff A B",
        )
    why = (
        "it was resumed in the same notebook, so there is no other version"
        if trace.meta.origins
        else "it was not made from another trace"
    )
    raise UsageError(
        f"{trace.path.name} has no other trace to compare it with: {why}.",
        hint="Name two traces: rlm diff A B",
    )


def _lines(before: TraceFile, after: TraceFile, found: Difference) -> Iterator[str]:
    yield f"--- {shown_path(before.path)}"
    yield f"+++ {shown_path(after.path)}"
    for change in found.changes:
        yield f"{change.what}:"
        yield from _sides(change.one, change.other)
    for cell in found.cells:
        turn = f" (turn {cell.turn})" if cell.turn else ""
        yield f"{cell.cell}{turn}: {cell.how}{', its code' if cell.code and cell.how == 'changed' else ''}"
        yield from (f"  {line}" for line in cell.code)
        if cell.outputs:
            yield f"{cell.cell}{turn}: its outputs"
            yield from (f"  {line}" for line in cell.outputs)
    yield from _call_lines(found)
    if found.answer:
        yield "answer:"
        yield from (f"  {line}" for line in found.answer)
    if found.same:
        yield "No difference in questions, code, outputs or answers."
    for change in found.beside:
        yield f"{change.what}: {_value(change.one)} → {_value(change.other)}"


def _call_lines(found: Difference) -> Iterator[str]:
    from rlm_kernel.report.outline import one_line

    for call in found.calls[:_CALLS]:
        times = f" ({call.times:,} times)" if call.times > 1 else ""
        how = {"answer": "call with another answer", "gone": "call removed", "added": "call added"}[call.how]
        yield f"{call.cell}: {how}{times}: {one_line(call.prompt, 100)}"
        yield from _sides(call.one, call.other)
    if more := found.more_calls + len(found.calls[_CALLS:]):
        yield f"… and {more:,} more prompts differ, or have different answers"


def _sides(one: Any, other: Any) -> Iterator[str]:
    for sign, side in (("-", one), ("+", other)):
        if side is not None:
            yield from (f"  {sign}{line}" for line in _value(side).splitlines())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _painted(line: str, coloured: bool) -> str:
    colour = _COLOURS.get(line.strip()[:1], "") if line.startswith(("  ", "---", "+++")) else ""
    return f"{colour}{line}\x1b[0m" if coloured and colour else line
