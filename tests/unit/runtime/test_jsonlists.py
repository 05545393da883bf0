"""JSON that is not one object a line: its records are the items of its list, read one by one, in memory and on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import forms
from rlm_runtime.formats import read_file
from rlm_runtime.forms import form, records

from tests.support.growth import LIMIT, growth

ROWS = [{"id": n, "name": f"n{n}", "deep": {"x": [n]}} for n in range(40)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("document", "told"),
    [
        (ROWS, "a JSON list of objects with "),
        ({"data": ROWS}, 'JSON in which "data" is a list of objects with '),
        ({"meta": {"n": 2, "tags": [1, 2]}, "page": {"items": ROWS}, "ok": True}, 'JSON in which "page.items" is a list'),
        ({"type": "FeatureCollection", "bbox": [0.0, 1.0], "features": ROWS}, 'JSON in which "features" is a list'),
        ({"empty": [], "rows": ROWS}, 'JSON in which "rows" is a list'),
    ],
)  # fmt: skip
def test_a_list_of_objects_is_records_wherever_it_is(
    document: Any, told: str, indent: int | None, tmp_path: Path
) -> None:
    text = json.dumps(document, indent=indent)
    assert form(text).startswith(told)
    assert records(text) == ROWS
    (tmp_path / "big.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    lazy = read_file(tmp_path / "big.json", "big.json", room=10).text
    assert list(records(lazy)) == ROWS
    assert form(lazy).startswith(told)


@pytest.mark.parametrize("between", ["\n", "", "\n\x1e", " \r\n"])
def test_objects_one_after_the_other_are_records(between: str) -> None:
    text = between.join(json.dumps(row, indent=1) for row in ROWS)
    assert form(text).startswith("JSON objects one after the other with")
    assert records(text) == ROWS


def test_values_that_are_no_objects_are_numbered() -> None:
    assert records("[1, null, [2], {\"a\": 1}]") == [
        {"item": 1, "value": 1}, {"item": 2, "value": None}, {"item": 3, "value": [2]}, {"a": 1},
    ]  # fmt: skip
    assert form('["a", "b"]').startswith("a JSON list of values")


def test_json_with_several_lists_or_none_is_not_records() -> None:
    for document in ({"users": ROWS, "orders": ROWS}, {"a": 1}, {}, [], {"a": [1, 2]}):
        assert [row["line"] for row in records(json.dumps(document))] == [1]
    for text in ("[1] Doe, J. 2020.\n[2] Roe, A.", "[x]\na=1", "{curly} text", "[", "{"):
        assert not form(text).startswith("a JSON list"), text


def test_a_list_that_is_cut_off_is_read_up_to_there_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(ROWS)
    cut = text[: text.rindex('"name"')]
    assert "(damaged or cut off: " in form(cut)
    assert records(cut) == ROWS[:-1]
    assert "records() read 39 items; after them the JSON is damaged or cut off" in capsys.readouterr().out


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_what_is_written_as_a_list_is_read_back(
    rows: list[dict[str, Any]], indent: int | None, plain: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=plain)
    found = records(text)
    assert json.dumps(found) == json.dumps(rows)


def test_a_large_list_is_read_without_being_taken_apart_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = json.dumps([{"n": n, "t": "x" * 200} for n in range(20_000)])
    (tmp_path / "a.json").write_text(text)
    lazy = read_file(tmp_path / "a.json", "a.json", room=1000).text
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("it was taken apart as a whole"))
    rows = records(lazy)
    assert next(rows) == {"n": 0, "t": "x" * 200}  # type: ignore[call-overload]
    assert sum(row["n"] for row in rows) == sum(range(20_000))
    assert math.isclose(len(text), len(lazy))


def test_the_time_of_a_list_grows_with_its_size() -> None:
    def make(size: int) -> str:
        return json.dumps([{"n": n, "t": "x" * 20} for n in range(size // 30)])

    assert growth(make, lambda text: list(forms.records(text)), 100_000) < LIMIT
