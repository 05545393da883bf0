"""The questions of a trace, with the turns that answered them: words and cells, in their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlm_kernel.trace.reader import TraceCell, TraceFile

_OF_TURN = re.compile(r"turn-\d{2,4}-(?:[a-z]|\d{1,4}|final)")
_INJECTED = "injected-parameters"


@dataclass(frozen=True)
class OldTurn:
    """A reply, and the cells that ran after it: its own, and a person's."""

    model: TraceCell
    cells: list[TraceCell] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.model.turn

    @property
    def reply(self) -> str:
        meta = self.model.meta
        return (meta.reply if meta else None) or self.model.source


@dataclass
class OldQuestion:
    """`before`: cells of persons that ran before the first turn.

    `answer`: None where it has none, "" where its text is not known.
    """

    text: str
    before: list[TraceCell] = field(default_factory=list)
    turns: list[OldTurn] = field(default_factory=list)
    answer: str | None = None


def questions_of(trace: TraceFile) -> list[OldQuestion]:
    """Those that have turns; the cells of one that has none belong to the next."""
    found = [OldQuestion(trace.meta.question)]
    for cell in trace.cells:
        now, meta = found[-1], cell.meta
        if cell.kind == "question" and meta is not None:
            if now.turns:
                found.append(OldQuestion(meta.text or ""))
            else:
                now.text = meta.text or ""
        elif cell.kind == "model" and cell.turn:
            now.turns.append(OldTurn(cell))
        elif cell.kind == "answer" and meta is not None:
            now.answer = meta.text
            if meta.text is None and trace.meta.stop_reason == "answered":
                now.answer = ""  # an older trace, which has it in words for people alone
        elif cell.code and not _loads_input(cell):
            (now.turns[-1].cells if now.turns else now.before).append(cell)
    return [one for one in found if one.turns]


def is_persons(cell: TraceCell) -> bool:
    """Whether a cell is none of the root model's."""
    return cell.kind != "code" or not _OF_TURN.fullmatch(cell.id)


def _loads_input(cell: TraceCell) -> bool:
    return cell.kind in ("parameters", "setup") and _INJECTED not in cell.tags


def cells_of(questions: Sequence[OldQuestion]) -> list[TraceCell]:
    """All cells with code, in their order."""
    return [
        cell
        for one in questions
        for cell in [*one.before, *(cell for turn in one.turns for cell in turn.cells)]
    ]


def code_of(questions: Sequence[OldQuestion]) -> str:
    """All of it."""
    return "\n".join(cell.source for cell in cells_of(questions))
