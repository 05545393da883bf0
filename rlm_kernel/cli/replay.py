"""`rlm replay`: a trace's cells run again, and whether they give the same."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli._trace import chosen
from rlm_kernel.cli.options import (
    ALLOW_CHANGED,
    INPUT,
    MODELS,
    MOVED_FILES,
    OUTPUT,
    TRACE_OR_LAST,
    SubCallOptions,
    option,
    with_options,
)
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.engine.protocols import CellResult
    from rlm_kernel.session.replay import Replayed
    from rlm_kernel.session.replaying import Verdict
    from rlm_kernel.trace.reader import TraceCell

DIFFERENT = 1
_STEP_CHARS = 4_000
"""Characters of a cell's outputs that --step shows."""
_KEYS: dict[str, Literal["run", "skip", "quit"]] = {"": "run", "r": "run", "s": "skip", "q": "quit"}


@with_options
def replay(
    trace: TRACE_OR_LAST = None,
    file: MOVED_FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    until: Annotated[
        str | None,
        option(
            INPUT,
            "--until",
            metavar="CELL",
            help="Last cell to run: a cell's id, or a turn's, such as turn-03.",
            autocompletion=_complete.cells,
        ),
    ] = None,
    live: Annotated[
        bool, option(MODELS, "--live", help="Ask the models for answers to calls that are not recorded.")
    ] = False,
    step: Annotated[
        bool, typer.Option("--step", help="Stop before each cell: run it, skip it, quit, or open a console.")
    ] = False,
    tree: Annotated[bool, option(INPUT, "--tree", help="Replay the traces of child RLMs, too.")] = False,
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "--out",
            metavar="FILE",
            help="Write the replayed notebook to this file.",
            autocompletion=_complete.files,
        ),
    ] = None,
    *,
    options: SubCallOptions,
) -> None:
    """Run a trace again, offline, and compare the outputs.

    The cells run in a new kernel; calls to models and files are answered from the recording. Each cell gets a
    verdict: same, differs (with a diff), failed, new call (not recorded), or added (by a person). Exit codes:
    0 all the same, 1 not all the same, 2 wrong usage or a missing or changed file, 3 missing set-up, 130
    interrupted.
    """
    from rlm_kernel.session.replay import replay as run

    as_json = options.as_json
    if step and as_json:
        raise UsageError("--step and --json cannot be used together.")
    changes = options.changes()
    wanted = chosen(trace, options.settings, quiet=options.quiet)

    async def main() -> Replayed:
        with options.view(quiet=step, lines=False) as view:

            def tell(verdict: Verdict, result: CellResult | None) -> None:
                if not as_json:
                    view.above(_line(verdict))
                if step and result is not None:
                    print(_outputs(result), file=sys.stderr)

            def begin(child: Path) -> None:
                if not as_json:
                    view.above(printable(f"\n{child.parent.name}/{child.name}"))

            return await run(
                wanted,
                config_file=options.config,
                changes=changes,
                files=named_files(file),
                allow_changed=allow_changed,
                until=until,
                live=live,
                out=out,
                step=_ask_person if step else None,
                tree=tree,
                tell=tell,
                begin=begin,
                view=view,
                say=view.say,
            )

    replayed = run_to_end(main(), before="; the trace is unchanged.")
    _report(replayed, as_json=as_json)
    if not replayed.same:
        raise typer.Exit(DIFFERENT)


def named_files(given: list[str] | None) -> dict[str, Path]:
    """The NAME=PATH options. Raises UsageError."""
    named: dict[str, Path] = {}
    for text in given or ():
        name, found, path = text.partition("=")
        if not (name and found and path):
            raise UsageError(
                f"--file takes NAME=PATH, not {text}.", hint="For example: --file server.log=/data/server.log"
            )
        named[name] = Path(path)
    return named


def _line(verdict: Verdict) -> str:
    detail = f"  {verdict.detail}" if verdict.detail else ""
    lines = [f"{verdict.cell:16} {verdict.verdict:10} {verdict.seconds:6.1f} s{detail}"]
    lines += [f"    {line}" for line in verdict.diff.splitlines()]
    return "\n".join(printable(line) for line in lines)


def _outputs(result: CellResult) -> str:
    """What a cell gave, for a person who steps through."""
    from rlm_kernel.engine.messages import output_text, truncate

    return "\n".join(
        f"  │ {printable(line)}" for line in truncate(output_text(result.outputs), _STEP_CHARS).splitlines()
    )


def _report(replayed: Replayed, *, as_json: bool) -> None:
    if as_json:
        print(json_line(replayed.as_json()))
        return
    everything = list(_all(replayed))
    for remark in dict.fromkeys(remark for one in everything for remark in one.remarks):
        print(f"rlm: {printable(remark)}", file=sys.stderr)
    verdicts = [verdict for one in everything for verdict in one.verdicts]
    counts = Counter(verdict.verdict for verdict in verdicts)
    cells = f"{len(verdicts)} cells" + (f" of {len(everything)} traces" if len(everything) > 1 else "")
    if replayed.same:
        print(
            f"All {cells} gave the same outputs."
            if not counts["added"]
            else f"All {cells} ran. The recorded cells gave the same outputs."
        )
    else:
        print(f"Some outputs differ: {', '.join(f'{count} {name}' for name, count in counts.items())}.")
    if counts["new call"]:
        print(
            "rlm: calls that are not recorded were not sent to a model. To send them: rlm replay --live",
            file=sys.stderr,
        )
    if replayed.spent.calls:
        print(f"rlm: new calls used {replayed.spent.spending()}", file=sys.stderr)
    if replayed.out:
        print(f"rlm: the replayed notebook is {replayed.out}", file=sys.stderr)


def _all(replayed: Replayed) -> Iterator[Replayed]:
    yield replayed
    for child in replayed.children:
        yield from _all(child)


async def _ask_person(cell: TraceCell, connection: Path) -> Literal["run", "skip", "quit"]:
    """Show a cell and ask what to do with it. At the end of the input the replay is ended."""
    import asyncio

    return await asyncio.to_thread(_ask_in_terminal, cell, connection)


def _ask_in_terminal(cell: Any, connection: Path) -> Literal["run", "skip", "quit"]:
    print(f"\n── {cell.id} ──\n{printable(cell.source)}", file=sys.stderr)
    while True:
        print("[r]un (Enter), [s]kip, [q]uit, [c]onsole? ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        key = line.strip().lower()[:1] if line else "q"
        if key in _KEYS:
            return _KEYS[key]
        if key == "c":
            from rlm_kernel.cli.attach import open_console

            open_console(connection)
