from __future__ import annotations

import hashlib
import io
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.session.digests import file_meta
from rlm_kernel.session.inputs import Beside, Inputs, expand, gather


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("context", "paths"),
    [
        (None, ()),
        (Path("a"), (Path("a"),)),
        ([Path("a"), Path("b")], (Path("a"), Path("b"))),
        ((Path("a"),), (Path("a"),)),
    ],
)
def test_paths_are_taken_as_they_are(context: Any, paths: tuple[Path, ...], tmp_path: Path) -> None:
    assert gather(context, tmp_path / "t.ipynb") == Inputs(paths)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("context", ["a text", "", ["a", 1, None], {"a": {"b": [1.5]}}, [], {}, "é\u2028"])
def test_an_object_is_written_beside_the_trace(context: Any, tmp_path: Path) -> None:
    inputs = gather(context, tmp_path / "new" / "t.ipynb")
    assert inputs == Inputs((tmp_path / "new" / "t.context.json",), made=True)
    assert json.loads(inputs.paths[0].read_text("utf-8")) == context


def test_lone_surrogates_are_no_error(tmp_path: Path) -> None:
    path = gather({"a": "\ud800"}, tmp_path / "t.ipynb").paths[0]
    assert json.loads(path.read_bytes()) == {"a": "\ud800"}


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "context",
    [object(), {"a": object()}, _circle(), _deep()],
    ids=range(4),
)
def test_what_json_cannot_hold_is_a_usage_error(context: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be passed to the kernel") as caught:
        gather(context, tmp_path / "t.ipynb")
    assert "JSON" in caught.value.hint


@pytest.mark.parametrize(
    ("context", "name", "content"),
    [
        ("a text", "t.context.txt", "a text"),
        ({"row": [1, "ä"]}, "t.context.json", '{"row": [1, "ä"]}'),
        (b"\0raw", "t.context.bin", "\0raw"),
    ],
)
def test_a_context_with_files_beside_it_is_a_file_among_them(
    context: Any, name: str, content: str, tmp_path: Path
) -> None:
    for glossary in ("g.txt", "h.txt"):
        (tmp_path / glossary).write_text("")
    found = gather(Beside(context, (tmp_path / "?.txt", tmp_path / "g.txt")), tmp_path / "t.ipynb")
    assert not found.made
    assert list(found.paths) == [tmp_path / name, tmp_path / "g.txt", tmp_path / "h.txt"]
    assert found.paths[0].read_text("utf-8") == content


def test_an_unwritable_place_is_a_trace_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match=r"t\.context\.json") as caught:
        gather("text", tmp_path / "file" / "t.ipynb")
    assert caught.value.hint


def test_set_up_cells_name_question_and_paths() -> None:
    paths = [Path("/data/it's.txt"), Path("/b")]
    assert Inputs(()).cells("Why?", []) == [("parameters", "question = 'Why?'\npaths = []")]
    assert Inputs((Path("b"),)).cells("Why?", paths[1:]) == [
        ("parameters", "question = 'Why?'\npaths = ['/b']"),
        ("setup", "load_files(paths)"),
    ]
    assert Inputs((Path("b"),), made=True).cells("Why?", paths[1:])[1] == ("setup", "load_object(paths[0]);")
    assert (
        Inputs(tuple(paths))
        .cells("Why?", paths)[0][1]
        .endswith("paths = [\n    \"/data/it's.txt\",\n    '/b',\n]")
    )


@given(
    st.text(st.characters(codec=None), max_size=50),
    st.lists(st.text(st.characters(codec=None, exclude_characters="\0/")), max_size=3),
)
def test_the_parameters_cell_gives_back_what_it_was_made_of(question: str, names: list[str]) -> None:
    paths = [Path("/x" + name) for name in names]
    (_, code), *_ = Inputs(tuple(paths)).cells(question, paths)
    code.encode()  # also a lone surrogate passes to the kernel, as an escape
    found: dict[str, Any] = {}
    exec(code, found)
    assert (found["question"], found["paths"]) == (question, [str(path) for path in paths])


def test_a_file_is_described_with_its_digest_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello")
    assert file_meta(path).model_dump(exclude_defaults=True) == {
        "path": str(path),
        "size": 5,
        "digest": "pending",
    }
    assert file_meta(path, digest_until=threading.Event()).sha256 == sha256(b"hello")


def test_a_folder_is_described_by_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_bytes(b"bb")
    (tmp_path / "c.txt").write_bytes(b"c")
    os.mkfifo(tmp_path / "pipe")
    meta = file_meta(tmp_path, digest_until=threading.Event())
    assert (meta.directory, meta.size) == (True, 3)
    assert meta.sha256 == sha256(f"c.txt\0{sha256(b'c')}\nsub/b.txt\0{sha256(b'bb')}\n".encode())
    assert file_meta(tmp_path).sha256 is None


def test_a_folders_digest_changes_with_names_and_contents(tmp_path: Path) -> None:
    seen = set()
    for name, data in (("a", b"x"), ("b", b"x"), ("b", b"y")):
        folder = tmp_path / f"{name}{data.decode()}"
        folder.mkdir()
        (folder / name).write_bytes(data)
        seen.add(file_meta(folder, digest_until=threading.Event()).sha256)
    assert len(seen) == 3


def test_files_that_are_gone_or_unreadable_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = file_meta(tmp_path / "gone", digest_until=threading.Event())
    assert (gone.directory, gone.size, gone.sha256, gone.digest) == (False, 0, None, "unreadable")
    (tmp_path / "bad\udcff.txt").write_bytes(b"x")
    assert file_meta(tmp_path, digest_until=threading.Event()).size == 1


def found(*paths: str, stdin: str = "t.stdin.txt") -> list[str]:
    return [str(path) for path in expand([Path(path) for path in paths], Path(stdin))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with b.log, a.log, c.txt, deep/er/d.log and [x].log in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.log", "a.log", "c.txt", "deep/er/d.log", "[x].log"):
        Path(name).write_text(name)
    return tmp_path


def test_a_glob_stands_for_its_files_in_order_and_none_twice(here: Path) -> None:
    assert found("?.log") == ["a.log", "b.log"]
    assert found("b.log", "?.log", "c.txt") == ["b.log", "a.log", "c.txt"]
    assert found(f"{here}/*.txt") == [f"{here}/c.txt"]
    assert found("dee*") == ["deep"]
    assert found("**/*.log") == ["[x].log", "a.log", "b.log", "deep/er/d.log"]


def test_two_stars_stand_for_files_alone(here: Path) -> None:
    assert found("deep/**") == ["deep/er/d.log"]


def test_a_path_that_is_there_is_no_glob(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.log").write_text("")
    assert found("[x].log") == ["[x].log"]
    monkeypatch.setenv("HOME", str(here))
    assert found("~/[x].log") == ["~/[x].log"]
    assert found("~/?.txt") == [f"{here}/c.txt"]
    assert found("missing.txt") == ["missing.txt"]  # the grants say what is wrong with it


def test_a_glob_without_a_match_or_with_too_many_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"Nothing matches \*\.csv"):
        found("*.csv")
    monkeypatch.setattr("rlm_kernel.session.inputs.MAX_MATCHES", 1)
    with pytest.raises(UsageError, match=r"2 files match \?\.log") as caught:
        found("?.log")
    assert "folder" in caught.value.hint


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_is_kept_beside_the_trace_as_it_came(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 20_000
    pipe_in(monkeypatch, data)
    inputs = gather([Path("a.log"), Path("-"), Path("-")], here / "new" / "t.ipynb")
    assert inputs == Inputs((Path("a.log"), here / "new" / "t.stdin.txt"))
    assert inputs.paths[1].read_bytes() == data


def test_a_terminal_is_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="is a terminal") as caught:
        found("-")
    assert "rlm ask" in caught.value.hint


def test_standard_input_without_a_place_is_a_trace_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"x")
    with pytest.raises(TraceError, match="Standard input cannot be stored"):
        found("-", stdin="a.log/t.stdin.txt")


def test_a_limit_without_end_is_no_number_in_json(tmp_path: Path) -> None:
    path = gather([math.nan], tmp_path / "t.ipynb").paths[0]
    assert path.read_text() == "[NaN]"  # Python's reader in the kernel takes it


def test_what_the_shell_pipes_in_is_kept_as_standard_input_is(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a command\n")
    os.close(writing)
    try:
        found = expand([Path(f"/dev/fd/{reading}")], tmp_path / "t.stdin.txt")
    finally:
        os.close(reading)
    assert found == (tmp_path / f"t.stdin.{reading}.txt",)
    assert found[0].read_text() == "from a command\n"


def test_a_pipe_with_a_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert expand([tmp_path / "pipe"], tmp_path / "t.stdin.txt") == (tmp_path / "pipe",)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("[a]*?.txt", "a.txt", "a?b", "~", " end "):
        (tmp_path / name).touch()
        assert expand([tmp_path / name], tmp_path / "t.stdin.txt") == (tmp_path / name,)
