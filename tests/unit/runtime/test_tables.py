"""Tables as they come: what a program wrote is read back, and what is odd costs a row at most, and is
told.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlm_runtime import forms, tables
from rlm_runtime.forms import form, records
from rlm_runtime.lazytext import LazyText
from rlm_runtime.numbers import MISSING
from rlm_runtime.source import Source


def read_in_any_way(field: str) -> set[float]:
    """The numbers that a field could be: its commas and points are decimal signs, or separators."""
    sign = -1 if re.search(r"[-(\u2212]", field) else 1
    digits = re.sub(r"[^0-9.,eE+-]|^-|-$", "", field.strip(" -()%"))
    ways = [digits.replace(",", ""), digits.replace(".", "").replace(",", "."), digits.replace(",", ".")]
    found = set()
    for way in ways:
        with contextlib.suppress(ValueError):
            found |= {sign * float(way), sign * int(way) if way.isdecimal() else sign * float(way)}
    return found


EXAMPLES = int(os.environ.get("RLM_TEST_EXAMPLES", "200"))
# A lone carriage return needs quotes, which csv does not write around it.
FIELDS = st.one_of(
    st.text(alphabet="ab ,;\t|\"'\\\n0é", max_size=8),
    st.text(max_size=8).map(lambda field: field.replace("\r", "")),
    st.integers().map(str),
)


@pytest.fixture(autouse=True)
def long_fields() -> None:
    tables.allow_long_fields()


def lazy(text: str) -> LazyText:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.flush()
        return LazyText(Source(Path(file.name), block=64), 1 << 22)


def as_written(rows: list[list[str]], delimiter: str, lineterminator: str = "\n") -> str:
    out = StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=lineterminator).writerows(rows)
    return out.getvalue()


def as_text(row: dict[str, Any]) -> list[str]:
    return [str(value) for value in row.values()]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(3, 6).flatmap(
        lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), min_size=3, max_size=40)
    ),
    st.sampled_from(list(tables.DELIMITERS)),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_program_wrote_is_read_back(rows: list[list[str]], delimiter: str, end: str) -> None:
    names = [f"col {number}" for number in range(len(rows[0]))]
    text = as_written([names, *rows], delimiter, end)
    for name in ("", "a.csv"):
        found = list(records(text, name))
        assert [list(row) for row in found] == [names] * len(rows)
        for row, wanted in zip(found, rows, strict=True):
            for value, field in zip(row.values(), wanted, strict=True):
                assert value == field or value in read_in_any_way(field)
        for column in names:
            kinds = {type(row[column]) for row in found if str(row[column]).strip() not in MISSING}
            assert str not in kinds or kinds == {str}


@pytest.mark.parametrize("in_memory", [True, False], ids=["str", "LazyText"])
def test_fields_of_any_length_and_with_line_breaks_anywhere_are_read(in_memory: bool) -> None:
    rows = [
        [
            str(number),
            f"first\nsecond, {number}",
            "x" * (300_000 if number in (0, 30) else 10),
            f"{number:05d}",
        ]
        for number in range(60)
    ]
    text = as_written([["id", "comment", "body", "zip"], *rows], ",")
    found = list(records(text if in_memory else lazy(text)))
    assert [as_text(row) for row in found] == rows
    assert found[7]["id"] == 7
    assert '"id", "comment", "body", "zip"' in form(text)


STRAY = {
    "never closed": '7,"never closed,x',
    "closed later": '7,"one "two,x',
    "inches": '7,5" pipe,x',
    "inches at the start": '7,"5" pipe,x',
    "doubled at the end": '7,"pipe 5"",x',
    "by a backslash": '7,"say \\"hi\\"",x',
    "last field": '7,y,"x',
}


@pytest.mark.parametrize("in_memory", [True, False], ids=["str", "LazyText"])
@pytest.mark.parametrize("what", STRAY)
def test_a_stray_quote_costs_its_own_row_at_most(
    what: str, in_memory: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [f'{number},"name, {number}",{"y" if number % 2 else ""}' for number in range(200)]
    lines = ["id,name,mark", *good[:7], STRAY[what], *good[8:]]
    text = "\n".join([*lines, ""])
    found = list(records(text if in_memory else lazy(text)))
    assert len(found) == 200
    assert [row["id"] for row in found] == list(range(200))
    assert found[199] == {"id": 199, "name": "name, 199", "mark": "y"}
    if what not in ("inches", "by a backslash"):
        assert "1 rows that have a stray quote or carriage return as they stand" in capsys.readouterr().out
    assert len(list(records("\n".join(["id,name,mark", STRAY[what], *good[8:]])))) == 193


def test_many_stray_quotes_take_time_in_proportion() -> None:
    lines = [f'{number},"never closed,x' for number in range(20_000)]
    assert len(list(records("\n".join(["id,name,mark", *lines])))) == 20_000


TWO = [{"id": 1, "name": "a", "sum": 2}, {"id": 2, "name": "b", "sum": 3}]
BY_NAME: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "two columns": ("name,n\na,1\nb,2\n", [{"name": "a", "n": 1}, {"name": "b", "n": 2}]),
    "one row": ("name,city,n\na,Rome,1\n", [{"name": "a", "city": "Rome", "n": 1}]),
    "one column": ("email\na@x.org\nb@x.org\n", [{"email": "a@x.org"}, {"email": "b@x.org"}]),
    "no names": ("1,a,2.5\n2,b,3.5\n", [{"column_1": n, "column_2": name, "column_3": n + 1.5} for n, name in ((1, "a"), (2, "b"))]),
    "years as names": ("land,2019,2020\nA,5,6\nB,7,8\n", [{"land": "A", "2019": 5, "2020": 6}, {"land": "B", "2019": 7, "2020": 8}]),
    "titles before": ("Report of May\n\nid;name;sum\n1;a;2\n2;b;3\n", TWO),
    "titles with delimiters": ("Report,,\nid,name,sum\n1,a,2\n2,b,3\n", TWO),
    "sep=": ("sep=|\nid|name\n1|a,b\n", [{"id": 1, "name": "a,b"}]),
    "names twice and none": (
        "a,a,,a\n1,2,3,4\n5,6,7,8\n",
        [dict(zip(("a", "a_2", "column_3", "a_3"), row, strict=True)) for row in ((1, 2, 3, 4), (5, 6, 7, 8))],
    ),
    "rows of other lengths": (
        "a,b,c\n1,2\n3,4,5,6\n7,8,9\n",
        [{"a": 1, "b": 2, "c": ""}, {"a": 3, "b": 4, "c": 5, "more": ["6"]}, {"a": 7, "b": 8, "c": 9}],
    ),
    "a delimiter at each end": ("a,b\n1,2,\n3,4,\n", [{"a": 1, "b": 2, "column_3": ""}, {"a": 3, "b": 4, "column_3": ""}]),
    "decimal commas": (
        "ort;preis;nr\nA;1,50;1.234\nB;1.234,5;7\n",
        [{"ort": "A", "preis": 1.5, "nr": 1234}, {"ort": "B", "preis": 1234.5, "nr": 7}],
    ),
    "commas in doubt": ("ort;zahl\nA;1,234\nB;5,678\n", [{"ort": "A", "zahl": "1,234"}, {"ort": "B", "zahl": "5,678"}]),
    "spaces after commas": ('id, name, n\n1, "a, b", 2\n2, "c", '
                            '3\n', [{"id": 1, "name": "a, b", "n": 2}, {"id": 2, "name": "c", "n": 3}]),
    "quotes by backslash": ('id,said\n1,"so \\"a, b\\" he"\n'
                            '2,"x"\n', [{"id": 1, "said": 'so "a, b" he'}, {"id": 2, "said": "x"}]),
    "blank lines": ("a,b\n\n1,2\n\n\n3,4\n", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
    "a byte-order mark": ("\ufeffa,b\n1,2\n", [{"a": 1, "b": 2}]),
}  # fmt: skip


@pytest.mark.parametrize("what", BY_NAME)
def test_a_file_that_is_called_a_table_is_read_as_one(what: str) -> None:
    text, expected = BY_NAME[what]
    assert list(records(text, "data/a.csv")) == expected
    assert list(records(lazy(text), "a.csv.gz")) == expected
    assert form(text, "a.tsv").startswith("a table with the column")


def test_what_is_guessed_of_a_table_is_told() -> None:
    assert "between semicolons, after 1 other line; " in form(BY_NAME["titles before"][0], "a.csv")
    assert "whose names are not in the text" in form(BY_NAME["no names"][0], "a.csv")


def test_a_column_with_codes_anywhere_stays_text() -> None:
    rows = [[str(10_000 + number), str(number), "a"] for number in range(500)] + [["00501", "7", "b"]]
    found = list(records(as_written([["zip", "n", "mark"], *rows], ",")))
    assert (found[0], found[-1]) == (
        {"zip": "10000", "n": 0, "mark": "a"},
        {"zip": "00501", "n": 7, "mark": "b"},
    )
    assert "'zip': '10000'" in form(as_written([["zip", "n", "mark"], *rows], ","))


def test_a_table_of_another_name_is_read_if_its_lines_show_it_and_prose_is_none() -> None:
    prose = "Well, it rained, and then, it stopped.\nSo, we left.\nOh, yes, we did, and how.\n" * 5
    assert form(prose) == ""
    assert form("name,n\na,1\nb,2\n") == ""
    assert records(prose, "a.txt")[0] == {"line": 1, "text": "Well, it rained, and then, it stopped."}


def test_json_is_read_as_it_comes() -> None:
    lines = '{"a": 1, "b": NaN}\n\n{"a": 2, "b": 3}\n\n{"a": 3, "b": 4}\n'
    assert [row["a"] for row in records(lines)] == [1, 2, 3]
    assert [row["a"] for row in records(lines + '{"a": 4, "b')] == [1, 2, 3]
    assert form('[{"a": 1},]').startswith("like JSON, but json.loads(context) fails")
    assert form('{"a": [1, 2], "b": "' + "x" * 100_000 + '"}').startswith("JSON; data")


@given(st.text(alphabet='ab,;"\n\t|\\ 01', max_size=120))
def test_any_text_of_a_table_s_name_is_read(text: str) -> None:
    form(text, "a.csv")
    assert forms.records(text, "a.csv") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"id","name"\n1,\\N\n2,"a \\"b\\""\n', [{"id": 1, "name": "\\N"}, {"id": 2, "name": 'a "b"'}]),
        (
            "a,b\n1,x\nNULL,y\n1.5e-07,z\n",
            [{"a": 1, "b": "x"}, {"a": "NULL", "b": "y"}, {"a": 1.5e-07, "b": "z"}],
        ),
        ("a,b\n1,x\na,b\n2,y\n", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        (" a , b\n 1 , x\n 2 , y\n", [{"a": 1, "b": " x"}, {"a": 2, "b": " y"}]),
        ("# made by x\n# date, 2024\na,b\nN,1\n# half\nS,2\n", [{"a": "N", "b": 1}, {"a": "S", "b": 2}]),
        ("#a,b\n1,x\n2,y\n", [{"#a": 1, "b": "x"}, {"#a": 2, "b": "y"}]),
        (
            "#Software: IIS\n#Fields: date c-ip status\n2024-01-01 ::1 200\n#Date: x\n2024-01-02 ::2 404\n",
            [
                {"date": "2024-01-01", "c-ip": "::1", "status": 200},
                {"date": "2024-01-02", "c-ip": "::2", "status": 404},
            ],
        ),
    ],
)
def test_tables_of_databases_and_servers_are_read_by_their_own_signs(
    text: str, expected: list[dict[str, Any]]
) -> None:
    assert list(records(text, "x.csv")) == expected
