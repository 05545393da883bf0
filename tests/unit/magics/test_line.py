"""The line of `%%rlm` and `%rlm`, as people write it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.errors import ConfigError, RLMError, UsageError
from rlm_kernel.magics.line import Line, check_command, help_text, is_name, of_cell, of_line


def no_value(name: str) -> Any:
    raise AssertionError(f"{name} is asked for")


def cell(line: str) -> Line:
    return of_cell(line, no_value)


def of(line: str) -> Line:
    return of_line(line, no_value)


def test_options_and_names_stand_in_any_order() -> None:
    line = cell("-m openai/gpt-5 df --as found logs --sub-model=local --limit cost=1 --cite")
    assert line.names == ("df", "logs")
    assert line.options.bind == "found"
    assert line.options.cite
    assert line.options.changes == {
        "root_llm.model": "openai/gpt-5",
        "sub_llm.model": "local",
        "limits.cost": "1",
    }


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("df df logs df", ("df", "logs")),
        ("logs['two words'] df", ("logs['two words']", "df")),
        ("table[0, 1] run.notes[:100]", ("table[0, 1]", "run.notes[:100]")),
        ("df  # the tickets of May", ("df",)),
        ("# df", ()),
        ("-- df", ("df",)),
        ("", ()),
        ("\tdf\t", ("df",)),
        ("größe 数", ("größe", "数")),
        ("df, logs[0, 1], größe", ("df", "logs[0, 1]", "größe")),
        ("df,logs", ("df", "logs")),
    ],
)
def test_names_are_words_as_python_has_them(line: str, names: tuple[str, ...]) -> None:
    assert cell(line).names == names


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("-t list[str]", "type", "list[str]"),
        ("-t dict[str, int] df", "type", "dict[str, int]"),
        ('-t "dict[str, int]"', "type", "dict[str, int]"),
        ("--trace 'my trace.ipynb'", "trace", "my trace.ipynb"),
        ("--trace='my trace.ipynb'", "trace", "my trace.ipynb"),
        ("--trace=a=b.ipynb", "trace", "a=b.ipynb"),
        ("-t Literal['a', 'b']", "type", "Literal['a', 'b']"),
        ("--keep", "keep", True),
        ("--no-keep", "keep", False),
        ("df", "keep", None),
    ],
)
def test_values_of_options_are_as_written_without_quotation_marks_around_them(
    line: str, option: str, value: Any
) -> None:
    assert getattr(cell(line).options, option) == value


def test_a_short_option_may_stick_to_its_value() -> None:
    assert cell("-mlocal").options.changes == {"root_llm.model": "local"}


def test_a_variable_in_braces_stands_for_its_value_in_options_alone() -> None:
    values = {"model": "local", "limits.cost": 2}
    line = of_cell("-m {model} --limit cost={limits.cost}", values.__getitem__)
    assert line.options.changes == {"root_llm.model": "local", "limits.cost": "2"}
    assert of("What is {model} in $x?").question == "What is {model} in $x?"


def test_braces_of_json_are_no_variables() -> None:
    assert cell('--set limits={"cost": 2}').options.changes == {"limits.cost": 2}


@pytest.mark.parametrize(
    ("line", "names", "question"),
    [
        ("What's new?", (), "What's new?"),
        ('He said "hi', (), 'He said "hi'),
        ("df -- What's new?", ("df",), "What's new?"),
        ("df logs[0] -- Is it so -- or not?", ("df", "logs[0]"), "Is it so -- or not?"),
        ("-- df is what?", (), "df is what?"),
        ("It's 3 -- or 4?", (), "It's 3 -- or 4?"),
        ("Is 3 more -- or 4?", (), "Is 3 more -- or 4?"),
        ("-m local -- Who?", (), "Who?"),
        ("--keep Who (is #5?", (), "Who (is #5?"),
        ("What are {x}, $y and %z?", (), "What are {x}, $y and %z?"),
        ("  spaces   stay  ", (), "spaces   stay"),
        ("well-known -x -- options?", (), "well-known -x -- options?"),
    ],
)
def test_the_question_of_a_line_is_as_it_is_written(line: str, names: tuple[str, ...], question: str) -> None:
    found = of(line)
    assert (found.names, found.question) == (names, question)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--modle x", "There is no option --modle.\nDid you mean --model?"),
        ("-x", "There is no option -x."),
        ("--max-cost 2", "Name the limit: --limit cost=1"),
        ("--as", "--as has no value."),
        ("--as -- df", "--as has no value."),
        ("-m", "-m has no value."),
        ("--keep=yes", "xplicit argument 'yes'"),
        ("df --trace 'a b", "A quotation mark is not closed"),
        ("logs[0", "A bracket is not closed"),
        ("--limit cost", "takes KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(line: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        cell(line)
    assert says in str(error.value)
    assert error.value.hint


def test_a_setting_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean limits\.cost"):
        cell("--limit cots=1")
    with pytest.raises(ConfigError, match="cannot be set"):
        cell("--set root_llm.api_key=sk-test-0123456789abcdef")


@pytest.mark.parametrize("word", ["sttus", "df", "stop?", "hlp"])
def test_one_word_is_no_question_by_accident(word: str) -> None:
    with pytest.raises(UsageError, match=r"no such command|no question"):
        check_command(of(word))
    check_command(of(f"-- {word}"))


@pytest.mark.parametrize("line", ["Why?", "why not", "3?", "What"])
def test_questions_are_none_of_that(line: str) -> None:
    check_command(of(line))


@pytest.mark.parametrize("option", ["--as x", "-t int", "--trace t.ipynb", "--cite", "--new"])
def test_settings_for_all_cells_have_nothing_of_one_question(option: str) -> None:
    with pytest.raises(UsageError, match="needs a question"):
        of(option).options.refuse_without_question()
    of("-m local --keep").options.refuse_without_question()


def test_names_call_nothing() -> None:
    assert all(map(is_name, ("df", "a.b", "a[0]", "a[-1]", "a['x y'].z", "a[1:2]", "a[i]", "a[0, 1]")))
    assert not any(
        map(is_name, ("f()", "a[f()]", "a.b()", "3", "'a'", "a + b", "a if b else c", "lambda: 0", "", "a b"))
    )
    assert not is_name("a[" * 5000 + "0" + "]" * 5000)


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), max_size=60))
def test_any_line_is_read_or_refused(line: str) -> None:
    for read in (of_cell, of_line):
        try:
            found = read(line, lambda name: name)
        except RLMError:
            continue
        assert all(name.strip() == name != "" for name in found.names)
        assert found.question in line


@given(st.from_regex(r"[A-Z][a-z]+('s)? [ -~]{0,40}\?", fullmatch=True))
def test_a_question_behind_dashes_stays_whole(question: str) -> None:
    found = of(f"df -- {question}")
    assert (found.names, found.question) == (("df",), question.strip())


def test_the_help_has_every_option_and_how_it_is_written() -> None:
    shown = help_text()
    for option in (
        "--model",
        "--sub-model",
        "--as",
        "--type",
        "--trace",
        "--limit",
        "--set",
        "--rlm",
        "--new",
    ):
        assert option in shown
    assert max(map(len, shown.splitlines())) <= 110
