"""A trace from a stranger: it is opened, or refused by name; nothing that it names is opened but plain files,
each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rlm_kernel.engine.events import CellFinished, Noted
from rlm_kernel.engine.protocols import HostCall
from rlm_kernel.errors import RLMError, TraceError, UsageError
from rlm_kernel.session import tree
from rlm_kernel.session.conversation import conversation, full_history, recorded, turns_of
from rlm_kernel.session.jupyter.notebook import Opened, files_of
from rlm_kernel.session.replaying import cell_index, settings_of
from rlm_kernel.session.tracefiles import check_files
from rlm_kernel.session.tree import Tree, child_traces, spent_on_lost
from rlm_kernel.session.verify import verify
from rlm_kernel.trace import packed
from rlm_kernel.trace.compare import Ran, compare
from rlm_kernel.trace.packed import Packed, parse
from rlm_kernel.trace.reader import TraceFile, read_trace
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
    """Everything that commands and Jupyter do with a trace before its first cell runs, and with what its
    cells gave.
    """
    trace = read_trace(path)
    trace.spent()
    conversation(trace)
    turns_of(trace.cells, recorded(trace.cells))
    full_history(trace)
    asyncio.run(_asked(trace))
    child_traces(trace)
    spent_on_lost(trace)
    check_files(trace)
    settings_of(trace, None, {}, models=False)
    cell_index(trace, trace.cells[0].id) if trace.cells else None
    for cell in trace.code_cells:
        compare(
            Ran(cell.outputs, cell.started, cell.meta.seconds if cell.meta else None), Ran([], None, None)
        )
    before_last_question(trace.node.cells)
    NotebookWriter(path.with_name("again.ipynb"), trace.meta, [], ended(trace.node.cells))(Noted("more"))
    read_trace(path.with_name("again.ipynb"))
    opened = Opened(path)
    node, found, _ = opened.read()
    files_of(opened, node, found, [])
    with contextlib.suppress(UsageError):
        asyncio.run(verify(path, cells=False))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda n: first_call(n).update(seconds=1e300),
            "cell turn-01-a is not valid: calls.0.seconds: Input should be less than",
        ),
        (
            lambda n: first_call(n).update(seconds=float("nan")),
            "calls.0.seconds: Input should be a finite number",
        ),
        (
            lambda n: first_call(n).update(started="2026-01-02T03:04:05"),
            "calls.0.started: Input should have timezone info",
        ),
        (
            lambda n: first_call(n).update(started="9999-12-31T23:59:59Z"),
            "calls.0.started: Input should be less than 9000",
        ),
        (
            lambda n: first_call(n).update(started="99999-01-01T00:00:00Z"),
            "calls.0.started: Input should be a valid datetime",
        ),
        (lambda n: first_call(n).update(prompt_tokens=10**400), "calls.0.prompt_tokens: "),
        (lambda n: first_call(n).update(nth=-1), "calls.0.nth"),
        (lambda n: first_call(n).update(trace="a\0b"), "calls.0.trace: String should match pattern"),
        (
            lambda n: first_call(n).update(answer=json.loads("[" * 99 + "]" * 99)),
            "nested deeper than 100 levels",
        ),
        (
            lambda n: n["metadata"]["rlm"]["files"][0].update(path="/data/a\0.txt"),
            "files.0.path: Value error, a path of at most",
        ),
        (
            lambda n: n["metadata"]["rlm"].update(created="2026-01-02T03:04:05"),
            "created: Input should have timezone info",
        ),
        (lambda n: n["metadata"].update(rlm=[]), "it has no metadata.rlm"),
        (
            lambda n: cell_of(n, "turn-01-a")["metadata"].update(rlm=[]),
            "cell turn-01-a: metadata.rlm: Input should be a valid dict",
        ),
        (
            lambda n: cell_of(n, "turn-01-a")["metadata"].update(tags=5),
            "its cell turn-01-a: metadata.tags: Input should be a valid list",
        ),
        (
            lambda n: cell_of(n, "turn-01-a").update(source=[1, 2]),
            "its cell turn-01-a: source: Input should be a text, or a list of texts",
        ),
        (
            lambda n: cell_of(n, "turn-01-a").update(outputs={}),
            "its cell turn-01-a: outputs: Input should be a valid list",
        ),
        (
            lambda n: cell_of(n, "turn-01-a").update(outputs=[{"output_type": "odd"}]),
            "cell turn-01-a: outputs.0: Input tag 'odd'",
        ),
        (
            lambda n: cell_of(n, "turn-01-a").update(execution_count=10**30),
            "its cell turn-01-a: execution_count",
        ),
        (
            lambda n: cell_of(n, "turn-01-a").update(cell_type="heading"),
            "its cell turn-01-a: cell_type: Input should be 'code'",
        ),
        (lambda n: n.update(cells={}), "cells: Input should be a valid list"),
        (lambda n: n.update(nbformat=99), "its nbformat is 99.5"),
        (lambda n: n.update(nbformat="4"), "its nbformat is 4.5"),
        (lambda n: n.update(nbformat=[]), r"its nbformat is \[\].5"),
        (
            lambda n: n["metadata"].update(more=json.loads("[" * 900 + "]" * 900)),
            "nested deeper than 100 levels",
        ),
    ],
)
def test_odd_values_are_refused_with_their_place_and_what_was_expected(
    path: Path, change: Callable[[Any], Any], said: str
) -> None:
    edit(path, change)
    with pytest.raises(TraceError, match=said):
        read_trace(path)


def test_what_can_be_read_is_read(path: Path) -> None:
    def change(notebook: Any) -> None:
        cell_of(notebook, "turn-01-a")["metadata"]["execution"] = {
            "iopub.execute_input": "9999-12-31T23:59:59"
        }
        cell_of(notebook, "turn-01-a")["metadata"]["scores"] = [float("nan"), float("inf")]
        cell_of(notebook, "turn-01-b")["source"] = "'\ud800'"
        cell_of(notebook, "turn-01-b")["id"] = "turn-01-a"
        cell_of(notebook, "turn-02-a").pop("id")
        notebook.update(nbformat_minor=4, odd=1)

    edit(path, change)
    use(path)
    assert "'\N{REPLACEMENT CHARACTER}'" in [cell.source for cell in read_trace(path).cells]


ODD = (
    *(
        None,
        True,
        -1,
        0.5,
        1e300,
        float("nan"),
        float("inf"),
        10**30,
        10**400,
        "",
        "a\0b",
        "\ud800",
        "../" * 40,
        "/etc/passwd",
        "x" * 5000,
    ),
    *(
        "2026-01-02T03:04:05",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        [],
        {},
        [1],
        {"a": [None]},
        [[]],
        ["\0"],
    ),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of JSON data."""
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(value[key])


def test_whatever_stands_anywhere_in_a_trace_no_reader_of_it_fails_but_by_name(path: Path) -> None:
    edit(
        path,
        lambda notebook: notebook.update(
            cells=[cell_of(notebook, name) for name in ("setup", "turn-01", "turn-01-a", "turn-02-a")]
        ),
    )
    original = path.read_text()
    places = range(len(list(_places(json.loads(original)))))
    for number, odd in Random(1).sample(list(itertools.product(places, ODD)), 120):
        notebook = json.loads(original)
        container, key = list(_places(notebook))[number]
        container[key] = odd
        path.write_text(json.dumps(notebook))
        try:
            with contextlib.suppress(RLMError):
                use(path)
        except Exception as error:
            raise AssertionError(f"{key} = {odd!r:.100}") from error


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.ipynb"))
        for name in ("pipe.ipynb", "socket.ipynb"):
            with pytest.raises(UsageError, match="cannot be read"):
                read_trace(tmp_path / name)
    for name, device in (
        ("zero.ipynb", "/dev/zero"),
        ("tty.ipynb", "/dev/tty"),
        ("kmsg.ipynb", "/proc/kmsg"),
    ):
        (tmp_path / name).symlink_to(device)
        with pytest.raises((UsageError, TraceError), match=r"cannot be read|no notebook"):
            read_trace(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.ipynb").open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(UsageError, match="42,949,672,960 bytes, and 1,073,741,824 are read at most"):
        read_trace(tmp_path / "x.ipynb")


def test_a_trace_that_the_user_names_by_a_link_is_read_and_one_that_a_trace_names_is_not(path: Path) -> None:
    link = path.with_name("link.ipynb")
    link.symlink_to(path)
    assert read_trace(link).cells
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(link, follow=False)


def test_values_that_would_fill_the_memory_are_not_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_VALUES", 1_000)
    edit(path, lambda n: n["metadata"].update(more=[[]] * 400_000))
    with pytest.raises(TraceError, match="it has more than 1,000 values"):
        read_trace(path)


# Children


def running(path: Path, **changes: Any) -> TraceFile:
    """A trace of a run that was killed, with one turn."""
    path.parent.mkdir(exist_ok=True)
    tell(NotebookWriter(path, meta(**changes), []), STORY[:-1])
    return read_trace(path)


def beside(path: Path) -> Path:
    folder = path.with_name(f"{path.stem}.children")
    folder.mkdir(exist_ok=True)
    return folder


def test_what_lies_among_the_children_is_opened_only_if_it_is_a_plain_file(tmp_path: Path) -> None:
    top = running(tmp_path / "t.ipynb")
    folder = beside(top.path)
    os.mkfifo(folder / "a.ipynb")
    (folder / "b.ipynb").symlink_to("/dev/zero")
    (folder / "c.ipynb").symlink_to(top.path)
    (folder / "d.ipynb").mkdir()
    (folder / "e.ipynb").write_text("[")
    with (folder / "f.ipynb").open("wb") as file:
        file.truncate(40 << 30)
    running(folder / "g.ipynb")
    assert spent_on_lost(top).children == 1


def test_a_folder_that_is_its_own_child_is_walked_once(tmp_path: Path) -> None:
    top = running(tmp_path / "t.ipynb")
    folder = beside(top.path)
    for name in "abcdefgh":
        running(folder / f"{name}.ipynb")
        (folder / f"{name}.children").symlink_to(folder)
    assert spent_on_lost(top).children == 8


def test_traces_that_are_one_file_count_once(tmp_path: Path) -> None:
    top = running(tmp_path / "t.ipynb")
    folder = beside(top.path)
    child = running(folder / "a.ipynb")
    for name in "bcd":
        os.link(child.path, folder / f"{name}.ipynb")
        os.link(child.path, beside(folder / f"{name}.ipynb") / "a.ipynb")
    assert spent_on_lost(top).children == 1


def test_the_traces_of_a_tree_are_bounded_in_number_depth_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = running(tmp_path / "t.ipynb")
    running(beside(top.path) / "a.ipynb")
    deep = running(beside(top.path) / "b.ipynb")
    running(beside(deep.path) / "c.ipynb")
    assert spent_on_lost(top).children == 3
    monkeypatch.setattr(tree, "MAX_LEVELS", 1)
    assert spent_on_lost(top).children == 2
    monkeypatch.setattr(tree, "MAX_TRACES", 2)
    assert spent_on_lost(top).children == 1
    assert Tree(room=10).seen == set()
    with pytest.raises(TraceError, match="one too many"):
        Tree(room=10).open(deep.path, top, 1)


@pytest.mark.parametrize("link", ["/etc/hostname", "../other/x.ipynb", "t.children/../../x.ipynb"])
def test_a_child_lies_in_the_folder_of_its_trace(tmp_path: Path, link: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    top = running(folder / "t.ipynb")
    (path,) = {top.path.parent / link}
    with pytest.raises(TraceError, match="outside its folder"):
        Tree().open(path, top, 1)


def test_a_child_that_is_missing_or_reached_by_a_link_is_told(tmp_path: Path) -> None:
    top = running(tmp_path / "t.ipynb")
    folder = beside(top.path)
    with pytest.raises(UsageError, match="does not exist"):
        Tree().open(folder / "none.ipynb", top, 1)
    (folder / "link.ipynb").symlink_to("/etc/hostname")
    with pytest.raises(TraceError, match="is a link"):
        Tree().open(folder / "link.ipynb", top, 1)
    elsewhere = running(tmp_path / "elsewhere" / "x.ipynb")
    (tmp_path / "way").symlink_to(elsewhere.path.parent)
    with pytest.raises(TraceError, match="is a link"):
        Tree().open(tmp_path / "way" / "x.ipynb", top, 1)


def test_the_children_of_a_fork_are_those_of_the_trace_that_it_was_forked_from(tmp_path: Path) -> None:
    above = running(tmp_path / "first" / "t.ipynb")
    child = running(beside(above.path) / "a.ipynb")
    origin = {
        "kind": "fork",
        "trace": str(above.path),
        "session": "1a2b3c4d",
        "cell": "",
        "at": "2026-01-02T03:04:05Z",
    }
    forked = running(tmp_path / "second" / "t.ipynb", origins=[origin])
    opened = Tree().open(forked.path.parent / "../first/t.children/a.ipynb", forked, 1)
    assert opened is not None
    assert opened.path == child.path


# Many calls


def many(path: Path, calls: int, **changes: Any) -> Path:
    """A trace with one cell of so many calls."""
    writer = NotebookWriter(path, meta(), [])
    made = tuple(call(number, occurrence=number, **changes) for number in range(calls))
    writer(CellFinished(1, result("turn-01-a", calls=made)))
    return path


def test_many_calls_are_read_as_few_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = many(tmp_path / "t.ipynb", 1_200)
    edit(path, lambda n: first_call(n).update(trace="t.children/a.ipynb", error="it failed", answer=None))
    trace = read_trace(path)
    calls = trace.code_cells[0].meta.calls  # type: ignore[union-attr]
    assert isinstance(trace.node.cells[-1].metadata.rlm.calls, Packed)
    monkeypatch.setattr(packed, "MANY", 10**9)
    plainly = read_trace(path)
    assert list(calls) == plainly.code_cells[0].meta.calls  # type: ignore[union-attr]
    assert (calls[-1], calls[2:4], len(calls)) == (list(calls)[-1], list(calls)[2:4], 1_200)
    assert trace.spent() == plainly.spent()
    assert child_traces(trace) == child_traces(plainly) == [tmp_path / "t.children" / "a.ipynb"]
    NotebookWriter(tmp_path / "again.ipynb", trace.meta, [], trace.node.cells)(Noted("more"))
    assert list(read_trace(tmp_path / "again.ipynb").code_cells[0].meta.calls) == list(calls)  # type: ignore[union-attr]


def test_of_many_calls_too_the_one_that_does_not_hold_is_named(tmp_path: Path) -> None:
    path = many(tmp_path / "t.ipynb", 1_200)
    edit(path, lambda n: rlm_of(n, "turn-01-a")["calls"][1_100].update(seconds=-1))
    with pytest.raises(
        TraceError, match=r"cell turn-01-a is not valid: calls\.1100\.seconds: Input should be greater"
    ):
        read_trace(path)


def test_packed_objects_are_a_list_of_objects() -> None:
    raw = json.dumps(
        {"cells": [{"metadata": {"rlm": {"calls": [{"n": number} for number in range(2_000)]}}}], "more": [1]}
    ).encode()
    found = parse(raw)
    calls = found["cells"][0]["metadata"]["rlm"]["calls"]
    assert (found["more"], len(calls), calls[7], calls[-2:][1], list(calls)[5]) == (
        [1],
        2_000,
        {"n": 7},
        {"n": 1_999},
        {"n": 5},
    )
    calls.extend([{"n": "more"}])
    assert calls[-1] == {"n": "more"}


@pytest.mark.parametrize(
    ("raw", "told", "hint"),
    [
        (b"", "it is empty", "another copy"),
        (b" \r\n", "it is empty", "another copy"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE HTML><title>Sign in</title>", "a web page", "Raw"),
        (b'{\n<<<<<<< HEAD\n"cells": []\n=======\n>>>>>>> theirs\n}', "merge conflict", "--ours"),
        (b'{"cells": [', "incomplete", "another copy"),
    ],
)
def test_what_lies_in_a_notebooks_place_is_named(tmp_path: Path, raw: bytes, told: str, hint: str) -> None:
    path = tmp_path / "t.ipynb"
    path.write_bytes(raw)
    with pytest.raises(TraceError, match=told) as caught:
        read_trace(path)
    assert hint in str(caught.value.hint)
