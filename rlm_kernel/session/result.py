"""What came of a question, for whoever asked it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.engine.protocols import Outcome, StopReason, Totals, Usage


@dataclass(frozen=True)
class Result:
    """What came of a question.

    `answer` is None if there is none; `value` is its JSON data where the code delivered more than text.

    `forced`: a limit (`stop_reason`) was reached and the model was asked for what it had. `cost` in US
    dollars, None where unknown.
    """

    answer: str | None
    value: Any
    trace: Path
    stop_reason: StopReason
    forced: bool
    detail: str
    totals: Totals

    @classmethod
    def of(cls, outcome: Outcome, totals: Totals, trace: Path) -> Result:
        answer, value = (outcome.answer.text, outcome.answer.value) if outcome.answer else (None, None)
        return cls(answer, value, trace, outcome.stop_reason, outcome.forced, outcome.detail, totals)

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
        }
