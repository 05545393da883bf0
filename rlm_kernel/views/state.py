"""What a view shows of a run, apart from how it is drawn: `Branch`, the state of one RLM, which hears events.

The terminal's view, plain lines and a notebook draw the same state. All texts of it come from models, code
and users as they are; who draws them makes them safe (`printable`, or HTML's escapes). Events come on the
run's event loop, and drawing reads in another thread: so lists are copied before they are walked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

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
from rlm_kernel.engine.protocols import MODEL_CALLS, Account, CellResult, Outcome, Retry, Totals
from rlm_kernel.engine.totals import counted, duration, fine_dollars
from rlm_kernel.printable import printable
from rlm_kernel.views.calls import Batch, Forecast, Waiting, attempt
from rlm_kernel.views.notes import notes
from rlm_kernel.views.outputs import error_line

_QUESTION = 60
_WORDS = 4_000
"""Characters of a reply that are kept to be shown: the last ones."""
_CODE = 20_000
"""Characters of a cell's code that are kept to be shown: the first ones."""
_ROOT = "waiting for the root model"
_REPLIES = "the root model replies"
_THINKS = "the root model thinks"


@dataclass(frozen=True)
class Told:
    """Something worth a line of its own.

    `kind`: "reply" (the root model has replied), "cell" (a cell has ended), "turn" (a turn is over, with all
    that it took), "error" (what a cell raised), "batch" (what its calls will cost), "child" (one begins or
    ends), "retry" (the root model is asked again), "person" (a user's cell has ended), "note" (of the
    engine's), "known" (what a user should know in any case: what was read how, what a summary saved).
    """

    kind: Literal["reply", "cell", "turn", "error", "batch", "child", "retry", "person", "note", "known"]
    text: str


class Branch:
    """One RLM at work: a listener (`engine.events`). `tell` hears what is worth a line.

    `name`: "" of the run itself, "1.2" of the second child of its first child; `question` as it was asked, of
    a child one line of it. `turn` counts from 1, 0 before the first; `cell` is the id of the cell that runs
    and `code` its beginning, both "" between cells; `outputs`: nbformat outputs of the cell that runs, or ran
    last in this turn. `words`: the end of what the root model says in this turn; `thinks`: these are its
    reasoning, which is followed by its reply. `batch` and `waiting`: the model calls of the cell. `children`:
    those at work, by the number that their events have. `changes` counts the events that were heard, of
    children too. `ended`: what became of the question, and what it took; None as long as it is open.
    """

    def __init__(
        self,
        tell: Callable[[Told], None] = lambda _told: None,
        parent: Branch | None = None,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.children: dict[int, Branch] = {}
        self.name = name
        self.changes = 0
        self._tell = tell
        self._parent = parent
        self.clock = clock
        self.batch = Batch(clock)
        self.tools = 0
        """Calls of tools under way."""
        self.waiting = Waiting(clock)
        self.begin()

    def begin(self) -> None:
        """Another run."""
        self._started = self.clock()
        self._account: Account | None = None
        self.question = ""
        self.ended: tuple[Outcome, Totals] | None = None
        self.turn = 0
        self._turn = _Turn()
        self._told = ""
        self._born = 0
        self.cell = self._loading = ""
        self._clear()
        self.batch.begin()
        self._forecast = Forecast()
        self.waiting.clear()
        self.children.clear()
        self.do("starting")

    def _clear(self) -> None:
        self.words = self.code = ""
        self.thinks = False
        self.outputs: Sequence[Mapping[str, Any]] = ()

    def do(self, what: str, *, since: float | None = None) -> None:
        """What it does from now on, or has done `since` then."""
        self.doing, self.since = what, self.clock() if since is None else since

    def __call__(self, event: Event) -> None:
        """Hear what happens."""
        self.changes += 1
        match event:
            case RunOpened(question=question, account=account):
                self._opened(question)
                self._account = account
            case TurnStarted(turn):
                self.turn_over()
                self.turn, self._turn = turn, _Turn(turn, self.clock(), self.totals())
                self._clear()
                self.do(_ROOT)
            case TurnPiece(text=text, thought=thought):
                self._piece(text, thought)
            case TurnReplied(turn, reply, prose):
                self.wait("", None)
                self.words, self.thinks = prose[-_WORDS:], False
                self._tell_used("reply", f"turn {turn}: root model replied in {reply.seconds:.1f} s")
            case TurnCutOff():
                self.words = ""
            case CellStarted() | CellOutput() | CellFinished():
                self._in_cell(event)
            case CallStarted() | CallsPlanned() | CallRetried() | CallFinished():
                self._call(event)
            case UserCellFinished(result):
                self._tell_own("person", f"a person ran a cell: {result.status} in {result.seconds:.1f} s")
                if result.cell_id.startswith("load-"):  # files that are loaded into a session
                    self._tell_notes(result)
            case Noted(text, to_model):
                self._tell_own("note", f"{'told the root model' if to_model else 'note'}: {text}")
            case Summarized(memory):
                about = "about " if memory.estimated else ""
                self._tell_own("known", f"memory: {about}{memory.before:,} → {memory.after:,} tokens")
            case RunFinished(outcome, totals):
                self.ended = (outcome, totals)
                self._finished(outcome, totals)
            case ChildEvent(child, its):
                self._child(child, its)
            case _:
                assert_never(event)

    def _opened(self, question: str) -> None:
        self.question = question

    def _piece(self, text: str, thought: bool) -> None:
        if self.doing in (_ROOT, _REPLIES, _THINKS) and self.doing != (
            what := _THINKS if thought else _REPLIES
        ):
            self.do(what, since=self.since if self.doing != _ROOT else None)
        if thought != self.thinks:
            self.words, self.thinks = "", thought
        self.words = f"{self.words}{text[-_WORDS:]}"[-_WORDS:]

    def _in_cell(self, event: CellStarted | CellOutput | CellFinished) -> None:
        match event:
            case CellStarted(cell_id, turn, code):
                self._loading = f"cell {cell_id} runs" if turn else "loading the input"
                self.batch.begin()
                self.tools = 0
                self._forecast = Forecast()
                self.do(self._loading)
                if turn:
                    self.cell, self.code, self.outputs = cell_id, code[:_CODE], ()
            case CellOutput(cell_id, outputs) if cell_id == self.cell:
                self.outputs = outputs
            case CellFinished(turn, result):
                self.batch.begin()
                self.do(_ROOT)
                self.cell = ""
                self._tell_used("cell", f"cell {result.cell_id}: {result.status} in {result.seconds:.1f} s")
                if turn:
                    self.outputs = result.outputs
                    self._turn.cells += 1
                    if result.status != "ok":
                        self._tell_own("error", f"cell {result.cell_id}: {error_line(result)}")
                else:
                    self._tell_notes(result)

    def _call(self, event: CallStarted | CallsPlanned | CallRetried | CallFinished) -> None:
        match event:
            case CallStarted(kind=kind) if kind in MODEL_CALLS:
                self.batch.started()
            case CallStarted(kind="tool", prompt=prompt):
                self.tools += 1
                name = prompt.partition("(")[0]
                self.do(f"calls {name}" if name.isidentifier() else "calls a tool")
            case CallFinished(call=call) if call.kind == "tool":
                self.tools -= 1
                if self.tools <= 0:
                    self.do(self._loading)
            case CallsPlanned(calls=calls, cost=cost):
                self.batch.plan(calls, cost)
                if told := self._forecast.line(event):
                    self._tell_own("batch", told)
            case CallRetried(call_id=call_id, retry=retry):
                self.wait(call_id, retry)
                if not call_id:  # those of sub models are summed up
                    self.words = ""
                    self.do(_ROOT)
                    self._tell_own(
                        "retry", f"root model: {attempt(retry)}, next in {max(0.1, retry.seconds):,.1f} s"
                    )
            case CallFinished(call=call) if call.kind in MODEL_CALLS:
                self.batch.ended(
                    failed=call.error is not None, stored=call.stored or call.again, cost=call.cost
                )
                self.wait(call.id, None)
            case CallFinished(call=call) if call.kind == "file":
                self.do(self._loading)  # it may have been copied

    def _child(self, number: int, event: Event) -> None:
        if isinstance(event, RunOpened):
            self._born += 1
            self.children[number] = _Child(number, self, f"{self.name}.{self._born}".lstrip("."))
        if number in self.children:
            self.children[number](event)

    def _finished(self, outcome: Outcome, totals: Totals) -> None:
        self.turn_over()
        self._clear()  # what the last turn said and ran is told, and the answer
        self.do("closing")

    def turn_over(self) -> None:
        """Tell of the turn in progress that it is over, if there is one and that was not told."""
        turn, self._turn = self._turn, _Turn()
        if turn.number:
            self._tell_own("turn", turn.line(self.totals() - turn.before, self.clock() - turn.started))

    def _tell_own(
        self,
        kind: Literal["reply", "cell", "turn", "error", "batch", "retry", "person", "note", "known"],
        text: str,
    ) -> None:
        self._tell(Told(kind, text))

    def _tell_used(self, kind: Literal["reply", "cell"], text: str) -> None:
        """With what the run has used so far, where that is something, and has changed since the line
        before.
        """
        used = self.account()
        self._tell_own(kind, f"{text}; so far {used}" if used and used != self._told else text)
        self._told = used

    def _tell_notes(self, result: CellResult) -> None:
        for line in notes(result.outputs):
            self._tell_own("known", line)

    def wait(self, call: str, retry: Retry | None) -> None:
        """A call waits for its next attempt, or (None) does so no more, here and above.

        The root model's is "".
        """
        if retry is None:
            self.waiting.drop(call)
        else:
            self.waiting.add(call, retry)
        if self._parent is not None:
            self._parent.wait(f"{self.name} {call}", retry)

    def totals(self) -> Totals:
        """What the run has used so far, with all child RLMs beneath it."""
        return self._account.totals() if self._account is not None else Totals()

    @property
    def asked(self) -> bool:
        """Whether a request to the root model has begun."""
        return self.turn > 0

    def account(self) -> str:
        """What the run has used so far; "" as long as that is nothing."""
        totals = self.totals()
        return "" if totals.nothing else totals.spending()

    def left(self) -> list[str]:
        """What is left of the limits that are set, in words: `$0.48`, `27 turns`."""
        # An account that has no limits need not tell any.
        left: Mapping[str, Any] = getattr(self._account, "left", dict)()
        told = {
            "cost": lambda cost: f"${cost:,.2f}" if cost >= 1 else f"${cost:,.4f}",
            "tokens": lambda tokens: counted(int(tokens), "token"),
            "calls": lambda calls: counted(int(calls), "call"),
            "turns": lambda turns: counted(int(turns), "turn"),
            "seconds": duration,
        }
        return [tell(left[name]) for name, tell in told.items() if left.get(name) is not None]

    def activity(self) -> str:
        """What it does now, and for how long."""
        # What is set up may count the seconds itself.
        return self.doing if self.doing.endswith(" s") else f"{self.doing}, {self.clock() - self.since:.0f} s"

    def status(self) -> str:
        """What it does now and what it has used, in a line."""
        turn = [f"turn {self.turn}"] if self.turn else []
        used = self.account()
        return " · ".join(
            [*turn, self.activity(), *([used, f"{self.totals().seconds:.0f} s in all"] if used else [])]
        )

    def details(self) -> list[str]:
        """How far the cell's calls are, and which wait for another attempt."""
        return [line for line in (self.batch.line(), self.waiting.line()) if line]

    def tree(self, depth: int = 0) -> Iterator[tuple[int, Branch]]:
        """The child RLMs at work beneath it, each with its depth, from 0, and before those beneath it."""
        for child in list(self.children.values()):
            yield depth, child
            yield from child.tree(depth + 1)


class _Child(Branch):
    """A child RLM at work.

    Of its turns and cells the tree alone tells: of many at once, lines would be a muddle.
    """

    def __init__(self, number: int, parent: Branch, name: str) -> None:
        super().__init__(parent._tell, parent, name, parent.clock)
        self._number = number
        self._above = parent

    def _opened(self, question: str) -> None:
        shown = " ".join(printable(question).split())
        self.question = shown if len(shown) <= _QUESTION else f"{shown[: _QUESTION - 1]}…"
        self._tell(Told("child", f"child {self.name} begins: {self.question}"))

    def _tell_own(self, kind: str, text: str) -> None:
        pass

    def _finished(self, outcome: Outcome, totals: Totals) -> None:
        how = "answered" if outcome.answer is not None else f"no answer ({outcome.stop_reason})"
        self._above.children.pop(self._number, None)
        self._tell(Told("child", f"child {self.name}: {how}, {totals.line()}"))

    def status(self) -> str:
        return f"{self.question} · {super().status()}"


@dataclass
class _Turn:
    """A turn in progress; number 0: none. `before`: what the run had used when it began."""

    number: int = 0
    started: float = 0.0
    before: Totals = field(default_factory=Totals)
    cells: int = 0

    def line(self, used: Totals, seconds: float) -> str:
        calls = used.calls - used.child_turns
        return " · ".join(
            [
                f"turn {self.number}",
                *([counted(calls, "sub-call")] if calls else []),
                *([counted(used.children, "child RLM")] if used.children else []),
                duration(seconds),
                short_money(used.known_cost, used.unpriced),
                *([counted(self.cells, "cell")] if self.cells else []),
            ]
        )


def short_money(known: float, unpriced: int) -> str:
    """A cost in a heading: three digits behind the point; what is not known is never shown as nothing."""
    told = f"${known:,.2f}" if known >= 1 else f"${known:.3f}" if known >= 0.001 else fine_dollars(known)
    return told if not unpriced else f"{told} + unknown" if known else "cost unknown"
