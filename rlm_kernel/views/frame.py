"""The lines of the frame: what the state of a run looks like in a terminal of some size."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from rich.cells import chop_cells
from rich.segment import Segment
from rich.style import Style

from rlm_kernel.engine.totals import counted
from rlm_kernel.printable import printable
from rlm_kernel.views.calls import Progress
from rlm_kernel.views.colours import BOLD, DONE, FAILED, ITALIC, MARK, PYTHON
from rlm_kernel.views.outputs import last_lines
from rlm_kernel.views.screen import Line, cropped
from rlm_kernel.views.state import Branch, short_money

_HEIGHT = 20
"""Rows of the frame at most, or half of the terminal's if that is more."""
_LINE = 1_000
"""Characters of a line that are looked at: more fit into no terminal."""
_WORDS, _WORDS_BESIDE_CODE, _CODE, _OUTPUT, _TREE = 8, 2, 10, 6, 12
"""Lines of each part at most."""
_BAR = 20
_ASKED = 8
"""Columns that a child's question has at least."""


class Frame:
    """Draws a branch. It grows with what a turn has to show and does not shrink before the turn is over, so
    that nothing jumps.
    """

    def __init__(self, branch: Branch) -> None:
        self._branch = branch
        self._highest = 0
        self._of = (0, True)
        """The turn that it is so high in, and whether the run goes on."""

    def lines(self, columns: int, rows: int) -> list[Line]:
        """For a terminal of so many columns and rows."""
        branch, width = self._branch, max(10, columns - 1)
        room = max(1, min(rows - 1, max(_HEIGHT, rows // 2)))
        head, foot = [_text(self._head(), BOLD)], self._foot(width)
        parts = [
            self._words(width),
            self._code(width),
            self._output(width),
            self._calls(width),
            self._tree(width),
        ]
        body = list(itertools.chain(*fitting(parts, room - len(head) - len(foot))))
        if (now := (branch.turn, branch.ended is None)) != self._of:
            self._of, self._highest = now, 0
        self._highest = min(max(self._highest, len(body)), max(0, room - len(head) - len(foot)))
        blank: list[Line] = [[] for _ in range(self._highest - len(body))]
        return [*head, *body, *blank, *foot][:room]

    def _head(self) -> str:
        turn = [f"turn {self._branch.turn}"] if self._branch.turn and self._branch.ended is None else []
        return " · ".join([*turn, self._branch.activity()])

    def _words(self, width: int) -> list[Line]:
        branch = self._branch
        most = _WORDS_BESIDE_CODE if branch.code else _WORDS
        lines = _wrapped(branch.words[-most * width :], width - 2)[-most:]
        return [_text(f"  {line}", ITALIC if branch.thinks else None) for line in lines]

    def _code(self, width: int) -> list[Line]:
        code = self._branch.code
        if not code:
            return []
        shown = [[Segment("  │ ", MARK), *line] for line in _coloured(code)]
        more = code.rstrip("\n").count("\n") + 1 - len(shown)
        return (
            [*shown, [Segment("  │ ", MARK), Segment(f"… {counted(more, 'more line')}")]]
            if more > 0
            else shown
        )

    def _output(self, width: int) -> list[Line]:
        lines = last_lines(self._branch.outputs, _OUTPUT)
        return [_text(f"  {line}") for line in lines]

    def _calls(self, width: int) -> list[Line]:
        branch = self._branch
        progress = branch.batch.progress()
        own = (
            bar(progress, width)
            if progress
            else [_text(f"  {line}") for line in [branch.batch.line()] if line]
        )
        waiting = branch.waiting.line()
        return [*own, *([_text(f"  {waiting}", FAILED)] if waiting else [])]

    def _tree(self, width: int) -> list[Line]:
        branches = self._branch.tree()
        shown = [_child(child, depth, width) for depth, child in itertools.islice(branches, _TREE)]
        more = sum(1 for _ in branches)
        return [*shown, _text(f"  … and {counted(more, 'more child RLM')}")] if more else shown

    def _foot(self, width: int) -> list[Line]:
        """What was used, and what is left of the limits: two lines where one does not do."""
        branch, totals = self._branch, self._branch.totals()
        used = [
            *(
                [counted(totals.usage.total, "token"), short_money(totals.known_cost, totals.unpriced)]
                if totals.usage.total
                else []
            ),
            *([f"{totals.seconds:,.0f} s"] if branch.asked else []),
        ]
        left = branch.left()
        told = [
            *([" · ".join(used)] if used else []),
            *([f"left: {', '.join(left)}"] if left and branch.asked else []),
        ]
        if not told:
            return []
        one = " · ".join(told)
        return [_text(line) for line in ([one] if len(one) <= width else told)]


def fitting(parts: list[list[Line]], room: int) -> list[list[Line]]:
    """The parts without as many lines as are too many, each taken from the longest; its last lines stay."""
    kept = [len(part) for part in parts]
    while sum(kept) > max(0, room):
        kept[kept.index(max(kept))] -= 1
    return [
        part[len(part) - number :] if place != 1 else part[:number]
        for place, (part, number) in enumerate(zip(parts, kept, strict=True))
    ]


def _child(child: Branch, depth: int, width: int) -> Line:
    """What a child RLM is asked, as far as there is room, and in any case how far it is."""
    name, totals = f"  {'  ' * min(depth, 10)}{child.name} ", child.totals()
    calls = totals.calls - totals.child_turns
    status = [
        *([f"turn {child.turn}"] if child.turn else []),
        child.activity(),
        *([counted(calls, "sub-call")] if calls else []),
        *([short_money(totals.known_cost, totals.unpriced)] if not totals.nothing else []),
    ]
    told = _safe(f" · {' · '.join(status)}")
    question = cropped([Segment(_safe(child.question))], max(_ASKED, width - len(name) - len(told)))
    return [Segment(name), *question, Segment(told)]


def bar(progress: Progress, width: int) -> list[Line]:
    """The bar, and the numbers beside it, or where the terminal is narrow below it."""
    filled = round(_BAR * progress.done / progress.total)
    bar = [Segment("  "), Segment("━" * filled, DONE), Segment("─" * (_BAR - filled))]
    numbers = [Segment(f" {progress.done:,} of {progress.total:,}")]
    if progress.failed:
        numbers.append(Segment(f" · {progress.failed:,} failed", FAILED))
    rest = " · ".join(filter(None, (progress.speed, progress.money, progress.time_left)))
    if not rest:
        return [[*bar, *numbers]]
    if Segment.get_line_length([*bar, *numbers]) + 3 + len(rest) <= width:
        return [[*bar, *numbers, Segment(f" · {rest}")]]
    return [[*bar, *numbers], _text(f"  {rest}")]


def _text(text: str, style: Style | None = None) -> Line:
    return [Segment(_safe(text[:_LINE]), style)]


def _safe(text: str) -> str:
    """On one line, and a tab as wide as we think."""
    return printable(text).replace("\t", "    ").replace("\n", " ")


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that hold anything, broken between words where they can be."""
    lines: list[str] = []
    for line in text.split("\n"):
        rest = _safe(line).rstrip()
        while rest:
            fits = chop_cells(rest, max(2, width))[0]
            if len(fits) < len(rest) and (end := fits.rstrip().rfind(" ")) > width // 2:
                fits = fits[: end + 1]
            lines.append(fits.rstrip())
            rest = rest[len(fits) :].lstrip()
    return lines


@functools.lru_cache(maxsize=4)
def _coloured(code: str) -> list[Line]:
    """The first lines of a cell, in colours of Python's grammar."""
    from pygments.lexers.python import PythonLexer

    first = "\n".join(_safe(line[:_LINE]) for line in code.split("\n", _CODE + 1)[:_CODE])
    lines: list[Line] = [[]]
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(first):
        style = _style(str(token))
        for place, part in enumerate(text.split("\n")):
            if place:
                lines.append([])
            if part:
                lines[-1].append(Segment(part, style))
    return lines


@functools.lru_cache(maxsize=256)
def _style(token: str) -> Style | None:
    return next((style for name, style in PYTHON.items() if token.startswith(f"Token.{name}")), None)


def scrolled(text: str, style: Style | None = None) -> Iterator[Line]:
    """Text that stays above the frame, as long as it is."""
    for line in text.split("\n"):
        yield [Segment(printable(line).replace("\t", "    "), style)]
