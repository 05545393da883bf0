"""What a delivered value becomes. With real pandas: tests/integration/test_hostcalls.py."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import re
import sqlite3
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import bs4
import lxml.etree
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime.delivery import Delivery, NoValue, delivery, plain

LIMIT = 1 << 20


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


Pair = collections.namedtuple("Pair", "left right")


class Model(pydantic.BaseModel):
    share: float
    at: dt.datetime


class Polars:
    """A table of another package, by what it can do."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def to_dicts(self) -> list[dict[str, Any]]:
        return self._rows


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (np.int64(5), 5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.longdouble(1.5), 1.5),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(5), 5),
        (np.array([1.5, math.nan]), [1.5, None]),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), [{"a": 1, "b": 2.0}]),
        (np.datetime64("2024-05-01T10:00:00.000000000"), "2024-05-01T10:00:00"),
        (np.array(["2024-05-01", "NaT"], dtype="datetime64[ns]"), ["2024-05-01T00:00:00", None]),
        (np.timedelta64("NaT"), "NaT"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC), "2024-05-01T10:00:00+00:00"),
        (dt.timedelta(hours=1), "1:00:00"),
        (decimal.Decimal("12.50"), 12.5),
        (decimal.Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (decimal.Decimal("NaN"), "NaN"),
        (fractions.Fraction(1, 3), "1/3"),
        (1j, "1j"),
        (math.nan, None),
        (math.inf, "inf"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, dt.date(2024, 5, 1)), {"x": 1, "when": "2024-05-01"}),
        (Pair(1, 2), {"left": 1, "right": 2}),
        (Model(share=1, at=dt.datetime(2024, 5, 1)), {"share": 1.0, "at": "2024-05-01T00:00:00"}),
        ({3, 1, 2}, [1, 2, 3]),
        ({"b", 1}, ["b", 1]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.deque([1]), [1]),
        (range(3), [0, 1, 2]),
        ({"b": 1, "a": 2}.keys(), ["b", "a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), [["a", 1]]),
        (pathlib.PurePosixPath("/a"), "/a"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (b"text", "text"),
        (b"\xff", "/w=="),
        (Polars([{"a": np.int64(1)}]), [{"a": 1}]),
        (ValueError("why"), "why"),
    ],
)
def test_values_of_all_kinds_are_json_wherever_they_are(value: Any, data: Any) -> None:
    assert plain([value], LIMIT) == [data]
    assert plain({"a": {"b": value}}, LIMIT) == {"a": {"b": data}}
    json.dumps(plain([value], LIMIT), allow_nan=False)


def test_keys_of_all_kinds_are_texts() -> None:
    keys = [
        1,
        1.5,
        True,
        None,
        "s",
        (2, "a"),
        dt.date(2024, 5, 1),
        Colour.RED,
        np.int64(7),
        frozenset({4, 3}),
    ]
    wanted = ["1", "1.5", "true", "null", "s", "2, a", "2024-05-01", "red", "7", "3, 4"]
    for key, text in zip(keys, wanted, strict=True):
        assert plain({key: 0}, LIMIT) == {text: 0}


def test_two_keys_that_would_be_one_are_not_lost() -> None:
    with pytest.raises(ValueError, match="two keys that are both '1'"):
        delivery({1: "a", "1": "b"}, LIMIT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_what_is_json_stays_as_it_is(value: Any) -> None:
    assert plain(value, LIMIT) == value


class Bare:
    pass


class Telling:
    def __str__(self) -> str:
        return "<b>mine</b>"


class CallFailed:
    def __repr__(self) -> str:
        return "<CallFailed LLMError: no>"


def rows() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Bare(), "has no text of its own"),
        (re.search("a", "a"), "has no text of its own"),
        (rows(), "got a generator"),
        (map(str, [1]), "got a map"),
        (print, "got a builtin_function_or_method"),
        (Bare, "got a type"),
        (math, "got a module"),
        (CallFailed(), "an item that failed"),
        (type("Figure", (), {"__module__": "matplotlib.figure"})(), "a picture cannot be delivered"),
    ],
)
def test_what_is_no_value_is_refused_wherever_it_is(value: Any, told: str) -> None:
    for answer in (value, [value], {"a": value}, (1, {"b": [value]})):
        with pytest.raises(NoValue, match=told):
            delivery(answer, LIMIT)


def test_an_object_that_says_something_of_itself_is_its_text() -> None:
    assert delivery(Telling(), LIMIT) == Delivery("<b>mine</b>", "<b>mine</b>", False)


def test_a_value_without_end_or_beyond_the_limit_is_an_error() -> None:
    within: list[Any] = []
    within.append(within)
    with pytest.raises(ValueError, match="holds itself"):
        delivery(within, LIMIT)
    for value in (
        "x" * 2000,
        ["x" * 2000],
        list(range(2000)),
        {str(n): "" for n in range(2000)},
        np.zeros(2000),
    ):
        with pytest.raises(ValueError, match=r"characters.*Deliver only what was asked for"):
            delivery(value, 1000)


def test_texts_and_numbers_that_json_does_not_have_go_as_texts() -> None:
    assert delivery("a\ud800b\0", LIMIT) == Delivery("a\ud800b\0", None, False)
    assert delivery(math.nan, LIMIT) == Delivery("nan", None, False)
    assert delivery(None, LIMIT) == Delivery("None", None, True)
    assert delivery(np.int64(5), LIMIT) == Delivery("5", 5, True)


def test_a_table_is_markdown_if_it_is_small_and_else_csv_with_all_rows() -> None:
    small = delivery(Polars([{"a": 1, "b": "x|y"}, {"a": None, "b": "z"}]), LIMIT)
    assert small.text == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n|  | z |"
    assert small.data == [{"a": 1, "b": "x|y"}, {"a": None, "b": "z"}]
    large = delivery(Polars([{"n": n, "text": 'said "no",\nthen left'} for n in range(1000)]), LIMIT)
    assert large.text.startswith('n,text\n0,"said ""no"",\nthen left"\n')
    assert large.text.count('"said') == len(large.data) == 1000
    wide = delivery(Polars([{"a": "x" * 100 + "END"}]), LIMIT)
    assert wide.text == "a\n" + "x" * 100 + "END"


def test_a_list_of_rows_is_whole() -> None:
    listed = [{"n": n} for n in range(10_000)]
    assert delivery(listed, LIMIT) == Delivery("", listed, True)


def test_a_text_that_is_too_large_for_memory_is_refused() -> None:
    lazy = type("LazyText", (), {"__str__": lambda self: "all of it"})()
    with pytest.raises(ValueError, match="a part of it"):
        delivery({"text": lazy}, LIMIT)
    assert delivery(SimpleNamespace(a=1), LIMIT).text == "namespace(a=1)"


class Report:
    def to_dict(self) -> dict[str, int]:
        return {"a": 1}


def test_objects_that_are_more_than_what_they_go_through_are_delivered_whole() -> None:
    rows = sqlite3.connect(":memory:")
    rows.row_factory = sqlite3.Row
    assert plain(rows.execute("select 1 as a, 'x' as b").fetchall(), LIMIT) == [{"a": 1, "b": "x"}]
    assert (
        plain(bs4.BeautifulSoup("<p>one <b>two</b></p>", "html.parser").p, LIMIT) == "<p>one <b>two</b></p>"
    )
    with pytest.raises(NoValue, match="Deliver what is in it"):
        plain(lxml.etree.fromstring("<a>t<b/></a>"), LIMIT)
    assert plain([Report()], LIMIT) == [{"a": 1}]
    assert plain(collections.UserString("text"), LIMIT) == "text"
    records = np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])
    assert plain(records[0], LIMIT) == {"a": 1, "b": 2.5}
    assert plain(np.array(["2024-01-01"], dtype="datetime64[D]"), LIMIT) == ["2024-01-01"]
    assert plain(2**4000, LIMIT) == 2**4000
    assert plain(2**5000, LIMIT) == str(2**5000), "no JSON reader takes it as a number"


def test_what_is_no_value_says_how_it_becomes_one() -> None:
    with pytest.raises(NoValue, match="list"):
        plain(map(str, [1]), LIMIT)
