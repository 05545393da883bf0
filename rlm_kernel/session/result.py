"""What came of a question, for whoever asked it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import sanitize
from rlm_kernel.engine.protocols import Evidence, Outcome, StopReason, Totals, Usage, as_json, listed
from rlm_kernel.engine.totals import counted
from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

if TYPE_CHECKING:
    from rlm_kernel.report.records import DataFrame
    from rlm_kernel.session.applying.applied import Applied
    from rlm_kernel.trace.reader import TraceCell, TraceFile

_SHOWN = 60
"""Characters of the answer in `repr`."""
_PASSAGES, _WIDE = 50, 300
"""Passages of evidence that a notebook shows, and characters of each; `evidence` has all."""


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a question. `str(result)` is the answer; a notebook shows the answer with its cost.

    `answer` is None if there is none; `value` is its JSON data if the code delivered more than text.

    `forced`: a limit (`stop_reason`) was reached, and the model gave its best answer so far. `cost`: in US
    dollars, None if not known. `question`: the number of the trace's question that it answers, from 0; None
    for all questions of the trace. `evidence`: the passages that support the answer. `applied`: how far the
    code of an earlier run came; None if no code was applied.
    """

    answer: str | None
    value: Any
    trace: Path
    stop_reason: StopReason
    forced: bool
    detail: str
    totals: Totals
    question: int | None = None
    evidence: Sequence[Evidence] = ()
    applied: Applied | None = None

    @classmethod
    def of(cls, outcome: Outcome, totals: Totals, trace: Path, question: int | None = None) -> Result:
        answer, value = (outcome.answer.text, outcome.answer.value) if outcome.answer else (None, None)
        reason, forced, detail = outcome.stop_reason, outcome.forced, outcome.detail
        evidence = outcome.answer.evidence if outcome.answer else ()
        return cls(answer, value, trace, reason, forced, detail, totals, question, evidence)

    @property
    def usage(self) -> Usage:
        """Tokens of root and sub models together."""
        return self.totals.usage

    @property
    def cost(self) -> float | None:
        return self.totals.cost

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm ask --json` prints."""
        return {
            "answer": self.answer if self.value is None else self.value,
            "trace": str(self.trace),
            **self.totals.as_json(),
            "stop_reason": self.stop_reason,
            "forced": self.forced,
            "evidence": list(map(as_json, self.evidence)),
            **({} if self.applied is None else {"applied": self.applied.as_json()}),
            "seal": self.seal,
        }

    @property
    def seal(self) -> str:
        """The seal of the trace, which you can note for `rlm verify --seal`. "" if there is none, or not yet:
        digests of files of many gigabytes take time. Read from the trace on access.
        """
        from rlm_kernel.trace.sealed import seal_on

        try:
            return seal_on(self.trace)
        except OSError:
            return ""

    @property
    def calls(self) -> DataFrame:
        """The run's calls of sub models and child RLMs, as a DataFrame with one row per call. Read from the
        trace on access.

        docs/python.md describes the columns. Raises UsageError if the trace no longer exists, TraceError if
        it cannot be read, SetupError without pandas.
        """
        from rlm_kernel.report import records

        return records.frame(self.records(), records.CALLS)

    @property
    def turns(self) -> DataFrame:
        """The root model's replies, as a DataFrame with one row per reply. Raises what `calls` raises."""
        from rlm_kernel.report import records

        _, cells = self._read()
        return records.frame(records.turns(cells), records.TURNS)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `calls` as plain dicts, which needs no pandas. Raises UsageError, TraceError."""
        from rlm_kernel.report import records
        from rlm_kernel.trace.prompts import open_prompts

        trace, cells = self._read()
        with open_prompts(trace) as prompts:
            return list(records.calls(cells, prompts))

    def _read(self) -> tuple[TraceFile, Sequence[TraceCell]]:
        """The trace, and the cells of the question."""
        from rlm_kernel.report import records
        from rlm_kernel.trace.reader import read_trace

        if not os.path.lexists(self.trace):
            raise UsageError(
                f"Turns and calls are read from the trace, and {self.trace} no longer exists.",
                hint="Put it back, or give its new path: dataclasses.replace(result, trace=Path(…)).calls",
            )
        trace = read_trace(self.trace)
        return trace, records.cells_of(trace, self.question)

    def __str__(self) -> str:
        return self._why_none() if self.answer is None else self.answer

    def __repr__(self) -> str:
        return f"<Result {self._short()} · {self._used()} · {printable(self._place())}>"

    def _short(self) -> str:
        """The answer, or that there is none, in few words."""
        if self.answer is None:
            return f"no answer ({self.stop_reason})"
        line = " ".join(self.answer[: 4 * _SHOWN].split())
        cut = len(line) > _SHOWN or len(self.answer) > 4 * _SHOWN
        shown = printable(f"{line[:_SHOWN]}…" if cut else line)
        return f"{shown!r}{' (best effort)' if self.forced else ''}"

    def _used(self) -> str:
        totals = self.totals
        return " · ".join(
            [
                counted(totals.turns, "turn"),
                counted(totals.calls - totals.child_turns, "sub-call"),
                *([counted(totals.children, "child RLM")] if totals.children else []),
                totals.money(),
                f"{totals.seconds:,.1f} s",
            ]
        )

    def _place(self) -> str:
        """The trace's path, from the working directory where it is below."""
        try:
            return str(self.trace.relative_to(Path.cwd()))
        except (ValueError, OSError):
            return str(self.trace)

    def _why_none(self) -> str:
        return f"No answer ({self.stop_reason}). {self.detail}".rstrip()

    def _best_effort(self) -> str:
        if not self.forced or self.answer is None:
            return ""
        if self.stop_reason == "no_answer":
            return "Best-effort answer: the replies of the root model had nothing to run."
        return f"Best-effort answer: the limit of {self.stop_reason} was reached."

    def _repr_html_(self) -> str:
        """The answer as a notebook shows it: rendered, with what it cost and where its trace is."""
        from rlm_kernel.report import answer

        about = sanitize.text(self._best_effort() or ("" if self.answer is not None else self._why_none()))
        shown = "" if self.answer is None else answer.as_html(self.answer, "; result.answer has all of them")
        return "".join(
            [
                shown,
                self._evidence_html(),
                f"<p {sanitize.NO_MATH}><b>{about}</b></p>" if about else "",
                self._footer_html(),
            ]
        )

    def _footer_html(self) -> str:
        """What it cost, and where its trace is."""
        used = f"{sanitize.text(self._used())} · trace: {sanitize.link(self.trace)}"
        return f"<p {sanitize.NO_MATH}><small>{used}</small></p>"

    def _repr_markdown_(self) -> str:
        from rlm_kernel.report import answer

        about = self._best_effort() or ("" if self.answer is not None else self._why_none())
        shown = (
            "" if self.answer is None else answer.as_markdown(self.answer, "; result.answer has all of them")
        )
        return "\n\n".join(
            part
            for part in (
                shown,
                "  \n".join(answer.as_markdown(line) for line in listed(self.evidence[:_PASSAGES])),
                f"**{answer.as_markdown(about)}**" if about else "",
                self._footer_markdown(),
            )
            if part
        )

    def _footer_markdown(self) -> str:
        from rlm_kernel.report import answer

        return answer.as_markdown(f"{self._used()} · trace: {self._place()}")

    def _evidence_html(self) -> str:
        """The passages, folded."""
        if not self.evidence:
            return ""
        lines = "<br>".join(map(sanitize.text, listed(self.evidence[:_PASSAGES], _WIDE)))
        return (
            f"<details {sanitize.NO_MATH}><summary>Evidence: {counted(len(self.evidence), 'passage')}"
            f"</summary>{lines}</details>"
        )
