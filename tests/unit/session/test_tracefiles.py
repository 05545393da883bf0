"""A trace's files: where they are looked for, and what counts as the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel import FileRefused, UsageError
from rlm_kernel.engine.events import RunFinished
from rlm_kernel.engine.protocols import Answer, Outcome, Totals
from rlm_kernel.session import digests
from rlm_kernel.session.digests import file_meta
from rlm_kernel.session.tracefiles import FileNotes, check_files, find_files
from rlm_kernel.trace.reader import TraceFile, read_trace, trace_of
from rlm_kernel.trace.schema import FileMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import meta


def trace(folder: Path, files: Sequence[FileMeta], name: str = "t.ipynb") -> TraceFile:
    """A trace in that folder, with those files."""
    metadata = meta(files=list(files)).model_dump(mode="json")
    return trace_of(nbformat.v4.new_notebook(metadata={"rlm": metadata}), folder / name)


def recorded(path: Path, text: str = "some text", *, digest: bool = True, made: bool = False) -> FileMeta:
    """What a trace says of a file, which is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return file_meta(path, digest_until=threading.Event() if digest else None, made=made)


def test_files_at_their_recorded_places(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / "a.txt"), recorded(tmp_path / "b" / "b.txt")]
    found = find_files(trace(tmp_path, metas))
    assert found.paths == found.known_as == [tmp_path / "a.txt", tmp_path / "b" / "b.txt"]
    assert found.changed == []


@pytest.mark.parametrize("name", ["a.txt", "{folder}/old/a.txt"])
def test_a_file_given_by_name_keeps_the_name_that_the_trace_knows(tmp_path: Path, name: str) -> None:
    made = trace(tmp_path, [recorded(tmp_path / "old" / "a.txt")])
    (tmp_path / "old" / "a.txt").rename(tmp_path / "moved.txt")
    found = find_files(made, {name.format(folder=tmp_path): tmp_path / "moved.txt"})
    assert (found.paths, found.known_as) == ([tmp_path / "moved.txt"], [tmp_path / "old" / "a.txt"])


def test_a_name_that_no_file_has_is_an_error_that_lists_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no file c\.txt") as caught:
        find_files(trace(tmp_path, [recorded(tmp_path / "a.txt")]), {"c.txt": tmp_path})
    assert str(tmp_path / "a.txt") in caught.value.hint


def test_a_name_that_two_files_have_is_an_error(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / "one" / "a.txt"), recorded(tmp_path / "two" / "a.txt")]
    with pytest.raises(UsageError, match="has several files"):
        find_files(trace(tmp_path, metas), {"a.txt": tmp_path})
    found = find_files(trace(tmp_path, metas), {str(tmp_path / "two" / "a.txt"): tmp_path / "one" / "a.txt"})
    assert found.paths == [tmp_path / "one" / "a.txt"] * 2


def test_a_file_beside_the_trace_is_found_if_it_is_the_one(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    made = trace(shared, [recorded(tmp_path / "gone" / "a.txt")])
    (tmp_path / "gone" / "a.txt").unlink()
    recorded(shared / "a.txt")
    assert find_files(made).paths == [shared / "a.txt"]
    (shared / "a.txt").write_text("other")
    with pytest.raises(FileRefused, match="has changed"):
        find_files(made)


def test_the_right_one_beside_the_trace_wins_over_a_changed_one(tmp_path: Path) -> None:
    made = trace(tmp_path / "shared", [recorded(tmp_path / "a.txt")])
    recorded(tmp_path / "shared" / "a.txt")
    (tmp_path / "a.txt").write_text("changed!!")
    assert find_files(made).paths == [tmp_path / "shared" / "a.txt"]


def test_an_input_of_a_child_is_found_beside_the_trace_above_it(tmp_path: Path) -> None:
    child = trace(tmp_path / "t.children" / "c.children", [recorded(tmp_path / "old" / "a.txt")])
    (tmp_path / "old" / "a.txt").rename(tmp_path / "a.txt")
    assert find_files(child).paths == [tmp_path / "a.txt"]
    (tmp_path / "a.txt").write_text("other text")
    with pytest.raises(FileRefused):
        find_files(child)


def test_a_name_whose_accents_stand_apart_is_the_same(tmp_path: Path) -> None:
    made = trace(tmp_path, [recorded(tmp_path / "old" / "gr\xf6\xdfe.txt")])
    (tmp_path / "old" / "gr\xf6\xdfe.txt").rename(tmp_path / "gro\u0308\xdfe.txt")
    assert find_files(made).paths == [tmp_path / "gro\u0308\xdfe.txt"]


def test_an_object_from_python_goes_with_its_renamed_trace(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / "there" / "t.context.json", made=True)]
    (tmp_path / "there" / "t.context.json").rename(tmp_path / "mine.context.json")
    assert find_files(trace(tmp_path, metas, "mine.ipynb")).paths == [tmp_path / "mine.context.json"]


@pytest.mark.parametrize(("stem", "folder"), [("t", "t"), ("renamed", "renamed"), ("renamed", "t")])
def test_tables_from_python_go_with_their_moved_trace(tmp_path: Path, stem: str, folder: str) -> None:
    metas = [
        recorded(tmp_path / "there" / "t.context" / f"{name}.parquet", name) for name in ("users", "items")
    ]
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "t.context").rename(tmp_path / "here" / f"{folder}.context")
    found = find_files(trace(tmp_path / "here", metas, f"{stem}.ipynb"))
    assert [path.name for path in found.paths] == ["users.parquet", "items.parquet"]
    assert {path.parent for path in found.paths} == {tmp_path / "here" / f"{folder}.context"}


def test_all_that_is_missing_or_changed_is_named_at_once(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / name) for name in ("gone.txt", "longer.txt", "other.txt", "same.txt")]
    (tmp_path / "gone.txt").unlink()
    (tmp_path / "longer.txt").write_text("longer than it was")
    (tmp_path / "other.txt").write_text("some tEXT")
    with pytest.raises(FileRefused) as caught:
        find_files(trace(tmp_path, metas))
    for words in (
        "gone.txt is not there",
        "longer.txt has changed: 18 bytes, then it had 9",
        "its size is the same, its sha256 is not",
    ):
        assert words in caught.value.message
    assert "same.txt" not in caught.value.message
    assert "--file NAME=PATH" in caught.value.hint


def test_changed_files_can_be_allowed_and_are_told_but_missing_ones_not(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / "a.txt"), recorded(tmp_path / "b.txt")]
    (tmp_path / "a.txt").write_text("changed")
    found = find_files(trace(tmp_path, metas), allow_changed=True)
    assert found.paths == [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert found.changed == [f"{tmp_path / 'a.txt'} has changed: 7 bytes, then it had 9."]
    (tmp_path / "b.txt").unlink()
    with pytest.raises(FileRefused, match=r"b\.txt is not there"):
        find_files(trace(tmp_path, metas), allow_changed=True)


def test_without_a_digest_the_size_alone_is_checked_and_that_is_said(tmp_path: Path) -> None:
    metas = [recorded(tmp_path / "a.txt", digest=False)]
    (tmp_path / "a.txt").write_text("some tEXT")
    (said,) = find_files(trace(tmp_path, metas)).changed
    assert "It is not known" in said
    (tmp_path / "a.txt").write_text("another size")
    with pytest.raises(FileRefused, match="has changed"):
        find_files(trace(tmp_path, metas))


def test_a_folder_counts_with_all_that_is_in_it(tmp_path: Path) -> None:
    recorded(tmp_path / "folder" / "a.txt")
    made = trace(tmp_path, [file_meta(tmp_path / "folder", digest_until=threading.Event())])
    assert find_files(made).changed == []
    (tmp_path / "folder" / "a.txt").write_text("some tEXT")
    with pytest.raises(FileRefused, match="sha256"):
        find_files(made)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    made = trace(tmp_path, [recorded(tmp_path / "a.txt", "")])
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    (checked,) = check_files(made)
    assert checked.path is None
    assert "neither a file nor a folder" in checked.fault


def test_a_folder_is_not_walked_farther_than_it_can_be_the_one_that_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "large"
    for number in range(50):
        (folder / f"{number:02d}").mkdir(parents=True)
        (folder / f"{number:02d}" / "a.txt").write_text("hello")
    seen: list[str] = []
    real = digests._seen

    def counted(name: str, path: Path) -> Any:
        seen.append(name)
        return real(name, path)

    monkeypatch.setattr(digests, "_seen", counted)
    (checked,) = check_files(trace(tmp_path, [FileMeta(path=str(folder), directory=True, size=12)]))
    assert checked.fault == f"{folder} has changed: over 15 bytes, then it had 12."
    assert seen == ["00/a.txt", "01/a.txt", "02/a.txt"]


class Named:
    """A stage whose code asks for files one by one, all of which the user has named; FileNotes needs no more
    of it.
    """

    def __init__(self) -> None:
        self.grants: Any = self
        self.granted: dict[Path, Path] = {}

    def places(self) -> dict[Path, Path]:
        return self.granted

    async def locate(self, asked: str, asking: object) -> dict[str, Any]:
        self.granted[Path(asked)] = Path(asked)
        return {"path": asked}


async def test_files_that_are_asked_for_one_by_one_are_written_together_and_once_after_the_end(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    writer = NotebookWriter(tmp_path / "t.ipynb", meta(files=[]), [])
    on: Any = Named()
    wholes: list[int] = []
    real = writer._file.write_whole

    def counted(*args: Any, closed: bool = False) -> None:
        wholes.append(closed)
        real(*args, closed=closed)

    writer._file.write_whole = counted  # type: ignore[method-assign]
    async with FileNotes(on, writer) as notes:
        for path in paths:
            await notes.locate(str(path), contextlib.nullcontext)
            await notes.locate(str(path), contextlib.nullcontext)
        writer(RunFinished(Outcome(Answer("42"), "answered"), Totals()))
    assert sum(wholes) <= 2, "closed, and once more for digests that came after that"
    files = read_trace(tmp_path / "t.ipynb").meta.files
    assert [file.path for file in files] == [str(path) for path in paths]
    assert [file.sha256 for file in files] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    ]
    assert os.listdir(tmp_path).count(".t.ipynb.log") == 0
