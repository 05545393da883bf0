"""What the cells of a session did before the question of now: their calls, and what of it was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlm_kernel.engine import messages
from rlm_kernel.engine.kept import Kept
from rlm_kernel.engine.protocols import CallRecord, Partial
from rlm_kernel.engine.values import answered
from rlm_kernel.trace.reader import TraceCell, TraceFile

_PARTIAL = "partial_results has"


@dataclass(frozen=True)
class Before:
    """The calls of a session so far, and those of their answers that are kept."""

    trace: TraceFile
    kept: Kept

    @property
    def calls(self) -> Iterator[CallRecord]:
        for cell in self.trace.cells:
            yield from _calls(cell)


def before_this(trace: TraceFile) -> Before:
    """What the trace tells of it. Takes a moment."""
    kept = Kept()
    for cell in trace.cells:
        for call in _calls(cell):
            if call.again:
                kept.take(call.prompt_digest)
        if cell.meta is not None and (cell.meta.batch_cut or cell.meta.status not in (None, "ok")):
            kept.add(_calls(cell))
    return Before(trace, kept)


def _calls(cell: TraceCell) -> Iterator[CallRecord]:
    for call in cell.meta.calls if cell.meta else ():
        yield call.record()


def left_behind(trace: TraceFile, partial: Partial | None) -> str:
    """What the root model is to be told of a cell that was stopped, with its question, before it was told
    anything; "" if nothing.

    `partial`: as of `ContextInfo`.
    """
    if partial is not None and not _is_told(trace, partial.cell):
        return messages.partial_results(partial)
    last = next((cell for cell in reversed(trace.code_cells) if cell.turn), None)
    return " ".join(messages.kept(sum(map(answered, _calls(last))))) if last and last.cut_off else ""


def _is_told(trace: TraceFile, name: str) -> bool:
    """Whether a note since that cell tells of `partial_results`."""
    ids = [cell.id for cell in trace.cells]
    if name not in ids:
        return True
    notes = (cell for cell in trace.cells[ids.index(name) :] if cell.kind == "note" and cell.meta)
    return any(_PARTIAL in (note.meta.text or "") for note in notes if note.meta)
