"""One RLM in the live view: what it does, and what it has used by its account; its child RLMs hang from
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from rlm_kernel.engine.events import (
    CallFinished,
    CallRetried,
    CallsPlanned,
    CallStarted,
    CellFinished,
    CellOutput,
    CellStarted,
    ChildEvent,
    Event,
    Noted,
    RunFinished,
    RunOpened,
    Summarized,
    TurnCutOff,
    TurnPiece,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.protocols import MODEL_CALLS, Account, Outcome, Retry, Totals
from rlm_kernel.printable import printable
from rlm_kernel.views.calls import Batch, Forecast, Waiting, attempt

_QUESTION = 60
_ROOT = "waiting for the root model"
_REPLIES = "the root model replies"


class Branch:
    """A listener (`engine.events`) to one run. `line` hears what is worth a line."""

    def __init__(
        self,
        line: Callable[[str], None],
        parent: Branch | None = None,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.children: dict[int, Branch] = {}
        """Those at work, by the number that their events have."""
        self.name = name
        self._line = line
        self._parent = parent
        self._clock = clock
        self._batch = Batch(clock)
        self._forecast = Forecast()
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

    def __call__(self, event: Event) -> None:
        """Show what an event tells."""
        match event:
            case RunOpened(account=account):
                self._account = account
            case TurnStarted(turn):
                self._turn = turn
                self.do(_ROOT)
            case TurnReplied(turn, reply):
                self.wait("", None)
                self._tell_used(f"turn {turn}: root model replied in {reply.seconds:.1f} s")
            case CellStarted(cell_id, turn):
                self._cell = f"cell {cell_id} runs" if turn else "loading the input"
                self._batch.begin()
                self._forecast = Forecast()
                self.do(self._cell)
            case CellFinished(_, result):
                self._batch.begin()
                self.do(_ROOT)
                self._tell_used(f"cell {result.cell_id}: {result.status} in {result.seconds:.1f} s")
            case CallStarted() | CallsPlanned() | CallRetried() | CallFinished():
                self._call(event)
            case UserCellFinished(result):
                self._tell(f"a person ran a cell: {result.status} in {result.seconds:.1f} s")
            case Noted(text):
                self._tell(f"note: {text}")
            case RunFinished(outcome, totals):
                self._finished(outcome, totals)
            case ChildEvent(child, its):
                self._child(child, its)
            case TurnPiece() if self._what == _ROOT:
                self.do(_REPLIES)
            case TurnPiece() | TurnCutOff() | CellOutput() | Summarized():
                pass  # words and outputs are in the trace, and what a summary cost is in the account
            case _:
                assert_never(event)

    def _call(self, event: CallStarted | CallsPlanned | CallRetried | CallFinished) -> None:
        match event:
            case CallStarted(kind=kind) if kind in MODEL_CALLS:
                self._batch.started()
            case CallsPlanned(calls=calls):
                self._batch.plan(calls)
                if told := self._forecast.line(event):
                    self._tell(told)
            case CallRetried(call_id=call_id, retry=retry):
                self.wait(call_id, retry)
                if not call_id:  # those of sub models are summed up
                    self.do(_ROOT)
                    self._tell(f"root model: {attempt(retry)}, next in {max(0.1, retry.seconds):,.1f} s")
            case CallFinished(call=call) if call.kind in MODEL_CALLS:
                self._batch.ended(failed=call.error is not None, stored=call.stored or call.again)
                self.wait(call.id, None)
            case CallFinished(call=call) if call.kind == "file":
                self.do(self._cell)  # it may have been copied

    def _child(self, number: int, event: Event) -> None:
        if isinstance(event, RunOpened):
            self._born += 1
            shown = " ".join(printable(event.question).split())
            shown = shown if len(shown) <= _QUESTION else f"{shown[: _QUESTION - 1]}…"
            name = f"{self.name}.{self._born}".lstrip(".")
            self.children[number] = _Child(number, shown, self._line, self, name)
            self._line(f"child {name} begins: {shown}")
        if number in self.children:
            self.children[number](event)

    def _finished(self, outcome: Outcome, totals: Totals) -> None:
        self.do("closing")

    def _tell(self, text: str) -> None:
        self._line(text)

    def _tell_used(self, text: str) -> None:
        """With what the run has used so far, where that is something, and has changed since the line
        before.
        """
        used = self.account()
        self._tell(f"{text} ({used})" if used and used != self._told else text)
        self._told = used

    def wait(self, call: str, retry: Retry | None) -> None:
        """A call waits for its next attempt, or (None) does so no more, here and above.

        The root model's is "".
        """
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
        doing = (
            self._what if self._what.endswith(" s") else f"{self._what}, {self._clock() - self._since:.0f} s"
        )
        turn = [f"turn {self._turn}"] if self._turn else []
        used = self.account()
        return " · ".join([*turn, doing, *([used, f"{self._totals().seconds:.0f} s in all"] if used else [])])

    def details(self) -> list[str]:
        """How far the cell's calls are, and which wait for another attempt."""
        return [line for line in (self._batch.line(), self._waiting.line()) if line]


class _Child(Branch):
    """A child RLM at work.

    Of its turns and cells the tree alone tells: of many at once, lines would be a muddle.
    """

    def __init__(
        self, number: int, question: str, line: Callable[[str], None], parent: Branch, name: str
    ) -> None:
        super().__init__(line, parent, name, parent._clock)
        self._number = number
        self._above = parent
        self.question = question

    def _tell(self, text: str) -> None:
        pass

    def _finished(self, outcome: Outcome, totals: Totals) -> None:
        how = "answered" if outcome.answer is not None else f"no answer ({outcome.stop_reason})"
        self._above.children.pop(self._number, None)
        self._line(f"child {self.name}: {how}, {totals.line()}")

    def status(self) -> str:
        return f"{self.question} · {super().status()}"
