"""A trace as lines for a terminal: as a document, one cell in full, its calls.

Lines are made as they are asked for. All that comes from models, cells and files is made safe first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from rlm_kernel.columns import padded, short
from rlm_kernel.engine.messages import output_text
from rlm_kernel.engine.protocols import Evidence, Totals, fine_dollars, listed, tool_answer
from rlm_kernel.engine.protocols import as_json as evidence_json
from rlm_kernel.printable import printable
from rlm_kernel.report.outline import words_of
from rlm_kernel.trace.calls import asked, is_told, linked
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta

MOST_LINES = 30
"""Of a cell's outputs, in the document."""
MOST_CHILDREN = 20
"""Of a cell, that are named below it."""
MOST_WIDE = 2_000
"""Characters of one line of these."""
MOST_ANSWER = 400
"""Lines of the answer in the document."""
_OLD_ANSWER = "## Answer\n\n"
_MOST_COLOURED = 50_000
"""Characters of code that are coloured."""
_PYTHON = {
    "": "",
    "Keyword": "magenta",
    "Operator.Word": "magenta",
    "Literal.String": "green",
    "Literal.Number": "cyan",
    "Name.Builtin": "cyan",
    "Name.Function": "bold",
    "Name.Class": "bold",
}
"""Colours of code, by Pygments' types of tokens: those that can be read on light and on dark, as in the live
view.
"""
_WIDE, _NARROW = 180, 120
"""Columns of the table of calls where there is no terminal, and fewer than which it is made narrower for."""
_ENDED = {
    "interrupted": "interrupted",
    "error": "failed",
    "no_answer": "no answer",
    "batch": "the budget that it shared was used up",
}


@dataclass(frozen=True)
class Paint:
    """Colours, where the terminal has any."""

    on: bool = False

    def _as(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and text else text

    def head(self, text: str) -> str:
        return self._as("1", text)

    def cell(self, text: str) -> str:
        return self._as("36", text)

    def dim(self, text: str) -> str:
        return self._as("2", text)

    def bad(self, text: str) -> str:
        return self._as("31", text)

    def code(self, code: str) -> list[str]:
        """Python, by lines."""
        code = printable(code.expandtabs(4))
        if not self.on or len(code) > _MOST_COLOURED:
            return code.split("\n")
        from pygments import highlight
        from pygments.formatters import TerminalFormatter
        from pygments.lexers import PythonLexer
        from pygments.token import string_to_tokentype

        colours = {string_to_tokentype(kind): (colour, colour) for kind, colour in _PYTHON.items()}
        lexer = PythonLexer(stripnl=False, ensurenl=False)
        shown: str = highlight(code, lexer, TerminalFormatter(colorscheme=colours))
        return shown.removesuffix("\n").split("\n")


def document(trace: TraceFile, name: str, paint: Paint) -> Iterator[str]:
    """The whole trace to be read; `name`: how it is named in commands that show more of it."""
    yield from _title(trace, name, paint)
    yield from _answer(trace, paint)
    for cell in trace.cells:
        yield from _cell(cell, paint, lambda cell=cell: f"rlm show {name} --cell {cell.id}")  # type: ignore[misc]
    yield from _end(trace, paint)


def one_cell(cell: TraceCell, paint: Paint) -> Iterator[str]:
    """A cell in full."""
    yield from _cell(cell, paint, None)


def _title(trace: TraceFile, name: str, paint: Paint) -> Iterator[str]:
    meta = trace.meta
    question = _safe(meta.question.strip()) or [
        f"Session {printable(meta.name)}" if meta.name else "(no question)"
    ]
    yield from map(paint.head, question)
    yield ""
    models = dict.fromkeys(model for model in meta.models.values() if model)
    yield paint.dim(
        " · ".join([_line(", ".join(models)) or "no models", _how(trace), *_spent(trace.spent())])
    )
    yield paint.dim(f"{meta.created:%Y-%m-%d %H:%M} UTC · {printable(name)}")
    if meta.parent is not None:
        yield paint.dim(f"a child RLM, started by {_line(meta.parent.cell)} of {_line(meta.parent.trace)}")
    for origin in meta.origins:
        yield paint.dim(f"{origin.kind} of {_line(origin.trace)} at {_line(origin.cell)}")


def _how(trace: TraceFile) -> str:
    meta = trace.meta
    if meta.status == "running":
        return "running, or cut off"
    reason = meta.stop_reason or "closed"
    return f"best-effort answer: limit of {reason}" if meta.forced else _ENDED.get(reason, reason)


def _spent(spent: Totals) -> list[str]:
    return [] if spent.nothing else [spent.line()]


def answer_of(trace: TraceFile) -> tuple[str, str | None]:
    """The last answer, by its cell's id; None if there is none."""
    cell = next((cell for cell in reversed(trace.cells) if cell.kind == "answer" and cell.meta), None)
    if cell is None or cell.meta is None:
        return "", None
    if cell.meta.text is None and cell.source.startswith(_OLD_ANSWER):  # as older traces have it
        return cell.id, cell.source.removeprefix(_OLD_ANSWER)
    return cell.id, cell.meta.text


def evidence_of(trace: TraceFile) -> list[Evidence]:
    """The passages that the last answer stands on."""
    metas = (cell.meta for cell in reversed(trace.cells) if cell.kind == "answer" and cell.meta)
    return [one.evidence() for one in next((meta.evidence for meta in metas), [])]


def _answer(trace: TraceFile, paint: Paint) -> Iterator[str]:
    name, text = answer_of(trace)
    yield ""
    yield paint.head("Answer")
    if text is None:
        yield paint.bad(_line(trace.meta.detail) or "There is none.")
        return
    lines = _safe(text)
    yield from lines[:MOST_ANSWER]
    if len(lines) > MOST_ANSWER:
        yield paint.dim(f"… {len(lines) - MOST_ANSWER:,} more lines: --cell {name}")
    if evidence := evidence_of(trace):
        yield from ["", paint.head("Evidence"), *map(printable, listed(evidence, _NARROW))]


def _cell(cell: TraceCell, paint: Paint, more: Callable[[], str] | None) -> Iterator[str]:
    """A cell: in full, or with what `more` names cut."""
    meta, whole = cell.meta, more is None
    if cell.code:
        yield from _code_cell(cell, paint, more)
    elif meta is None:
        yield from ["", paint.dim("(added by hand)"), *_safe(cell.source)]
    elif cell.kind == "model":
        told = [f"Turn {cell.turn}", _line(meta.model or ""), _seconds(meta.seconds), _cost(meta.cost)]
        tokens = f"{meta.prompt_tokens or 0:,} → {meta.completion_tokens or 0:,} tokens"
        yield from ["", paint.head(" · ".join(filter(None, [*told, tokens])))]
        yield from _words(cell)
        if whole and meta.thoughts:
            yield from ["", paint.dim("Reasoning"), *map(paint.dim, _safe(meta.thoughts))]
    elif cell.kind in ("note", "memory", "question", "unfinished"):
        heading = {
            "note": "Note to the model",
            "memory": "Summary of the turns so far",
            "question": "Question",
        }
        name = heading.get(cell.kind, "A reply that was cut off")
        lines = _safe(meta.text or cell.source)
        yield from ["", paint.head(name) if cell.kind == "question" else paint.dim(name)]
        yield from lines if whole or cell.kind == "question" else _cut(lines, paint, more)
    elif whole:
        yield from _safe(meta.text or cell.source)


def _words(cell: TraceCell) -> Iterator[str]:
    """What the root model said beside its code."""
    text = "\n".join(_safe(words_of(cell))).strip("\n")
    yield from text.split("\n") if text.strip() else ()


def _code_cell(cell: TraceCell, paint: Paint, more: Callable[[], str] | None) -> Iterator[str]:
    meta, calls = cell.meta, counted(cell)
    status: str = (meta.status if meta else None) or "not recorded"
    if cell.cut_off:
        status = "cut off while it ran"
    told = [cell.id, status, _seconds(meta.seconds) if meta else "", calls]
    if cell.edited:
        told.append("edited since it ran")
    heading = " · ".join(filter(None, told))
    bad = status not in ("ok", "not recorded")
    yield from ["", paint.bad(heading) if bad else paint.cell(heading)]
    yield from (f"  {line}" for line in paint.code(cell.source))
    lines = output_text(cell.outputs).split("\n") if cell.outputs else []
    shown = [f"  │ {printable(line.expandtabs(8))}" for line in lines]
    yield from shown if more is None else _cut(shown, paint, more)
    children = [call.trace for call in linked(meta)] if meta else []
    for trace in children[:MOST_CHILDREN]:
        yield paint.dim(f"  child RLM: {_line(trace)}")
    if len(children) > MOST_CHILDREN:
        yield paint.dim(f"  … {len(children) - MOST_CHILDREN:,} more child RLMs: --calls")


def _cut(lines: Sequence[str], paint: Paint, more: Callable[[], str] | None) -> Iterator[str]:
    for line in lines[:MOST_LINES]:
        yield line if len(line) <= MOST_WIDE else f"{line[:MOST_WIDE]}…"
    if len(lines) > MOST_LINES or any(len(line) > MOST_WIDE for line in lines[:MOST_LINES]):
        left = max(0, len(lines) - MOST_LINES)
        yield paint.dim(f"  … {left:,} more lines: {more() if more else ''}")


def _end(trace: TraceFile, paint: Paint) -> Iterator[str]:
    if trace.meta.status == "running":
        yield from ["", paint.bad("The trace ends here: its run is in progress, or was cut off.")]


def counted(cell: TraceCell) -> str:
    """How many calls of models a cell made."""
    made, failed = asked(cell.meta) if cell.meta else (0, 0)
    if not made:
        return ""
    return f"{made:,} call{'s' * (made != 1)}" + (f" ({failed:,} failed)" if failed else "")


# Calls


def call_at(cells: Sequence[TraceCell], number: int) -> tuple[TraceCell, CallMeta] | None:
    """The call of this number; None if there is none."""
    for cell in cells:
        made, _ = asked(cell.meta) if cell.meta else (0, 0)
        if cell.meta is not None and 0 < number <= made:
            calls = cell.meta.calls
            if made == len(calls):
                return cell, calls[number - 1]
            return cell, next(islice(filter(is_told, calls), number - 1, None))
        number -= made
    return None


def table(
    calls: Iterator[tuple[int, TraceCell, CallMeta]], paint: Paint, width: int = _WIDE
) -> Iterator[str]:
    """A line for each call, of so many columns; narrow ones without models and tokens."""
    wide = width >= _NARROW
    more = f" {'model':24} {'tokens':>15}" if wide else ""
    yield paint.head(f"{'call':>7}  {'cell':11}{more} {'cost':>9} {'seconds':>7}  prompt → answer")
    room = max(20, width - (84 if wide else 43))
    prompt_room = 3 * room // 5
    for number, cell, call in calls:
        tokens = f"{call.prompt_tokens:,} → {call.completion_tokens:,}"
        more = f" {padded(_short(call.model or call.kind, 24), 24)} {tokens:>15}" if wide else ""
        row = f"{number:>7,}  {cell.id[:11]:11}{more} {_cost(call.cost):>9} {call.seconds:>7,.1f}  "
        prompt = f"{padded(_short(call.preview, prompt_room), prompt_room)} → "
        answer = _short(call.error if call.error is not None else _text(call.answer), room - prompt_room)
        yield row + prompt + (paint.bad(answer) if call.error is not None else answer)


def in_full(number: int, cell: TraceCell, call: CallMeta, prompts: PromptFile, paint: Paint) -> Iterator[str]:
    """A call with its whole prompt and answer."""
    about = [f"Call {number:,}", cell.id, call.kind, _line(call.model or ""), _seconds(call.seconds)]
    tokens = f"{call.prompt_tokens:,} → {call.completion_tokens:,} tokens"
    marks = [name for name in ("stored", "again", "cut", "estimated") if getattr(call, name)]
    yield paint.head(" · ".join(filter(None, [*about, _cost(call.cost), tokens, *marks])))
    sent = prompts.messages_of_call(call.prompt_digest)
    text = sent[0]["content"] if sent else call.preview
    whole = sent is not None or len(call.preview) < 200
    yield paint.dim("Prompt" if whole else "Prompt (only its beginning is kept)")
    yield from _safe(text)
    if schema := prompts.schema_of_call(call.prompt_digest):
        yield from [paint.dim("Schema of the answer"), _line(json.dumps(schema, ensure_ascii=False))]
    for image in call.images:
        yield paint.dim(
            f"Picture {image.digest[:12]}, {image.width:,} x {image.height:,}, {image.size:,} bytes"
        )
    yield paint.dim("Error" if call.error is not None else "Answer")
    yield from _safe(call.error if call.error is not None else _text(call.answer))
    if call.trace:
        yield paint.dim(f"Its trace: {_line(call.trace)}")
    yield ""


# As JSON


def as_json(
    trace: TraceFile, cells: Sequence[TraceCell], prompts: PromptFile | None, *, calls: bool, full: bool
) -> Iterator[str]:
    """One JSON object, in parts: a cell may have a hundred thousand calls."""
    meta = trace.meta
    known = meta.model_dump(mode="json", exclude={"version"})
    head = {
        "trace": str(trace.path),
        "answer": answer_of(trace)[1],
        "evidence": list(map(evidence_json, evidence_of(trace))),
        **known,
        "spent": trace.spent().as_json(),
    }
    yield json.dumps(head, ensure_ascii=True)[:-1] + ', "cells": ['
    first = 1
    offsets = {}
    for cell in trace.cells:
        offsets[cell.id] = first
        first += asked(cell.meta)[0] if cell.meta else 0
    for place, cell in enumerate(cells):
        about = _cell_json(cell)
        yield (", " if place else "") + json.dumps(about, ensure_ascii=True)[:-1]
        if calls:
            yield ', "calls": ['
            made = filter(is_told, cell.meta.calls if cell.meta else ())
            for number, call in enumerate(made):
                told = {"call": offsets[cell.id] + number, **call.model_dump(mode="json", exclude={"images"})}
                if full and prompts is not None:
                    sent = prompts.messages_of_call(call.prompt_digest)
                    told |= {"prompt": sent[0]["content"] if sent else None}
                yield (", " if number else "") + json.dumps(told, ensure_ascii=True)
            yield "]"
        yield "}"
    yield "]}"


def _cell_json(cell: TraceCell) -> dict[str, Any]:
    meta = cell.meta.model_dump(mode="json", exclude={"calls", "thinking"}) if cell.meta else {}
    return {
        **meta,
        "id": cell.id,
        "kind": cell.kind,
        "source": cell.source,
        "output": output_text(cell.outputs),
        "edited": cell.edited,
        "started": cell.started.isoformat() if isinstance(cell.started, datetime) else None,
    }


# Words


def _safe(text: str) -> list[str]:
    return [printable(line.expandtabs(8)) for line in text.split("\n")]


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _short(text: str, most: int) -> str:
    return short(_line("".join(islice(text, 4 * most))), most)


def _text(answer: Any) -> str:
    answer = tool_answer(answer)
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"


def _cost(cost: float | None) -> str:
    return "" if cost is None else fine_dollars(cost)
