"""The model calls and the turns of a run, one flat row each: for analysis, as lists of dicts and as pandas
DataFrames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.protocols import MODEL_CALLS, TOKENS, TOLD_CALLS, Message
from rlm_kernel.errors import SetupError
from rlm_kernel.trace.prompts import PromptFile
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import CallMeta, CellMeta

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame

_TOKENS = {f"{name}_tokens": "int64" for name in TOKENS}
CALLS = {
    "cell": "object",
    "turn": "int64",
    "kind": "object",
    "model": "object",
    "prompt": "object",
    "answer": "object",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "cost": "float64",
    "seconds": "float64",
    "error": "object",
    "stored": "bool",
    "started": "datetime64[us, UTC]",
    "trace": "object",
    "id": "object",
    "role": "object",
    "prompt_complete": "bool",
    "error_type": "object",
    "attempts": "int64",
    "calls": "int64",
    "again": "bool",
    "cut": "bool",
    "cached_tokens": "int64",
    "written_tokens": "int64",
    "reasoning_tokens": "int64",
}
"""The columns of `calls`, and their types in pandas. docs/python.md says what they are."""
TURNS = {
    "turn": "int64",
    "kind": "object",
    "model": "object",
    "reply": "object",
    "thoughts": "object",
    "cells": "int64",
    "failed_cells": "int64",
    "calls": "int64",
    **_TOKENS,
    "cost": "float64",
    "seconds": "float64",
    "cell_seconds": "float64",
}
"""The columns of `turns`."""
_PREVIEW = 200
"""Characters of a prompt that the notebook has."""
_CUT = "[redacted]"


def cells_of(trace: TraceFile, question: int | None = None) -> Sequence[TraceCell]:
    """The cells of one of the trace's questions, by its number from 0; None: of all."""
    if question is None:
        return trace.cells
    number, found = 0, []
    for cell in trace.cells:
        number += cell.kind == "question"
        if number == question:
            found.append(cell)
    return found


def questions_asked(trace: TraceFile) -> int:
    """How many questions the cells of a trace answer: the number of the next one."""
    turns = any(cell.turn for cell in trace.cells)
    return sum(cell.kind == "question" for cell in trace.cells) + turns


def calls(cells: Iterable[TraceCell], prompts: PromptFile) -> Iterator[dict[str, Any]]:
    """The calls of models and tools that the code in these cells made, in the order of their ends.

    Where the file of prompts does not have one, its beginning stands in its place, and `prompt_complete` says
    whether that is all of it.
    """
    for cell in cells:
        for call in cell.meta.calls if cell.meta else ():
            if call.kind in TOLD_CALLS:
                yield _row(cell, call, prompts.messages_of_call(call.prompt_digest))


def _row(cell: TraceCell, call: CallMeta, sent: Sequence[Message] | None) -> dict[str, Any]:
    whole = sent is not None or (len(call.preview) < _PREVIEW and _CUT not in call.preview)
    row = {
        "cell": cell.id,
        "turn": cell.turn,
        "prompt": sent[0]["content"] if sent else call.preview,
        "answer": call.answer if call.error is None else None,
        "trace": call.trace or None,
        "prompt_complete": whole,
    }
    return {name: row[name] if name in row else getattr(call, name) for name in CALLS}


def turns(cells: Iterable[TraceCell]) -> list[dict[str, Any]]:
    """The replies of the root model, and its summaries, each with what the cells of the turn came to."""
    rows: list[dict[str, Any]] = []
    last: dict[int, dict[str, Any]] = {}
    for cell in cells:
        meta = cell.meta
        if meta is None:
            continue
        if meta.kind in ("model", "memory"):
            rows.append(_turn(cell, meta))
            last |= {cell.turn: rows[-1]} if meta.kind == "model" else {}
        elif cell.code and cell.turn in last:
            row = last[cell.turn]
            row["cells"] += 1
            row["failed_cells"] += meta.status not in ("ok", "running", None)
            row["calls"] += sum(call.kind in MODEL_CALLS for call in meta.calls)
            row["cell_seconds"] += meta.seconds or 0.0
    return rows


def _turn(cell: TraceCell, meta: CellMeta) -> dict[str, Any]:
    return {
        "turn": cell.turn,
        "kind": "turn" if meta.kind == "model" else "memory",
        "model": meta.model,
        "reply": (meta.reply if meta.kind == "model" else meta.text) or "",
        "thoughts": meta.thoughts,
        "cells": 0,
        "failed_cells": 0,
        "calls": 0,
        **_tokens(meta),
        "cost": meta.cost,
        "seconds": meta.seconds or 0.0,
        "cell_seconds": 0.0,
    }


def _tokens(meta: CallMeta | CellMeta) -> dict[str, int]:
    return {name: getattr(meta, name) or 0 for name in _TOKENS}


def frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> DataFrame:
    """A DataFrame of rows, with the same columns and types however many there are. Raises SetupError."""
    try:
        import pandas
    except ImportError as error:
        raise SetupError(
            "A DataFrame needs pandas, which is not installed.",
            hint="pip install pandas, or use the plain list: result.records()",
        ) from error
    found = list(rows)
    # Column by column: of rows pandas would guess the types, and take None for a number, or a number for a
    # time.
    return pandas.DataFrame(
        {
            name: pandas.Series([row[name] for row in found], dtype=kind, name=name)
            for name, kind in columns.items()
        }
    )
