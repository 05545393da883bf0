"""One RLM in the live view: what it does, and what it has used by its account; its child RLMs hang from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlm_kernel.cli._calls import Batch, Waiting, attempt
from rlm_kernel.cli._text import printable
from rlm_kernel.engine.protocols import (
    MODEL_CALLS,
    Account,
    CallKind,
    CallRecord,
    CellResult,
    Completion,
    Memory,
    Outcome,
    Retry,
    Totals,
)

_QUESTION = 60
_ROOT = "waiting for the root model"


class Branch:
    """Hears the events of one run (`engine.protocols.Trace`). `line` hears what is worth a line."""

    def __init__(
        self, line: Callable[[str], None], parent: Branch | None = None, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.children: dict[int, Branch] = {}
        """Those at work, by number."""
        self.name = name
        self._line = line
        self._parent = parent
        self._clock = clock
        self._batch = Batch(clock)
        self._waiting = Waiting(clock)
        self.begin()

    def begin(self) -> None:
        """Another run."""
        self._started = self._clock()
        self._account: Account | None = None
        self._turn = 0
        self._told = ""
        self._born = 0
        self._batch.begin()
        self._waiting.clear()
        self.children.clear()
        self.do("starting")

    def do(self, what: str) -> None:
        """What it does from now on."""
        self._what, self._since = what, self._clock()

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

    def opened(self, account: Account, before: Totals) -> None:
        self._account = account

    def turn_started(self, turn: int) -> None:
        self._turn = turn
        self.do(_ROOT)

    def turn_replied(self, turn: int, reply: Completion, prose: str) -> None:
        self.wait("", None)
        self._tell_used(f"turn {turn}: root model replied in {reply.seconds:.1f} s")

    def cell_started(self, cell_id: str, turn: int, code: str) -> None:
        self._cell = f"cell {cell_id} runs" if turn else "loading the input"
        self._batch.begin()
        self.do(self._cell)

    def cell_output(self, cell_id: str, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Outputs are in the trace."""

    def call_started(self, cell_id: str, call_id: str, kind: CallKind) -> None:
        if kind in MODEL_CALLS:
            self._batch.started()

    def calls_planned(self, cell_id: str, calls: int) -> None:
        self._batch.plan(calls)

    def call_retried(self, cell_id: str, call_id: str, retry: Retry) -> None:
        self.wait(call_id, retry)
        if not call_id:  # those of sub models are summed up
            seconds = max(0.1, retry.seconds)
            self._tell(f"root model: {attempt(retry)}, next in {seconds:,.1f} s")

    def call_finished(self, cell_id: str, call: CallRecord) -> None:
        if call.kind in MODEL_CALLS:
            self._batch.ended(failed=call.error is not None, stored=call.stored)
            self.wait(call.id, None)
        elif call.kind == "file":
            self.do(self._cell)  # it may have been copied

    def cell_finished(self, turn: int, result: CellResult) -> None:
        self._batch.begin()
        self.do(_ROOT)
        self._tell_used(f"cell {result.cell_id}: {result.status} in {result.seconds:.1f} s")

    def person_ran(self, result: CellResult) -> None:
        self._tell(f"a person ran a cell: {result.status} in {result.seconds:.1f} s")

    def remembered(self, memory: Memory) -> None:
        """What it cost is in the account."""

    def note(self, text: str) -> None:
        self._tell(f"note: {text}")

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        self.do("closing")

    def _tell(self, text: str) -> None:
        self._line(text)

    def _tell_used(self, text: str) -> None:
        """With what the run has used so far, where that is something, and has changed since the line before."""
        used = self.account()
        self._tell(f"{text} ({used})" if used and used != self._told else text)
        self._told = used

    def wait(self, call: str, retry: Retry | None) -> None:
        """A call waits for its next attempt, or (None) does so no more, here and above. The root model's is ""."""
        if retry is None:
            self._waiting.drop(call)
        else:
            self._waiting.add(call, retry)
        if self._parent is not None:
            self._parent.wait(f"{self.name} {call}", retry)

    def _totals(self) -> Totals:
        return self._account.totals() if self._account is not None else Totals()

    @property
    def asked(self) -> bool:
        """Whether a request to the root model has begun."""
        return self._turn > 0

    def account(self) -> str:
        """What the run has used so far; "" as long as that is nothing."""
        totals = self._totals()
        return "" if totals.nothing else totals.spending()

    def status(self) -> str:
        """What it does now, in a line."""
        # What is set up may count the seconds itself.
        doing = self._what if self._what.endswith(" s") else f"{self._what}, {self._clock() - self._since:.0f} s"
        turn = [f"turn {self._turn}"] if self._turn else []
        used = self.account()
        return " · ".join([*turn, doing, *([used, f"{self._totals().seconds:.0f} s in all"] if used else [])])

    def details(self) -> list[str]:
        """How far the cell's calls are, and which wait for another attempt."""
        return [line for line in (self._batch.line(), self._waiting.line()) if line]


class _Child(Branch):
    """A child RLM at work. Of its turns and cells the tree alone tells: of many at once, lines would be a muddle."""

    def __init__(self, number: int, question: str, line: Callable[[str], None], parent: Branch, name: str) -> None:
        super().__init__(line, parent, name, parent._clock)
        self._number = number
        self._above = parent
        self.question = question

    def _tell(self, text: str) -> None:
        pass

    def finished(self, outcome: Outcome, totals: Totals) -> None:
        how = "answered" if outcome.answer is not None else f"no answer ({outcome.stop_reason})"
        self._above.children.pop(self._number, None)
        self._line(f"child {self.name}: {how}, {totals.line()}")

    def status(self) -> str:
        return f"{self.question} · {super().status()}"
