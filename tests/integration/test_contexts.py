"""What Python programs give as a context, as the kernel has it, and a replay again. Real containers."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pytest

from rlm_kernel import RLM, ScriptedModels
from tests.support.story import repl

pytestmark = [pytest.mark.usefixtures("kernel_image"), pytest.mark.xdist_group("contexts")]
TABLE = {"name": ["Ana", "Bo"], "n": [1, 2]}
ODD = {
    "when": pandas.date_range("2025", periods=2, tz="Europe/Berlin"),
    "kind": pandas.Categorical(["a", "b"]),
    "id": ["007", "8"],
    "count": pandas.array([1, None], dtype="Int64"),
    "share": [0.5, None],
    "tags": [["x"], []],
}
READ = "sorted(str(kind) for kind in __import__('pandas').read_parquet(list(files)[0]).dtypes)"
"""What code gets that takes a table of pandas for a file."""


@dataclasses.dataclass
class Point:
    x: int


def texts() -> Iterator[str]:
    yield from (f"text {number}" for number in range(1_000))


async def later() -> AsyncIterator[str]:
    for number in range(2):
        await asyncio.sleep(0)
        yield f"later {number}"


def named(source: Any, name: str) -> Any:
    source.name = name
    return source


def move(folder: Path) -> Path | None:
    """Move the trace with the file beside it; None for one with a folder, whose files are found where they
    were.
    """
    if (folder / "t.context").is_dir():
        return None
    moved = folder / "moved"
    moved.mkdir()
    for path in folder.glob("t.*"):
        path.rename(moved / path.name)
    return moved / "t.ipynb"


@pytest.mark.parametrize(
    ("context", "code", "found"),
    [
        (pandas.DataFrame(TABLE), "[dict(row) for row in records()]", [{"name": "Ana", "n": 1}, {"name": "Bo", "n": 2}]),
        ({"a": polars.DataFrame(TABLE), "b": pandas.DataFrame(TABLE)}, "sorted(files)", ["a.parquet", "b.parquet"]),
        (pandas.DataFrame(ODD).set_index("when"), READ, ["category", "datetime64[us, Europe/Berlin]", "float64", "float64", "object", "str"]),
        (pyarrow.table({"d": pyarrow.array(["a", "b"]).dictionary_encode(), "n": [{"x": [1]}, None]}), "[dict(row) for row in records()]", [{"d": "a", "n": '{"x": [1]}'}, {"d": "b", "n": ""}]),
        (polars.LazyFrame(TABLE), "records()[1]['n']", 2),
        (pandas.DataFrame({"p": pandas.period_range("2025-01", periods=1, freq="M")}), "records()[0]['p']", "2025-01"),
        (["a\ud800"], "[ord(one) for one in context[0]]", [97, 0xD800]),
        (texts(), "[len(context), context[-1]]", [1000, "text 999"]),
        (later(), "context", ["later 0", "later 1"]),
        ([Point(3)], "context", [{"x": 3}]),
        ("é and ü".encode("utf-16"), "context", "é and ü"),
        (named(io.BytesIO(b"a;b\n1;2\n"), "orders.csv"), "[dict(row) for row in records()]", [{"a": 1, "b": 2}]),
    ],
)  # fmt: skip
async def test_code_has_the_context_and_a_replay_has_it_again(
    context: Any, code: str, found: Any, isolated: Path, tmp_path: Path
) -> None:
    rlm = RLM(models=ScriptedModels([repl(f"FINAL({code})")]), options={"sandbox.memory": "512m"})
    result = await rlm.aask("What is there?", context, trace=tmp_path / "t.ipynb")
    assert (result.value if result.value is not None else result.answer) == found
    moved = move(tmp_path)
    if moved is not None:
        assert (await RLM().areplay(moved)).same


async def test_parquet_is_read_by_pandas_with_columns_index_and_a_clear_no_to_other_options(
    isolated: Path, tmp_path: Path
) -> None:
    frame = pandas.DataFrame(TABLE).set_index("name")
    frame.to_parquet(tmp_path / "named.parquet")
    frame.iloc[:0].to_parquet(tmp_path / "empty.parquet")
    code = """
import pandas as pd
frame = pd.read_parquet("named.parquet", engine="pyarrow")
with open("named.parquet", "rb") as file:
    same = pd.read_parquet(file, columns=["n"])
try:
    pd.read_parquet("named.parquet", filters=[("n", ">", 1)])
except TypeError as error:
    refused = str(error)
FINAL([frame.index.name, list(frame.index), int(same["n"].sum()), len(pd.read_parquet("empty.parquet")), refused[:35]])
"""
    rlm = RLM(models=ScriptedModels([repl(code + "# context")]), options={"sandbox.memory": "512m"})
    result = await rlm.aask("What?", [tmp_path / "named.parquet", tmp_path / "empty.parquet"])
    assert result.value == ["name", ["Ana", "Bo"], 3, 0, "read_parquet has no option filters "]
