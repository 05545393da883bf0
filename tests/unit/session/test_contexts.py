"""What Python programs give as a context, as files beside the trace."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import itertools
import json
import math
import uuid
import zipfile
import zlib
from collections import Counter, UserDict, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pydantic
import pytest

from rlm_kernel.errors import UsageError
from rlm_kernel.session.asyncitems import in_thread
from rlm_kernel.session.inputs import Inputs, gather


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Size(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


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
        ({1: "a", 1.5: "b", False: "c", "2": "d"}, {"1": "a", "1.5": "b", "false": "c", "2": "d"}),
        ({numpy.int64(3): {1, 2}, None: 1}, {"3": [1, 2], "null": 1}),
        (
            [uuid.UUID(int=1), 1 + 2j, fractions.Fraction(1, 3)],
            [f"{'0' * 8}-0000-0000-0000-{1:012}", "1+2j", "1/3"],
        ),
        ([datetime.timedelta(hours=1), datetime.time(1, 2)], ["PT1H", "01:02:00"]),
        ([pandas.Period("2026-01"), pandas.Interval(0, 1)], ["2026-01", "(0, 1]"]),
        ([numpy.datetime64("2026-01-02"), numpy.bool_(True), numpy.bytes_(b"a")], ["2026-01-02", True, "a"]),
        ({"n": Size(2, 3), "range": range(2)}, {"n": [2, 3], "range": [0, 1]}),
        ({datetime.date(2026, 1, 2): 1, uuid.UUID(int=1): 2}, {"2026-01-02": 1, str(uuid.UUID(int=1)): 2}),
        ({(1, "a"): "x"}, {"1,a": "x"}),
        ([Colour.RED, {Colour.RED: 1}], ["red", {"red": 1}]),
        ({"b": b"text", "half": "a\ud83d"}, {"b": "text", "half": "a\ud83d"}),
        ("half \udc00 a character", "half \udc00 a character"),
        ([pandas.NaT, pandas.NA, pandas.Timestamp("2025-01-02")], [None, None, "2025-01-02T00:00:00"]),
        ([Point(1, pandas.NaT)], [{"x": 1, "y": None}]),
        (pandas.Index([1, 2]), [1, 2]),
        (pandas.Categorical(["a", "b"]), ["a", "b"]),
        ([pandas.DataFrame({"a": [1]}, index=pandas.Index(["x"], name="k"))], [[{"k": "x", "a": 1}]]),
        (pyarrow.array([1, None]), [1, None]),
        (pyarrow.scalar(3), 3),
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


def test_what_a_generator_raises_is_told_as_an_error_of_who_gave_it(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(
        UsageError, match=r"Item 1 of the context could not be made: KeyError: 'mine'\.\n"
    ) as raised:
        gather(broken(), tmp_path / "t.ipynb")
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "error", [OSError("no gzip"), EOFError("cut off"), zlib.error("damaged"), ValueError("closed.")]
)
def test_what_reading_a_file_object_raises_is_told_as_an_error_of_who_gave_it(
    error: Exception, tmp_path: Path
) -> None:
    class Broken:
        def read(self, _size: int) -> bytes:
            raise error

    with pytest.raises(UsageError, match=rf"cannot be read: {type(error).__name__}: [a-z ]+\.\n"):
        gather(Broken(), tmp_path / "t.ipynb")


def zipped(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, text in files.items():
            packed.writestr(name.replace("__", "/"), text)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        (zipped(a="1"), ".zip"),
        (zipped(word__document="<w>"), ".docx"),
        (zipped(xl__workbook="<w>"), ".xlsx"),
        (zipped(ppt__slides="<w>"), ".pptx"),
        (zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), ".ods"),
        (b"PK\3\4 cut off", ".zip"),
        (b"%PDF-1.7", ".pdf"),
        (b"PAR1....PAR1", ".parquet"),
        (b"{\\rtf1", ".rtf"),
        (b"a text", None),
        (b"", None),
    ],
)
def test_a_file_without_a_name_has_the_ending_that_its_content_tells(
    content: bytes, ending: str | None, tmp_path: Path
) -> None:
    for context, usual in ((content, ".bin"), (io.BytesIO(content), ".txt")):
        inputs = gather(context, tmp_path / "t.ipynb")
        assert inputs.paths == (tmp_path / f"t.context{ending or usual}",)
        assert inputs.paths[0].read_bytes() == content


def test_a_text_that_begins_as_a_packed_file_and_a_file_with_a_name_of_its_own_keep_their_endings(
    tmp_path: Path,
) -> None:
    named = io.BytesIO(b"%PDF-")
    named.name = "notes.txt"
    for context in (io.StringIO("%PDF-"), named):
        assert gather(context, tmp_path / "t.ipynb").paths == (tmp_path / "t.context.txt",)


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
        (pandas.DataFrame({"n": [1]}, index=pandas.Index(["x"], name="key")), ["key", "n"]),
        (pandas.DataFrame({"n": [1]}, index=pandas.RangeIndex(1, name="row")), ["row", "n"]),
        (pandas.DataFrame({"n": [1]}, index=["x"]), ["index", "n"]),
        (pandas.DataFrame({"n": [1]}, index=pandas.Index([5], name="n")), ["index_n", "n"]),
        (
            pandas.DataFrame({"n": [1]}, index=pandas.MultiIndex.from_tuples([("a", 1)])),
            ["level_0", "level_1", "n"],
        ),
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


def cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["me"] = [found]
    return found


def deep() -> Any:
    found: Any = 1
    for _ in range(5_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (object(), "cannot hold a value of the type object"),
        ({"rows": [1, lambda: 1]}, r"\['rows'\]\[1\]: JSON cannot hold a value of the type function"),
        ({"photo": b"\xff\xfe"}, r"\['photo'\]: these bytes are not text"),
        ({(1, 2): "a", "1,2": "b"}, r"\['1,2'\]: two keys are the same text"),
        ({1: "a", "1": "b"}, r"\['1'\]: two keys are the same text"),
        ({"rows": [{True: 1, "true": 2}]}, r"\['rows'\]\[0\]\['true'\]: two keys are the same text"),
        ([{None: 1, "null": 2}], "two keys are the same text"),
        (iter([{"a": 1}, {2.5: 1, "2.5": 2}]), "two keys are the same text"),
        ({numpy.int64(1): "a", 1.5: "b", "1": "c"}, "two keys are the same text"),
        ({frozenset({1}): "a"}, r"\[frozenset\(\{1\}\)\]: a frozenset cannot be a key"),
        ({"a": {"b": Path("x")}}, r"\['a'\]\['b'\]: a path among other values"),
        ({"a": [Path("x")]}, r"\['a'\]\[0\]: a path among other values"),
        ([PurePosixPath("x")], r"\[0\]: a path among other values"),
        ([Point(1, Path("x"))], r"\[0\]\['y'\]: a path among other values"),  # type: ignore[arg-type]
        ({"jan": Path("x"), "feb": Path("y")}, "mixes paths with other values"),
        ({"log": io.StringIO("a")}, r"\['log'\]: an open file among other values"),
        ([{"photo": [bytearray(b"\xff")]}], r"\[0\]\['photo'\]\[0\]: these bytes are not text"),
        ([ValueError("x")], "cannot hold a value of the type ValueError"),
        (cyclic(), r"\['me'\]\[0\]: it contains itself"),
        (deep(), "nested too deep"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "several columns named 'a'"),
        (pandas.DataFrame([[1, 2]], columns=[1, "1"]), "several columns named '1'"),
        (pyarrow.table([[1], [2]], names=["a", "a"]), "several columns named 'a'"),
        ([pandas.DataFrame([[1, 2]], columns=["a", "a"])], "several columns named 'a'"),
        ({"a": Path("x"), "b": 1}, "mixes paths with other values"),
        ([Path("x"), "y"], "mixes paths with other values"),
        (pandas.DataFrame({"ok": [1, 2, 3], "a": [1, "x", {}]}), "column 'a' .* holds dict and int and str"),
        (pandas.DataFrame({"ok": [1], "big": [2**70]}), "column 'big' of the table"),
        (pandas.DataFrame({"o": [object()], "p": [object()]}), "column 'o' .* Nor can 'p'"),
        (pandas.DataFrame({"s": pandas.Series(["\ud800"], dtype=object)}), "column 's' of the table"),
        (pandas.Series([1, "x"], name="s"), "column 's' of the table"),
        (polars.DataFrame({"ok": [1], "o": [object()]}), "column 'o' of the table"),
        (
            pyarrow.table({"ok": [1], "i": pyarrow.array([(1, 2, 3)], pyarrow.month_day_nano_interval())}),
            "column 'i' of the table",
        ),
        (polars.LazyFrame({"a": [1]}).select("b"), "unable to find column"),
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


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pandas.period_range("2025-01", periods=2, freq="M"), ["2025-01", "2025-02"]),
        (pandas.interval_range(0, 2), ["(0, 1]", "(1, 2]"]),
        (pandas.arrays.SparseArray([0, 1]), [0, 1]),
        ([None, uuid.UUID(int=1)], [None, "00000000-0000-0000-0000-000000000001"]),
        (
            [datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), None],
            ["2026-01-02T00:00:00", "2026-01-02T00:00:00+00:00", None],
        ),
    ],
)
def test_columns_that_parquet_has_no_type_for_are_what_they_stand_for(
    values: Any, found: list[Any], tmp_path: Path
) -> None:
    inputs = gather(pandas.DataFrame({"a": values}), tmp_path / "t.ipynb")
    assert pyarrow.parquet.read_table(inputs.paths[0]).to_pydict() == {"a": found}


async def test_an_async_generator_is_written_as_its_items_come(tmp_path: Path) -> None:
    loop, loops = asyncio.get_running_loop(), set()

    async def texts() -> AsyncIterator[Any]:
        for number in range(100):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0)
            yield number

    inputs = await in_thread(gather, texts(), tmp_path / "t.ipynb")
    assert json.loads(inputs.paths[0].read_text()) == list(range(100))
    assert loops == {loop}


async def test_what_an_async_generator_raises_is_told_as_an_error_of_who_gave_it(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(UsageError, match="KeyError: 'mine'"):
        await in_thread(gather, broken(), tmp_path / "t.ipynb")


async def test_an_async_generator_that_waits_for_ever_is_closed_when_the_question_is_stopped(
    tmp_path: Path,
) -> None:
    waits, closed = asyncio.Event(), []

    async def endless() -> AsyncIterator[str]:
        try:
            yield "a"
            waits.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    task = asyncio.create_task(in_thread(gather, endless(), tmp_path / "t.ipynb"))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_an_async_generator_without_end_stops_with_the_question(tmp_path: Path) -> None:
    many, closed = asyncio.Event(), []

    async def endless() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
                if number == 100:
                    many.set()
        finally:
            closed.append(True)

    task = asyncio.create_task(in_thread(gather, endless(), tmp_path / "t.ipynb"))
    await many.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]
