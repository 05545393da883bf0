"""The form of the input, as the first message tells it: with code that reads it."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime.forms import form

ROWS = [{"day": f"2024-01-{n:02d}", "port": "Riga, old", "tons": str(n)} for n in range(1, 30)]


def table(delimiter: str) -> str:
    from io import StringIO

    text = StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


@pytest.mark.parametrize(
    "text",
    ["\n".join(map(json.dumps, ROWS)), *(table(delimiter) for delimiter in (",", "\t", ";", "|"))],
    ids=["json lines", "comma", "tab", "semicolon", "bar"],
)
def test_the_code_that_is_told_gives_the_rows(text: str) -> None:
    told = form(text)
    assert '"day", "port", "tons"' in told
    names: dict[str, Any] = {"context": text, "json": json, "csv": csv}
    exec(told.rpartition("; ")[2], names)
    assert names["rows"] == ROWS


def test_one_json_document_is_told() -> None:
    assert form(json.dumps(ROWS, indent=1)).startswith("JSON; data = json.loads(context)")


def test_the_end_of_what_is_looked_at_may_be_in_the_middle_of_a_line() -> None:
    assert form(table(",") + "2024-02-01,Oslo,7\n" * 100_000).startswith("a table")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one line",
        "Well, it rained.\nThen, it stopped.\nSo, we left.\n",
        "1,2,3\n4,5,6\n7,8,9\n",
        "a,b,c\n1,2\n3,4,5\n",
        "[core]\nworkers = 4\n",
        '{"a": 1}',
    ],
)
def test_just_text_has_no_form(text: str) -> None:
    assert not form(text) or text.startswith("{")


def test_many_and_long_names_are_cut() -> None:
    wide = ",".join(f"column {n}" for n in range(5_000))
    assert len(form(f"{wide}\n{wide}\n{wide}\n")) < 2_000
    assert len(form((json.dumps({"k" * 100_000: 1}) + "\n") * 3)) < 200


@given(st.text(max_size=500))
def test_any_text_is_looked_at_without_harm(text: str) -> None:
    form(text)
