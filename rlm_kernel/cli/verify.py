"""`rlm verify`: whether a trace is what it says, claim by claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._signals import run_to_end
from rlm_kernel.cli._text import json_line
from rlm_kernel.cli._trace import chosen
from rlm_kernel.cli.options import (
    INPUT,
    MOVED_FILES,
    OUTPUT,
    TRACE_OR_LAST,
    KernelOptions,
    option,
    with_options,
)
from rlm_kernel.cli.replay import named_files
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.proof.claims import Claim
    from rlm_kernel.session.verify import Verified

BROKEN = 1


@with_options
def verify(
    trace: TRACE_OR_LAST = None,
    file: MOVED_FILES = None,
    folders: Annotated[
        list[Path] | None,
        option(
            INPUT,
            "--files",
            metavar="FOLDER",
            help="Look for the trace's files in this folder, by name. Repeatable.",
            autocompletion=_complete.files,
        ),
    ] = None,
    cells: Annotated[
        bool, option(INPUT, "--replay/--no-replay", help="Run the cells again in a new container.")
    ] = True,
    seal: Annotated[
        str, option(INPUT, "--seal", metavar="DIGEST", help="Seal that the trace must have.")
    ] = "",
    report: Annotated[
        Path | None,
        option(
            INPUT,
            "--report",
            metavar="FILE",
            help="Also check this export of the trace (.html, .md, .jsonl).",
            autocompletion=_complete.files,
        ),
    ] = None,
    strict: Annotated[
        bool, option(OUTPUT, "--strict", help="Treat claims that could not be checked as broken.")
    ] = False,
    *,
    options: KernelOptions,
) -> None:
    """Check a trace offline: its seal, files, quotations, account, cells, and what readers see.

    Each claim gets a verdict: holds, broken (with what was changed), or not checked (with why). No model is
    asked. Exit codes: 0 nothing is broken, 1 something is, 2 wrong usage, 3 missing set-up, 130 interrupted.
    """
    from rlm_kernel.session.verify import verify as run

    as_json = options.as_json
    changes = options.changes()
    wanted = chosen(trace, options.settings, quiet=options.quiet)

    async def main() -> Verified:
        with options.view(lines=False) as view:

            def tell(found: Claim) -> None:
                if not as_json:
                    view.above("\n".join(_lines(found)))

            return await run(
                wanted,
                config_file=options.config,
                changes=changes,
                files=named_files(file),
                folders=folders or (),
                cells=cells,
                seal=seal,
                report=report,
                tell=tell,
                view=view,
                say=view.say,
            )

    found = run_to_end(main(), before="; the trace is unchanged.")
    print(json_line(found.as_json() | {"strict": strict}) if as_json else _sentence(found))
    if not (found.complete if strict else found.holds):
        raise typer.Exit(BROKEN)


def _lines(found: Claim) -> Iterator[str]:
    more = found.said if found.verdict != "broken" else "" if found.faults[1:] else found.faults[0]
    yield printable(f"{found.name:9} {found.verdict:12} {more}".rstrip())
    if found.verdict == "broken" and found.faults[1:]:
        yield from (printable(f"    {fault}") for fault in found.faults)


def _sentence(found: Verified) -> str:
    broken = [claim.name for claim in found.claims if claim.verdict == "broken"]
    unknown = [claim.name for claim in found.claims if claim.verdict == "not checked"]
    if broken or not found.holds:
        return f"Do not rely on this trace: {', '.join(broken)} broken."
    if unknown:
        return f"Nothing is broken. Not checked: {', '.join(unknown)}."
    return "Everything that was checked holds."
