"""A comparison that no record can fulfil is told, with what the column holds."""

from __future__ import annotations

import ast
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import compared, rows
from rlm_runtime.lastcell import LastCell

ROWS = rows.made(
    [
        {
            "request": "GET /admin/backup.zip HTTP/1.1",
            "status": 404,
            "level": "ERROR",
            "code": "007",
            "ok": True,
        },
        {"request": "GET / HTTP/1.1", "status": 200, "level": "Warning ", "code": "8", "ok": False},
    ]
)


def told(code: str, **variables: Any) -> list[str]:
    spaces = {"found": ROWS, **variables}
    return [said for _, said in compared.never_equal(ast.parse(code), spaces)]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (
            'row["request"] == "/admin/backup.zip"',
            "1 has it as a part, such as 'GET /admin/backup.zip HTTP/1.1'",
        ),
        ('row["request"].lower() == "/ADMIN/backup.zip"', "as a part"),
        ('"http/1.1" == row.get("request").lower()', "2 have it as a part"),
        ('row["status"] == "404"', "it holds numbers. Compare with 404."),
        ('row.get("status", "") == "404"', "it holds numbers"),
        ('row["code"] == 7', "it holds text. Compare with '007'."),
        ('row["level"] == "error"', "another case"),
        ('row["level"] == "Warning"', "spaces around them, such as 'Warning '"),
    ],
)
def test_what_the_column_holds_instead_is_told(condition: str, said: str) -> None:
    (sentence,) = told(f"n = sum(1 for row in found if {condition})")
    assert said in sentence
    frame = pd.DataFrame([dict(row) for row in ROWS])
    assert told(f"[row for row in found if {condition}]", found=frame) == [sentence]


@pytest.mark.parametrize(
    "condition",
    [
        'row["status"] == 404',
        'row["status"] == 404.0',
        'row["level"] == "ERROR"',
        'row["level"].lower() == "error"',
        'row["level"].strip() == "Warning"',
        'row["level"] == "fatal"',  # there is nothing like it: a true 0
        'row["status"] == "500"',
        'row["status"] == ""',
        'row["ok"] == True',
        'row["nothing"] == "404"',
        'row["status"] != "404"',
        'row["status"] == "404" == x',
        'int(row["code"]) == 7',
        'row[0] == "404"',
        'row["request"].split()[1] == "/admin/backup.zip"',
    ],
)
def test_nothing_is_told_of_a_comparison_that_holds_or_is_not_understood(condition: str) -> None:
    assert told(f"n = sum(1 for row in found if {condition})") == []


def test_a_data_frame_is_asked_in_its_own_way() -> None:
    frame = pd.DataFrame({"status": [404, 200], "name": ["Anna Lee", "Bo"]})
    assert "holds numbers" in told('found[found["status"] == "404"]', found=frame)[0]
    assert "'Anna Lee'" in told('len(found[found["name"].str.lower() == "anna"])', found=frame)[0]
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert told('found[found["a"] == "1"]', found=twice) == []


def test_a_table_that_the_cell_does_not_name_is_not_looked_at() -> None:
    assert told('[row for row in others if row["status"] == "404"]', others=[{"a": 1}]) == []
    assert told('found = [row for row in others if row["status"] == "404"]', others=3, found=[]) == []


def test_each_thing_is_told_once_and_only_of_a_cell_that_went_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = LastCell(SimpleNamespace(user_ns={"found": ROWS}))  # type: ignore[arg-type]

    def ran(code: str, error: Exception | None = None) -> str:
        last.after(SimpleNamespace(info=SimpleNamespace(raw_cell=code), error_in_exec=error))  # type: ignore[arg-type]
        return capsys.readouterr().err

    code = '[row for row in found if row["status"] == "404"]'
    assert ran(code, IndexError()) == ""
    assert ran(code).startswith("Note: No value in the column 'status' is '404'")
    assert ran(code) == ""
    assert ran("%%bash\nx == 1") == ""


def test_an_empty_search_that_breaks_the_cell_tells_it_as_its_hint() -> None:
    code = 'hits = [row for row in found if row["request"] == "/admin/backup.zip"]\nhits[0]'
    last = LastCell(SimpleNamespace(user_ns={"found": ROWS}))  # type: ignore[arg-type]
    assert "`in` looks for parts" in last.hint(IndexError("list index out of range"), code)


@pytest.mark.parametrize("code", ["[c for c in t if t[c].dtype == object]", "t.a.dtype != 'object'"])
def test_the_type_that_text_had_in_pandas_before_is_told(code: str) -> None:
    assert ["dtype" in one for one, _ in compared.text_is_no_object(ast.parse(code))] == [True]
    assert list(compared.text_is_no_object(ast.parse("t.a.dtype == 'int64'"))) == []


class Odd:
    def __eq__(self, other: object) -> bool:
        raise AssertionError("nobody asked")

    __hash__ = None  # type: ignore[assignment]


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(Odd())
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b"]), _VALUES), max_size=6),
    st.one_of(st.text(), st.integers()),
)
def test_it_is_silent_where_any_value_is_equal_and_never_raises(table: list[Any], wanted: Any) -> None:
    said = told(f'[row for row in found if row["a"] == {wanted!r}]', found=table)
    values = [row.get("a") for row in table if not isinstance(row.get("a"), Odd)]
    if any(type(value) is not bytes and value == wanted for value in values):
        assert said == []


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("n = [r for r in t if r['price'] == 5]", {"t": [{"price": Decimal(5)}, {"price": "5.0"}]}),
        ("n = [r for r in t if r['k'] == 'abc']", {"t": [{"k": np.str_("abc")}, {"k": "abcd"}]}),
        ("n = [r for r in t if r['k'] == 404]", {"t": [{"k": np.int64(404)}, {"k": "404"}]}),
        # another table, or none at all, is what is compared
        ("n = [r for r in b if r['k'] == 'abc'], len(a)", {"a": [{"k": "abcd"}], "b": [{"k": "abc"}]}),
        ("if mode['k'] == 'abc': print(len(t))", {"mode": {"k": "abc"}, "t": [{"k": "abcd"}]}),
        # the cell has changed it since
        ("for r in t:\n    if r['k'] == 'usa': r['k'] = 'USA'", {"t": [{"k": "USA"}]}),
        ("t.loc[t['k'] == 'usa', 'k'] = 'USA'", {"t": pd.DataFrame({"k": ["USA"]})}),
        ("t = t[~(t['k'] == 'bad')]", {"t": pd.DataFrame({"k": ["not bad"]})}),
        ("t.drop(t[t['k'] == 'bad'].index, inplace=True)", {"t": pd.DataFrame({"k": ["not bad"]})}),
        ("[t.remove(r) for r in list(t) if r['k'] == 'bad']", {"t": [{"k": "not bad"}]}),
    ],
)
def test_nothing_is_told_that_may_be_false(code: str, variables: dict[str, Any]) -> None:
    assert told(code, **variables) == []


def test_nothing_is_told_of_a_table_that_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "_MOST_RECORDS", 3)
    code, table = "n = sum(r['k'] == 'abc' for r in t)", [{"k": "abcd"}] * 3
    assert len(told(code, t=table)) == 1
    table = [*table, {"k": "abc"}]
    assert told(code, t=table) == told(code, t=pd.DataFrame(table)) == []
    assert told(code, t=[{"k": "abc " * 50_000}]) == []
