"""The tables of `rlm test`: what came of each trace, and what came of them under several models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rlm_kernel.cli._text import shown_path
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.engine.protocols import Totals
    from rlm_kernel.session.regression.results import CaseResult, Suite
    from rlm_kernel.session.regression.several import Comparison

_ANSWER = 24
_NAME = 32
_NOTHING = 1e-9
"""US dollars: what is left where sums of the same amounts are taken from each other."""


def lines(suite: Suite) -> Iterator[str]:
    """A suite's table, what differs, and the sum."""
    rows = [_row(one) for one in suite.traces]
    head = ["trace", "verdict", "answer", "turns", "calls", "cost"]
    yield from _table([head, *rows])
    for one in suite.traces:
        yield from _told(one, one.trace.name)
    yield ""
    yield _sum(suite)
    if suite.accepted is not None:
        yield f"The new answers are expected from now on: {shown_path(suite.accepted)}"
    _tell_place(suite)


def compared(found: Comparison) -> Iterator[str]:
    """The table of several models: a column for each, and one for what is expected; then what differs."""
    from rlm_kernel.session.regression.recorded import OTHER_ROOT

    suites = list(found.suites.values())
    rows = [["trace", "expected", *found.suites]]
    for same in zip(*(suite.traces for suite in suites), strict=True):
        first = same[0]
        then = f"{_answers(first.then)}  {first.before.money()}" if first.verdict != "skipped" else ""
        rows.append([_cut(first.trace.name, _NAME), then, *(_beside(one) for one in same)])
    rows.append(["", suites[0].before.money(), *(suite.used.money() for suite in suites)])
    yield from _table(rows)
    for same in zip(*(suite.traces for suite in suites), strict=True):
        for model, one in zip(found.suites, same, strict=True):
            yield from _told(one, f"{one.trace.name}, {model}", OTHER_ROOT)
    yield ""
    width = max(map(len, found.suites))
    for model, suite in found.suites.items():
        yield f"{model.ljust(width)}  {_sum(suite)}"
        _tell_place(suite)


def _beside(one: CaseResult) -> str:
    """What came of a trace, beside what came of it under other models."""
    if one.verdict == "skipped":
        return "skipped"
    answer = f" {_answers(one.now)}" if one.verdict == "differs" else ""
    return f"{one.verdict}{answer}" + (f"  {one.used.money()}" if one.now else "")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _told(one: CaseResult, name: str, known: str = "") -> Iterator[str]:
    """What differs or is not as it was, and how to look at it. `known`: a remark that is left out."""
    told = [line for line in (one.detail, *one.remarks) if line and line != known]
    if told:
        yield ""
        yield f"{name}: {one.verdict}"
        yield from (f"  {line}" for line in told)
    if not one.good and one.out is not None:
        yield f"  rlm diff {shown_path(one.trace)} {shown_path(one.out)}"


def _tell_place(suite: Suite) -> None:
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
