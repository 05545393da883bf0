"""What a resume or a fork takes up of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlm_kernel.engine.conversation import Past
from rlm_kernel.pathtext import seen_from
from rlm_kernel.session.conversation import turns_of
from rlm_kernel.session.replaying import Restored
from rlm_kernel.trace.packed import Packed
from rlm_kernel.trace.reader import TraceCell, TraceFile
from rlm_kernel.trace.schema import NotebookMeta, OriginMeta

OPTIONS = {
    "turns": "--max-turns",
    "calls": "--max-calls",
    "cost": "--max-cost",
    "seconds": "--timeout",
    "tokens": "RLM_LIMITS__TOKENS",
}
"""How each limit is raised, by its stop reason."""
_ENDED = (*OPTIONS, "no_answer")
"""Stop reasons after which one last answer was asked for: the conversation was brought to its end."""


@dataclass(frozen=True)
class Plan:
    """What is taken up: the cells that are kept, in the notebook at `path`, and how the conversation goes
    on.
    """

    trace: TraceFile
    kept: Sequence[TraceCell]
    path: Path
    origin: OriginMeta
    forked: bool
    question: str = ""

    @property
    def closed(self) -> bool:
        """The conversation had been brought to its end, by one last answer."""
        return self.trace.meta.stop_reason in _ENDED

    @property
    def ended(self) -> bool:
        """The last turn that is kept is whole, and nothing is left to do of it."""
        whole = len(self.kept) == len(self.trace.cells)
        # A further question that has no reply yet: the turn before it had its answer.
        asked = next(
            (cell.kind == "question" for cell in reversed(self.kept) if cell.kind in ("model", "question")),
            False,
        )
        # What is left of words that were applied to another input: they are not the root model's of now.
        words = next((cell.meta for cell in reversed(self.kept) if cell.kind == "model" and cell.meta), None)
        applied = words is not None and words.again
        return bool(self.question) or asked or applied or not whole or self.closed

    @property
    def last_turn(self) -> int:
        """The number of the last turn that is kept, 0 without one."""
        return max((cell.turn for cell in self.kept), default=0)

    def again(self) -> list[TraceCell]:
        """The code cells that are run again.

        A name that stood in prose is tried by the loop itself, where its turn is to be finished.
        """
        return [
            cell
            for cell in self.kept
            if cell.code and (self.ended or cell.turn != self.last_turn or not cell.id.endswith("-final"))
        ]

    def meta(self, fresh: NotebookMeta) -> NotebookMeta:
        """What the notebook says of itself from now on."""
        then = self.trace.meta
        kept: dict[str, Any] = {
            "files": then.files,
            "prompts": then.prompts,
            "parent": then.parent,
            "origins": [*then.origins, self.origin],
        }
        return fresh.model_copy(update=kept if self.forked else kept | {"created": then.created})

    def cells(self) -> list[Any]:
        """The notebook's cells as they are kept: without what closed it, and without remarks that will be
        made again.
        """
        ids = {cell.id for cell in self.kept}
        again = (
            ()
            if self.ended
            else {
                cell.id
                for cell in self.kept
                if cell.kind == "note" and cell.turn == self.last_turn and cell.meta
            }
        )
        answered = sum(cell.kind == "answer" for cell in self.kept)
        taken = []
        for cell in self.trace.node.cells:
            if cell.id not in ids or cell.id in again or cell.id in ("title", "summary"):
                continue
            if cell.id == "answer":
                if not self.question:
                    continue
                cell = {**cell, "id": f"answer-{answered:02d}"}
            taken.append(self._linked(cell))
        return taken

    def _linked(self, cell: Any) -> Any:
        """A cell whose calls name the traces of child RLMs as they are seen from the notebook that it is in
        now.
        """
        calls = cell["metadata"].get("rlm", {}).get("calls", [])
        there, here = self.trace.path.parent, self.path.parent
        if here == there or not any(call.get("trace") for call in calls):
            return cell

        def moved(call: dict[str, Any]) -> dict[str, Any]:
            return (
                {**call, "trace": Path(seen_from(there / call["trace"], here)).as_posix()}
                if call.get("trace")
                else call
            )

        found = calls.changed(moved) if isinstance(calls, Packed) else [moved(call) for call in calls]
        return {**cell, "metadata": {**cell["metadata"], "rlm": {**cell["metadata"]["rlm"], "calls": found}}}

    def past(self, restored: Restored, remarks: Sequence[str]) -> Past:
        """What the loop goes on from."""
        turns = turns_of(self.kept, restored.results)
        return Past(
            turns,
            restored.told(self._what(), remarks),
            self.question,
            unfinished=not self.ended and bool(turns),
        )

    def _what(self) -> str:
        """What happened, for the root model."""
        if self.forked:
            return "This goes on from a copy of the session as it was here"
        if self.closed:
            return (
                "The session had ended at a limit, which was raised. Go on with the question. It was "
                "taken up again"
            )
        return "The session was interrupted here, and was taken up again"


def origin_of(trace: TraceFile, kept: Sequence[TraceCell], kind: Any) -> OriginMeta:
    """What a notebook says of where it comes from."""
    cell = kept[-1].id if kept else ""
    return OriginMeta(
        kind=kind, trace=str(trace.path), session=trace.meta.session, cell=cell, at=datetime.now(UTC)
    )
