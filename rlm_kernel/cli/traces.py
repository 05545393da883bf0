"""`rlm traces`: the traces of a folder, and what they cost."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlm_kernel.cli import _complete
from rlm_kernel.cli._text import json_line, shown_path
from rlm_kernel.cli.options import INPUT, JSON, OUTPUT, SettingsOptions, option, with_options
from rlm_kernel.columns import padded, short, width
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.report.listing import Listing, Row, Sum

_BY = ("month", "day", "model")
_QUESTION = 20
"""Columns of a question that are shown at least."""
_LEAST = (7, 4, 2, 5)
"""Columns of the table that a narrow terminal does without, by number: size, turns, model, calls."""


@with_options
def traces(
    since: Annotated[
        str | None,
        option(
            INPUT,
            "--since",
            metavar="TIME",
            help="Only traces begun since then: 30d, 12h, 2026-10-01, yesterday.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        option(
            INPUT, "--until", metavar="TIME", help="Only traces begun until then; a day counts to its end."
        ),
    ] = None,
    grep: Annotated[
        str,
        option(INPUT, "--grep", metavar="TEXT", help="Only traces with this text in a question or answer."),
    ] = "",
    model: Annotated[
        str,
        option(
            INPUT, "--model", "-m", metavar="TEXT", help="Only traces with this text in the name of a model."
        ),
    ] = "",
    failed: Annotated[
        bool, option(INPUT, "--failed", help="Only traces without an answer, or with a best-effort answer.")
    ] = False,
    folder: Annotated[
        Path | None,
        option(
            INPUT,
            "--dir",
            metavar="FOLDER",
            help="Folder of the traces. Default: the setting trace.dir.",
            autocompletion=_complete.files,
        ),
    ] = None,
    by: Annotated[
        str | None, option(OUTPUT, "--by", metavar="month|day|model", help="Print totals instead of traces.")
    ] = None,
    most: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="Show only the newest N; totals count all."),
    ] = None,
    as_json: JSON = False,
    *,
    options: SettingsOptions,
) -> None:
    """List traces, newest first: question, outcome, cost.

    A run's figures include those of its child RLMs. Totals use the local time at which a run began. Notebooks
    that are not traces are skipped and counted.
    """
    from rlm_kernel.report.listing import Wanted, instant, listing, sums
    from rlm_kernel.sandbox.rundir import live_sessions

    if by not in (None, *_BY):
        raise UsageError(f"--by takes month, day or model, not {by}.")
    where = folder or options.settings().trace.dir
    if not where.is_dir():
        raise UsageError(
            f"There is no folder {where}.",
            hint="rlm ask makes it when it writes a trace. To name another folder: --dir",
        )
    wanted = Wanted(
        instant(since) if since else None, instant(until, end=True) if until else None, grep, model, failed
    )
    found = listing(where, wanted, {one.about.session for one in live_sessions()})
    groups = sums(found.rows, by) if by else None  # type: ignore[arg-type]
    if as_json:
        print(json_line(_as_json(found, groups, most)))
        return
    lines = _sums(groups) if groups is not None else _rows(found.rows[:most])
    for line in lines:
        print(printable(line))
    for line in _end(found, where):
        print(printable(f"rlm: {line}"), file=sys.stderr)


def _as_json(found: Listing, groups: dict[str, Sum] | None, most: int | None) -> dict[str, Any]:
    totals = found.totals()
    return {
        **({"by": {name: vars(one) for name, one in groups.items()}} if groups is not None else {}),
        "traces": [row.as_json() for row in found.rows[:most]] if groups is None else [],
        "count": len(found.rows),
        "cost": totals.cost,
        "known_cost": totals.known_cost,
        "tokens": totals.usage.total,
        "calls": totals.calls,
        "turns": totals.turns,
        "damaged": found.damaged,
        "foreign": found.foreign,
    }


def _rows(rows: Sequence[Row]) -> Iterator[str]:
    from rlm_kernel.report.outline import money

    if not rows:
        return
    cells = [
        [
            row.head.meta.created.astimezone().strftime("%Y-%m-%d %H:%M"),
            "",
            _cell(row.head.meta.models.get("root", ""), 24) or "-",
            row.how + (" (copy)" if row.copy else ""),
            f"{row.head.spent.turns:,}",
            f"{row.head.spent.calls:,}",
            money(row.head.spent) or "-",
            _size(row.head.size),
            printable(shown_path(row.head.path)),
        ]
        for row in rows
    ]
    table = [["when", "question", "model", "how", "turns", "calls", "cost", "size", "trace"], *cells]
    widths = [max(width(line[at]) for line in table) for at in range(9)]
    columns = shutil.get_terminal_size((120, 24)).columns
    shown = list(range(9))
    for least in _LEAST if sys.stdout.isatty() else ():
        if sum(widths[at] + 2 for at in shown if at != 1) + _QUESTION > columns:
            shown.remove(least)
    widest = max(_QUESTION, columns - sum(widths[at] + 2 for at in shown if at != 1))
    questions = [_cell(row.head.meta.question or f"Session {row.head.meta.name}", widest) for row in rows]
    widths[1] = max(map(width, ["question", *questions]))
    for line, question in zip(table, ["question", *questions], strict=True):
        line[1] = question
        yield "  ".join(padded(line[at], widths[at], right=at in (4, 5, 6, 7)) for at in shown).rstrip()


def _cell(text: str, columns: int) -> str:
    """The beginning of a text, in a column."""
    return short(printable(" ".join(text[: columns * 4].split())), columns)


def _sums(groups: dict[str, Sum]) -> Iterator[str]:
    from rlm_kernel.report.outline import money_of

    table = [["", "runs", "calls", "tokens", "cost"]]
    for name, one in groups.items():
        cost = money_of(one.known_cost, one.unpriced) or "-"
        table.append([name, f"{one.runs:,}", f"{one.calls:,}", f"{one.tokens:,}", cost])
    widths = [max(width(line[at]) for line in table) for at in range(5)]
    for line in table if groups else ():
        shown = [padded(text, widths[at], right=at > 0) for at, text in enumerate(line)]
        yield "  ".join(shown)


def _end(found: Listing, where: Path) -> Iterator[str]:
    from rlm_kernel.report.outline import money

    totals = found.totals()
    count = f"{len(found.rows):,} trace{'s' * (len(found.rows) != 1)} in {shown_path(where)}"
    cost = money(totals) or "no cost"
    yield f"{count}: {totals.turns:,} turns, {totals.calls:,} calls, {totals.usage.total:,} tokens, {cost}"
    passed = {
        "damaged or not notebooks": found.damaged,
        "of other programs": found.foreign,
        "of child RLMs": found.children,
    }
    if any(passed.values()):
        yield f"skipped: {', '.join(f'{number:,} {what}' for what, number in passed.items() if number)}"


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
