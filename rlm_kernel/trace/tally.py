"""What the cells of a trace took, by turn and over time: for headings, a table and the timeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rlm_kernel.engine.protocols import counted
from rlm_kernel.trace.calls import PackedCalls, delivered, spent_on
from rlm_kernel.trace.calltable import cost, dollars, took
from rlm_kernel.trace.schema import CellMeta, usage_of
from rlm_kernel.trace.timeline import Span, Stretch, placed, stretches_of

_TURNS_SHOWN = 200
_OF_TURNS = ("model", "code")


@dataclass(frozen=True)
class Took:
    """What a cell, or a turn, took."""

    cells: int = 0
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    known: float = 0.0
    unpriced: bool = False

    def __add__(self, other: Took) -> Took:
        return Took(
            self.cells + other.cells,
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.known + other.known,
            self.unpriced or other.unpriced,
        )

    @classmethod
    def of(cls, meta: CellMeta) -> Took:
        calls = meta.calls.spent if isinstance(meta.calls, PackedCalls) else spent_on(meta.calls)
        used = usage_of(meta)
        return cls(
            cells=int(meta.kind == "code"),
            calls=calls.calls,
            tokens=used.prompt + used.completion + calls.usage.total,
            seconds=meta.seconds or 0.0,
            known=(meta.cost or 0.0) + calls.known_cost,
            unpriced=bool(calls.unpriced) or (meta.kind == "model" and meta.cost is None),
        )

    def told(self) -> str:
        """`300 sub-calls · 13 s · $0.014`."""
        calls = [counted(self.calls, "sub-call")] if self.calls else []
        return " · ".join([*calls, took(self.seconds), *cost(self.known, unpriced=self.unpriced)])


class Tally:
    """Hears of each cell as it ends; a cell that is heard of again counts once."""

    def __init__(self) -> None:
        self._turns: dict[int, dict[str, Took]] = defaultdict(dict)
        self._stretches: dict[str, Iterable[Stretch]] = {}
        self.delivered = ""
        """The last cell whose code gave the answer."""

    def heard(self, cell_id: str, meta: CellMeta, started: datetime | None = None) -> None:
        if meta.again:
            return  # the root model was not asked now: its words took nothing here
        if meta.kind in _OF_TURNS and meta.turn:
            self._turns[meta.turn][cell_id] = Took.of(meta)
        packed = isinstance(meta.calls, PackedCalls)  # those are made when they are asked for
        stretches = stretches_of(cell_id, meta, started)
        self._stretches[cell_id] = stretches if packed else list(stretches)
        if meta.kind == "code" and delivered(meta):
            self.delivered = cell_id

    def heading(self, turn: int) -> str:
        """Of a turn that has ended."""
        return f"## Turn {turn} · {self._of(turn).told()}"

    def _of(self, turn: int) -> Took:
        return sum(self._turns[turn].values(), Took())

    def table(self) -> list[str]:
        """A table of the turns, in Markdown."""
        if not self._turns:
            return []
        turns = sorted(self._turns)
        rows = [_row(turn, self._of(turn)) for turn in turns[:_TURNS_SHOWN]]
        more = [f"\n… and {len(turns) - _TURNS_SHOWN:,} more turns."] if len(turns) > _TURNS_SHOWN else []
        return [
            "",
            "| turn | cells | sub-calls | tokens | seconds | cost |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            *more,
        ]

    def spans(self, order: Iterable[str]) -> list[Span]:
        """The spans of the cells, in the order in which the notebook has them."""
        return placed(stretch for name in order for stretch in self._stretches.get(name, ()))


def _row(turn: int, spent: Took) -> str:
    known = "" if spent.unpriced and not spent.known else f"\\{dollars(spent.known)}"
    more = " + unknown" if spent.unpriced and spent.known else ""
    return (
        f"| {turn} | {spent.cells:,} | {spent.calls:,} | {spent.tokens:,} | {spent.seconds:,.1f} | "
        f"{known}{more} |"
    )
