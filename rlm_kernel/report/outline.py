"""A trace in the order in which a person reads it: questions with their answers first, then turn by turn.

What the documents of this room have in common; none of them is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rlm_kernel.engine.protocols import (
    ROLES,
    TOLD_CALLS,
    Evidence,
    Shares,
    Totals,
    Usage,
    few_dollars,
    tool_answer,
)
from rlm_kernel.engine.replies import parse_reply
from rlm_kernel.trace.calls import PackedCalls, spent_on
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, NotebookMeta, usage_of

MODELS_WORDS = ("model", "unfinished")
"""Kinds of cells that hold the root model's words."""
_LEFT_OUT = ("title", "summary", "pictures", "parameters")
_WHY = {
    "turns": "the turns were used up",
    "calls": "the sub-calls were used up",
    "cost": "the money was used up",
    "tokens": "the tokens were used up",
    "seconds": "the time was used up",
    "batch": "the budget that it shared was used up",
    "no_answer": "the model gave no answer",
    "interrupted": "the run was interrupted",
    "error": "the run failed",
}


@dataclass(frozen=True)
class Exchange:
    """A question, and what came of it. `answer` is None where there is none; `about` says why, or what the
    answer is. `evidence`: the passages that it stands on.
    """

    question: str
    answer: str | None
    about: str = ""
    cell: str = ""
    evidence: Sequence[Evidence] = ()


@dataclass
class Turn:
    """What a turn has, in its order; `number` is 0 for what comes before the first one."""

    number: int
    cells: list[TraceCell] = field(default_factory=list)

    @property
    def code_cells(self) -> int:
        return sum(cell.code for cell in self.cells)

    @property
    def calls(self) -> int:
        return sum(model_calls(cell) for cell in self.cells)

    def spent(self) -> Totals:
        """What the turn has used: the root model's reply, and the calls of its cells."""
        spent = Totals()
        for cell in self.cells:
            spent += spent_in(cell)
        return spent

    @property
    def line(self) -> str:
        """For a heading: `300 sub-calls · 13 s · $0.014`."""
        spent = self.spent()
        calls = f"{self.calls:,} sub-call{'s' * (self.calls != 1)}" if self.calls else ""
        parts = [calls, seconds(spent.seconds) if spent.seconds else "", money(spent)]
        return " · ".join(part for part in parts if part)


def spent_in(cell: TraceCell) -> Totals:
    """What a cell has used, by its own record."""
    if cell.meta is None:
        return Totals()
    meta = cell.meta
    spent = Totals(seconds=meta.seconds or 0.0)
    if meta.kind in ("model", "memory") and not meta.again:
        used, known, unpriced = usage_of(meta), meta.cost or 0.0, int(meta.cost is None)
        share = Shares.one("root", calls=1, usage=used, known_cost=known, unpriced=unpriced)
        spent += Totals(
            turns=int(meta.kind == "model"),
            root_usage=used,
            known_cost=known,
            unpriced=unpriced,
            models=share,
        )
    return spent + (meta.calls.spent if isinstance(meta.calls, PackedCalls) else spent_on(meta.calls))


def model_calls(cell: TraceCell) -> int:
    """How many calls of models and tools a cell has recorded."""
    return sum(1 for _ in calls_of(cell))


def calls_of(cell: TraceCell) -> Iterator[CallMeta]:
    """The calls of models and tools that a cell has recorded, in their order."""
    return (call for call in (cell.meta.calls if cell.meta else ()) if call.kind in TOLD_CALLS)


def turns(trace: TraceFile) -> list[Turn]:
    """Cells by turn: a cell that belongs to none stands with the turn before it."""
    found = [Turn(0)]
    for cell in trace.cells:
        if cell.kind in _LEFT_OUT:
            continue
        if cell.kind == "question" or cell.turn not in (0, found[-1].number):
            found.append(Turn(cell.turn))
        if cell.kind != "setup" or cell.outputs:
            found[-1].cells.append(cell)
    return [turn for turn in found if turn.cells]


def words_of(cell: TraceCell) -> str:
    """What the root model said in a turn, beside its code: as it said it. The notebook has HTML escaped, and
    headings lower.
    """
    if cell.meta is not None and cell.meta.reply:
        return parse_reply(cell.meta.reply).prose
    return cell.source.split("\n\n<details><summary>Reasoning:", 1)[0].partition("\n\n")[2]


def exchanges(trace: TraceFile) -> list[Exchange]:
    """All questions with their answers, in their order."""
    found: list[Exchange] = []
    asked = trace.meta.question.strip()
    for cell in trace.cells:
        text = (cell.meta.text if cell.meta else None) or ""
        if cell.kind == "question":
            if asked:
                found.append(Exchange(asked, None, "It has no answer."))
            asked = text
        elif cell.kind == "answer":
            answer = cell.meta.text if cell.meta else None
            last = cell.id == "answer"
            about = ending(trace.meta) if last else ""
            evidence = [one.evidence() for one in cell.meta.evidence] if cell.meta else []
            found.append(Exchange(asked, answer, about, cell.id, evidence))
            asked = ""
    if asked:
        found.append(Exchange(asked, None, ending(trace.meta) or "It has no answer."))
    return found


def ending(meta: NotebookMeta) -> str:
    """How the run ended, where it is not with an answer of the model's own; "" else."""
    if meta.status == "running":
        return "The run is in progress, or was cut off."
    if meta.forced:
        return f"Best-effort answer: {_WHY.get(str(meta.stop_reason), str(meta.stop_reason))}."
    if meta.stop_reason in _WHY:
        why = _WHY[meta.stop_reason]
        return f"No answer: {why}. {meta.detail}".strip()
    return ""


def by_model(trace: TraceFile) -> list[tuple[str, str, int, Usage, str]]:
    """For a cost table: role, model, calls, tokens, money."""
    totals = trace.spent()
    models = totals.models or Shares(
        Shares.one("root", calls=totals.turns + totals.child_turns, usage=totals.root_usage)
        + Shares.one("sub", calls=totals.calls - totals.child_turns, usage=totals.sub_usage)
    )
    title = {"root": "root model", "sub": "sub model"}
    order = sorted(models.items(), key=lambda one: (one[0] not in ROLES, one[0]))
    return [
        (
            title.get(name, name),
            trace.meta.models.get(name, ""),
            share.calls,
            share.usage,
            money_of(share.known_cost, share.unpriced) if totals.models else "",
        )
        for name, share in order
    ]


def models_named(metas: Iterable[NotebookMeta]) -> list[str]:
    """The models of runs, each once."""
    return list(dict.fromkeys(model for meta in metas for model in meta.models.values() if model))


def money(spent: Totals) -> str:
    """In dollars, as far as it is known; "" for nothing."""
    return money_of(spent.known_cost, spent.unpriced)


def money_of(known: float, unpriced: int) -> str:
    """See `money`. A price that is not known is told."""
    if not known:
        return "cost unknown" if unpriced else ""
    text = f"${known:,.2f}" if known >= 1 else f"${known:.4f}" if known >= 0.001 else few_dollars(known)
    return f"{text} or more" if unpriced else text


def seconds(span: float) -> str:
    """For people: `0.4 s`, `13 s`, `2 min 5 s`, `3 h 4 min`."""
    if span < 10:
        return f"{span:.1f} s"
    if round(span) < 60:
        return f"{span:.0f} s"
    minutes, rest = divmod(round(span), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def cut(text: str, most: int) -> tuple[str, int]:
    """A text of at most about `most` characters, its beginning and its end, and how many were left out."""
    if len(text) <= most + 40:
        return text, 0
    begin = most * 2 // 3
    left = len(text) - most
    return f"{text[:begin]}\n… {left:,} characters left out …\n{text[len(text) - (most - begin) :]}", left


def one_line(text: str, most: int) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text[: most * 4].split())
    return line if len(line) <= most else f"{line[:most].rstrip()}…"


def answer_text(call: CallMeta) -> str:
    """What a call was answered, or why it was not."""
    if call.error is not None:
        return f"{call.error_type or 'Error'}: {call.error}"
    answer = tool_answer(call.answer) if call.kind == "tool" else call.answer
    if isinstance(answer, str):
        return answer
    import json

    return json.dumps(answer, ensure_ascii=False, indent=1)


def message_texts(messages: Sequence[object]) -> list[tuple[str, str]]:
    """Messages as role and text; what is no text is named by its kind."""
    found = []
    for message in messages:
        if isinstance(message, dict):
            content = message.get("content", "")
            parts = content if isinstance(content, list) else [content]
            found.append((str(message.get("role", "")), "\n".join(map(_part, parts))))
    return found


def _part(part: object) -> str:
    if isinstance(part, dict):
        return str(part["text"]) if isinstance(part.get("text"), str) else f"[{part.get('type', 'part')}]"
    return "" if part is None else str(part)
