"""`rlm show`: a trace to be read in the terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from rlm_kernel.cli import _complete
from rlm_kernel.cli._pager import page
from rlm_kernel.cli._text import json_line, shown_path
from rlm_kernel.cli._trace import chosen as named
from rlm_kernel.cli.options import (
    INPUT,
    JSON,
    MOVED_FILES,
    OUTPUT,
    TRACE_OR_LAST,
    SettingsOptions,
    option,
    with_options,
)
from rlm_kernel.errors import UsageError
from rlm_kernel.nearest import nearest
from rlm_kernel.printable import printable
from rlm_kernel.system import quoted

if TYPE_CHECKING:
    from rlm_kernel.report.text import Paint
    from rlm_kernel.trace.prompts import PromptFile
    from rlm_kernel.trace.reader import TraceCell, TraceFile


@with_options
def show(
    trace: TRACE_OR_LAST = None,
    cell: Annotated[
        str | None,
        option(
            INPUT,
            "--cell",
            metavar="CELL",
            help="Show only this cell, in full: a cell's id, or a turn's, such as turn-03.",
            autocompletion=_complete.cells,
        ),
    ] = None,
    calls: Annotated[bool, option(OUTPUT, "--calls", help="Show the model calls, one per line.")] = False,
    call: Annotated[
        int | None,
        option(OUTPUT, "--call", metavar="N", help="Show one call with its full prompt and answer."),
    ] = None,
    full: Annotated[
        bool, option(OUTPUT, "--full", help="With --calls: show full prompts and answers.")
    ] = False,
    sources: Annotated[
        bool,
        option(
            OUTPUT,
            "--sources",
            help="Show where the answer and the prompts come from: calls, cells, passages of files.",
        ),
    ] = False,
    files: MOVED_FILES = None,
    pager: Annotated[
        bool, option(OUTPUT, "--pager/--no-pager", help="In a terminal, use $PAGER, or less.")
    ] = True,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """Show a trace in the terminal: question, answer, turns, code, outputs.

    Reads only the notebook, and for --sources its files; needs no Docker and no models. A pipe gets plain
    text.
    """
    from rlm_kernel.report import text
    from rlm_kernel.trace.prompts import open_prompts
    from rlm_kernel.trace.reader import read_trace

    trace = named(trace, options.settings)
    found = read_trace(trace)
    chosen = _chosen(found, cell)
    paint = text.Paint(sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    with open_prompts(found) as prompts:
        if sources:
            _sources(found, files, paint, paged=pager, as_json=as_json)
        elif as_json:
            calls = calls or full or call is not None
            for part in text.as_json(found, chosen, prompts, calls=calls, full=full or call is not None):
                sys.stdout.write(part)
            print()
        elif calls or full or call is not None:
            page(_calls(found, chosen, prompts, call, paint, full=full), paged=pager)
        elif cell is not None:
            page((line for one in chosen for line in text.one_cell(one, paint)), paged=pager)
        else:
            page(text.document(found, quoted(shown_path(trace)), paint), paged=pager)
        if prompts.trouble:
            print(f"rlm: {printable(prompts.trouble)}", file=sys.stderr)


def _sources(trace: TraceFile, files: list[str] | None, paint: Paint, *, paged: bool, as_json: bool) -> None:
    """Where answer and prompts come from: this reads the files."""
    from rlm_kernel.cli.replay import named_files
    from rlm_kernel.report.sources import sources
    from rlm_kernel.session.sources import provenance

    found = provenance(trace, named_files(files), say=lambda text: print(f"rlm: {text}", file=sys.stderr))
    if as_json:
        print(json_line({"trace": str(trace.path), **found.as_json()}))
    else:
        page(sources(trace, found, paint), paged=paged)


def _chosen(trace: TraceFile, cell: str | None) -> Sequence[TraceCell]:
    """The cells that are meant. Raises UsageError."""
    if cell is None:
        return trace.cells
    turn = f"{cell}-" if re.fullmatch("turn-[0-9]+", cell) else None
    found = [one for one in trace.cells if one.id == cell or (turn and one.id.startswith(turn))]
    if found:
        return found
    near = nearest(cell, [one.id for one in trace.cells])
    ids = [one.id for one in trace.cells if one.code]
    hint = f"Did you mean {near}?" if near else f"Its cells: {', '.join(ids[:20])}" if ids else ""
    raise UsageError(f"The trace has no cell {printable(cell[:100])}.", hint=hint)


def _calls(
    trace: TraceFile,
    chosen: Sequence[TraceCell],
    prompts: PromptFile,
    number: int | None,
    paint: Paint,
    *,
    full: bool,
) -> Iterator[str]:
    """The calls of the chosen cells, by their numbers in the trace. Raises UsageError."""
    from rlm_kernel.report import text
    from rlm_kernel.trace.reader import numbered

    ids = {one.id for one in chosen}
    made = ((at, one, call) for at, one, call in numbered(trace.cells) if one.id in ids)
    if number is not None:
        found = text.call_at(trace.cells, number)
        if found is None or found[0].id not in ids:
            raise UsageError(f"The trace has no call {number}.", hint="rlm show TRACE --calls lists them.")
        yield from text.in_full(number, *found, prompts, paint)
    elif full:
        for told in made:
            yield from text.in_full(*told, prompts, paint)
    else:
        wide = {"width": shutil.get_terminal_size().columns} if sys.stdout.isatty() else {}
        yield from text.table(made, paint, **wide)
