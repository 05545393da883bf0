"""The seal: what breaks it, and what a program that saves the notebook may change."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.events import CellFinished, CellStarted, RunFinished, TurnStarted
from rlm_kernel.engine.protocols import Totals
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.sealed import as_shown, is_noted_elsewhere, seal_on, sealed_node
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import stream
from tests.support.trace import FORCED, STORY, call, cell, meta, result, tell

JSON = "application/vnd.custom+json"
SHOWN = {
    "output_type": "display_data",
    "data": {"image/png": "AAAA\n", JSON: {"a": 1.0, "b": 1e-7}},
    "metadata": {},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "t.ipynb"
    writer = NotebookWriter(found, meta(), ())
    tell(writer, STORY[:-1])
    outputs = [stream("one\n"), stream("two\r2\n"), stream("bad\n", "stderr"), SHOWN]
    writer(TurnStarted(3))
    writer(CellFinished(3, result("turn-03-a", "print(1)", outputs=outputs, calls=(call(1), call(2)))))
    writer(STORY[-1])
    return found


def seal(path: Path) -> str:
    return sealed_node(read_trace(path).node, path).seal


def edit(path: Path, change: Callable[[Any], object]) -> None:
    node = json.loads(path.read_text("utf-8"))
    change(node)
    path.write_text(json.dumps(node, indent=3), "utf-8")


def test_a_closed_trace_has_the_seal_of_its_content(path: Path) -> None:
    assert seal(path) == read_trace(path).meta.seal == seal_on(path)
    assert re.fullmatch("[0-9a-f]{64}", seal(path))


def by_whole_texts(node: Any) -> None:
    for one in node["cells"]:
        one["source"] = "".join(one["source"])


def other_programs(node: Any) -> None:
    node["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3 (venv)"}
    node["metadata"]["widgets"] = {"state": {}}
    node["nbformat_minor"] = 5
    for one in node["cells"]:
        one["metadata"] |= {"trusted": True, "collapsed": False, "jupyter": {"source_hidden": True}}
        one["metadata"].setdefault("tags", []).append("my-tag")


def javascript(node: Any) -> None:
    """Numbers as JSON.stringify writes them."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: walk(one) for name, one in value.items()}
        if isinstance(value, list):
            return [walk(one) for one in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    node["cells"] = walk(node["cells"])
    node["metadata"] = walk(node["metadata"])


def of(node: Any, name: str) -> Any:
    return next(one for one in node["cells"] if one["id"] == name)


def one_stream(node: Any) -> None:
    """JupyterLab puts streams together, and keeps what a terminal would show."""
    outputs = [one for one in of(node, "turn-03-a")["outputs"] if one.get("name") != "stdout"]
    outputs.insert(1, {"output_type": "stream", "name": "stdout", "text": ["one\n", "2wo\n"]})
    of(node, "turn-03-a")["outputs"] = outputs


def png_without_a_line_break(node: Any) -> None:
    of(node, "turn-03-a")["outputs"][-1]["data"]["image/png"] = "AAAA"


@pytest.mark.parametrize(
    "save",
    [by_whole_texts, other_programs, javascript, one_stream, png_without_a_line_break, lambda node: None],
)
def test_a_save_without_a_change_keeps_the_seal(path: Path, save: Callable[[Any], None]) -> None:
    before = seal(path)
    edit(path, save)
    assert seal(path) == before


def test_other_writers_and_line_endings_keep_the_seal(path: Path) -> None:
    before = seal(path)
    nbformat.write(nbformat.read(path, 4), path)
    assert seal(path) == before
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert seal(path) == before


def test_every_part_is_sealed_and_named(path: Path) -> None:
    """Each text, number and list of the notebook that is ours, changed by itself."""
    node = json.loads(path.read_text("utf-8"))
    before = sealed_node(read_trace(path).node, path)
    for name in node["metadata"]["rlm"].keys() - {"seal", "sealed", "version"}:
        changed = copy.deepcopy(node)
        changed["metadata"]["rlm"][name] = "other"
        after = sealed_node(nbformat.from_dict(changed), path)
        assert {key for key in before.parts if before.parts[key] != after.parts[key]} == {f"notebook {name}"}
    for number, one in enumerate(node["cells"]):
        changes: list[tuple[str, Callable[[Any], object]]] = [
            ("text", lambda cell: cell.update(source="other")),
            ("record", lambda cell: cell["metadata"]["rlm"].update(kind="other")),
        ]
        if one["cell_type"] == "code":
            changes += [
                ("outputs", lambda cell: cell["outputs"].append(stream("more"))),
                ("record", lambda cell: cell.update(execution_count=99)),
                ("record", lambda cell: cell["metadata"]["execution"].update({"iopub.execute_input": "2"})),
            ]
        for part, change in changes:
            changed = copy.deepcopy(node)
            change(changed["cells"][number])
            after = sealed_node(nbformat.from_dict(changed), path)
            wrong = {key for key in before.parts if before.parts[key] != after.parts[key]}
            assert wrong == {f"{one['id']} {part}"}
            assert after.seal != before.seal


def test_calls_are_sealed_however_many_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.ipynb"
    writer = NotebookWriter(path, meta(), ())
    calls = tuple(call(number, answer=f"answer {number}") for number in range(2_500))
    tell(writer, [CellStarted("turn-01-a", 1, "x"), CellFinished(1, result("turn-01-a", "x", calls=calls))])
    writer(RunFinished(FORCED, Totals(2, 2)))
    before = seal(path)
    assert before == read_trace(path).meta.seal
    text = path.read_text("utf-8")
    path.write_text(text.replace('"answer 2042"', '"answer 2043"'), "utf-8")
    assert seal(path) != before


def test_what_is_still_written_has_no_seal(path: Path) -> None:
    trace = read_trace(path)
    writer = NotebookWriter(path, trace.meta, (), trace.node.cells)
    writer.question("And then?")
    assert read_trace(path).meta.seal == ""
    assert seal_on(path) == ""
    writer(STORY[-1])
    assert read_trace(path).meta.seal == seal(path) != trace.meta.seal


def test_a_seal_waits_for_digests_of_files(path: Path) -> None:
    edit(
        path,
        lambda node: node["metadata"]["rlm"].update(files=[{"path": "/a", "size": 1, "digest": "pending"}]),
    )
    assert seal_on(path) == ""


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"metadata": 1}', b"\xff\xfe", b'{"metadata": {"rlm": {"seal": 1}}}']
)
def test_no_notebook_has_no_seal(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "t.ipynb").write_bytes(raw)
    assert seal_on(tmp_path / "t.ipynb") == ""


def test_numbers_that_json_does_not_know_are_sealed(path: Path) -> None:
    """An older writer, or Python's json, may have left such."""
    node = json.loads(path.read_text("utf-8"))
    of(node, "turn-03-a")["outputs"][-1]["data"][JSON] = {"a": float("nan")}
    path.write_text(json.dumps(node), "utf-8")
    assert seal(path) == seal(path) != read_trace(path).meta.seal


@given(st.text(alphabet="ab\b\r\n", max_size=30))
def test_text_is_shown_once_and_for_all(text: str) -> None:
    assert as_shown(as_shown(text)) == as_shown(text)
    assert not set(as_shown(text)) & {"\b", "\r"}


@pytest.mark.parametrize(
    ("given_seal", "same"),
    [
        ("a" * 64, True),
        ("a" * 12, True),
        ("sha256:" + "A" * 64, True),
        ("a" * 11, False),
        ("", False),
        ("b" * 64, False),
    ],
)
def test_a_seal_is_compared_with_what_was_noted(given_seal: str, same: bool) -> None:
    assert is_noted_elsewhere("a" * 64, given_seal) is same


def test_the_notebook_is_valid_with_its_seal(path: Path) -> None:
    nbformat.validate(nbformat.read(path, 4))
    assert cell(nbformat.read(path, 4), "title")
