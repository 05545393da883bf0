"""The helpers of an earlier RLM under their old names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime import batches, files, predecessor, queries, wire


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> str:
    """The active input."""
    whole = "0123456789" * 10
    monkeypatch.setattr(files, "files", {"a.txt": whole})
    monkeypatch.setattr(files, "_active", [whole])
    return whole


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the host was asked; the reply is the prompt."""
    bodies: list[dict[str, Any]] = []

    def call(_kind: str, body: dict[str, Any], _same: Any) -> str:
        bodies.append(body)
        return str(body["prompt"])

    def call_many(_kind: str, items: Any, results: list[Any], places: Any, **_: Any) -> None:
        for place, item in zip(places, items, strict=True):
            results[place] = call("", item.body, None)

    monkeypatch.setattr(wire, "call", call)
    monkeypatch.setattr(batches, "call_many", call_many)
    return bodies


@given(st.integers(0, 500), st.integers(1, 60), st.integers(0, 59))
def test_chunks_cover_the_text_and_overlap(length: int, size: int, overlap: int) -> None:
    overlap = overlap % size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_active", ["x" * length])
        spans = predecessor.chunk_indices(size, overlap)
    assert [start for start, _ in spans] == [(size - overlap) * number for number in range(len(spans))]
    assert all(0 < end - start <= size for start, end in spans)
    assert (spans[-1][1] if spans else 0) == length
    assert all(end - start == size for start, end in spans[:-1])


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (10, 10), (10, 11), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int, text: str) -> None:
    with pytest.raises(ValueError, match="must be greater than overlap"):
        predecessor.chunk_indices(size, overlap)


def test_several_files_are_told_apart_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"a.txt": "aaa", "b.txt": "bbbbb"}
    monkeypatch.setattr(files, "files", both)
    monkeypatch.setattr(files, "_active", [both])
    with pytest.raises(ValueError, match=r"2 files are the input: switch_to\(name\)"):
        predecessor.chunk_indices(2)
    assert predecessor.chunk_indices(4, name="b.txt") == [(0, 4), (4, 5)]


@pytest.mark.parametrize("given", ["chunks", "/work/chunks", "../../chunks", "/tmp/rlm-test-room/chunks"])
def test_chunks_are_written_where_code_can_write_and_it_says_where(
    given: str, text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predecessor, "_ROOM", tmp_path)
    paths = predecessor.write_chunks(given, 40, 10, "part")
    assert [path.rsplit("/", 1)[1] for path in paths] == ["part_0000.txt", "part_0001.txt", "part_0002.txt"]
    assert all(path.startswith(f"{tmp_path}/") for path in paths)
    written = []
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            written.append(file.read())
    assert written == [text[0:40], text[30:70], text[60:100]]
    assert f"3 files are in {tmp_path}" in capsys.readouterr().out


def test_texts_with_odd_line_ends_and_lone_surrogates_are_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "_ROOM", tmp_path)
    monkeypatch.setattr(files, "_active", ["a\r\nb\ud800c\n"])
    (path,) = predecessor.write_chunks()
    with open(path, "rb") as file:
        assert file.read() == b"a\r\nb?c\n"


def test_buffers_are_a_variable_that_code_may_replace() -> None:
    variables: dict[str, Any] = {}
    predecessor.install(variables)
    predecessor.add_buffer("one")
    variables["buffers"].append("two")
    assert variables["buffers"] == ["one", "two"]
    assert predecessor.size_of(variables["buffers"]) == ", 6 characters"
    variables["buffers"] = []
    predecessor.add_buffer(3)
    assert variables["buffers"] == ["3"]
    del variables["buffers"]
    predecessor.add_buffer("four")
    assert variables["buffers"] == ["four"]
    variables["buffers"] = "text"
    with pytest.raises(TypeError, match=r"buffers = \[\]"):
        predecessor.add_buffer("five")
    assert predecessor.size_of([1, 2]) == predecessor.size_of("text") == ""


@pytest.mark.parametrize(
    "instruction",
    [
        "Sum this up in a line",
        "Summarise.",
        "Which?",
        "要約してください",
        "List:\n- names",
        "résumé",
        "x" * 300,
    ],
)
def test_a_chunk_comes_with_its_instruction(instruction: str, sent: list[dict[str, Any]]) -> None:
    wanted = [f"{instruction}\n\nthe chunk"]
    assert [queries.llm_query("the chunk", instruction)] == wanted
    assert [queries.llm_query("the chunk", instruction=instruction)] == wanted
    assert queries.llm_query_batched(["the chunk"], instruction) == wanted
    assert [body["model"] for body in sent] == [None, None, None]


@pytest.mark.parametrize("model", ["fast", "sub", "openai/gpt-4o-mini", "local", "us.claude-3:0", "a_b-c"])
def test_the_name_of_a_model_is_one(model: str, sent: list[dict[str, Any]]) -> None:
    assert queries.llm_query("ask", model) == "ask"
    assert queries.llm_query("ask", model, instruction="Be brief.") == "Be brief.\n\nask"
    assert [body["model"] for body in sent] == [model, model]


def test_what_is_no_text_is_no_instruction() -> None:
    with pytest.raises(TypeError, match="pictures go to images"):
        queries.llm_query("ask", [b"png"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ((), {"max_matches": 2, "window": 120}),
        ((), {"max_matches": 2, "flags": 2}),
        ((2, 120), {}),
        ((2,), {}),
        ((), {"limit": 2}),
    ],
)
def test_grep_takes_its_old_options(given: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "files", {"a.txt": "an A\nan a\nb\nan a\n"})
    monkeypatch.setattr(files, "_active", ["an A\nan a\nb\nan a\n"])
    found = predecessor.with_old_options(files.grep)("an", *given, **options)
    assert len(found) == 2


def test_flags_of_re_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.setattr(files, "files", {"a.txt": "ERROR\nerror\n"})
    monkeypatch.setattr(files, "_active", ["ERROR\nerror\n"])
    grep = predecessor.with_old_options(files.grep)
    assert [len(grep("error")), len(grep("error", flags=re.IGNORECASE)), len(grep("(?i)error"))] == [1, 2, 2]
