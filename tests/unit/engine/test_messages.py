from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.ledger import Ledger, Limits
from rlm_kernel.engine.protocols import CellResult, CellStatus, ContextInfo
from tests.support.engine import failure, stream


def result(*outputs: dict[str, Any], status: CellStatus = "ok") -> CellResult:
    return CellResult("turn-01-a", "code", status, outputs, datetime.now(UTC), 0.1)


@given(st.text(), st.integers(0, 60))
def test_truncation_keeps_both_ends_and_says_what_is_gone(text: str, limit: int) -> None:
    short = say.truncate(text, limit)
    if len(text) <= limit:
        assert short == text
        return
    head, tail = limit // 2, limit - limit // 2
    assert short.startswith(text[:head])
    assert short.endswith(text[len(text) - tail :])
    assert f"[{len(text) - limit:,} of {len(text):,} characters left out here]" in short
    assert len(short) <= limit + 80


def test_the_question_comes_with_type_sizes_names_and_beginning() -> None:
    info = ContextInfo("dict", 1_234_567, [("a.txt", 1_234_000), ("b.txt", 567)], 2, "x" * 500)
    text = say.question_message("Why?", info, True, 10, "Turn 1 of 3.")
    assert text.splitlines() == [
        "Context: dict, 1,234,567 characters in 2 pieces.",
        "Files: a.txt (1,234,000 characters), b.txt (567 characters)",
        "Starts with: 'xxxxxxxxxx'",
        "Question: Why?",
        "Turn 1 of 3.",
    ]


def test_the_question_says_when_there_is_no_input() -> None:
    assert "Context: none was given." in say.question_message("Why?", ContextInfo("None", 0), False, 300, "")


@given(count=st.integers(1, 10**6), size=st.integers(1, 10**12), head=st.text(max_size=1000))
def test_the_question_is_constant_in_size_whatever_the_inputs(count: int, size: int, head: str) -> None:
    items = [(f"{number:0200}", size) for number in range(min(count, 100))]
    text = say.question_message("Why?", ContextInfo("dict", size, items, count, head), False, 300, "")
    assert len(text) < 20 * 240 + 300 * 10 + 300
    if count > 20:
        assert f"and {count - 20:,} more" in text


def test_progress_says_the_turn_and_what_is_left_of_each_limit() -> None:
    ledger = Ledger(Limits(turns=5, calls=1000, cost=2.5, tokens=10_000, seconds=60), clock=lambda: 0.0)
    assert (
        say.progress_line(ledger, 2) == "Turn 2 of 5. Left: 1,000 sub-model calls, $2.5, 10,000 tokens, 60 s."
    )
    assert say.progress_line(Ledger(Limits(turns=5)), 5) == "Turn 5 of 5."
    assert say.progress_line(Ledger(Limits(turns=5)), 6) == "No turn is left."


def test_outputs_are_numbered_and_say_how_their_cells_ended() -> None:
    cells = [
        result(stream("one\n")),
        result(),
        result(stream("x"), failure("ValueError", "bad"), status="error"),
    ]
    text = say.output_message(cells, 2, 1000, ["A remark."], "Turn 2 of 3.")
    assert text == (
        "Output of cell 1:\none\n\n"
        "Output of cell 2:\n(it printed nothing; print what you want to see)\n\n"
        "Output of cell 3 (it raised an error):\nx\nValueError: bad\n\n"
        "The last 2 blocks did not run, because of the error above.\n\nA remark.\n\nTurn 2 of 3."
    )


@pytest.mark.parametrize(
    ("status", "words"), [("timeout", "(it was stopped)"), ("died", "(the kernel died)")]
)
def test_stopped_and_dead_cells_are_told_apart(status: CellStatus, words: str) -> None:
    assert f"Output of the cell {words}:" in say.output_message(
        [result(stream("x"), status=status)], 0, 100, [], ""
    )


def test_the_outputs_of_a_reply_share_the_limit_and_each_says_what_is_left_out() -> None:
    cells = [result(stream("a" * 500)), result(stream("short")), result(stream("b" * 500))]
    text = say.output_message(cells, 0, 105, [], "")
    assert text.count("450 of 500 characters left out") == 2
    assert "Output of cell 2:\nshort\n" in text


def test_the_last_of_many_outputs_has_a_quarter_of_the_room() -> None:
    many = [result(stream("a" * 500)) for _ in range(49)]
    failed = result(stream("b" * 500), failure("E", "why"), status="error")
    text = say.output_message([*many, failed], 3, 1000, [], "")
    assert text.count("b") > 200
    assert "E: why" in text
    assert text.count("of 500 characters left out") == 49


def test_cells_of_a_person_share_the_limit_with_the_replys() -> None:
    person = replace(result(stream("b" * 500)), code="c" * 500)
    text = say.output_message([result(stream("a" * 500))], 0, 300, ["A remark.", person, "Another."], "")
    assert [text.count(letter * 50) for letter in "abc"] == [2, 2, 2]
    assert text.index("A remark.") < text.index("A person ran this") < text.index("Another.")


def test_of_very_many_cells_of_a_person_the_last_are_shown() -> None:
    cells = [replace(result(stream(f"<{number}>")), code="pass") for number in range(100)]
    text = say.output_message([], 0, 20_000, cells, "")
    assert "A person ran 80 more cells in your kernel before these." in text
    assert ("<79>" in text, "<80>" in text, "<99>" in text) == (False, True, True)


sizes = st.integers(0, 60) | st.integers(0, 30_000)


@given(
    of_cells=st.lists(sizes, max_size=30),
    of_persons=st.lists(sizes, max_size=10),
    limit=st.integers(0, 20_000),
)
def test_whatever_cells_give_they_have_the_limit_together_and_short_ones_are_whole(
    of_cells: list[int], of_persons: list[int], limit: int
) -> None:
    cells = [result(stream("§" * size)) for size in of_cells]
    persons = [replace(result(stream("§" * size)), code="§") for size in of_persons]
    text = say.output_message(cells, 0, limit, persons, "")
    assert text.count("§") <= limit
    assert len(text) <= limit + 200 * (1 + len(cells) + 2 * len(persons)), "constant in size beside it"
    whole = limit * 3 // 4 // (1 + len(cells) + 2 * len(persons))
    assert all(f":\n{'§' * size}\n" in text for size in of_cells if 0 < size <= whole)


def test_pictures_are_named_by_their_kind() -> None:
    display = {
        "output_type": "display_data",
        "data": {"image/png": "AAAA", "text/plain": "<Figure>"},
        "metadata": {},
    }
    assert say.output_text([display]) == "<Figure> [image/png]"


def test_markdown_stands_for_missing_plain_text() -> None:
    assert (
        say.output_text([{"output_type": "display_data", "data": {"text/markdown": "**x**"}, "metadata": {}}])
        == "**x**"
    )


def test_an_error_without_a_traceback_is_told_by_name() -> None:
    assert say.output_text([failure("E", "why") | {"traceback": []}]) == "E: why"


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("10%\r20%\r30%", "30%"),
        ("10%\r20%\r", "20%"),
        ("a\r\nb", "a\nb"),
        ("old\rnew\nnext", "new\nnext"),
    ],
)
def test_text_is_as_a_terminal_would_show_it(printed: str, seen: str) -> None:
    assert say.output_text([stream(printed)]) == seen


def test_names_that_cannot_be_seen_as_they_are_stand_as_literals() -> None:
    info = ContextInfo("dict", 30, [("s.txt", 10), ("new\nline.txt", 10), ("\u202ertl.txt", 10)], 3, "x")
    text = say.question_message("Why?", info, True, 300, "")
    assert (
        "Files: s.txt (10 characters), 'new\\nline.txt' (10 characters), '\\u202ertl.txt' (10 characters)"
        in text
    )


def test_paths_that_are_not_there_are_said_to_the_model() -> None:
    assert say.named_files(["/a"], ["/b is not there"]).endswith(
        "\nThe question names a path, but /b is not there."
    )
