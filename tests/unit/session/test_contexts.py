"""What Python programs give as a context, as files beside the trace."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import io
import json
import math
from collections import Counter, UserDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pydantic
import pytest

from rlm_kernel.errors import UsageError
from rlm_kernel.session.inputs import Inputs, gather


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Person(pydantic.BaseModel):
    name: str
    born: datetime.date


def kept(context: Any, folder: Path) -> Any:
    """What the kernel finds in the file that was written."""
    inputs = gather(context, folder / "t.ipynb")
    assert inputs == Inputs((folder / "t.context.json",), made=True)
    return json.loads(inputs.paths[0].read_text("utf-8"))


@pytest.mark.parametrize(
    ("context", "found"),
    [
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        ([Person(name="Ana", born=datetime.date(1990, 5, 1))], [{"name": "Ana", "born": "1990-05-01"}]),
        ({"at": datetime.datetime(2025, 1, 2, 3, 4)}, {"at": "2025-01-02T03:04:00"}),
        ({"price": decimal.Decimal("1.10")}, {"price": "1.10"}),
        (("a", "b"), ["a", "b"]),
        ({"only"}, ["only"]),
        (deque([1, 2]), [1, 2]),
        (Counter("aab"), {"a": 2, "b": 1}),
        (UserDict(a=1), {"a": 1}),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        (numpy.arange(3), [0, 1, 2]),
        ({"n": numpy.int64(7), "f": numpy.float32(0.5)}, {"n": 7, "f": 0.5}),
        ({"rows": pandas.DataFrame({"a": [1]}), "note": "x"}, {"rows": [{"a": 1}], "note": "x"}),
        (5, 5),
        (True, True),
    ],
)
def test_what_json_can_hold_once_it_is_plain_is_one_value(context: Any, found: Any, tmp_path: Path) -> None:
    assert kept(context, tmp_path) == found


def test_a_generator_is_written_an_item_after_the_other(tmp_path: Path) -> None:
    seen: list[int] = []

    def texts() -> Iterator[Any]:
        for number in range(1_000):
            seen.append((tmp_path / "t.context.json").stat().st_size)
            yield f"text {number}" * 100

    assert kept(texts(), tmp_path)[999] == "text 999" * 100
    assert seen[-1] > 0, "it is not gathered first"
    assert kept(iter(()), tmp_path) == []
    assert kept(map(Point, [1], [2.0]), tmp_path) == [{"x": 1, "y": 2.0}]


def test_what_a_generator_raises_is_its_own(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gather(broken(), tmp_path / "t.ipynb")


@pytest.mark.parametrize("context", [b"\x00\xff", bytearray(b"ab"), memoryview(b"xyz")])
def test_bytes_are_a_file_as_they_are(context: Any, tmp_path: Path) -> None:
    inputs = gather(context, tmp_path / "t.ipynb")
    assert inputs == Inputs((tmp_path / "t.context.bin",))
    assert inputs.paths[0].read_bytes() == bytes(context)


def named(source: Any, name: Any) -> Any:
    source.name = name
    return source


@pytest.mark.parametrize(
    ("source", "name", "content"),
    [
        (io.StringIO("a\r\nb"), "t.context.txt", b"a\r\nb"),
        (io.BytesIO(b"\xff\x00"), "t.context.txt", b"\xff\x00"),
        (named(io.BytesIO(b"PK"), "report.XLSX"), "t.context.XLSX", b"PK"),
        (named(io.BytesIO(b"x"), "/data/app.log.gz"), "t.context.log.gz", b"x"),
        (named(io.BytesIO(b"x"), "../../etc/passwd"), "t.context.txt", b"x"),
        (named(io.BytesIO(b"x"), 3), "t.context.txt", b"x"),
        (named(io.StringIO("x"), "<stdin>"), "t.context.txt", b"x"),
        (io.StringIO(""), "t.context.txt", b""),
    ],
)
def test_a_file_object_is_a_file_with_its_ending(
    source: Any, name: str, content: bytes, tmp_path: Path
) -> None:
    inputs = gather(source, tmp_path / "t.ipynb")
    assert inputs == Inputs((tmp_path / name,))
    assert inputs.paths[0].read_bytes() == content


def test_an_open_file_is_read_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("head\n1\n2\n")
    with (tmp_path / "a.csv").open() as file:
        file.readline()
        inputs = gather(file, tmp_path / "t.ipynb")
    assert inputs.paths[0].name == "t.context.csv"
    assert inputs.paths[0].read_text() == "1\n2\n"


TABLE = {"name": ["Ana", "Bo"], "n": [1, 2]}


@pytest.mark.parametrize(
    "table",
    [
        pandas.DataFrame(TABLE),
        polars.DataFrame(TABLE),
        polars.LazyFrame(TABLE),
        pyarrow.table(TABLE),
        pyarrow.record_batch(TABLE),
        pyarrow.table(TABLE).to_reader(),
    ],
)
def test_a_table_is_a_parquet_file(table: Any, tmp_path: Path) -> None:
    inputs = gather(table, tmp_path / "t.ipynb")
    assert inputs == Inputs((tmp_path / "t.context.parquet",))
    assert pyarrow.parquet.read_table(inputs.paths[0]).to_pydict() == TABLE


@pytest.mark.parametrize(
    ("frame", "columns"),
    [
        (pandas.DataFrame({1: [1], ("a", "b"): [2]}), ["1", "a.b"]),
        (pandas.DataFrame({"n": [1]}, index=pandas.Index(["x"], name="key")), ["n", "key"]),
        (pandas.Series([1, 2], name="n"), ["n"]),
        (polars.Series("n", [1]), ["n"]),
        (pandas.DataFrame({"n": []}), ["n"]),
        (pandas.DataFrame(), []),
    ],
)
def test_odd_frames_keep_their_columns_and_index(frame: Any, columns: list[str], tmp_path: Path) -> None:
    inputs = gather(frame, tmp_path / "t.ipynb")
    assert pyarrow.parquet.read_table(inputs.paths[0]).column_names == columns


def test_several_tables_by_name_are_files_of_a_folder(tmp_path: Path) -> None:
    frames = {"a/b": pandas.DataFrame(TABLE), "a?b": polars.DataFrame(TABLE), "": pyarrow.table(TABLE)}
    inputs = gather(frames, tmp_path / "t.ipynb")
    assert [path.name for path in inputs.paths] == ["a_b.parquet", "a_b-2.parquet", "table.parquet"]
    gather({"c": pandas.DataFrame(TABLE)}, tmp_path / "t.ipynb")
    assert [path.name for path in (tmp_path / "t.context").iterdir()] == ["c.parquet"]


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (object(), "a object is nothing"),
        ([lambda: 1], "a function is nothing"),
        ({"a": Path("x"), "b": 1}, "paths among other values"),
        ([Path("x"), "y"], "paths among other values"),
        (pandas.DataFrame({"a": [1, "x", {}]}), "cannot be written as Parquet"),
        (named(io.RawIOBase(), "x"), "cannot be read"),
    ],
)
def test_what_is_no_context_is_told_with_what_is_one(context: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        gather(context, tmp_path / "t.ipynb")
    assert raised.value.hint


def test_what_is_no_number_is_kept(tmp_path: Path) -> None:
    found = kept({"a": math.nan, "b": math.inf}, tmp_path)
    assert math.isnan(found["a"])
    assert found["b"] == math.inf
