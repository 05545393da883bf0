"""Files for a container that runs already."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import system
from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox import late_mounts
from rlm_kernel.sandbox.late_mounts import LateMounts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that anybody may read."""
    path = tmp_path / "source.txt"
    path.write_text("content")
    path.chmod(0o644)
    return path


@pytest.fixture
def depot(tmp_path: Path) -> LateMounts:
    return LateMounts(tmp_path / "depot")


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file system: neither links nor shared content."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(system, "share_content", lambda *_: False)


def left(depot: LateMounts) -> list[str]:
    return sorted(path.name for path in depot.folder.iterdir())


def test_a_file_is_linked_and_stays_as_it_is(source: Path, depot: LateMounts) -> None:
    before = source.stat()
    given = depot.give(source)
    after = source.stat()
    assert given.stat().st_ino == before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_each_has_a_number_of_its_own_also_for_the_next_command(source: Path, depot: LateMounts) -> None:
    assert [depot.give(source).name, depot.give(source).name] == ["1", "2"]
    assert LateMounts(depot.folder).give(source).name == "3"


@pytest.mark.usefixtures("no_links")
def test_where_no_link_can_be_it_is_copied_for_the_containers_user_alone(
    source: Path, depot: LateMounts
) -> None:
    given = depot.give(source)
    assert given.read_text() == "content"
    assert given.stat().st_ino != source.stat().st_ino
    assert given.stat().st_mode & 0o777 == 0o400
    assert source.stat().st_mode & 0o777 == 0o644


def test_a_file_that_the_containers_user_may_not_read_is_not_linked(
    source: Path, depot: LateMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_mounts, "readable_inside", lambda _status: False)
    assert depot.give(source).stat().st_ino != source.stat().st_ino


@pytest.mark.usefixtures("no_links")
def test_a_large_copy_tells_how_far_it_is_and_can_be_stopped(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_mounts, "_BLOCK", 3)
    monkeypatch.setattr(late_mounts, "_TOLD_FROM", 5)
    said: list[str] = []
    depot = LateMounts(tmp_path / "depot", said.append)
    depot.give(source)
    assert len(said) == 3
    assert said[0].startswith("copying source.txt … 0.0 of 0.0 GB")
    steps = iter([False, True])
    with pytest.raises(FileRefused, match="was stopped"):
        depot.give(source, lambda: next(steps))
    assert left(depot) == ["1"]


@pytest.mark.usefixtures("no_links")
def test_without_room_nothing_is_copied(
    source: Path, depot: LateMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 6

    monkeypatch.setattr("shutil.disk_usage", lambda _folder: Full)
    with pytest.raises(FileRefused, match="no room for its 7 bytes") as caught:
        depot.give(source)
    assert str(depot.folder) in caught.value.hint
    assert left(depot) == []


def test_a_folder_comes_without_version_control_and_with_links_as_links(
    tmp_path: Path, depot: LateMounts
) -> None:
    root = tmp_path / "root"
    for name in ("a.txt", "sub/b.txt", ".git/config", "sub/.hg/store", ".gitignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("/etc")
    (root / "passwd").symlink_to("/etc/passwd")
    given = depot.give(root)
    assert sorted(str(path.relative_to(given)) for path in given.rglob("*")) == [
        ".git", ".gitignore", "a.txt", "out", "passwd", "pipe", "sub", "sub/.hg", "sub/b.txt",
    ]  # fmt: skip
    assert (given / "pipe").is_file(), "a pipe in it would be waited for"
    assert (given / "pipe").stat().st_mode & 0o777 == 0, (
        "it cannot be read, and the kernel tells what cannot be"
    )
    assert (given / "out").is_symlink()
    assert (given / "passwd").is_symlink()
    assert (given / "sub" / "b.txt").read_text() == "sub/b.txt"


def test_what_is_swapped_between_two_looks_is_not_given(
    source: Path, depot: LateMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = source.with_name("other.txt")
    other.write_text("secret")
    link = os.link

    def swap(path: Any, *arguments: Any, **options: Any) -> None:
        os.replace(other, path)
        link(path, *arguments, **options)

    monkeypatch.setattr(os, "link", swap)
    given = depot.give(source)
    assert given.read_text() == "content"


def test_links_and_pipes_in_a_files_place_are_refused(
    tmp_path: Path, source: Path, depot: LateMounts
) -> None:
    (tmp_path / "link").symlink_to(source)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        with pytest.raises(FileRefused):
            depot.give(tmp_path / name)
    assert left(depot) == []


def test_what_cannot_be_given_of_a_folder_has_something_unreadable_in_its_place(
    tmp_path: Path, depot: LateMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the kernel, which looks through what it is given, counts it and tells it by its name."""
    root = tmp_path / "root"
    for name in ("a.txt", "closed.txt", "waits.txt", "broken.txt", "keys/b.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    failures = {"closed.txt": errno.EACCES, "waits.txt": errno.EAGAIN, "broken.txt": errno.EIO}
    given, access = LateMounts._file, os.access

    def give(self: LateMounts, source: Path, target: Path, stop: Any) -> None:
        if source.name in failures:
            raise OSError(failures[source.name], "it cannot be read")
        given(self, source, target, stop)

    def look(path: Any, mode: int) -> bool:
        return not str(path).endswith("root/keys") and access(path, mode)

    monkeypatch.setattr(LateMounts, "_file", give)
    monkeypatch.setattr(os, "access", look)
    place = depot.give(root)
    monkeypatch.undo()
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.iterdir() if path.name != "a.txt"}
    assert modes == dict.fromkeys([*failures, "keys"], 0)
    assert (place / "a.txt").read_text() == "a.txt"


def test_a_file_that_waits_for_somebody_is_refused_and_says_so(
    source: Path, depot: LateMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(LateMounts, "_file", waits)
    with pytest.raises(FileRefused, match="a pipe that waits for a writer") as caught:
        depot.give(source)
    assert "timeout 5 cat" in caught.value.hint
