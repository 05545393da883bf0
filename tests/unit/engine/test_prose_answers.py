"""What FINAL(...) in prose delivers, or what is asked instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlm_kernel.engine import messages as say
from rlm_kernel.engine.finals import is_template, meaning
from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.protocols import Answer
from rlm_kernel.models import ScriptedModels
from tests.support.engine import INFO, Run

LOOK = "I look.\n```repl\nsay(context[:5])\n```"


async def delivered(text: str, **variables: Any) -> tuple[Answer | None, str]:
    """The answer of FINAL(text) over these variables, and what the model was told where it was asked
    again.
    """
    run = Run(ScriptedModels([LOOK, f"So:\n\nFINAL({text})", "FINAL(asked again)"]))
    run.kernel.variables |= {"answer": {"content": None, "ready": False}} | variables
    answer = (await run.outcome()).answer
    assert answer is not None
    return (None, run.told()) if answer.text == "asked again" else (answer, "")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", Answer("Paris")),
        ("yes", Answer("yes")),
        ("True", Answer("True")),
        ("None", Answer("None")),
        ("not found", Answer("not found")),
        ("alpha - beta", Answer("alpha - beta")),
        ("red, green", Answer("red, green")),
        ("Paris (France)", Answer("Paris (France)")),
        ("report.txt", Answer("report.txt")),
        ("There are 3 lines.", Answer("There are 3 lines.")),
        ("It says rows[0] here", Answer("It says rows[0] here")),
        ("42", Answer("42", 42)),
        ("-5", Answer("-5", -5)),
        ("2.5", Answer("2.5", 2.5)),
        ("3.10", Answer("3.10")),
        ("1,234", Answer("1,234")),
        ("2024-10-15", Answer("2024-10-15")),
        ("10/12/2024", Answer("10/12/2024")),
        ("2-3", Answer("2-3")),
        ("12:30", Answer("12:30")),
        ("007", Answer("007")),
        ("50%", Answer("50%")),
        ('"a b"', Answer("a b")),
        ("'it\\'s'", Answer("it's")),
        ('"1) one, 2) two"', Answer("1) one, 2) two")),
        ('answer="3 lines"', Answer("3 lines")),
        ("sum - max", Answer("sum - max")),
        ("open or closed", Answer("open or closed")),
        ("x = 3", Answer("x = 3")),
        ("x = y", Answer("x = y")),
        ("final_answer=3", Answer("3", 3)),
        ('{"a": true, "b": null}', Answer('{"a": true, "b": null}', {"a": True, "b": None})),
        ("[]", Answer("[]", [])),
        ("`Paris`", Answer("Paris")),
        ("**42**", Answer("42", 42)),
        ("“Paris”", Answer("Paris")),
        ("「北京（中国）」", Answer("北京（中国）")),
        ("Use {name} in /users/{id}", Answer("Use {name} in /users/{id}")),
        ("\\frac{n}{m}", Answer("\\frac{n}{m}")),
    ],
)
async def test_words_and_literals_are_the_answer_themselves(text: str, answer: Answer) -> None:
    assert (await delivered(text))[0] == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("n", Answer("3", 3)),
        ("report", Answer("all is well")),
        ('f"There are {n} lines"', Answer("There are 3 lines")),
        ("len(rows)", Answer("2", 2)),
        ("rows[0]", Answer("alpha")),
        ('"Lines: " + str(n)', Answer("Lines: 3")),
        ("n - 1", Answer("2", 2)),
        ("report.upper()", Answer("ALL IS WELL")),
        ("[1, 2]", Answer("[1, 2]", [1, 2])),
        ('{"a": n}', Answer("{'a': 3}", {"a": 3})),
        ("sum(\n    len(row) for row in rows\n)", Answer("9", 9)),
        ("answer=n", Answer("3", 3)),
        ('"n"', Answer("n")),
        ("`n`", Answer("3", 3)),
        ("“n”", Answer("3", 3)),
        ("n, len(rows)", Answer("(3, 2)", [3, 2])),
        ("n, n", Answer("(3, 3)", [3, 3])),
        ("n + n  # twice", Answer("6", 6)),
        ("x = n", Answer("3", 3)),
        ("There are {n} lines in {missing.md}.", None),
        ("There are {n} lines, {n:.1f} of them long.", Answer("There are 3 lines, 3.0 of them long.")),
        ('"It has {len(rows)} rows, and {{n}} of {n}"', Answer("It has 2 rows, and {{n}} of 3")),
        ("\"There are {n} 'rows'\"", Answer("There are 3 'rows'")),
        ("The first is {rows[0]}; {braces} stay? {n}", None),
        ("Set {1, 2} has {n}", Answer("Set {1, 2} has 3")),
    ],
)
async def test_code_over_names_that_are_there_is_evaluated(text: str, answer: Answer) -> None:
    found, _ = await delivered(text, n=3, rows=["alpha", "beta"], report="all is well")
    assert found == answer


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("len(lines)", "NameError"),
        ("rows[7]", "IndexError"),
        ('f"{count} lines"', "NameError"),
        ('"Lines: " + str(count)', "NameError"),
        ("rows - max", "TypeError"),
        ("rows + more", "NameError"),
        ("more + rows", "NameError"),
        ("rows, more", "NameError"),
        ("There are {rows} in {more}", "NameError"),
        ("count = len(lines)", "NameError"),
        ("final_count", "no variable"),
        ('f"unfinished', "SyntaxError"),
        ("[row for row in lines]", "NameError"),
    ],
)
async def test_code_that_gives_no_value_is_asked_about_and_never_delivered(text: str, told: str) -> None:
    answer, remark = await delivered(text, rows=["alpha"])
    assert answer is None
    assert told in remark


TEMPLATES = ["answer", "your answer here", "your_answer", "<answer>", "<the number of "
                                                                      "lines>", "...", "…", "", "value", "the final answer", '"your answer"', "[answer]",
             "{answer}", "Insert your answer here", "result", "variable_name"]  # fmt: skip


@pytest.mark.parametrize("text", TEMPLATES)
async def test_the_form_of_an_answer_is_no_answer(text: str) -> None:
    answer, told = await delivered(text)
    assert answer is None
    assert "not the answer" in told or "not taken as the answer" in told


async def test_the_sessions_own_dict_is_an_answer_once_code_has_filled_it_in() -> None:
    assert (await delivered("answer", answer={"content": "three", "ready": False}))[0] == Answer("three")
    assert (await delivered("answer", answer=42))[0] == Answer("42", 42)
    assert (await delivered("answer"))[1].startswith(say.TEMPLATE)


async def test_an_answer_with_code_in_it_is_delivered_whole_and_nothing_of_it_is_run() -> None:
    text = "Use this:\n```python\nfail(1)\n```\nIt is short."
    run = Run(ScriptedModels([LOOK, f"FINAL({text})"]))
    assert (await run.outcome()).answer == Answer(text)
    assert len(run.kernel.ran) == 1


async def test_what_a_prose_answer_evaluates_is_a_cell_of_the_trace() -> None:
    run = Run(ScriptedModels([LOOK, "FINAL(len(context))"]))
    assert (await run.outcome()).answer == Answer("11", 11)
    assert run.kernel.ran[-1] == ("turn-02-final", "FINAL(len(context))")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("FINAL(len(context))", Answer("11", 11)),
        ("FINAL(answer)", None),
        ("FINAL(len(nothing))", None),
        ("Final answer: 42", Answer("42")),
        ("So the answer is FINAL(len(context)).", Answer("11", 11)),
        ("答案是：FINAL（3）", Answer("3", 3)),
        ("**FINAL ANSWER:** 42", Answer("42")),
        ('It is\n```json\n{"a": 1}\n```\nso far.', Answer('It is\n```json\n{"a": 1}\n```\nso far.')),
        ("<think>FINAL(7)</think>It is three.", Answer("It is three.")),
    ],
)
async def test_a_forced_answer_takes_the_same_road(reply: str, answer: Answer | None) -> None:
    run = Run(ScriptedModels([LOOK, reply]), Limits(turns=1))
    run.kernel.variables["answer"] = {"content": None, "ready": False}
    assert (await run.outcome()).answer == answer


@pytest.mark.parametrize(
    ("reply", "cell"),
    [
        ("FINAL(It is three.)", "FINAL('It is three.')"),
        ('FINAL({"a": 1})', "FINAL('{\"a\": 1}')"),
        ("FINAL(3)", "FINAL('3')"),
        ("It is three.", "FINAL('It is three.')"),
    ],
)
async def test_an_answer_of_a_form_is_delivered_by_the_kernel_which_checks_it(reply: str, cell: str) -> None:
    run = Run(ScriptedModels([LOOK, reply]), Limits(turns=1))
    assert (await run.outcome(info=replace(INFO, typed=True))).answer is not None
    assert run.kernel.ran[-1] == ("turn-02-final", cell)


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "name of the valve: v1",
        "Paris",
        "no answer was found",
        "answers",
        "texture",
        "the answer is 3",
        "<b>bold</b> words",
        "a result of 3",
    ],
)
def test_an_answer_that_says_something_is_no_template(text: str) -> None:
    assert not is_template(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "-" * 5000 + "1",
        "a" + ".b" * 5000,
        "\0",
        "f'",
        "x\0=1",
        "*",
        "**a",
        "a for a in b",
        "*a, *b",
        "é(ü)",
        "lambda: 0",
    ],
)
def test_nothing_that_stands_in_final_breaks_its_reading(text: str) -> None:
    meaning(text)
    is_template(text)
