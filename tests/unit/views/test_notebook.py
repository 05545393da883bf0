"""The view of a run in a notebook, as the program that shows the notebook is told of it."""

from __future__ import annotations

import re
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
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
    RunFinished,
    RunOpened,
    TurnPiece,
    TurnReplied,
    TurnStarted,
)
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals
from rlm_kernel.views import notebook
from rlm_kernel.views.notebook import EVERY, NotebookView, publisher
from tests.support.engine import stream
from tests.support.trace import call, result

HOSTILE = "<script>alert(1)</script><img src=x onerror=y> &lt; \u202e $5 and $6 \x1b[2J"


class Shown:
    """A display publisher that keeps what it is told: by display, the HTML of each state."""

    def __init__(self, slow: float = 0.0) -> None:
        self.displays: dict[str, list[str]] = {}
        self.plain: list[str] = []
        self.at: list[float] = []
        self._slow = slow

    def __call__(self, data: Any, metadata: Any, *, transient: Any, update: bool) -> None:
        time.sleep(self._slow)
        name = transient["display_id"]
        assert update == (name in self.displays)
        self.displays.setdefault(name, []).append(data["text/html"])
        self.plain.append(data["text/plain"])
        self.at.append(time.monotonic())

    @property
    def last(self) -> str:
        (states,) = self.displays.values()
        return states[-1]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append(tag)
        assert {name for name, _ in attrs} <= {"class", "style", "href"}

    def handle_data(self, data: str) -> None:
        self.text += data


def opened(view: NotebookView, question: str = "Q", **limits: Any) -> Ledger:
    ledger = Ledger(Limits(**limits))
    view(RunOpened(question, ledger, Totals()))
    return ledger


def test_it_shows_words_code_output_batch_children_and_what_is_left() -> None:
    shown = Shown()
    view = NotebookView(shown)
    opened(view, turns=30)
    view(TurnStarted(2))
    view(TurnPiece(2, "I look at all of them.", False))
    view(TurnReplied(2, Completion("x", "openai/root"), "I look at all of them."))
    view(CellStarted("turn-02-a", 2, "answers = llm_query_batched(prompts)\nprint(answers)"))
    view(CellOutput("turn-02-a", [stream("line 1\nline 2\n")]))
    view(CallsPlanned("turn-02-a", 4))
    for number in range(2):
        view(CallStarted("turn-02-a", f"7-1-{number}", "llm_query"))
        view(CallFinished("turn-02-a", call(number, error="no" if number else None)))
    view(ChildEvent(1, RunOpened("Who <b>is</b> it?", Ledger(Limits()), Totals())))
    view.draw()
    text = Tags(shown.last).text
    for part in (
        "turn 2", "I look at all of them.", "llm_query_batched(prompts)", "line 2", "2 of 4 done", "1 failed",
        "1 Who <b>is</b> it?", "left: ",
    ):  # fmt: skip
        assert part in text, part
    assert "width:50.0%" in shown.last


def test_nothing_that_models_or_code_say_is_markup_and_it_stays_small() -> None:
    shown = Shown()
    view = NotebookView(shown)
    opened(view, HOSTILE)
    view(TurnStarted(1))
    view(TurnPiece(1, HOSTILE * 10_000, False))
    view(CellStarted("turn-01-a", 1, f"{HOSTILE}\n" * 10_000))
    view(CellOutput("turn-01-a", [stream(HOSTILE * 100_000), stream(f"{HOSTILE}\n" * 1_000)]))
    for number in range(500):
        view(ChildEvent(number, RunOpened(HOSTILE, Ledger(Limits()), Totals())))
    view.tell(HOSTILE * 10_000)
    view.draw()
    view.finish(HOSTILE)
    (states,) = shown.displays.values()
    for html in states:
        tags = Tags(html)
        assert set(tags.found) <= {"div", "b", "i", "pre", "a"}
        assert len(html) < 60_000
        assert "mathjax_ignore" in html
        assert not {"\u202e", "\x1b"} & set(tags.text)
    assert "\x1b" not in "".join(shown.plain)


def test_at_the_end_one_line_stays_with_a_link_to_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.ipynb").touch()
    shown = Shown()
    view = NotebookView(shown)
    with view:
        opened(view)
        view(TurnStarted(1))
        view(CellStarted("turn-01-a", 1, "x"))
        view(CellFinished(1, result("turn-01-a")))
        view(RunFinished(Outcome(Answer("5"), "answered"), Totals(turns=2, calls=300, known_cost=0.0142)))
    view.finish("Answered", tmp_path / "a b.ipynb")
    assert len(re.findall("<div", shown.last)) == 1
    assert '<a href="a%20b.ipynb">' in shown.last
    assert Tags(shown.last).text == (
        "Answered · 2 turns · 300 sub-calls, 0 tokens, $0.0142 · trace: a b.ipynb"
    )
    assert not [thread for thread in threading.enumerate() if thread.name == "rlm-progress"]


def test_a_trace_that_there_is_not_is_not_linked(tmp_path: Path) -> None:
    shown = Shown()
    NotebookView(shown).finish("Failed: no such file", tmp_path / "none.ipynb")
    assert "<a" not in shown.last


def test_it_is_updated_a_few_times_a_second_however_many_events_there_are() -> None:
    shown = Shown(slow=0.02)
    with (view := NotebookView(shown)):
        opened(view)
        view(TurnStarted(1))
        begun, events = time.monotonic(), 0
        while time.monotonic() - begun < 1.0:
            view(TurnPiece(1, f"{events} ", False))
            events += 1
    # A program that takes its time holds up no event.
    assert events > 10_000
    assert all(later - sooner >= EVERY for sooner, later in zip(shown.at[1:], shown.at[2:], strict=False))
    assert len(shown.at) <= 2 + 1.0 / EVERY


def test_what_has_not_changed_is_not_sent_again() -> None:
    shown = Shown()
    view = NotebookView(shown, clock=lambda: 0.0)
    opened(view)
    for _ in range(5):
        view.draw()
    assert len(shown.plain) == 1


def test_each_run_has_a_display_of_its_own() -> None:
    shown = Shown()
    first, second = NotebookView(shown), NotebookView(shown)
    with first, second:
        pass
    first.finish("one")
    second.finish("two")
    assert sorted(states[-1].count("one") for states in shown.displays.values()) == [0, 1]


@pytest.mark.parametrize(
    ("shell", "found"),
    [
        (None, False),
        (type("TerminalInteractiveShell", (), {"display_pub": SimpleNamespace(publish=print)})(), False),
        (type("ZMQInteractiveShell", (), {"display_pub": SimpleNamespace(publish=print)})(), True),
        (type("Shell", (), {"display_pub": SimpleNamespace(publish=print)})(), True),
        (type("Shell", (), {})(), False),
    ],
)
def test_a_notebook_is_known_by_its_shell(shell: Any, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert (publisher() is not None) == found


def test_without_ipython_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert publisher() is None
    assert notebook.publisher() is None
