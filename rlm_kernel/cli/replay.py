"""`rlm replay`: a trace's cells run again, and whether they give the same."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rlm_kernel.cli._run import run_to_end
from rlm_kernel.cli._text import json_line, printable
from rlm_kernel.cli.session import CACHE, RUNTIME
from rlm_kernel.errors import UsageError

if TYPE_CHECKING:
    from rlm_kernel.engine.protocols import CellResult
    from rlm_kernel.session.replay import Replayed
    from rlm_kernel.session.replaying import Verdict
    from rlm_kernel.trace.reader import TraceCell

DIFFERENT = 1
_STEP_CHARS = 4_000
"""Characters of a cell's outputs that --step shows."""
_KEYS: dict[str, Literal["run", "skip", "quit"]] = {"": "run", "r": "run", "s": "skip", "q": "quit"}

TRACE = Annotated[Path, typer.Argument(help="The trace, a notebook.", show_default=False)]
FILES = Annotated[
    list[str] | None,
    typer.Option(
        "--file", "-f", metavar="NAME=PATH", help="Where a file of the trace is now, by its recorded path or its name; again for more."
    ),
]
ALLOW_CHANGED = Annotated[bool, typer.Option("--allow-changed", help="Go on with files that are not what they were.")]
CONFIG = Annotated[Path | None, typer.Option("--config", help="Settings file; default config.json, if there is one.")]


def replay(
    trace: TRACE,
    file: FILES = None,
    allow_changed: ALLOW_CHANGED = False,
    tree: Annotated[bool, typer.Option("--tree", help="Replay the child RLMs' traces, too.")] = False,
    step: Annotated[bool, typer.Option("--step", help="Stop before each cell: run, skip, quit, or open a console on the kernel.")] = False,
    until: Annotated[str | None, typer.Option("--until", metavar="CELL", help="The last cell to run, by id, or a turn, by its.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the models what has no record; otherwise nothing is sent to any.")] = False,
    cache: CACHE = None,
    runtime: RUNTIME = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the replayed notebook here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: verdict and diff of each cell.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")] = False,
    config: CONFIG = None,
) -> None:
    """Run a trace's cells in a fresh kernel, host calls answered from the recording, and compare the outputs.

    A verdict for each cell: same, differs (with a diff), failed, new call (it has no record), added (a person's, never run before). Exit
    codes: 0 all the same, 1 not, 2 usage or a missing or changed file, 3 set-up, 130 interrupted.
    """
    from rlm_kernel.cli._live import LiveView
    from rlm_kernel.config import load_api_keys
    from rlm_kernel.session.replay import replay as run

    if step and as_json:
        raise UsageError("--step and --json exclude each other.")
    load_api_keys()

    async def main() -> Replayed:
        with LiveView(quiet=quiet or step, lines=False) as view:

            def tell(verdict: Verdict, result: CellResult | None) -> None:
                if not as_json:
                    view.above(_line(verdict))
                if step and result is not None:
                    print(_outputs(result), file=sys.stderr)

            def begin(child: Path) -> None:
                if not as_json:
                    view.above(printable(f"\n{child.parent.name}/{child.name}"))

            return await run(
                trace,
                config_file=config,
                changes={"cache.enabled": cache, "sandbox.runtime": runtime},
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

    replayed = run_to_end(main(), before="; the trace is as it was.")
    _report(replayed, as_json=as_json)
    if not replayed.same:
        raise typer.Exit(DIFFERENT)


def named_files(given: list[str] | None) -> dict[str, Path]:
    """The NAME=PATH options. Raises UsageError."""
    named: dict[str, Path] = {}
    for text in given or ():
        name, found, path = text.partition("=")
        if not (name and found and path):
            raise UsageError(f"--file takes NAME=PATH, not {text}.", hint="For example: --file server.log=/data/server.log")
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

    return "\n".join(f"  │ {printable(line)}" for line in truncate(output_text(result.outputs), _STEP_CHARS).splitlines())


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
        print(f"All {cells} gave the same." if not counts["added"] else f"All {cells} ran, and the recorded ones gave the same.")
    else:
        print(f"Not the same: {', '.join(f'{count} {name}' for name, count in counts.items())}.")
    if counts["new call"]:
        print("rlm: a call without a record was not sent to any model; to have it asked: rlm replay --live", file=sys.stderr)
    if replayed.spent.calls:
        print(f"rlm: what was asked anew took {replayed.spent.spending()}", file=sys.stderr)
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
