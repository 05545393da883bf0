"""Patterns of code before a question: those for the questions that are most like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.messages import question_message
from rlm_kernel.engine.patterns import SHOWN, Pattern, nearest, parse_pattern, told
from rlm_kernel.engine.prompts import parse_profile
from rlm_kernel.engine.values import ContextInfo

TEXT = ContextInfo("str", 90_000, (("a.txt", 90_000),), 1, "It was late.\n")
TABLE = replace(TEXT, form="a table with the columns")
FOLDER = replace(TEXT, kind="dict", item_count=9)
SMALL = parse_profile(
    "patterns", (Path(__file__).parents[3] / "benchmarks/patterns.md").read_text("utf-8")
).patterns


def code_for(question: str, info: ContextInfo) -> str:
    """The code that stands nearest to the question."""
    return nearest(SMALL, question, info)[-1][1]


@pytest.mark.parametrize(
    ("question", "info", "code"),
    [
        ("How many of the 30 comments are rude?", TEXT, "classify("),
        ("In how many of the 8 postcards is the writer homesick?", TEXT, "classify("),
        ("What is the number of the complaint that is about the lift?", TEXT, ".index("),
        ("How many of the titles are in Polish?", TEXT, "classify("),
        ("How many lines contain the word heron?", TEXT, "splitlines()"),
        ("Which customer spent the most money in total?", TABLE, "totals["),
        ("How many different colours are there?", TABLE, "len(set("),
        ("On which date was the last visit of Mr Brown?", TABLE, "max("),
        ("Which file has the most lines?", FOLDER, "max(context"),
    ],
)
def test_the_nearest_pattern_is_for_the_same_kind_of_question(
    question: str, info: ContextInfo, code: str
) -> None:
    assert code in code_for(question, info)


def test_patterns_are_for_the_input_that_there_is() -> None:
    for question in ("How many ships are from Riga?", "Which file has the most lines?"):
        assert not any("records()" in code for _, code in nearest(SMALL, question, TEXT))
        assert not any("context.items()" in code for _, code in nearest(SMALL, question, TABLE))
        assert all("context.splitlines" not in code for _, code in nearest(SMALL, question, FOLDER))


def test_the_nearest_stands_last_and_right_before_the_question() -> None:
    near = [("How old is he?", "print(1)"), ("How old is she?", "print(2)")]
    message = question_message("How old are they?", TEXT, True, 300, "Turn 1 of 8.", told(near))
    end = message.index("Question: How old are they?")
    assert message.index("print(1)") < message.index("How old is she?") < message.index("print(2)") < end
    assert message.endswith("Turn 1 of 8.")


def test_a_question_that_is_like_none_has_no_pattern() -> None:
    assert nearest(SMALL, "Quelle heure est-il ?", TEXT) == []
    assert nearest((), "How many lines are there?", TEXT) == []
    assert told([]) == ""
    assert "Code for" not in question_message("Why?", TEXT, True, 300, "Turn 1 of 8.")


@given(question=st.text(max_size=300))
def test_any_question_has_few_patterns(question: str) -> None:
    assert len(nearest(SMALL, question, TABLE)) <= SHOWN


def test_patterns_may_stand_anywhere_behind_the_system_prompt() -> None:
    pattern = "## pattern text\nHow long is it?\nWhat length has it?\n```repl\nprint(len(context))\n```\n"
    turns = "## user\nQ\n## assistant\nA\n"
    for text in (f"Do it.\n{pattern}{turns}", f"Do it.\n{turns}{pattern}"):
        profile = parse_profile("own.md", text)
        assert profile.system == "Do it.\n"
        assert [turn["content"] for turn in profile.examples] == ["Q", "A"]
        assert profile.patterns == (
            Pattern("text", ("How long is it?", "What length has it?"), "print(len(context))"),
        )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("tables", "Q\n```repl\n1\n```"),
        ("text", "```repl\n1\n```"),
        ("text", "Q\n"),
        ("text", "Q\n```repl\n1\n"),
    ],
)
def test_what_is_no_pattern_is_said(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="a pattern is"):
        parse_pattern(kind, text)
    with pytest.raises(ValueError, match="a pattern is"):
        parse_profile("own.md", f"Do it.\n## pattern {kind}\n{text}")


def test_the_code_of_every_pattern_parses() -> None:
    for pattern in SMALL:
        compile(pattern.code, pattern.questions[0], "exec")
