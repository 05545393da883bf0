"""One RLM in the live view: what it does and what it has used; its child RLMs hang from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlm_kernel.cli._text import printable
from rlm_kernel.engine.protocols import MODEL_CALLS, CallKind, CallRecord, CellResult, Completion, Memory, Outcome, Totals, Usage

_QUESTION = 60


class Branch:
    """Hears the events of one run (`engine.protocols.Trace`), which count in the runs above it, too. `line` hears what is worth a line."""

    def __init__(self, line: Callable[[str], None], parent: Branch | None = None, name: str = "") -> None:
        self.children: dict[int, Branch] = {}
        """Those at work, by number."""
        self.name = name
        self._line = line
        self._parent = parent
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.what = "starting"
        self._started = time.monotonic()
        self._turn = 0
        self._asked = 0
        self._done = 0
        self._failed = 0
        self._usage = Usage()
        self._cost: float | None = 0.0
        self._born = 0
        self.children.clear()

    def child(self, question: str) -> Branch:
        self._born += 1
        number = self._born
        shown = " ".join(printable(question).split())
        shown = shown if len(shown) <= _QUESTION else f"{shown[: _QUESTION - 1]}…"
        name = f"{self.name}.{number}".lstrip(".")
        branch = _Child(number, shown, self._line, self, name)
        self.children[number] = branch
        self._line(f"child {name} begins: {shown}")
        return branch

    def turn_started(self, turn: int) -> None:
        self._turn = turn
        self.what = "root model thinks"

    def turn_replied(self, turn: int, reply: Completion, prose: str) -> None:
        self.count(reply.usage, reply.cost)
        self._tell(f"turn {turn}: root model replied in {reply.seconds:.1f} s ({self.account()})")

    def cell_started(self, cell_id: str, turn: int, code: str) -> None:
        self.what = f"cell {cell_id} runs"

    def cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Outputs are in the trace."""

    def call_started(self, cell_id: str, call_id: str, kind: CallKind) -> None:
        if kind == "llm_query":
            self.called(asked=1)

    def call_finished(self, cell_id: str, call: CallRecord) -> None:
        if call.kind in MODEL_CALLS:
            self.called(done=int(call.kind == "llm_query"), failed=int(call.error is not None))
        if call.kind in MODEL_CALLS and not call.trace:  # what child RLMs use is counted as they use it
            self.count(call.usage, call.cost if call.error is None else call.cost or 0.0)

    def cell_finished(self, turn: int, result: CellResult) -> None:
        self._tell(f"cell {result.cell_id}: {result.status} in {result.seconds:.1f} s ({self.account()})")

    def person_ran(self, result: CellResult) -> None:
        self._tell(f"a person ran a cell: {result.status} in {result.seconds:.1f} s")

    def remembered(self, memory: Memory) -> None:
        self.count(memory.reply.usage, memory.reply.cost)

    def note(self, text: str) -> None:
        self._tell(f"note: {text}")

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        self.what = "closing"

    def _tell(self, text: str) -> None:
        self._line(text)

    def count(self, usage: Usage, cost: float | None) -> None:
        """Tokens and money, here and above."""
        self._usage += usage
        self._cost = None if cost is None or self._cost is None else self._cost + cost
        if self._parent is not None:
            self._parent.count(usage, cost)

    def called(self, *, asked: int = 0, done: int = 0, failed: int = 0) -> None:
        """Calls of sub models, here and above."""
        self._asked += asked
        self._done += done
        self._failed += failed
        if self._parent is not None:
            self._parent.called(asked=asked, done=done, failed=failed)

    def account(self) -> str:
        cost = "cost unknown" if self._cost is None else f"${self._cost:.4f}"
        failed = f", {self._failed:,} failed" if self._failed else ""
        children = f", {self._born:,} {'child' if self._born == 1 else 'children'}" if self._born else ""
        return f"{self._done:,} of {self._asked:,} calls{failed}{children}, {self._usage.total:,} tokens, {cost}"

    def status(self) -> str:
        """What it does now, in a line."""
        return f"turn {self._turn} · {self.what} · {self.account()} · {time.monotonic() - self._started:.0f} s"


class _Child(Branch):
    """A child RLM at work. Of its turns and cells the tree alone tells: of many at once, lines would be a muddle."""

    def __init__(self, number: int, question: str, line: Callable[[str], None], parent: Branch, name: str) -> None:
        super().__init__(line, parent, name)
        self._number = number
        self._above = parent
        self.question = question

    def _tell(self, text: str) -> None:
        pass

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        how = "answered" if outcome.answer is not None else f"no answer ({outcome.stop_reason})"
        self._above.children.pop(self._number, None)
        self._line(f"child {self.name}: {how}, {totals.turns} turns, {totals.seconds:.1f} s")

    def status(self) -> str:
        return f"{self.question} · {super().status()}"
