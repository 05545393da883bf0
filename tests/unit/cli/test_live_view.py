"""The live view: one account, the tree of child RLMs at work, and nothing that a model could do to the
terminal.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.cli._report import so_far_of
from rlm_kernel.engine.events import (
    CallFinished,
    CallRetried,
    CallsPlanned,
    CallStarted,
    CellFinished,
    CellStarted,
    ChildEvent,
    Event,
    Listener,
    Noted,
    RunFinished,
    RunOpened,
    TurnPiece,
    TurnReplied,
    TurnStarted,
    UserCellFinished,
)
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Retry, Totals, Usage
from rlm_kernel.views.live import LiveView
from tests.support.engine import stream
from tests.support.trace import call, result

ANSWERED = Outcome(Answer("5"), "answered")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Book:
    """An account of the run."""

    def __init__(self, **used: Any) -> None:
        self.used = Totals(**used)

    def totals(self) -> Totals:
        return self.used

    def closed(self) -> Totals:
        return self.used


def plain(**options: Any) -> tuple[LiveView, io.StringIO]:
    """A view off a terminal."""
    out = io.StringIO()
    return LiveView(stream=out, **options), out


def drawn(view: LiveView) -> list[str]:
    """What its state has to show: what it does, how far its calls are, and the tree."""
    tree = [f"{'  ' * (depth + 1)}{child.name} {child.status()}" for depth, child in view.tree()]
    return [view.status(), *view.details(), *tree]


_born: list[str] = []


def child(parent: Listener, question: str, **used: Any) -> Listener:
    """A child RLM that begins; what is told to it, the parent's listener hears."""
    number = len(_born)
    _born.append(question)

    def tell(event: Event) -> None:
        parent(ChildEvent(number, event))

    tell(RunOpened(question, Book(**used), Totals()))
    return tell


def turn(branch: Listener, number: int = 1) -> None:
    branch(TurnStarted(number))
    branch(TurnReplied(number, Completion("x", "m", Usage(10, 1), 0.5, 2.0), ""))


def asked(branch: Listener, count: int, *, kind: Any = "llm_query") -> None:
    for number in range(count):
        branch(CallStarted("turn-01-a", f"7-1-{number}", kind))


def ended(branch: Listener, numbers: Iterable[int], **changes: Any) -> None:
    for number in numbers:
        branch(CallFinished("turn-01-a", call(number, **changes)))


def retry(attempt: int = 1, seconds: float = 2.0, reason: str = "rate-limited") -> Retry:
    return Retry(reason, attempt, 5, seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> LiveView:
    """In a terminal, as if it were drawn."""
    return LiveView(stream=Terminal(), clock=clock)


def test_children_at_work_hang_from_their_parents(view: LiveView) -> None:
    view(RunOpened("Q", Book(turns=3, calls=5, child_turns=4, children=3, seconds=61.4), Totals()))
    turn(view, 3)
    first, second = (
        child(view, "Count the\nerrors", calls=1, child_turns=1, children=1),
        child(view, "And the rest?"),
    )
    deep = child(first, "In this part?", turns=2, known_cost=0.5)
    turn(deep, 2)
    deep(CellStarted("turn-02-a", 2, "x"))
    assert drawn(view) == [
        "turn 3 · waiting for the root model, 0 s · 1 sub-call, 3 child RLMs with 4 turns, 0 tokens, "
        "$0.0000 · 61 s in all",
        "  1 Count the errors · starting, 0 s · 0 sub-calls, 1 child RLM with 1 turn, 0 tokens, $0.0000 · 0 "
        "s in all",
        "    1.1 In this part? · turn 2 · cell turn-02-a runs, 0 s · 0 sub-calls, 0 tokens, $0.5000 · 0 s "
        "in all",
        "  2 And the rest? · starting, 0 s",
    ]
    deep(RunFinished(ANSWERED, Totals(turns=2)))
    first(RunFinished(ANSWERED, Totals(turns=1)))
    assert [line[:4] for line in drawn(view)[1:]] == ["  2 "]
    second(RunFinished(Outcome(None, "cost"), Totals()))
    assert len(drawn(view)) == 1


def test_what_the_live_line_says_is_what_the_last_line_says(view: LiveView) -> None:
    book = Book(
        turns=2,
        calls=9,
        child_turns=2,
        children=1,
        failed=2,
        stored=3,
        known_cost=0.125,
        unpriced=1,
        sub_usage=Usage(1000, 234),
    )
    view(RunOpened("Q", book, Totals(turns=40, known_cost=7.0)))
    assert (
        view.account()
        == "7 sub-calls (2 failed, 3 from the cache), 1 child RLM with 2 turns, 1,234 tokens, $0.1250 + "
        "unknown"
    )
    assert view.account() in book.used.line()
    ended(view, range(3))  # nothing is counted beside the account
    assert view.account() in book.used.line()
    view.begin()
    assert drawn(view) == ["starting, 0 s"]


@pytest.mark.parametrize(
    ("totals", "shown"),
    [
        (Totals(), "$0.0000"),
        (Totals(known_cost=1234.5), "$1,234.5000"),
        (Totals(unpriced=2), "cost unknown"),
        (Totals(known_cost=0.12, unpriced=1), "$0.1200 + unknown"),
    ],
)
def test_what_is_not_known_of_the_cost_is_never_shown_as_nothing(totals: Totals, shown: str) -> None:
    assert totals.money() == shown


def test_a_batch_tells_how_far_it_is_and_how_long_it_takes(view: LiveView, clock: Clock) -> None:
    view(CellStarted("turn-01-a", 1, "x"))
    view(CallsPlanned("turn-01-a", 300))
    asked(view, 64)
    assert drawn(view)[1] == "batch: 0 of 300 done"
    clock.now += 10
    ended(view, range(118))
    ended(view, range(2), answer=None, error="No.")
    assert drawn(view)[1] == "batch: 120 of 300 done, 2 failed, 12/s, about 15 s left"
    clock.now += 10
    assert drawn(view)[1] == "batch: 120 of 300 done, 2 failed, 6/s, about 30 s left", "a standstill shows"
    ended(view, range(180))
    assert len(drawn(view)) == 1


def test_replies_from_the_cache_say_nothing_of_the_pace(view: LiveView, clock: Clock) -> None:
    view(CellStarted("turn-01-a", 1, "x"))
    view(CallsPlanned("turn-01-a", 300))
    asked(view, 300)
    clock.now += 60
    ended(view, range(200), stored=True)
    assert drawn(view)[1] == "batch: 200 of 300 done"
    ended(view, range(6))
    assert drawn(view)[1] == "batch: 206 of 300 done, 6.0/min, about 16 min left"


def test_each_batch_of_a_cell_is_counted_by_itself(view: LiveView, clock: Clock) -> None:
    view(CellStarted("turn-01-a", 1, "x"))
    for planned, done in ((10, 10), (30, 5)):
        view(CallsPlanned("turn-01-a", planned))
        asked(view, 10)
        clock.now += 5
        ended(view, range(done))
    assert drawn(view)[1] == "batch: 5 of 20 done, 1/s, about 15 s left"
    view(CallsPlanned("turn-01-a", 24))  # six of them are not made any more
    assert drawn(view)[1].startswith("batch: 5 of 14 done")
    view(CellFinished(1, result("turn-01-a")))
    view(CellStarted("turn-01-b", 1, "x"))
    asked(view, 3)
    assert drawn(view)[1] == "3 calls under way", "without a plan there is no total"
    ended(view, range(2))
    assert len(drawn(view)) == 1


def test_off_a_terminal_a_large_or_dear_batch_is_told_before_its_calls(view: LiveView) -> None:
    out = io.StringIO()
    plain = LiveView(stream=out)
    plain(CellStarted("turn-01-a", 1, "x"))
    told = [
        (500, 1.2, 5.0),
        (519, 1.21, 5.0),
        (519, 1.21, 5.0),
        (520, 1.5, None),
        (500, 1.5, None),
        (600, 1.5, None),
    ]
    for calls, cost, limit in told:
        plain(CallsPlanned("turn-01-a", calls, cost, limit))
    plain(CellStarted("turn-01-b", 1, "x"))
    plain(CallsPlanned("turn-01-b", 20))
    assert out.getvalue().splitlines() == [
        "batch: 500 calls, about $1.20, limit $5",
        "batch: 1 call, about $0.29",
        "batch: 100 calls",
        "batch: 20 calls, cost unknown",
    ]


@pytest.mark.parametrize("planned", [0, 1, 10**7])
def test_the_word_of_code_of_its_calls_is_shown_and_breaks_nothing(
    view: LiveView, clock: Clock, planned: int
) -> None:
    view(CallsPlanned("turn-01-a", planned))
    asked(view, 2)
    clock.now += 5
    ended(view, range(5))
    view(CallsPlanned("turn-01-a", 0))
    drawn(view)


def test_calls_that_wait_for_another_attempt_show_why_and_until_when(view: LiveView, clock: Clock) -> None:
    view(RunOpened("Q", Book(), Totals()))
    view(TurnStarted(1))
    view(CallRetried("", "", retry(3)))
    clock.now += 0.5
    assert drawn(view) == [
        "turn 1 · waiting for the root model, 0 s",
        "rate-limited, attempt 3 of 5, next in 2 s",
    ]
    clock.now += 41.5
    assert drawn(view) == ["turn 1 · waiting for the root model, 42 s"], "the attempt is under way"
    view(CallRetried("", "", retry(4)))
    view(TurnReplied(1, Completion("x", "m"), ""))
    assert len(drawn(view)) == 1
    for number in range(37):
        view(CallRetried("turn-01-a", f"7-1-{number}", retry(1, 2.0 + number)))
    assert drawn(view)[1] == "rate-limited: 37 calls wait, next in 2 s"
    ended(view, range(30))
    for number in range(3):
        view(CallRetried("turn-01-a", f"7-1-{number}", retry(1, 20.0, "server error 503")))
    assert drawn(view)[1] == "rate-limited: 7 calls wait; server error 503: 3 calls wait, next in 20 s"
    child(view, "Q")(CallRetried("turn-01-a", "7-1-1", retry(1, 1.0, "time-out")))
    assert drawn(view)[1].endswith("; time-out: 1 call waits, next in 1 s")


def test_off_a_terminal_waiting_calls_are_summed_up_and_the_root_models_attempts_are_told(
    clock: Clock,
) -> None:
    view, out = plain(clock=clock)
    view(CallRetried("", "", retry(3, 1.26)))
    for number in range(10_000):
        view(CallRetried("turn-01-a", f"7-1-{number}", retry(1, 60.0)))
    for _ in range(60):
        clock.now += 0.5
        view._view.beat()
    assert out.getvalue().splitlines() == [
        "root model: rate-limited, attempt 3 of 5, next in 1.3 s",
        "rate-limited: 10,000 calls wait, next in 50 s",
        "rate-limited: 10,000 calls wait, next in 40 s",
        "rate-limited: 10,000 calls wait, next in 30 s",
    ]


def test_off_a_terminal_there_is_a_sign_of_life_after_a_long_silence(clock: Clock) -> None:
    view, out = plain(clock=clock, lines=False)
    view.say("building the kernel image… step 1")
    view(RunOpened("Q", Book(seconds=12.0), Totals()))
    view(TurnStarted(1))
    for _ in range(130):
        clock.now += 0.5
        view._view.beat()
    view(CellStarted("turn-01-a", 1, "x"))
    view(CallsPlanned("turn-01-a", 9))
    asked(view, 9)
    clock.now += 30
    view._view.beat()
    assert out.getvalue().splitlines() == [
        "building the kernel image… step 1",
        "turn 1 · waiting for the root model, 30 s",
        "turn 1 · waiting for the root model, 60 s",
        "turn 1 · cell turn-01-a runs, 30 s · batch: 0 of 9 done",
    ]


def test_what_the_set_up_waits_for_has_the_time_that_it_takes(view: LiveView, clock: Clock) -> None:
    view.say("copying big.log … 0.1 of 9.0 GB")
    clock.now += 7
    view.say("copying big.log … 2.1 of 9.0 GB")
    assert drawn(view) == ["copying big.log … 2.1 of 9.0 GB, 7 s"]
    view.say("loading local model (1.1 GB)… 3 s")
    assert drawn(view) == ["loading local model (1.1 GB)… 3 s"]
    view(CellStarted("setup", 0, "load_files(paths)"))
    assert drawn(view) == ["loading the input, 0 s"]
    view.say("copying other.log … 0.1 of 9.0 GB")
    view(CallFinished("setup", call(0, kind="file")))
    assert drawn(view) == ["loading the input, 0 s"]


def test_off_a_terminal_it_is_lines_and_children_have_one_at_each_end() -> None:
    view, out = plain()
    with view:
        view(RunOpened("Q", Book(known_cost=0.5, root_usage=Usage(10, 1)), Totals()))
        turn(view)
        first = child(view, "Count them")
        turn(first)
        first(CellStarted("turn-01-a", 1, "x"))
        first(CellFinished(1, result("turn-01-a")))
        first(Noted("Something."))
        deep = child(first, "Here")
        deep(RunFinished(Outcome(None, "interrupted"), Totals(turns=1, seconds=2.0)))
        first(RunFinished(ANSWERED, Totals(turns=3, seconds=1.25)))
        view(CellFinished(1, result("turn-01-a")))
    assert out.getvalue().splitlines() == [
        "turn 1: root model replied in 2.0 s; so far 0 sub-calls, 11 tokens, $0.5000",
        "child 1 begins: Count them",
        "child 1.1 begins: Here",
        "child 1.1: no answer (interrupted), 1 turn, 0 sub-calls, 0 tokens, $0.0000, 2.0 s",
        "child 1: answered, 3 turns, 0 sub-calls, 0 tokens, $0.0000, 1.2 s",
        "cell turn-01-a: ok in 0.2 s",
    ]


def test_quiet_is_quiet_and_a_chat_has_no_lines() -> None:
    for options in ({"quiet": True}, {"lines": False}):
        out = io.StringIO()
        with LiveView(stream=out, **options) as view:
            turn(view)
            child(view, "Q")(RunFinished(ANSWERED, Totals()))
        assert out.getvalue() == ""


@pytest.mark.parametrize(
    "question", ["\x1b]0;owned\x07\x1b[2J", "a\rb\x08\x9b31m", "\u202eevil", "[bold]x[/bold]", "", "\ud800"]
)
def test_a_hostile_question_does_nothing_to_the_terminal(view: LiveView, question: str) -> None:
    child(view, question)(CellStarted("turn-01-a", 1, "x"))
    lines = drawn(view)
    assert len(lines) == 2
    assert not {"\x1b", "\r", "\x08", "\x9b", "\x07", "\u202e"} & set("".join(lines))
    if question.startswith("["):
        assert question in lines[1]
    other, out = plain()
    child(other, question)(RunFinished(Outcome(None, "error", detail=question), Totals()))
    assert not {"\x1b", "\r", "\x08", "\x9b", "\x07", "\u202e"} & set(out.getvalue())
    assert len(out.getvalue().splitlines()) == 2


def test_what_loading_remarks_is_told_ten_lines_of_it_and_only_of_set_up_cells() -> None:
    view, out = plain()
    said = "".join(f"Note: file {number} is read as cp1252.\n" for number in range(12))
    outputs = [
        stream("Note: on stdout.\n"),
        stream("UserWarning\nNote: \x1b]0;owned\x07x\nNote: fi", "stderr"),
        stream(said[8:], "stderr"),
    ]
    view(CellFinished(0, result("setup", outputs=outputs)))
    view(CellFinished(1, result("turn-01-a", outputs=outputs)))
    lines = out.getvalue().splitlines()
    assert lines[1:3] == ["Note: \ufffd]0;owned\ufffdx", "Note: file 0 is read as cp1252."]
    assert [line[:11] for line in lines[1:11]] == ["Note: \ufffd]0;o", *["Note: file "] * 9]
    assert lines[11:] == [
        "… and 3 more notes; all are in the trace.",
        "cell turn-01-a: ok in 0.2 s",
    ]


def test_notes_are_told_of_files_that_are_loaded_later_and_above_the_live_line() -> None:
    out = Terminal()
    with LiveView(stream=out, lines=False) as view:
        view(UserCellFinished(result("load-2", outputs=[stream("Note: 3 files left out.\n", "stderr")])))
        view(UserCellFinished(result("person", outputs=[stream("Note: not ours.\n", "stderr")])))
        view(CellFinished(0, result("setup", outputs=[stream("Note: " + "x" * 1000, "stderr")])))
    assert "Note: 3 files left out." in out.getvalue()
    assert "not ours" not in out.getvalue()
    assert "x" * 294 + "…" in out.getvalue()
    silent = Terminal()
    with LiveView(stream=silent, quiet=True) as view:
        view(CellFinished(0, result("setup", outputs=[stream("Note: x", "stderr")])))
    assert silent.getvalue() == ""


def test_a_run_that_is_interrupted_in_its_first_reply_does_not_say_that_no_model_was_asked(
    tmp_path: Path,
) -> None:
    view, _ = plain()
    told = so_far_of(view, lambda: tmp_path / "t.ipynb")
    view(RunOpened("Q", Book(), Totals()))
    view(RunFinished(Outcome(None, "interrupted"), Totals(seconds=1.0)))
    assert told() == ""
    view(TurnStarted(1))
    assert told().startswith(" during the root model's first reply, for which the provider may charge. ")
    assert "To continue:\nrlm resume " in told()


def test_off_a_terminal_and_quiet_the_words_of_a_reply_are_not_seen() -> None:
    for options in ({}, {"quiet": True}):
        view, out = plain(**options)
        with view:
            view(TurnStarted(1))
            view(TurnPiece(1, "I look at the input.\n", False))
        assert "I look" not in out.getvalue()


def test_off_a_terminal_the_error_of_a_cell_is_told_and_who_was_told_what() -> None:
    view, out = plain()
    raised = {"output_type": "error", "ename": "NameError", "evalue": "name 'x' is not defined"}
    view(CellFinished(1, result("turn-01-a", status="error", outputs=[raised | {"traceback": []}])))
    view(Noted("Correct that cell.", to_model=True))
    view(Noted("The limit of turns is reached."))
    assert out.getvalue().splitlines() == [
        "cell turn-01-a: error in 0.2 s",
        "cell turn-01-a: NameError: name 'x' is not defined",
        "told the root model: Correct that cell.",
        "note: The limit of turns is reached.",
    ]


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (0.0, "$0.0000"),
        (0.00003, "$0.00003"),
        (0.000092, "$0.000092"),
        (0.00099, "$0.00099"),
        (0.5, "$0.5000"),
    ],
)
def test_a_small_cost_is_neither_nothing_nor_an_exponent(amount: float, told: str) -> None:
    assert Totals(known_cost=amount).money() == told
