"""A conversation as its trace has it: the turns that the root model is to see again, the questions and their
answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from rlm_kernel.engine import messages
from rlm_kernel.engine.conversation import PastTurn
from rlm_kernel.engine.protocols import CellResult
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CellMeta

MAX_HISTORY = 4_000_000
"""Characters of outputs in `history`: it crosses to the kernel, and into the trace, whenever a cell looks at
it.
"""
_FINAL = "-final"
"""Ends the ids of cells that try a name which stood in prose: the loop's own."""


def turns_of(
    cells: Sequence[TraceCell], results: Mapping[str, CellResult], *, further: bool = False
) -> list[PastTurn]:
    """The turns of the cells, with what the cells gave (`results`, by id).

    A summary stands for the turns before it, back to the one that it names, or else to the question that they
    answered. `further`: another question follows.
    """
    talk = _Talk()
    for cell in cells:
        if cell.meta is None or not talk.hear(cell.kind, cell.meta, cell):
            if cell.kind == "person" and cell.id in results:
                talk.remarks.append(results[cell.id])
            elif cell.kind == "code" and cell.id in results and not cell.id.endswith(_FINAL):
                talk.ran.append(results[cell.id])
    if further:
        talk.close()
    return talk.turns


@dataclass
class _Talk:
    """Turns in the making.

    `remarks` and `ran` are those of the last one; `begun`: how many there were when the question was put.
    """

    turns: list[PastTurn] = field(default_factory=list)
    remarks: list[messages.Remark] = field(default_factory=list)
    ran: list[CellResult] = field(default_factory=list)
    begun: int = 0
    answered: bool = False

    def hear(self, kind: str, meta: CellMeta, cell: TraceCell) -> bool:
        """Take a cell of words; False of any other."""
        text = meta.text or ""
        if kind == "model":
            self._turn(
                PastTurn(
                    cell.turn,
                    meta.reply or cell.source,
                    told=meta.told,
                    model=meta.model or "",
                    thinking=meta.thinking,
                    read=meta.prompt_tokens or 0,
                )
            )
        elif kind == "memory":
            self._memory(text or cell.source, meta.since)
        elif kind == "answer":
            self.answered = bool(text)
            self.remarks += [messages.answer_given(text)] if text else []
        elif kind == "question":
            self._question(text)
        elif kind == "note" and text:
            self.remarks.append(text)
        else:
            return False
        return True

    def close(self) -> None:
        """No more turns come for the question."""
        if not self.answered:
            self.remarks.append(messages.STOPPED)

    def _turn(self, turn: PastTurn) -> None:
        self.remarks, self.ran = list(turn.remarks), []
        self.turns.append(replace(turn, results=self.ran, remarks=self.remarks))

    def _memory(self, text: str, since: int | None) -> None:
        """A summary in place of the turns from that one on, or else since the question. A question that was
        put before it was written is not in it.
        """
        begin = self.begun
        if since is not None:
            begin = next((at for at, turn in enumerate(self.turns) if turn.number >= since), len(self.turns))
        gone = self.turns[begin:]
        if not gone:
            return
        del self.turns[begin:]
        asked = [one for turn in gone for one in turn.asked] if since is not None else []
        put = asked[-1:] if gone[-1].asked else []
        covered = asked[: len(asked) - len(put)]
        summary = PastTurn(gone[-1].number, text, memory=True, told=gone[0].told)
        self._turn(replace(summary, remarks=put, covered=covered))
        self.begun = min(self.begun, len(self.turns))

    def _question(self, text: str) -> None:
        if not self.turns:
            return
        self.close()
        self.remarks.append(messages.Asked(text))
        self.begun, self.answered = len(self.turns), False


def recorded(cells: Sequence[TraceCell]) -> dict[str, CellResult]:
    """What the code cells gave, as the trace has it, by their ids."""
    return {cell.id: _result(cell) for cell in cells if cell.code}


def _result(cell: TraceCell) -> CellResult:
    status = cell.meta.status if cell.meta else None
    failed = any(output.get("output_type") == "error" for output in cell.outputs)
    return CellResult(
        cell_id=cell.id,
        code=cell.source,
        status=status if status and status != "running" else "error" if failed or status else "ok",
        outputs=cell.outputs,
        started=cell.started or datetime.now(UTC),
        seconds=(cell.meta.seconds or 0.0) if cell.meta else 0.0,
        execution_count=cell.execution_count,
    )


def first_question(cells: Sequence[TraceCell], title: str) -> str:
    """The question that the first of the turns answered.

    `title`: the notebook's own, which is not the one if it had no reply.
    """
    first = title
    for cell in cells:
        if cell.kind == "model":
            break
        if cell.kind == "question" and cell.meta is not None:
            first = cell.meta.text or ""
    return first


def conversation(trace: TraceFile) -> list[tuple[str, str | None]]:
    """The questions and their answers; None for one that has none."""
    talk: list[tuple[str, str | None]] = [(trace.meta.question, None)] if trace.meta.question else []
    for cell in trace.cells:
        if cell.kind == "question" and cell.meta is not None:
            talk.append((cell.meta.text or "", None))
        elif cell.kind == "answer" and talk and cell.meta is not None and cell.meta.text is not None:
            talk[-1] = (talk[-1][0], cell.meta.text)
    return talk


def full_history(
    trace: TraceFile, limit: int = MAX_HISTORY, *, seen_by: str | None = None
) -> list[dict[str, Any]]:
    """The conversation as code in the kernel sees it in `history`: every question with its turns, their cells
    and outputs, the answer.

    Beyond `limit` characters the oldest outputs are left out first, and say so. `seen_by`: as that cell sees
    it, itself without outputs; so a replay tells what the run itself told.
    """
    talk = [_interaction(trace.meta.question)] if trace.meta.question else []
    for cell in trace.cells:
        if cell.id == seen_by:
            if talk and talk[-1]["turns"] and cell.kind == "code":
                talk[-1]["turns"][-1]["cells"].append({"code": cell.source, "output": ""})
            break
        if cell.kind == "question" and cell.meta is not None:
            talk.append(_interaction(cell.meta.text or ""))
        elif not talk:
            continue
        elif cell.kind == "model" and cell.meta is not None:
            talk[-1]["turns"].append({"reply": cell.meta.reply or cell.source, "cells": []})
        elif cell.kind == "code" and talk[-1]["turns"]:
            talk[-1]["turns"][-1]["cells"].append(
                {"code": cell.source, "output": messages.output_text(cell.outputs)}
            )
        elif cell.kind == "answer" and cell.meta is not None:
            talk[-1]["answer"] = cell.meta.text
    _bound(talk, limit)
    return talk


def _interaction(question: str) -> dict[str, Any]:
    return {"question": question, "turns": [], "answer": None}


def _bound(talk: Sequence[Mapping[str, Any]], limit: int) -> None:
    ran = [cell for interaction in talk for turn in interaction["turns"] for cell in turn["cells"]]
    over = sum(len(cell["output"]) for cell in ran) - limit
    for cell in ran:
        if over > 0 and cell["output"]:
            over -= len(cell["output"])
            cell["output"] = f"[{len(cell['output']):,} characters left out here: they are in the trace]"
