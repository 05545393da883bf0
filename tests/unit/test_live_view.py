"""The live view: one account, the tree of child RLMs at work, and nothing that a model could do to the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from rlm_kernel.cli._branch import Branch
from rlm_kernel.cli._live import LiveView
from rlm_kernel.engine.protocols import Answer, Completion, Memory, Outcome, Totals, Usage
from rlm_kernel.session.children import TreeView
from tests.support.engine import stream
from tests.support.trace import call, result

ANSWERED = Outcome(Answer("5"), "answered")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain() -> tuple[LiveView, io.StringIO]:
    """A view off a terminal."""
    out = io.StringIO()
    return LiveView(stream=out), out


def drawn(view: LiveView, width: int = 200) -> list[str]:
    """What is on the screen now."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(view._render())
    return [line.rstrip() for line in caught.get().splitlines()]


def turn(branch: Branch, number: int = 1, *, tokens: int = 10, cost: float | None = 0.5) -> None:
    branch.turn_started(number)
    branch.turn_replied(number, Completion("x", "m", Usage(tokens, 1), cost, 2.0), "")


def asks(branch: Branch, *, cost: float | None = 0.25, kind: Any = "llm_query", **changes: Any) -> None:
    branch.call_started("turn-01-a", "7-1-1", kind)
    branch.call_finished("turn-01-a", call(1, kind=kind, usage=Usage(4, 1), cost=cost, **changes))


@pytest.fixture
def view() -> LiveView:
    """In a terminal, as if it were drawn."""
    return LiveView(stream=Terminal())


def test_a_view_shows_trees(view: LiveView) -> None:
    assert isinstance(view, TreeView)
    assert isinstance(view.child("Q"), TreeView)


def test_children_at_work_hang_from_their_parents(view: LiveView) -> None:
    turn(view, 3)
    first, second = view.child("Count the\nerrors"), view.child("And the rest?")
    deep = first.child("In this part?")
    turn(deep, 2)
    deep.cell_started("turn-02-a", 2, "x")
    lines = drawn(view)
    assert lines[0].startswith("turn 3 · root model thinks · 0 of 0 calls, 2 children, 22 tokens, $1.0000 · ")
    assert lines[1].startswith("  1 Count the errors · turn 0 · starting · 0 of 0 calls, 1 child, 11 tokens, $0.5000 · ")
    assert lines[2].startswith("    1.1 In this part? · turn 2 · cell turn-02-a runs · ")
    assert lines[3].startswith("  2 And the rest? · ")
    assert len(lines) == 4
    deep.finished(ANSWERED, Totals(turns=2))
    first.finished(ANSWERED, Totals(turns=1))
    assert [line[:4] for line in drawn(view)[1:]] == ["  2 "]
    second.finished(Outcome(None, "cost"), Totals())
    assert len(drawn(view)) == 1
    assert "2 children" in drawn(view)[0]


def test_of_many_children_twelve_are_shown_and_a_line_is_a_line(view: LiveView) -> None:
    children = [view.child(f"{number} " + "long question " * 50) for number in range(30)]
    for child in children:
        child.child("below")
    lines = drawn(view, width=60)
    assert len(lines) == 14
    assert lines[-1] == "  … and 48 more"
    assert max(map(len, lines)) <= 60
    for child in children[:25]:
        child.finished(ANSWERED, Totals())
    assert len(drawn(view)) == 1 + 10


def test_the_account_adds_up_over_the_tree(view: LiveView) -> None:
    child = view.child("Q")
    deep = child.child("Q")
    for branch in (view, child, deep):
        turn(branch)
        asks(branch)
    spent = {"usage": Usage(32, 4), "cost": 1.5, "trace": "t.children/turn-01-a-1.ipynb"}
    deep.finished(ANSWERED, Totals())
    child.call_finished("turn-01-a", call(2, kind="rlm_query", **spent))  # what the grandchild used is counted already
    child.finished(ANSWERED, Totals())
    view.call_finished("turn-01-a", call(2, kind="rlm_query", **spent))
    assert [branch.account() for branch in (deep, child, view)] == [
        "1 of 1 calls, 16 tokens, $0.7500",
        "2 of 2 calls, 1 child, 32 tokens, $1.5000",
        "3 of 3 calls, 1 child, 48 tokens, $2.2500",
    ]


def test_what_the_sub_model_uses_in_place_of_a_child_counts(view: LiveView) -> None:
    asks(view, kind="rlm_query")
    assert view.account().endswith("5 tokens, $0.2500")


def test_failures_and_unknown_prices_show(view: LiveView) -> None:
    asks(view, answer=None, error="No.", cost=None)
    asks(view, kind="rlm_query", answer=None, error="No.", cost=None, trace="t.children/a.ipynb")
    assert view.account() == "1 of 1 calls, 2 failed, 5 tokens, $0.0000"
    turn(view.child("Q"), cost=None)
    assert view.account().endswith("cost unknown")
    view.begin()
    assert view.account() == "0 of 0 calls, 0 tokens, $0.0000"
    assert len(drawn(view)) == 1


def test_off_a_terminal_it_is_lines_and_children_have_one_at_each_end() -> None:
    view, out = plain()
    with view:
        turn(view)
        child = view.child("Count them")
        turn(child)
        child.cell_started("turn-01-a", 1, "x")
        child.cell_finished(1, result("turn-01-a"))
        child.note("Something.")
        deep = child.child("Here")
        deep.finished(Outcome(None, "interrupted"), Totals(turns=1, seconds=2.0))
        child.finished(ANSWERED, Totals(turns=3, seconds=1.25))
        view.cell_finished(1, result("turn-01-a"))
    assert out.getvalue().splitlines() == [
        "turn 1: root model replied in 2.0 s (0 of 0 calls, 11 tokens, $0.5000)",
        "child 1 begins: Count them",
        "child 1.1 begins: Here",
        "child 1.1: no answer (interrupted), 1 turns, 2.0 s",
        "child 1: answered, 3 turns, 1.2 s",
        "cell turn-01-a: ok in 0.2 s (0 of 0 calls, 1 child, 22 tokens, $1.0000)",
    ]


def test_quiet_is_quiet_and_a_chat_has_no_lines() -> None:
    for options in ({"quiet": True}, {"lines": False}):
        out = io.StringIO()
        with LiveView(stream=out, **options) as view:
            turn(view)
            view.child("Q").finished(ANSWERED, Totals())
        assert out.getvalue() == ""


@pytest.mark.parametrize("question", ["\x1b]0;owned\x07\x1b[2J", "a\rb\x08\x9b31m", "\u202eevil", "[bold]x[/bold]", "", "\ud800"])
def test_a_hostile_question_does_nothing_to_the_terminal(view: LiveView, question: str) -> None:
    view.child(question).cell_started("turn-01-a", 1, "x")
    lines = drawn(view)
    assert len(lines) == 2
    assert not {"\x1b", "\r", "\x08", "\x9b", "\x07", "\u202e"} & set("".join(lines))
    if question.startswith("["):
        assert question in lines[1]
    other, out = plain()
    other.child(question).finished(Outcome(None, "error", detail=question), Totals())
    assert not {"\x1b", "\r", "\x08", "\x9b", "\x07", "\u202e"} & set(out.getvalue())
    assert len(out.getvalue().splitlines()) == 2


def test_it_is_drawn_in_a_terminal_and_leaves_no_tree_behind() -> None:
    out = Terminal()
    with LiveView(stream=out) as view:
        child = view.child("Count them")
        view._live.refresh()
        child.finished(ANSWERED, Totals())
        view.tell("Something.")
    assert "1 Count them · turn 0" in out.getvalue()
    assert "Something." in out.getvalue()


def test_a_summary_counts(view: LiveView) -> None:
    view.remembered(Memory("m", 100, 10, False, replace(Completion("x", "m"), usage=Usage(5, 1), cost=0.1)))
    assert view.account() == "0 of 0 calls, 6 tokens, $0.1000"


def test_what_loading_remarks_is_told_ten_lines_of_it_and_only_of_set_up_cells() -> None:
    view, out = plain()
    said = "".join(f"Note: file {number} is read as cp1252.\n" for number in range(12))
    outputs = [stream("Note: on stdout.\n"), stream("UserWarning\nNote: \x1b]0;owned\x07x\nNote: fi", "stderr"), stream(said[8:], "stderr")]
    view.cell_finished(0, result("setup", outputs=outputs))
    view.cell_finished(1, result("turn-01-a", outputs=outputs))
    lines = out.getvalue().splitlines()
    assert lines[1:3] == ["Note: \ufffd]0;owned\ufffdx", "Note: file 0 is read as cp1252."]
    assert [line[:11] for line in lines[1:11]] == ["Note: \ufffd]0;o", *["Note: file "] * 9]
    assert lines[11:] == [
        "… and 3 more notes; all are in the trace.",
        "cell turn-01-a: ok in 0.2 s (0 of 0 calls, 0 tokens, $0.0000)",
    ]


def test_notes_are_told_of_files_that_are_loaded_later_and_above_the_live_line() -> None:
    out = Terminal()
    with LiveView(stream=out, lines=False) as view:
        view.person_ran(result("load-2", outputs=[stream("Note: 3 files left out.\n", "stderr")]))
        view.person_ran(result("person", outputs=[stream("Note: not ours.\n", "stderr")]))
        view.cell_finished(0, result("setup", outputs=[stream("Note: " + "x" * 1000, "stderr")]))
    assert "Note: 3 files left out." in out.getvalue()
    assert "not ours" not in out.getvalue()
    assert "x" * 294 + "…" in out.getvalue()
    silent = Terminal()
    with LiveView(stream=silent, quiet=True) as view:
        view.cell_finished(0, result("setup", outputs=[stream("Note: x", "stderr")]))
    assert silent.getvalue() == ""
