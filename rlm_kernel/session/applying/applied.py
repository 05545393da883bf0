"""What became of a trace whose code was applied to another input: how far it came without the root model, and
what that cost beside the first run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.engine.totals import counted


@dataclass(frozen=True)
class Applied:
    """`cells`: how many ran without the root model; `first`: what the first run used.

    `woken`: the cell at which the root model was needed, or "input" if that was before any ran, and `why`; ""
    if it was not. `root`: it was woken then.
    """

    cells: int
    first: Totals
    woken: str = ""
    why: str = ""
    root: bool = True

    @property
    def alone(self) -> bool:
        """The answer is there without the root model."""
        return not self.woken

    def line(self, spent: Totals) -> str:
        """For people. `spent`: what all of it used."""
        ran = counted(self.cells, "cell")
        first = f"the first run: {counted(self.first.turns, 'turn')}, {_used(self.first)}"
        if self.alone:
            return f"applied without the root model: {ran}, {_used(spent)}; {first}"
        now = f"{counted(spent.turns, 'turn')}, {_used(spent)}" if self.root else _used(spent)
        how = "the root model was woken" if self.root else "the root model is needed"
        return f"applied {ran}; {how} at {self.woken}: {self.why}; now: {now}; {first}"

    def as_json(self) -> dict[str, Any]:
        """The field `applied` of `rlm apply --json`."""
        return {
            "cells": self.cells,
            "woken": self.woken or None,
            "why": self.why or None,
            "first_run": self.first.as_json(),
        }


def _used(totals: Totals) -> str:
    return f"{counted(totals.calls - totals.child_turns, 'sub-call')}, {totals.money()}"
