"""What came of traces that were tested: values, as `rlm test --json` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.engine.protocols import Totals

Verdict = Literal["same", "differs", "failed", "skipped"]


@dataclass(frozen=True)
class CaseResult:
    """What came of one trace.

    `then`, `now`: the expected answers and those of now, question by question. `detail`: what differs, or why
    it failed or was skipped. `before`: what the recorded run had used; `used`: what this one counts, recorded
    replies at what they had cost; `spent`: what was asked anew. `remarks`: what else is not as it was. `out`:
    the new trace.
    """

    trace: Path
    verdict: Verdict
    detail: str = ""
    then: Sequence[str | None] = ()
    now: Sequence[str | None] = ()
    before: Totals = field(default_factory=Totals)
    used: Totals = field(default_factory=Totals)
    spent: Totals = field(default_factory=Totals)
    remarks: Sequence[str] = ()
    seconds: float = 0.0
    attempts: int = 1
    out: Path | None = None

    @property
    def good(self) -> bool:
        return self.verdict in ("same", "skipped")

    def as_json(self) -> dict[str, Any]:
        """An entry of what `rlm test --json` prints."""
        return {
            "trace": str(self.trace),
            "verdict": self.verdict,
            "detail": self.detail,
            "then": list(self.then),
            "now": list(self.now),
            "turns": [self.before.turns, self.used.turns],
            "calls": [self.before.calls, self.used.calls],
            "cost": [self.before.cost, self.used.cost],
            "spent": self.spent.known_cost,
            "remarks": list(self.remarks),
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
            "out": str(self.out) if self.out else None,
        }


@dataclass(frozen=True)
class Suite:
    """What came of all traces, in the order of their names.

    `judged`: what the judge has used. `out`: the folder of the new traces, if it was kept. `accepted`: the
    file in which answers were accepted, if any were.
    """

    traces: Sequence[CaseResult]
    judged: Totals = field(default_factory=Totals)
    seconds: float = 0.0
    out: Path | None = None
    accepted: Path | None = None

    @property
    def same(self) -> bool:
        """Every trace that was tested has its expected answer."""
        return all(one.good for one in self.traces)

    @property
    def before(self) -> Totals:
        """What the recorded runs had used."""
        return sum((one.before for one in self.traces), Totals())

    @property
    def used(self) -> Totals:
        """What the runs of now count, recorded replies at what they had cost."""
        return sum((one.used for one in self.traces), Totals())

    @property
    def spent(self) -> Totals:
        """What models were asked for, the judge among them."""
        return sum((one.spent for one in self.traces), self.judged)

    def count(self, verdict: Verdict) -> int:
        return sum(one.verdict == verdict for one in self.traces)

    def as_json(self) -> dict[str, Any]:
        """The object that `rlm test --json` prints."""
        return {
            "same": self.same,
            "traces": [one.as_json() for one in self.traces],
            "cost": [self.before.cost, self.used.cost],
            "judge": self.judged.known_cost,
            "spent": self.spent.known_cost,
            "seconds": round(self.seconds, 3),
            "out": str(self.out) if self.out else None,
            "accepted": str(self.accepted) if self.accepted else None,
        }
