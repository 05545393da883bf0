"""What is said of a trace when it is checked: claims, each with a verdict and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlm_kernel._version import __version__
from rlm_kernel.trace.reader import TraceFile

Verdict = Literal["holds", "broken", "not checked"]
MOST_FAULTS = 20
"""Faults of one claim that are told."""
REDACTED = "[redacted"
"""How a secret stands in a trace that was taken out: what was made of the whole text cannot be made again."""


@dataclass(frozen=True)
class Claim:
    """Something that a trace says, and what came of checking it.

    `said`: what holds, or why it was not checked. `faults`: what is broken, each by the name of the cell,
    call, file or field.
    """

    name: str
    verdict: Verdict
    said: str = ""
    faults: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """For `rlm verify --json`."""
        return {
            "claim": self.name,
            "verdict": self.verdict,
            "said": self.said,
            "faults": list(self.faults),
        }


def claim(name: str, faults: Iterable[str], said: str) -> Claim:
    """A claim that is broken if it has faults, and else holds."""
    found: list[str] = []
    more = 0
    for fault in faults:
        if len(found) < MOST_FAULTS:
            found.append(fault)
        else:
            more += 1
    if not found:
        return Claim(name, "holds", said)
    return Claim(name, "broken", "", [*found, *([f"… and {more:,} more"] if more else [])])


def not_checked(name: str, why: str) -> Claim:
    """A claim that nothing was found out about."""
    return Claim(name, "not checked", why)


def has_ended(trace: TraceFile) -> bool:
    """Whether the last question has come to its end, so that the notebook has what closes it.

    Of a session whose last question was taken back, each question that is left has its answer above.
    """
    answered = sum(cell.id.startswith("answer-") for cell in trace.cells)
    return trace.meta.status == "finished" and trace.questions > answered


def by_another_version(trace: TraceFile) -> str:
    """What is to be said of a trace that another version wrote, with other words; "" for this one."""
    version = trace.meta.rlm_version
    return (
        ""
        if version == __version__
        else f"it was written by rlm_kernel {version}, and this is version {__version__}"
    )
