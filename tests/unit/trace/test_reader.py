"""A trace is read back as it was written, cut off or edited; one that cannot be used is refused by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.protocols import Usage
from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.session.conversation import conversation, recorded, turns_of
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tell(NotebookWriter(tmp_path / "t.ipynb", meta(), []), STORY)
    return tmp_path / "t.ipynb"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook))


def cell_of(notebook: Any, cell_id: str) -> Any:
    return next(cell for cell in notebook["cells"] if cell["id"] == cell_id)


def test_a_trace_is_read_as_it_was_written(path: Path) -> None:
    trace = read_trace(path)
    assert [cell.id for cell in trace.code_cells] == [
        "parameters",
        "setup",
        "turn-01-a",
        "turn-01-b",
        "turn-02-a",
    ]
    by_id = {cell.id: cell for cell in trace.cells}
    assert (by_id["turn-01"].kind, by_id["turn-01"].turn) == ("model", 1)
    assert by_id["turn-01-b"].tags == ["raises-exception"]
    note = by_id["note-01-1"].meta
    assert note is not None
    assert note.text == "Write code."
    assert not any(cell.edited or cell.never_run for cell in trace.cells)
    assert by_id["turn-01-a"].started is not None


def test_what_a_run_spent_is_its_own_account_or_that_of_its_cells(path: Path) -> None:
    whole = read_trace(path).spent()
    assert (whole.turns, whole.calls, whole.cost) == (2, 2, 1.0)

    def cut(notebook: Any) -> None:
        notebook["metadata"]["rlm"].pop("totals")

    edit(path, cut)
    counted = read_trace(path).spent()
    assert (counted.turns, counted.calls) == (2, 2)
    assert (counted.root_usage, counted.sub_usage) == (Usage(100, 20, 5), Usage(20, 4, 2))
    assert counted.cost is None, "one reply had no price"


def test_a_cost_that_is_no_number_is_not_known(path: Path) -> None:
    edit(path, lambda notebook: notebook["metadata"]["rlm"]["totals"].update(cost=float("nan")))
    assert read_trace(path).spent().cost is None


def test_edits_of_a_person_are_seen(path: Path) -> None:
    def change(notebook: Any) -> None:
        cell_of(notebook, "turn-01-a")["source"] = "x + 1"
        blank = {
            "cell_type": "code",
            "id": "abc",
            "metadata": {"trusted": True},
            "source": "1",
            "outputs": [],
            "execution_count": None,
        }
        notebook["cells"].insert(4, blank)
        notebook["metadata"]["widgets"] = {}

    edit(path, change)
    cells = {cell.id: cell for cell in read_trace(path).cells}
    assert cells["turn-01-a"].edited
    assert not cells["turn-01-b"].edited
    assert (cells["abc"].kind, cells["abc"].never_run, cells["abc"].turn) == ("person", True, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: n["metadata"].pop("rlm"), "not a trace of rlm_kernel"),
        (lambda n: n["metadata"]["rlm"].update(version=2, rlm_version="9.9"), "written by rlm_kernel 9.9"),
        (lambda n: n["metadata"]["rlm"].pop("question"), "question: Field required"),
        (lambda n: cell_of(n, "turn-01-a")["metadata"]["rlm"].update(status="odd"), "cell turn-01-a"),
        (
            lambda n: cell_of(n, "turn-01-a").update(id="../../../home/x"),
            r"'\.\./\.\./\.\./home/x' is not a valid id for its cell 5",
        ),
        (
            lambda n: n["metadata"]["rlm"]["totals"].update(cost=-1000.0),
            "totals.cost: Input should be greater than or equal to 0",
        ),
        (
            lambda n: n["metadata"]["rlm"]["totals"].update(calls=-1000),
            "totals.calls: Input should be greater than or equal to 0",
        ),
        (
            lambda n: n["metadata"]["rlm"]["totals"].update(seconds=float("nan")),
            "totals.seconds: Input should be a finite",
        ),
        (
            lambda n: cell_of(n, "turn-01")["metadata"]["rlm"].update(cost=-1e9),
            "cell turn-01 is not valid: cost",
        ),
        (
            lambda n: cell_of(n, "turn-01-a")["metadata"]["rlm"]["calls"][0].update(prompt_tokens=-1),
            "calls.0.prompt_tokens",
        ),
        (lambda n: n.pop("cells"), "not a readable notebook"),
        (lambda n: n.update(nbformat=99), "not a readable notebook"),
        (lambda n: n["cells"].append("x"), "not a readable notebook"),
    ],
)
def test_a_damaged_trace_is_refused_with_the_reason(
    path: Path, change: Callable[[Any], Any], said: str
) -> None:
    edit(path, change)
    with pytest.raises(TraceError, match=said):
        read_trace(path)


def test_a_copied_cell_gets_an_id_of_its_own(path: Path) -> None:
    edit(path, lambda notebook: notebook["cells"].append(cell_of(notebook, "turn-01-a")))
    ids = [cell.id for cell in read_trace(path).cells]
    assert len(set(ids)) == len(ids)
    assert ids.count("turn-01-a") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "nothing", '{"cells": 3}', "\0"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.ipynb").write_text(text)
    with pytest.raises(TraceError):
        read_trace(tmp_path / "x.ipynb")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(TraceError):
        read_trace(tmp_path / "x.ipynb")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.999])
def test_a_truncated_trace_is_refused(path: Path, cut: float) -> None:
    text = path.read_text()
    path.write_text(text[: int(len(text) * cut)])
    with pytest.raises(TraceError, match="incomplete"):
        read_trace(path)


def test_no_trace_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no trace"):
        read_trace(tmp_path / "none.ipynb")
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_trace(path: Path, encoding: str) -> None:
    cells = [cell.id for cell in read_trace(path).cells]
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert [cell.id for cell in read_trace(path).cells] == cells


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of JSON data, but those within our own metadata."""
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        if key != "rlm":
            yield from _places(value[key])


def test_whatever_another_program_does_to_a_trace_it_is_read_or_refused_by_name(path: Path) -> None:
    original = path.read_text()
    for number in range(len(list(_places(json.loads(original))))):
        for change in (None, [], {}, "text", -1, "gone"):
            notebook = json.loads(original)
            container, key = list(_places(notebook))[number]
            if change == "gone":
                del container[key]
            else:
                container[key] = change
            path.write_text(json.dumps(notebook))
            with contextlib.suppress(TraceError):
                trace = read_trace(path)
                trace.spent()
                conversation(trace)
                turns_of(trace.cells, recorded(trace.cells))
