from __future__ import annotations

import io
import sys
import time
import unicodedata

import pytest

from rlm_kernel.cli._text import json_line, print_lines
from rlm_kernel.engine.events import (
    CallFinished,
    CellFinished,
    ChildEvent,
    Noted,
    RunFinished,
    RunOpened,
    TurnReplied,
    UserCellFinished,
)
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import Answer, Completion, Outcome, Totals, Usage
from rlm_kernel.printable import printable
from rlm_kernel.views.live import LiveView
from tests.support import hostile_text
from tests.support.trace import call, result


def test_lines_go_on_below_what_they_say_in_a_terminal_and_are_left_as_they_are_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "/a/path/that/is/longer/than/a/line/of/this/terminal/session-default.ipynb"
    lines = [
        "spent       1 turn, 0 sub-calls, 1,729 tokens, $0.0019, 0.8 s",
        f"trace       {path}",
        "",
        "a\nb",
    ]
    monkeypatch.setenv("COLUMNS", "44")
    screen = io.StringIO()
    print_lines(lines, screen)
    assert screen.getvalue() == "\n".join(lines) + "\n"
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    print_lines(lines, screen)
    assert screen.getvalue().split("\n") == [
        "spent       1 turn, 0 sub-calls, 1,729",
        "            tokens, $0.0019, 0.8 s",
        f"trace       {path}",
        "",
        "a",
        "b",
        "",
    ]


@pytest.mark.parametrize("name", hostile_text.TERMINAL)
def test_nothing_that_a_terminal_obeys_is_left(name: str) -> None:
    shown = printable(hostile_text.TERMINAL[name])
    assert not hostile_text.strange(shown)
    assert "\N{REPLACEMENT CHARACTER}" in shown


def test_every_control_format_surrogate_and_private_character_is_taken_out_and_no_other() -> None:
    for number in range(sys.maxunicode + 1):
        char = chr(number)
        category = unicodedata.category(char)
        if char not in "\n\t" and category in ("Cc", "Cf", "Cs", "Co"):
            assert printable(char) == "\N{REPLACEMENT CHARACTER}", hex(number)
        elif category != "Cn":  # not assigned yet: some are format characters to be
            assert printable(char) == char, hex(number)


def test_what_languages_write_stays() -> None:
    text = "naïve e\u0301\u0323 Ελλάδα 中文 עברית हिन्दी ไทย\n\ta\N{COMBINING RING ABOVE}" + "e" + "\u0301" * 8
    assert printable(text) == text
    assert printable("e" + "\u0301" * 9 + "x") == "e" + "\u0301" * 8 + "\N{REPLACEMENT CHARACTER}x"


def test_joiners_stay_where_spelling_has_them_and_nowhere_else() -> None:
    for text in (
        "می\u200cخواهم کتاب\u200cها را",
        "क्\u200dष র\u200d্য ශ්\u200dරී ന്\u200d",
        "👩\u200d👩\u200d👧\u200d👦 👁️\u200d🗨️ 🧑🏽\u200d🚀 ❤️\u200d🔥 🏃\u200d♀️",
    ):
        assert printable(text) == text
    for text in ("pay\u200dpal", "a\u200cb", "👩\u200da", "ب\u200c\u200c\u200dب", " \u200d"):
        assert printable(text) != text
        assert "\u200d" not in printable(text).replace("ب\u200d", "")


def test_long_texts_take_no_more_than_their_length() -> None:
    started = time.monotonic()
    assert len(printable("x" * 10_000_000)) == 10_000_000
    assert len(printable("\u0301" * 5_000_000)) == 9
    assert time.monotonic() - started < 10


def test_json_is_plain_in_a_terminal_and_as_it_is_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json_line({"a": "é\x9b\u202e"}) == '{"a": "é\x9b\u202e"}'
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert not hostile_text.strange(
        json_line({hostile_text.EVIL.replace("\x7f", ""): hostile_text.EVIL.replace("\x7f", "")})
    )


def test_the_live_view_shows_nothing_unsafe(capsys: pytest.CaptureFixture[str]) -> None:
    evil = hostile_text.EVIL
    with LiveView() as view:
        view.say(evil)
        view.tell(evil)
        view(Noted(evil))
        view(TurnReplied(1, Completion(evil, evil, Usage(), 0.0, 1.0), evil))
        view(CellFinished(1, result("turn-01-a")))
        view(UserCellFinished(result("person-01")))
        view(CallFinished("turn-01-a", call(answer=evil)))
        view(ChildEvent(1, RunOpened(evil, Ledger(Limits()), Totals())))
        child = view.children[1]
        view(ChildEvent(1, Noted(evil)))
        view(ChildEvent(1, RunFinished(Outcome(Answer(evil), "answered"), Totals())))
        assert not hostile_text.strange(child.status())
    out, err = capsys.readouterr()
    assert "OWNED" in err
    assert not hostile_text.strange(out + err)
