"""A trace from a stranger: it is opened, or refused by name; nothing that it names is opened but plain files, each once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine.protocols import HostCall
from rlm_kernel.errors import RLMError, TraceError, UsageError
from rlm_kernel.session import children
from rlm_kernel.session.children import Tree, child_traces, spent_on_lost
from rlm_kernel.session.conversation import conversation, full_history, recorded, turns_of
from rlm_kernel.session.opened import Opened, files_of
from rlm_kernel.session.replay import cell_index, settings_of
from rlm_kernel.session.tracefiles import check_files
from rlm_kernel.trace import packed, plain
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.packed import Packed, parse
from rlm_kernel.trace.reader import TraceFile, read_notebook, read_trace
from rlm_kernel.trace.recording import TraceRecording
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.taken import before_last_question, ended
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, call, meta, result, tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "t.ipynb"
    tell(NotebookWriter(target, meta(files=[FileMeta(path=str(tmp_path / "a.txt"), size=3)]), []), STORY)
    return target


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook))


def cell_of(notebook: Any, cell_id: str) -> Any:
    return next(cell for cell in notebook["cells"] if cell.get("id") == cell_id)


def rlm_of(notebook: Any, cell_id: str) -> Any:
    return cell_of(notebook, cell_id)["metadata"]["rlm"]


def first_call(notebook: Any) -> Any:
    return rlm_of(notebook, "turn-01-a")["calls"][0]


async def _asked(trace: TraceFile) -> None:
    recording = TraceRecording(trace.cells, waiting=False)
    for cell in trace.code_cells:
        for number, one in enumerate(cell.meta.calls if cell.meta else ()):
            await recording.find(HostCall(cell.id, one.id, {}, number), one.prompt_digest)


def use(path: Path) -> None:
    """Everything that commands and Jupyter do with a trace before its first cell runs, and with what its cells gave."""
    trace = read_trace(path)
    trace.spent()
    conversation(trace)
    turns_of(trace.cells, recorded(trace.cells), 1000)
    full_history(trace)
    asyncio.run(_asked(trace))
    child_traces(trace)
    spent_on_lost(trace)
    check_files(trace)
    settings_of(trace, None, {}, models=False)
    cell_index(trace, trace.cells[0].id) if trace.cells else None
    for cell in trace.code_cells:
        compare(Ran(cell.outputs, cell.started, cell.meta.seconds if cell.meta else None), Ran([], None, None))
    before_last_question(trace.node.cells)
    NotebookWriter(path.with_name("again.ipynb"), trace.meta, [], ended(trace.node.cells)).note("more")
    read_trace(path.with_name("again.ipynb"))
    opened = Opened(path)
    node, found, _ = opened.read()
    files_of(opened, node, found, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: first_call(n).update(seconds=1e300), "cell turn-01-a does not hold: calls.0.seconds: Input should be less than"),
        (lambda n: first_call(n).update(seconds=float("nan")), "calls.0.seconds: Input should be a finite number"),
        (lambda n: first_call(n).update(started="2026-01-02T03:04:05"), "calls.0.started: Input should have timezone info"),
        (lambda n: first_call(n).update(started="9999-12-31T23:59:59Z"), "calls.0.started: Input should be less than 9000"),
        (lambda n: first_call(n).update(started="99999-01-01T00:00:00Z"), "calls.0.started: Input should be a valid datetime"),
        (lambda n: first_call(n).update(prompt_tokens=10**400), "calls.0.prompt_tokens: "),
        (lambda n: first_call(n).update(nth=-1), "calls.0.nth"),
        (lambda n: first_call(n).update(trace="a\0b"), "calls.0.trace: String should match pattern"),
        (lambda n: first_call(n).update(answer=json.loads("[" * 99 + "]" * 99)), "nested deeper than 100 levels"),
        (lambda n: n["metadata"]["rlm"]["files"][0].update(path="/data/a\0.txt"), "files.0.path: Value error, a path of at most"),
        (lambda n: n["metadata"]["rlm"].update(created="2026-01-02T03:04:05"), "created: Input should have timezone info"),
        (lambda n: n["metadata"].update(rlm=[]), "it has no metadata.rlm"),
        (lambda n: cell_of(n, "turn-01-a")["metadata"].update(rlm=[]), "cell turn-01-a: metadata.rlm: Input should be a valid dict"),
        (lambda n: cell_of(n, "turn-01-a")["metadata"].update(tags=5), "its cell turn-01-a: metadata.tags: Input should be a valid list"),
        (lambda n: cell_of(n, "turn-01-a").update(source=[1, 2]), "its cell turn-01-a: source: Input should be a text, or a list of texts"),
        (lambda n: cell_of(n, "turn-01-a").update(outputs={}), "its cell turn-01-a: outputs: Input should be a valid list"),
        (lambda n: cell_of(n, "turn-01-a").update(outputs=[{"output_type": "odd"}]), "cell turn-01-a: outputs.0: Input tag 'odd'"),
        (lambda n: cell_of(n, "turn-01-a").update(execution_count=10**30), "its cell turn-01-a: execution_count"),
        (lambda n: cell_of(n, "turn-01-a").update(cell_type="heading"), "its cell turn-01-a: cell_type: Input should be 'code'"),
        (lambda n: n.update(cells={}), "cells: Input should be a valid list"),
        (lambda n: n.update(nbformat=99), "its nbformat is 99.5"),
        (lambda n: n.update(nbformat="4"), "its nbformat is 4.5"),
        (lambda n: n.update(nbformat=[]), r"its nbformat is \[\].5"),
        (lambda n: n["metadata"].update(more=json.loads("[" * 900 + "]" * 900)), "nested deeper than 100 levels"),
    ],
)
def test_odd_values_are_refused_with_their_place_and_what_was_expected(path: Path, change: Callable[[Any], Any], said: str) -> None:
    edit(path, change)
    with pytest.raises(TraceError, match=said):
        read_trace(path)


def test_what_can_be_read_is_read(path: Path) -> None:
    def change(notebook: Any) -> None:
        cell_of(notebook, "turn-01-a")["metadata"]["execution"] = {"iopub.execute_input": "9999-12-31T23:59:59"}
        cell_of(notebook, "turn-01-a")["metadata"]["scores"] = [float("nan"), float("inf")]
        cell_of(notebook, "turn-01-b")["source"] = "'\ud800'"
        cell_of(notebook, "turn-01-b")["id"] = "turn-01-a"
        cell_of(notebook, "turn-02-a").pop("id")
        notebook.update(nbformat_minor=4, odd=1)

    edit(path, change)
    use(path)
    assert "'\N{REPLACEMENT CHARACTER}'" in [cell.source for cell in read_trace(path).cells]


ODD = (
    *(None, True, -1, 0.5, 1e300, float("nan"), float("inf"), 10**30, 10**400, "", "a\0b", "\ud800", "../" * 40, "/etc/passwd", "x" * 5000),
    *("2026-01-02T03:04:05", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", [], {}, [1], {"a": [None]}, [[]], ["\0"]),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of JSON data."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@pytest.mark.parametrize("part", range(4))
def test_whatever_stands_anywhere_in_a_trace_no_reader_of_it_fails_but_by_name(path: Path, part: int) -> None:
    edit(path, lambda notebook: notebook.update(cells=[cell_of(notebook, name) for name in ("setup", "turn-01", "turn-01-a", "turn-02-a")]))
    original = path.read_text()
    for number in range(part, len(list(_places(json.loads(original)))), 4):
        for odd in ODD:
            notebook = json.loads(original)
            container, key = list(_places(notebook))[number]
            container[key] = odd
            path.write_text(json.dumps(notebook))
            try:
                use(path)
            except RLMError as error:
                assert error.message
            except Exception as error:
                raise AssertionError(f"{key} = {odd!r:.100}") from error
