"""Example turns before a question: those for the questions that are most like it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.patterns import SHOWN, Pattern, as_turns, nearest, parse_pattern
from rlm_kernel.engine.prompts import load_profile, parse_profile
from rlm_kernel.engine.values import ContextInfo

TEXT = ContextInfo("str", 90_000, (("a.txt", 90_000),), 1, "It was late.\n")
TABLE = replace(TEXT, form="a table with the columns")
FOLDER = replace(TEXT, kind="dict", item_count=9)
SMALL = load_profile("small").patterns


def code_for(question: str, info: ContextInfo) -> str:
    """The code that stands nearest to the question."""
    return nearest(SMALL, question, info)[-1].code


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
        assert not any("records()" in one.code for one in nearest(SMALL, question, TEXT))
        assert not any("context.items()" in one.code for one in nearest(SMALL, question, TABLE))
        assert all("context.splitlines" not in one.code for one in nearest(SMALL, question, FOLDER))


def test_the_nearest_is_the_last_example_turn() -> None:
    near = nearest(SMALL, "How many lines contain the word heron?", TEXT)
    turns = as_turns(near)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 * len(near)
    assert near[-1].questions[0] in turns[-4]["content"]
    assert near[-1].code in turns[-3]["content"]
    assert near[-1].output in turns[-2]["content"]
    assert "FINAL(result)" in turns[-1]["content"]


def test_a_second_example_is_left_out_where_the_nearest_one_is_far_nearer() -> None:
    near = nearest(
        SMALL, "How many rows have the level INFO?", replace(TEXT, form="rows[0] is {'level': 'A'}")
    )
    assert [one.questions[0] for one in near] == ["How many rows have the level DEBUG?"]


@pytest.mark.parametrize(
    ("question", "reads"),
    [
        ("Each line is a review. What is the number of the one that is about the breakfast?", True),
        ("What is the name of the captain's dog?", True),
        ("Each line is a note. How many of the 9 notes are unhappy?", False),
        ("How many lines contain the word heron?", False),
    ],
)
def test_a_short_text_is_read_unless_the_nearest_pattern_computes(question: str, reads: bool) -> None:
    short = replace(TEXT, whole=(("a.txt", "1. Good eggs.\n2. Loud street.\n"),))
    assert bool(load_profile("small").suits(question, short).whole) is reads


def test_a_profile_without_patterns_has_no_turns_of_them() -> None:
    assert nearest((), "How many lines are there?", TEXT) == []
    assert as_turns([]) == []


@given(question=st.text(max_size=300))
def test_any_question_has_few_patterns(question: str) -> None:
    assert len(nearest(SMALL, question, TABLE)) <= SHOWN


def test_patterns_may_stand_anywhere_behind_the_system_prompt_and_their_input() -> None:
    about = "## input novel\nContext: str.\n"
    pattern = (
        "## pattern text novel\nHow long is it?\nWhat length has it?\n"
        "```repl\nprint(len(context))\n```\n=> 12\nlines\n"
    )
    turns = "## user\nQ\n## assistant\nA\n"
    for text in (f"Do it.\n{about}{pattern}{turns}", f"Do it.\n{turns}{about}{pattern}"):
        profile = parse_profile("own.md", text)
        assert profile.system == "Do it.\n"
        assert [turn["content"] for turn in profile.examples] == ["Q", "A"]
        questions = ("How long is it?", "What length has it?")
        assert profile.patterns == (
            Pattern("text", questions, "print(len(context))", "Context: str.", "12\nlines"),
        )


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("tables novel", "Q\n```repl\n1\n```\n=> 1"),
        ("text", "Q\n```repl\n1\n```\n=> 1"),
        ("text play", "Q\n```repl\n1\n```\n=> 1"),
        ("text novel", "```repl\n1\n```\n=> 1"),
        ("text novel", "Q\n"),
        ("text novel", "Q\n```repl\n1\n"),
        ("text novel", "Q\n```repl\n1\n```\n"),
    ],
)
def test_what_is_no_pattern_is_said(title: str, text: str) -> None:
    with pytest.raises(ValueError, match="a pattern is"):
        parse_pattern(title, text, {"novel": "Context: str."})
    with pytest.raises(ValueError, match="a pattern is"):
        parse_profile("own.md", f"Do it.\n## input novel\nContext: str.\n## pattern {title}\n{text}")


def test_the_code_of_every_pattern_parses() -> None:
    for pattern in SMALL:
        compile(pattern.code, pattern.questions[0], "exec")
