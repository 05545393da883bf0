"""The notebook's frame: its title, which tells the answer first, the answer itself, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlm_contract import MAX_QUOTE

from rlm_kernel.engine.protocols import Answer, Evidence, Outcome, Totals
from rlm_kernel.trace import document
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.cell_writer import CellWriter
from rlm_kernel.trace.schema import CallMeta, CellMeta, EvidenceMeta, NotebookMeta, OriginMeta
from rlm_kernel.trace.tally import Tally


class FrameWriter(CellWriter):
    """A part of the notebook writer: what stands around the turns."""

    def __init__(self, path: Path, meta: NotebookMeta, secrets: Sequence[str], outputs: int | None) -> None:
        super().__init__(path, meta, secrets, outputs)
        self._turn = 0
        self._tally = Tally()
        self._children: dict[str, list[CallMeta]] = {}
        self._answer: str | None = None
        self._evidence: tuple[Evidence, ...] = ()
        self._asked = ""
        """The last further question."""

    def set_origins(self, origins: Sequence[OriginMeta]) -> None:
        """Say where it comes from; written with what comes next."""
        self._meta = self._meta.model_copy(update={"origins": list(origins)})

    def set_models(self, models: Mapping[str, str], profile: str, digest: str) -> None:
        """Say who answers from here on, and by which prompt."""
        names = {role: self._writable.text(name) for role, name in models.items()}
        self._meta = self._meta.model_copy(
            update={"models": names, "prompt_profile": profile, "prompt_digest": digest}
        )
        self._write_title()
        self._save()

    def _reopen(self) -> None:
        """What closed the notebook closes it no more: the run goes on."""
        self._closed = False
        self._file.drop("summary")
        if "answer" in self._file.cells:
            number = self._counts["answer"]
            while (closed := f"answer-{number:02d}") in self._file.cells:
                number += 1
            self._file.rename("answer", closed)
        self._answer, self._evidence, self._tally.delivered = None, (), ""
        changes = {"status": "running", "stop_reason": None, "forced": False, "detail": ""}
        self._meta = self._meta.model_copy(update=changes)

    def _write_title(self) -> None:
        meta = self._meta.model_copy(update={"files": self.files})
        self._markdown("title", document.title(meta, self._delivered()), CellMeta(kind="title"))

    def _delivered(self) -> document.Delivered | None:
        """What the last question came to; None while it is being answered."""
        if self._meta.status != "finished" or self._meta.stop_reason is None or not self._meta.question:
            return None
        answer = None if self._answer is None else Answer(self._answer, evidence=self._evidence)
        outcome = Outcome(answer, self._meta.stop_reason, self._meta.forced, self._meta.detail)
        return document.Delivered(outcome, self._tally.delivered if answer else "", self._asked)

    def _conclude(self, outcome: Outcome, totals: Totals) -> None:
        """Put the answer and the summary."""
        if outcome.answer is not None:
            outcome = replace(outcome, answer=self._redacted(outcome.answer))
        self._meta = self._meta.model_copy(
            update={
                "status": "finished",
                "stop_reason": outcome.stop_reason,
                "forced": outcome.forced,
                "detail": outcome.detail,
                "totals": TotalsMeta.of(self._before + totals),
            }
        )
        self._answer = text = outcome.answer.text[: document.ANSWER_CAP] if outcome.answer else None
        children = [call for cell_id in self._file.cells for call in self._children.get(cell_id, ())]
        self._evidence = outcome.answer.evidence if outcome.answer else ()
        evidence = list(map(EvidenceMeta.of, self._evidence))
        closing = CellMeta(kind="answer", turn=self._turn or None, text=text, evidence=evidence)
        self._markdown("answer", [document.answer(outcome), *document.evidence(self._evidence)], closing)
        spans = self._tally.spans(self._file.cells)
        shown = document.summary(self._meta, children, self._tally.table(), spans)
        self._markdown("summary", shown, CellMeta(kind="summary"))
        self._write_title()

    def _redacted(self, answer: Answer) -> Answer:
        """An answer as it may be written."""
        write = self._writable.text
        evidence = (replace(one, quote=write(one.quote)[:MAX_QUOTE]) for one in answer.evidence)
        return Answer(write(answer.text), evidence=tuple(evidence))
