"""Notebooks are read, checked and written as nbformat does it, without importing it."""

from __future__ import annotations

import copy
import json
from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4.rwbase import split_lines
from nbformat.warnings import MissingIDFieldWarning

from rlm_kernel.trace import shape
from rlm_kernel.trace.nodes import as_read, by_lines, node_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_TEXT = st.text(alphabet="ab\n\r\x0b\u2028é", max_size=8)
_LINES = _TEXT | st.lists(_TEXT, max_size=3)
_KINDS = st.sampled_from(
    (
        *("text/plain", "text/html", "text/json", "image/png", "image/svg+xml", "application/javascript"),
        *("application/json", "application/vnd.x+json", "application/xjson"),
    )
)
_ODD = st.sampled_from([None, 1, -1, True, 1.5, "text", [], ["a", 1], {}, {"a": 1}])


def _fields(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


_BUNDLE = st.dictionaries(_KINDS, _LINES, max_size=3)
_DISPLAY = {"data": _BUNDLE, "metadata": st.dictionaries(st.text(max_size=3), _JSON, max_size=2)}
_OUTPUT = st.one_of(
    _fields(output_type=st.just("stream"), name=st.just("stdout"), text=_LINES),
    _fields(output_type=st.just("error"), ename=_TEXT, evalue=_TEXT, traceback=st.lists(_TEXT, max_size=2)),
    _fields(output_type=st.just("display_data"), **_DISPLAY),
    _fields(output_type=st.just("execute_result"), execution_count=st.none() | st.just(3), **_DISPLAY),
)
_CODE = _fields(
    cell_type=st.just("code"),
    id=st.just("turn-01-a"),
    metadata=_fields(tags=st.just(["parameters"]), execution=st.just({"iopub.execute_input": "2026"})),
    source=_LINES,
    outputs=st.lists(_OUTPUT, max_size=3),
    execution_count=st.none() | st.just(1),
)
_WORDS = _fields(
    cell_type=st.sampled_from(["markdown", "raw"]),
    id=st.just("words"),
    metadata=st.just({"trusted": True}),
    source=_LINES,
    attachments=st.dictionaries(st.text(max_size=3), _BUNDLE, max_size=2),
)


def _notebook(cells: list[Any]) -> dict[str, Any]:
    return {"cells": cells, "metadata": {"signature": "x"}, "nbformat": 4, "nbformat_minor": 5}


@given(st.lists(_CODE | _WORDS, max_size=3))
def test_a_notebook_is_read_as_nbformat_reads_it(cells: list[Any]) -> None:
    text = json.dumps(_notebook(cells))
    assert as_read(json.loads(text)) == nbformat.versions[4].to_notebook_json(json.loads(text))


@given(_CODE | _WORDS)
def test_texts_are_split_as_nbformat_splits_them(cell: dict[str, Any]) -> None:
    before = copy.deepcopy(cell)
    whole = as_read(_notebook([cell])).cells[0]
    assert by_lines(whole) == split_lines(nbformat.from_dict(_notebook([whole])))["cells"][0]
    assert cell == before


@st.composite
def _broken(draw: st.DrawFn) -> dict[str, Any]:
    """A cell in which one thing somewhere is another, is missing, or is too much."""
    cell = draw(_CODE)
    places: list[Any] = [cell, cell["metadata"], *cell["outputs"]]
    places += [output["data"] for output in cell["outputs"] if "data" in output]
    place = draw(st.sampled_from([one for one in places if one]))
    name = draw(st.sampled_from(sorted(place)) | st.sampled_from(["more", "text/plain", "tags", "id"]))
    if draw(st.booleans()) and name in place:
        del place[name]
    else:
        place[name] = draw(_ODD)
    return cell


@given(_CODE | _broken())
def test_a_cell_is_valid_here_only_if_it_is_so_for_nbformat(cell: dict[str, Any]) -> None:
    fault = shape.fault_of_made(node_of(cell))
    try:
        nbformat.validate(nbformat.from_dict(_notebook([cell])))
    except (nbformat.ValidationError, MissingIDFieldWarning, TypeError, ValueError):  # it stumbles, too
        assert fault
    else:
        # Where nbformat takes more than we write, what a cell of ours does not have is refused.
        assert not fault or "metadata" in fault


def test_fields_are_attributes_too() -> None:
    node = node_of({"cells": [{"id": "a"}]})
    node.cells[0].source = "x"
    assert node["cells"][0] == {"id": "a", "source": "x"}
    assert not hasattr(node, "metadata")
    assert copy.deepcopy(node) == node
