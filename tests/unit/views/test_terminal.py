"""The frame in a terminal: calm, in its place, as cheap as it looks, whatever is told to it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from rlm_kernel.engine.events import (
    CallFinished,
    CallsPlanned,
    CallStarted,
    CellFinished,
    CellOutput,
    CellStarted,
    ChildEvent,
    Event,
    RunFinished,
    RunOpened,
    TurnPiece,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals, Usage
from rlm_kernel.views.live import LiveView
from rlm_kernel.views.screen import Screen
from rlm_kernel.views.terminal import TerminalView
from tests.support.engine import stream
from tests.support.screens import Seen
from tests.support.trace import call, result

SIZES = [(80, 24), (200, 50), (20, 8), (10, 3)]


class Shown:
    """A view over a terminal, drawn when the test says so."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.terminal = Seen(columns, lines)
        self.now = 100.0
        self.view = LiveView(stream=self.terminal, clock=lambda: self.now)
        drawn = self.view._view
        assert isinstance(drawn, TerminalView)
        self.drawn = drawn
        self.drawn._screen.size = lambda: self.terminal.size  # type: ignore[method-assign]

    def tell(self, *events: Event) -> list[str]:
        """What is seen then."""
        for event in events:
            self.view(event)
        self.now += 1
        self.drawn.draw()
        return self.terminal.rows

    def resize(self, columns: int, lines: int) -> list[str]:
        """Of a terminal that breaks lines that are too long anew, as most do."""
        before = self.terminal.rows
        self.terminal = Seen(columns, lines)
        self.drawn._screen._stream = self.terminal
        self.terminal.write("\n".join(before))
        self.now += 1
        self.drawn.draw()
        return self.terminal.rows


@pytest.fixture(autouse=True)
def _colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shown() -> Shown:
    return Shown()


def replied(turn: int = 1, prose: str = "I count them.", **usage: Any) -> list[Event]:
    reply = Completion(prose, "m", Usage(10, 1), 0.01, 2.0)
    return [TurnStarted(turn), TurnReplied(turn, reply, prose)]


def cell(code: str, outputs: Sequence[Any] = ()) -> list[Event]:
    return [CellStarted("turn-01-a", 1, code), CellOutput("turn-01-a", outputs)]


def test_words_code_outputs_the_batch_and_limits_are_seen_as_they_come(shown: Shown) -> None:
    ledger = Ledger(Limits(turns=5, cost=0.5))
    assert shown.tell(RunOpened("How many?", ledger, Totals()), TurnStarted(1))[0].startswith(
        "turn 1 · waiting for the root model"
    )
    rows = shown.tell(TurnPiece(1, "I split", False), TurnPiece(1, " the input.\n", False))
    assert rows[:2] == ["turn 1 · the root model replies, 1 s", "  I split the input."]
    rows = shown.tell(replied()[1], *cell("x = 1\nfor y in z:\n    print(y)", [stream("one\ntwo\n")]))
    assert rows[1:-1] == [
        "  I count them.",
        "  │ x = 1",
        "  │ for y in z:",
        "  │     print(y)",
        "  one",
        "  two",
    ]
    assert "left: $0.5000, 5 turns" in rows[-1]
    shown.tell(CallsPlanned("turn-01-a", 30, 0.04))
    shown.now += 2
    rows = shown.tell(
        *(CallStarted("turn-01-a", f"7-1-{n}", "llm_query") for n in range(30)),
        *(CallFinished("turn-01-a", call(n, cost=0.001)) for n in range(10)),
        CallFinished("turn-01-a", call(11, answer=None, error="No.", cost=None)),
    )
    (place,) = [place for place, row in enumerate(rows) if "━" in row]
    assert rows[place].endswith(" 11 of 30 · 1 failed")
    assert rows[place + 1] == "  3/s · $0.0100 of about $0.0400 · about 7 s left", "80 columns do not do"


def test_finished_turns_stay_a_line_each_with_the_error_of_a_cell_before(shown: Shown) -> None:
    failed = result("turn-01-a", status="error", outputs=[{"output_type": "error", "ename": "NameError", "evalue": "name 'lin'\nis not defined", "traceback": []}])  # fmt: skip
    shown.tell(*replied(), *cell("lin"), CellFinished(1, failed))
    rows = shown.tell(*replied(2))
    assert rows[:2] == [
        "cell turn-01-a: NameError: name 'lin' is not defined",
        "turn 1 · 1 s · $0.0000 · 1 cell",
    ]
    assert rows[2].startswith("turn 2 · ")
    shown.view(RunFinished(Outcome(Answer("5"), "answered"), Totals()))
    shown.drawn._end_frame()
    assert [row[:6] for row in shown.terminal.rows] == ["cell t", "turn 1", "turn 2"], "and no frame"
    assert shown.terminal.cursor_shown


def test_a_turn_says_what_it_took(shown: Shown) -> None:
    class Book:
        used = Totals()

        def totals(self) -> Totals:
            return self.used

    book = Book()
    shown.tell(RunOpened("Q", book, Totals()), TurnStarted(3))  # type: ignore[arg-type]
    for _ in range(2):
        shown.tell(*cell("x"), CellFinished(3, result("turn-03-a")))
    shown.now += 9
    book.used = Totals(turns=1, calls=300, known_cost=0.0139)
    assert shown.tell(TurnStarted(4))[0] == "turn 3 · 300 sub-calls · 12 s · $0.014 · 2 cells"


@pytest.mark.parametrize("size", SIZES)
def test_it_stays_where_it_is_and_never_leaves_a_line_behind(size: tuple[int, int]) -> None:
    shown = Shown(*size)
    shown.terminal.write("$ rlm ask\n")
    for turn in range(1, 4):
        shown.tell(*replied(turn, "words " * 200))
        heights = []
        for number in range(30):
            code = "\n".join(f"line_{n} = {n}" for n in range(number))
            shown.tell(*cell(code, [stream("out\n" * (30 - number))]), CallsPlanned("turn-01-a", number))
            heights.append(len(shown.terminal.rows))
        assert heights == sorted(heights), "the last row does not move up in a turn"
        shown.tell(CellFinished(turn, result("turn-01-a")))
    shown.view.turn_over()
    shown.drawn._end_frame()
    seen = "".join([*shown.terminal.above, *shown.terminal.rows])
    assert seen.startswith("$ rlm ask"[: size[0]])
    assert seen.count("turn 1") == seen.count("turn 2") == seen.count("turn 3") == 1
    assert "line_" not in seen
    assert "out" not in seen


HOSTILE = {
    "escapes": "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08",
    "turned": "\u202eevil\u2066",
    "markup": "[bold red]x[/] :smile: [link=https://x.example]y[/link]",
    "wide": "漢字" * 4_000,
    "emoji": "😀👩‍👩‍👧‍👦🇩🇪❤️" * 2_000,
    "right to left": "שלום עולם مرحبا " * 2_000,
    "no spaces": "x" * 100_000,
    "marks": "e" + "\u0301" * 5_000,
    "tabs": "\t\tx\ty" * 1_000,
    "surrogates": "\ud800\udfff",
    "lines": "\n" * 100_000 + "a\x0bb\x0cc\x85d\u2028e",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_hostile_or_odd_breaks_the_frame(text: str, size: tuple[int, int]) -> None:
    shown = Shown(*size)
    shown.terminal.write("$ rlm ask\n")
    begin = len(shown.terminal.getvalue())
    shown.tell(RunOpened(text, Ledger(Limits()), Totals()), TurnStarted(1), TurnPiece(1, text, False))
    shown.tell(replied(1, text)[1], *cell(text, [stream(text)]))
    shown.tell(ChildEvent(1, RunOpened(text, Ledger(Limits()), Totals())))
    shown.tell(CellFinished(1, result("turn-01-a", status="error", outputs=[{"output_type": "error", "ename": text, "evalue": text, "traceback": [text]}])))  # fmt: skip
    written = shown.terminal.getvalue()[begin:]
    assert not {"\x07", "\x08", "\x9b", "\u202e", "\u2066", "\x0b", "\x0c", "\x85"} & set(written)
    assert "\x1b[2J" not in written
    assert "\x1b]" not in written
    assert shown.terminal.rows[0] == "$ rlm ask"[: size[0]] or shown.terminal.above
    if "[bold" in text and size[0] >= 80:
        assert any("[bold red]x[/] :smile:" in row for row in shown.terminal.rows)
    shown.drawn._end_frame()
    left = [*shown.terminal.above, *shown.terminal.rows]
    assert not any(row.startswith("turn 1 ·") for row in left), "the frame is gone"


def test_of_much_it_shows_the_end_or_how_much_more_there_is(shown: Shown) -> None:
    code = "\n".join(f"x{n} = {n}" for n in range(1000))
    rows = shown.tell(*replied(), *cell(code, [stream("".join(f"row {n}\n" for n in range(100_000)))]))
    assert any("more lines" in row for row in rows)
    assert "  row 99999" in rows
    for number in range(500):
        shown.view(ChildEvent(number, RunOpened(f"Part {number}?", Ledger(Limits()), Totals())))
    rows = shown.tell()
    assert len(rows) <= 20
    assert any(row.startswith("  1 Part 0? · starting") or "more child RLMs" in row for row in rows)


def test_an_output_that_is_written_over_is_seen_as_it_stands(shown: Shown) -> None:
    rows = shown.tell(*replied(), *cell("x", [stream("\x1b[31m 10%\r 20%\r 30%\x1b[0m\r")]))
    assert "   30%" in rows


def test_a_narrower_or_wider_window_leaves_nothing_behind_on_the_screen(shown: Shown) -> None:
    shown.terminal.write("$ rlm ask\n")
    shown.tell(*replied(1, "words " * 100), *cell("\n".join(["value = 'a long line of code' * 12"] * 4)))
    for columns, lines in ((50, 24), (120, 24), (80, 40), (60, 20)):
        rows = shown.resize(columns, lines)
        assert rows[0] == "$ rlm ask"
        assert sum(row.startswith("turn 1 · ") for row in rows) == 1
        assert sum("value" in row for row in rows) == 4


def test_a_terminal_that_cuts_lines_off_is_not_erased_above_the_frame(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
    shown.tell(*replied(1, "words " * 100))
    assert shown.drawn._screen._rows(20) == len(shown.drawn._screen._widths)


def test_nothing_is_written_where_nothing_has_changed(shown: Shown) -> None:
    shown.tell(TurnStarted(1))
    written = shown.terminal.written
    shown.now += 0.01
    for _ in range(10):
        shown.drawn.draw()
    assert shown.terminal.written == written


def test_no_line_is_erased_before_it_is_written_which_would_flicker(shown: Shown) -> None:
    shown.tell(*replied(), *cell("x"))
    shown.terminal.truncate(0)
    shown.tell()
    for erasing in ("\x1b[2K", "\x1b[1J", "\x1b[2J"):
        assert erasing not in shown.terminal.getvalue()


@pytest.mark.parametrize("set_to", ["1", "true"])
def test_without_colour_there_is_none(set_to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", set_to)
    shown = Shown()
    shown.tell(*replied(), *cell("x = 'text'  # why"))
    assert "\x1b[3" not in shown.terminal.getvalue().replace("\x1b[3m", "")
    assert "\x1b[9" not in shown.terminal.getvalue()


def test_colours_are_the_terminals_own(shown: Shown) -> None:
    shown.tell(*replied(), *cell("def f(x):\n    return 'text', 1, None  # why"))
    written = shown.terminal.getvalue()
    assert "\x1b[35m" in written, "a keyword"
    for code in ("38;2", "38;5", "48;", ";2m", "[2m", "[30m", "[37m", "[33m", "[34m"):
        assert code not in written, "fixed, or not to be read on light or on dark"


@pytest.mark.parametrize("name", ["TERM=dumb", "TERM=unknown", "TERM=DUMB", "CI=true", "CI=1"])
def test_a_terminal_that_moves_no_cursor_or_has_nobody_before_it_gets_plain_lines(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*name.split("="))
    terminal = Seen()
    with LiveView(stream=terminal) as view:
        for event in replied():
            view(event)
    assert terminal.getvalue() == "turn 1: root model replied in 2.0 s\n"


def test_in_the_background_there_are_the_lines_of_turns_and_no_frame(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_foreground = False
    monkeypatch.setattr("rlm_kernel.views.terminal._in_foreground", lambda _stream: in_foreground)
    shown.terminal.write("$ ls")
    rows = shown.tell(*replied(), CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a")))
    assert rows == ["$ ls"]
    rows = shown.tell(TurnStarted(2))
    assert rows[0].startswith("$ lsturn 1 · 1 s")
    assert len(rows) == 1
    assert shown.terminal.cursor_shown
    in_foreground = True
    assert shown.tell(TurnPiece(2, "I look", thought=False))[1].startswith("turn 2 · ")


def test_a_terminal_of_another_encoding_gets_characters_that_it_has() -> None:
    class Latin(Seen):
        encoding = "ascii"

    terminal = Latin()
    screen = Screen(terminal)
    screen.size = lambda: (80, 24)  # type: ignore[method-assign]
    from rich.segment import Segment

    screen.draw([[Segment("turn 1 · ━━── … │ 漢")]])
    assert terminal.rows == ["turn 1 - ##-- . | ?"]


@pytest.mark.parametrize("columns", [7, 20, 80])
def test_a_long_remark_breaks_between_words(columns: int) -> None:
    shown = Shown(columns, 40)
    said = (
        "That answer  was not taken, because \u4f60\u597d the cell before it ended in an error. " + "x" * 30
    )
    shown.view.tell(said)
    rows = shown.tell(TurnStarted(1))
    assert "".join(rows).replace(" ", "").startswith(said.replace(" ", ""))
    broken = [
        word for word in said.split() if len(word) < columns - 1 and not any(word in row for row in rows)
    ]
    assert broken == []


def test_what_others_print_to_stderr_comes_above_the_frame_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Seen()
    monkeypatch.setattr(sys, "stderr", terminal)
    with LiveView(stream=terminal) as view:
        view(TurnStarted(1))
        print("a warning of \x1b[2J some", file=sys.stderr, end=" ")
        print("library", file=sys.stderr)
        with view.paused():
            assert terminal.rows == ["a warning of \ufffd[2J some library"]
            assert terminal.cursor_shown
            print("a question? ", end="", file=sys.stderr)
            assert terminal.rows[-1] == "a question?"
            print(file=sys.stderr)
        view.tell("told")
        print("not ended", file=sys.stderr, end="")
    assert terminal.rows == ["a warning of \ufffd[2J some library", "a question?", "told", "not ended"]
    assert sys.stderr is terminal
    assert terminal.cursor_shown


def test_it_ends_even_if_the_pause_is_over_at_the_moment_in_which_it_is_told_to() -> None:
    class Late(threading.Event):
        late = False

        def wait(self, timeout: float | None = None) -> bool:
            if self.late:
                return super().wait(timeout)
            self.late = super().wait(10)
            return False

    drawn = TerminalView(LiveView(quiet=True), Seen(80, 24))
    drawn._wake = Late()
    run = threading.Thread(target=lambda: (drawn.start(), drawn.stop()), daemon=True)
    run.start()
    run.join(10)
    assert not run.is_alive()


def test_a_thousand_events_a_second_take_little_of_a_core() -> None:
    """Measured as CPU time of both threads over events of all kinds, against a bound of five times the
    goal.
    """
    terminal = Seen()
    outputs = [stream("x" * 10_000_000 + "\n")]
    seconds, began = 1.5, time.process_time()
    with LiveView(stream=terminal) as view:
        view(RunOpened("Q", Ledger(Limits()), Totals()))
        for event in replied():
            view(event)
        view(CellStarted("turn-01-a", 1, "x = 1\n" * 100_000))
        view(CallsPlanned("turn-01-a", 100_000))
        end, told = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for number in range(told, told + 20):
                view(CallStarted("turn-01-a", f"7-1-{number}", "llm_query"))
                view(CellOutput("turn-01-a", outputs))
            told += 20
            threading.Event().wait(0.02)
        assert "live-view" in [thread.name for thread in threading.enumerate()]
    assert (time.process_time() - began) / seconds < 0.5


def test_how_far_a_child_is_is_seen_however_long_its_question_is(shown: Shown) -> None:
    shown.tell(RunOpened("Q", Ledger(Limits()), Totals()), *replied(), *cell("rlm_query_batched(…)"))
    asked = "Which of the hours of the first half was the worst one, by requests that failed?"
    rows = shown.tell(
        ChildEvent(1, RunOpened(asked, Ledger(Limits()), Totals())),
        ChildEvent(1, TurnStarted(1)),
        ChildEvent(1, CellStarted("turn-01-a", 1, "x")),
    )
    (row,) = [row for row in rows if row.startswith("  1 ")]
    assert row.startswith("  1 Which of the hours")
    assert row.endswith("… · turn 1 · cell turn-01-a runs, 1 s")


def test_below_the_answer_only_the_end_of_the_run_is_seen(shown: Shown) -> None:
    shown.tell(RunOpened("Q", Ledger(Limits()), Totals()), *replied(), *cell("FINAL(5)"))
    finished = CellFinished(1, result("turn-01-a"))
    rows = shown.tell(finished, RunFinished(Outcome(Answer("5"), "answered"), Totals()))
    assert not [row for row in rows if "FINAL" in row or "I count" in row]
    assert rows[1] == "closing, 1 s", "and no turn goes on"
