"""Whether an answer is the expected one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.session.regression.alike import Measure, different

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("312", "312"),
        ("312", "**312**"),
        ("-$5", "\N{MINUS SIGN}$5.00"),
        ("312", "warnings -> 312"),
        ("312", "<answer>312</answer>"),
        ("312", "There are 312 warnings."),
        ("1234", "1,234"),
        ("1,234.50", "1234.5"),
        ("-3", "\N{MINUS SIGN}3"),
        ("$5", "5"),
        ("12 %", "12%."),
        ("1e6", "1,000,000"),
        ("0.1", "0.1000000000000001"),
        ("9007199254740993", "9007199254740993"),
        ("- a\n- b", "- b\n- a"),
        ("- a\n- b", "* a\n* b"),
        ("- a\n- b", "Here they are:\n\n- a\n- b"),
        ("alpha\nbeta", "beta\nalpha"),
        ("1. a\n2. b", "1) a\n2) b"),
        ('["a", "b"]', '["b", "a"]'),
        ('{"a": 1.0, "b": [1, 2]}', '```json\n{"b": [1, 2], "a": 1}\n```'),
        ("It **is** a `log`.", "It is a log."),
        ("\u201cquoted\u201d  text", '"quoted" text'),
        ("caf\u00e9 of Zo\u00eb", "cafe\u0301 of Zoe\u0308"),
        ("2602", "There are 2\u202f602 rows."),
        ("2602", "2'602"),
        ("-5", "\N{EN DASH}5"),
        ("-5", "-$5"),
        ("12 %", "That is 12 percent."),
        ("5000000", "about 5 million"),
        ("42", "The answer is (42)!"),
        ('{"a": NaN, "b": 1}', '{"b": 1, "a": NaN}'),
        ("1\n2\n2.50", "[2, 1, 2.5]"),
        ("- **a**\n- b\n  - c", "* b\n    * c\n* a"),
        ("Er sagte \u201eHallo\u201c.", 'Er sagte "Hallo".'),
        ("pay\u200bment\u00ad is due.", "\ufeffpayment is due."),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "|a|b|\n| --- | ---: |\n|1|2|"),
        ("It is _not_ a __big__ *log*.", "It is not a __big__ log."),
        ("**Use `f(*args)`**", "Use f(*args)"),
        ("true", "True"),
        ("", ""),
        (None, None),
    ],
)
def test_what_says_the_same_in_another_form_is_the_same(then: str | None, now: str | None) -> None:
    assert different(then, now, Measure()) == ""


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("312", "313"),
        ("312", "312 of 400"),
        ("312", "many"),
        ("-$5", "$5"),
        ("1" * 5000, "1" * 4999 + "2"),
        ("312", ""),
        ("312", None),
        (None, "312"),
        ("$5", "5%"),
        ("12 %", "12 $"),
        ("9007199254740993", "9007199254740992"),
        ("1e-12", "0"),
        ("- a\n- b", "- a"),
        ("- a\n- b\n- b", "- a\n- a\n- b"),
        ("1. a\n2. b", "1. b\n2. a"),
        ('[["a", "b"]]', '[["b", "a"]]'),
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ('{"a": null}', "{}"),
        ('{"a": "1x"}', '{"a": "1y"}'),
        ("It is a log.", "It is no log."),
        ("yes", "no"),
        ('{"a": 1}', "a is 1"),
        ("[" * 5000, "[" * 5001),
        ("01234", "1234"),
        ("- 007\n- 011", "- 7\n- 11"),
        ('{"zip": "01234"}', '{"zip": "1234"}'),
        ('{"version": "1.10"}', '{"version": "1.1"}'),
        ('{"id": "1e5"}', '{"id": "100000"}'),
        ("2026", "2026-05-01"),
        ("4.2", "4.2 billion"),
        ("$5", "It is 5%."),
        ("4", "The model is GPT-4."),
        ("5", "The change is \N{EN DASH}5 degrees."),
        ("5", "-$5"),
        ("5", "> 5"),
        ("5", "5+"),
        ("3", "3\N{EN DASH}5"),
        ("The method is `__init__`.", "The method is init."),
        ("It calls _load.", "It calls load."),
        ("It says 2**3.", "It says 23."),
        ("It calls f(**kwargs).", "It calls f(kwargs)."),
        ("Files that match *.py are read.", "Files that match .py are read."),
        ("- x\n  - a\n- y\n  - b", "- x\n  - b\n- y\n  - a"),
        ("true", "False"),
    ],
)
def test_what_says_something_else_differs_and_is_told(then: str | None, now: str | None) -> None:
    assert different(then, now, Measure())


@pytest.mark.parametrize(
    ("measure", "then", "now", "same"),
    [
        (Measure("exact"), "a b", "a  b", False),
        (Measure("text"), "312", "There are 312", False),
        (Measure("number", 0.01), "100", "about 100.5", True),
        (Measure("number", 0.01), "100", "102", False),
        (Measure("number"), "the total is 5", "5", True),
        (Measure("number"), "no idea", "5", False),
        (Measure("list", ordered=True), "- a\n- b", "- b\n- a", False),
        (Measure("list", ordered=False), "1. a\n2. b", "1. b\n2. a", True),
        (Measure("list"), "a\nb", '["b", "a"]', True),
        (Measure("json", 0.01), '[{"a": 100}]', '[{"a": 100.5}]', True),
        (Measure("json"), "no json", "{}", False),
    ],
)
def test_a_comparison_that_is_asked_for_is_made(measure: Measure, then: str, now: str, same: bool) -> None:
    assert (different(then, now, measure) == "") == same


@given(JSON)
def test_json_is_the_same_however_it_is_laid_out(value: object) -> None:
    then, now = json.dumps(value), json.dumps(value, indent=2, sort_keys=True)
    assert different(then, now, Measure("json")) == ""


@given(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()), st.sampled_from(["auto", "exact", "number", "list", "json", "text", "judge"]))  # fmt: skip
def test_any_two_texts_can_be_compared_and_each_is_like_itself(
    one: str | None, other: str | None, how: str
) -> None:
    measure = Measure(how)  # type: ignore[arg-type]
    assert different(one, one, measure) == ""
    assert isinstance(different(one, other, measure), str)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "text",
    [
        "9" * 200_000,
        "[" * 200_000,
        "```" * 60_000,
        "*" * 200_000,
        "1," * 100_000,
        "- a\n" * 50_000,
        " \n" * 100_000,
        "$" * 200_000,
        json.dumps([{"a": n} for n in range(20_000)]),
        "1. " * 60_000,
        "__" * 100_000 + "a",
        "**a" * 60_000,
        "|\n" * 100_000,
    ],
)
def test_answers_of_any_form_are_compared_in_a_moment(text: str) -> None:
    for how in ("auto", "number", "list", "json", "text"):
        assert different(text, text[:-3] + "x", Measure(how)) is not None  # type: ignore[arg-type]
        assert different("12", text, Measure(how))  # type: ignore[arg-type]
