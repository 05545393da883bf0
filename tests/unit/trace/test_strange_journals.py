"""A journal that a stranger may have written: it is checked as its notebook is, bounded, and never spoils a
notebook that can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.errors import TraceError
from rlm_kernel.trace import journal, packed
from rlm_kernel.trace.journal import journal_path
from rlm_kernel.trace.reader import fold_all, read_notebook, read_trace
from rlm_kernel.trace.schema import NotebookMeta
from rlm_kernel.trace.writable import Writable
from tests.support.growth import LIMIT, growth
from tests.support.trace import meta

NAME = "a" * 32


def cell(name: Any, text: str = "x", **ours: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"rlm": {"kind": "code", "turn": 1, "status": "running", **ours}},
        "source": "1",
        "execution_count": None,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": text}],
    }


def written(path: Path, cells: Iterable[Any], records: Iterable[Any]) -> Path:
    """A notebook that is being written, and its journal."""
    ours = Writable([]).meta(NotebookMeta.model_validate(meta())) | {"journal": NAME, "journaled": 1}
    path.write_text(
        json.dumps({"cells": list(cells), "metadata": {"rlm": ours}, "nbformat": 4, "nbformat_minor": 5})
    )
    lines = (
        record if isinstance(record, str) else json.dumps({"n": number, **record})
        for number, record in enumerate(records, 2)
    )
    journal_path(path).write_text("".join(f"{line}\n" for line in (json.dumps({"journal": NAME}), *lines)))
    return path


def progress(keep: Any, more: Any = "", rest: Any = (), calls: Any = ()) -> dict[str, Any]:
    return {
        "progress": {
            "cell": "c",
            "seconds": 1,
            "calls": calls,
            "outputs": {"keep": keep, "more": more, "rest": list(rest)},
        }
    }


ODD = {
    "a cell without a form": {
        "cells": [{"cell": {"id": "c", "cell_type": "code", "metadata": {}, "source": 5, "outputs": 7}}]
    },
    "a cell with an odd tag": {"cells": [{"cell": cell("c") | {"metadata": {"tags": 5}}}]},
    "metadata of another form": {"meta": {"session": 5, "question": ["x"]}},
    "a file that is none": {"files": {"keep": 1 << 70, "rest": [5]}},
    "calls that are none": progress(1, calls=[5, {"a": 1}]),
    "an output that is none": progress(0, rest=[{"output_type": 5}]),
    "an endless time": {"progress": {"cell": "c", "seconds": 1e300, "calls": []}},
}


@pytest.mark.parametrize("name", ODD)
def test_a_journal_that_spoils_its_notebook_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / "t.ipynb", [cell("c")], [ODD[name]])
    before = path.read_bytes()
    with pytest.raises(
        TraceError, match=r"cannot be completed from its journal \.t\.ipynb\.log: .*"
    ) as refused:
        read_trace(path)
    assert refused.value.hint
    assert fold_all(tmp_path) == []
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [".t.ipynb.log", "t.ipynb"]
    journal_path(path).unlink()
    assert [found.id for found in read_trace(path).cells] == ["c"], (
        "the notebook as it was last written whole"
    )


IGNORED: dict[str, list[Any]] = {
    "no number": ['{"cells": []}'],
    "an id that is a list": [{"cells": [{"cell": cell("d") | {"id": ["x"]}}]}],
    "an id that is a number": [{"cells": [{"cell": cell(7)}]}],
    "a deep value": ['{"n": 2, "meta": {"sandbox": ' + "[" * 900 + "]" * 900 + "}}"],
    "a deep cell": [
        json.dumps({"n": 2, "cells": [{"cell": cell("c", deep="D")}]}).replace('"D"', "[" * 900 + "]" * 900)
    ],
    "a text behind no output": [progress(0, more="y")],
    "behind a list": [{"cells": [{"cell": cell("d"), "behind": ["c"]}]}],
    "a cell of another name": [{"progress": {"cell": "other", "seconds": 1}}],
}


@pytest.mark.parametrize("name", IGNORED)
def test_a_record_that_does_not_fit_ends_the_journal(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "t.ipynb", [cell("c")], [*IGNORED[name], {"cells": [{"cell": cell("later")}]}])
    assert [found.id for found in read_trace(path).cells] == ["c"]


def test_cells_go_where_their_records_say_whatever_these_say(tmp_path: Path) -> None:
    moves = [("d", "d"), ("c", "d"), ("d", "c"), ("c", "gone"), ("e", "c"), ("c", "e"), ("c", "c")]
    path = written(
        tmp_path / "t.ipynb",
        [cell("c")],
        [{"cells": [{"cell": cell(name), "behind": behind}]} for name, behind in moves],
    )
    assert [found.id for found in read_notebook(path).cells] == ["e", "c", "d"]


def test_outputs_and_texts_are_put_together_as_they_came(tmp_path: Path) -> None:
    more = {"output_type": "stream", "name": "stderr", "text": "!"}
    steps = [
        progress(1, "a"),
        progress(1, "b", [more]),
        progress(2, "c"),
        progress(1, "d"),
        progress(1, "e"),
        progress(-5, "", [more]),
    ]
    texts = [
        [
            output.text
            for output in read_notebook(written(tmp_path / "t.ipynb", [cell("c")], steps[:number]))
            .cells[0]
            .outputs
        ]
        for number in range(1, 7)
    ]
    assert texts == [["xa"], ["xab", "!"], ["xab", "!c"], ["xabd"], ["xabde"], ["!"]]


@pytest.mark.parametrize("where", ["notebook", "cells", "calls", "journal", "records"])
def test_values_are_bounded_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(packed, "MAX_ALL", 10_000)
    path = written(
        tmp_path / "t.ipynb",
        [cell("c")],
        [{"meta": {"x": [[]] * 4_000}}] * 2 if where == "journal" else [{}] * 11_000,
    )
    text, many = path.read_text(), "{}," * 11_000 + "{}"
    if where == "notebook":
        path.write_text(
            text.replace(
                '"nbformat":', "".join(f'"a{one}": [{"[]," * 1_000}1], ' for one in range(6)) + '"nbformat":'
            )
        )
    elif where == "cells":
        path.write_text(text.replace('"cells": [', f'"cells": [{many},'))
    elif where == "calls":
        path.write_text(text.replace('"turn": 1', f'"turn": 1, "calls": [{many}]'))
    with pytest.raises(TraceError, match="more than 10,000 values"):
        read_trace(path)


def test_text_that_looks_like_values_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ALL", 1_000)
    path = written(
        tmp_path / "t.ipynb",
        [cell("c", '[{,"\\' * 10_000)],
        [{"cells": [{"cell": cell("d", ",,," * 10_000)}]}],
    )
    assert len(read_trace(path).cells) == 2


def test_no_more_records_than_the_bound_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_RECORDS", 3)
    path = written(
        tmp_path / "t.ipynb", [], [{"cells": [{"cell": cell(f"c{number}")}]} for number in range(5)]
    )
    assert len(read_trace(path).cells) == 3


GROWING: dict[str, Callable[[int], tuple[list[Any], Iterable[Any]]]] = {
    "a letter more": lambda number: (
        [cell("c", "x" * 1_000 * number)],
        (progress(1, "y") for _ in range(number)),
    ),
    "an output more": lambda number: (
        [cell("c")],
        (progress(one + 1, rest=cell("c")["outputs"]) for one in range(number)),
    ),
    "a file more": lambda number: (
        [],
        ({"files": {"keep": one, "rest": [{"path": f"/x{one}", "size": 1}]}} for one in range(number)),
    ),
    "a cell that moves": lambda number: (
        [cell(f"c{one}") for one in range(number)],
        (
            {"cells": [{"cell": cell(f"c{one}"), "behind": f"c{(one * 7 + 1) % number}"}]}
            for one in range(number)
        ),
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_records_are_applied_in_a_time_that_grows_with_their_number(tmp_path: Path, name: str) -> None:
    assert (
        growth(lambda number: written(tmp_path / "t.ipynb", *GROWING[name](number)), read_notebook, 100)
        <= LIMIT
    )


def test_the_journal_of_a_notebook_that_a_link_leads_to_is_beside_that(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = written(tmp_path / "real" / "t.ipynb", [cell("c")], [{"cells": [{"cell": cell("d")}]}])
    (tmp_path / "link.ipynb").symlink_to(path)
    assert [found.id for found in read_trace(tmp_path / "link.ipynb").cells] == ["c", "d"]
    assert (tmp_path / "link.ipynb").is_symlink()
    assert os.listdir(tmp_path / "real") == ["t.ipynb"]


def test_what_is_odd_in_a_folder_keeps_no_trace_from_being_completed(tmp_path: Path) -> None:
    good = written(tmp_path / "good.ipynb", [cell("c")], [{"cells": [{"cell": cell("d")}]}])
    other = written(tmp_path.parent / f"{tmp_path.name}-other.ipynb", [cell("c")], [{}])
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "again").symlink_to(tmp_path)
    (folder / "zero.ipynb").symlink_to("/dev/zero")
    (folder / "out.ipynb").symlink_to(other)
    os.mkfifo(folder / "pipe.ipynb")
    for name in ("zero", "out", "pipe", "gone"):
        (folder / f".{name}.ipynb.log").write_bytes(journal_path(good).read_bytes())
    os.mkfifo(folder / ".piped.ipynb.log")
    (folder / ".log").touch()
    (folder / ".ipynb.log").touch()
    (folder / os.fsdecode(b".\xff.ipynb.log")).touch()
    levels = 1_200  # deeper than a path may be long
    with within(folder):
        for _ in range(levels):
            os.mkdir("deep")
            os.chdir("deep")
    try:
        assert fold_all(tmp_path) == [good]
    finally:
        with within(folder):
            for _ in range(levels):
                os.chdir("deep")
            for _ in range(levels):
                os.chdir("..")
                os.rmdir("deep")
    assert journal_path(other).exists()


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    here = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
