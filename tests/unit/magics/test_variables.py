"""Variables of a notebook as the context of a question."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from rlm_kernel.errors import UsageError
from rlm_kernel.magics import variables
from rlm_kernel.magics.variables import Files, as_context, large_ones, look_up, size_of


def looked_up(names: list[str], **user: Any) -> dict[str, Any]:
    return look_up(names, lambda name: eval(name, {}, user), user)


def test_names_with_dots_and_indexes_are_looked_up() -> None:
    assert looked_up(["a", "b[0]", "c['x y'][:2]"], a=1, b=["s"], c={"x y": "abc"}) == {
        "a": 1,
        "b[0]": "s",
        "c['x y'][:2]": "ab",
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dff", "There is no variable dff in this notebook.\nDid you mean df?"),
        ("zzz", "There is no variable zzz in this notebook.\nRun the cell that makes it."),
        ("df['b']", "df['b'] cannot be read: KeyError: 'b'"),
        ("rows[9]", "rows[9] cannot be read: IndexError"),
        ("df.nothing", "cannot be read: AttributeError"),
        ("open('x')", "is not the name of a variable"),
        ("3", "is not the name of a variable"),
        ("math", "math is a module"),
        ("print", "print is a function"),
        ("Path", "Path is a class"),
        ("method", "method is a function"),
        ("nothing", "nothing is None"),
        ("wrong", "cannot be read: RuntimeError: it is broken"),
    ],
)
def test_what_cannot_be_a_context_is_told_in_a_line(name: str, says: str) -> None:
    class Wrong:
        @property
        def it(self) -> str:
            raise RuntimeError("it is\nbroken")

    user = {
        "df": {"a": 1},
        "rows": [1],
        "math": math,
        "print": print,
        "Path": Path,
        "method": [].append,
        "nothing": None,
        "w": Wrong(),
    }
    with pytest.raises(UsageError) as error:
        looked_up([name if name != "wrong" else "w.it"], **user)
    assert says in str(error.value)


def test_a_text_that_is_the_path_of_a_file_is_not_taken_for_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    with pytest.raises(UsageError, match=r"place = Path\(place\)"):
        looked_up(["place"], place=str(tmp_path / "a.log"))
    for text in ("a.log", "", "x" * 5000, "a\0b", f"{tmp_path}/a.log\nand more", str(tmp_path)):
        assert looked_up(["place"], place=text) == {"place": text}


def test_one_value_is_the_context_itself(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    assert as_context({"df": frame}, tmp_path) is frame
    assert as_context({"text": ""}, tmp_path) == ""
    assert as_context({}, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_several_plain_values_are_a_dict_by_name(tmp_path: Path) -> None:
    assert as_context({"a": "x", "b[0]": [1, 2]}, tmp_path) == {"a": "x", "b[0]": [1, 2]}


def test_tables_and_paths_among_others_are_files_named_after_their_variables(tmp_path: Path) -> None:
    @dataclass
    class Run:
        name: str

    (tmp_path / "a.log").write_text("x")
    values = {
        "df": pd.DataFrame({"a": [1, 2]}),
        "other['x y']": pl.DataFrame({"b": ["é"]}),
        "text": "line\r\nnext \ud800",
        "conf": {"k": 1},
        "run": Run("n"),
        "raw": b"\0\1",
        "file": io.StringIO("read"),
        "log": tmp_path / "a.log",
        "logs": [tmp_path / "a.log"],
    }
    paths = as_context(values, tmp_path / "made")
    assert [path.name for path in paths] == [
        "df.parquet",
        "other_x_y.parquet",
        "text.txt",
        "conf.json",
        "run.json",
        "raw.bin",
        "file.txt",
        "a.log",
        "a.log",
    ]
    assert pd.read_parquet(paths[0])["a"].tolist() == [1, 2]
    assert paths[2].read_bytes() == "line\r\nnext \ud800".encode("utf-8", "surrogatepass")
    assert json.loads(paths[4].read_text()) == {"name": "n"}
    assert {path.name for path in (tmp_path / "made").iterdir()} == {path.name for path in paths[:7]}


def test_a_dict_of_tables_is_a_file_for_each(tmp_path: Path) -> None:
    tables = {"may": pd.DataFrame({"a": [1]}), "june": pd.DataFrame({"a": [2]})}
    paths = Files(tmp_path).add({"sales": tables, "note": "x"})
    assert [path.name for path in paths] == ["sales-may.parquet", "sales-june.parquet", "note.txt"]


def test_what_is_the_same_is_given_once_and_what_has_changed_under_a_new_name(tmp_path: Path) -> None:
    files = Files(tmp_path)
    rows = [1, 2]
    first = files.add({"rows": rows, "text": "a"})
    assert files.add({"rows": rows, "text": "a"}) == []
    rows.append(3)
    assert [path.name for path in files.add({"rows": rows, "text": "a"})] == ["rows-2.json"]
    assert json.loads(first[0].read_text()) == [1, 2], "the trace has it as it was"
    files.forget(["text"])
    assert [path.name for path in files.add({"rows": rows, "text": "a"})] == ["text-2.txt"]


def test_what_no_file_can_hold_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be passed to the kernel"):
        as_context({"a": object(), "b": "x"}, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


def test_a_large_value_is_told_of_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "LARGE", 1000)
    frame = pd.DataFrame({"a": range(1000)})
    (told,) = large_ones({"df": frame, "small": "x"})
    assert told.startswith("df (DataFrame) has about 0.0 GB")
    assert size_of(frame) > 8000
    assert size_of(pl.DataFrame({"a": [1] * 100})) >= 800

    class Odd:
        nbytes = "many"

    assert size_of(Odd()) == 0
