"""Whatever of a folder is not given to code is told: how much, why, and a few names."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rlm_runtime import folders

USER = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with what a usual user may read and what not; not below pytest's, which such a user may not
    enter.
    """
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    folder = above / "in"
    for name in ("ok", "listed/sub", "entered", "closed", ".git"):
        (folder / name).mkdir(parents=True)
    for name in (
        "a.txt",
        "ok/b.txt",
        "listed/c.txt",
        "listed/sub/d.txt",
        "entered/e.txt",
        "closed/f.txt",
        ".git/config",
    ):
        (folder / name).write_text(name)
    os.mkfifo(folder / "pipe")
    (folder / "inside").symlink_to("ok/b.txt")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "nowhere").symlink_to("no such")
    (folder / "round").symlink_to("round")
    (folder / "up").symlink_to("..")
    for name, mode in (("listed", 0o744), ("entered", 0o711), ("closed", 0o700)):
        (folder / name).chmod(mode)
    yield folder
    shutil.rmtree(above)


def told_to_a_user(folder: Path) -> tuple[list[str], str]:
    """The files, and what is left out, in a process of an unprivileged user."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            found, left_out = folders.members(folder)
            os.write(
                write, repr(([str(path.relative_to(folder)) for path in found], left_out.told())).encode()
            )
        except BaseException as error:
            os.write(write, repr(([type(error).__name__], str(error))).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        files, told = eval(said.read())
    return files, told


@pytest.mark.skipif(os.getuid() != 0, reason="another user is made of root alone")
def test_what_a_user_may_not_enter_or_read_is_told(place: Path) -> None:
    files, told = told_to_a_user(place)
    assert files == ["a.txt", "inside", "ok/b.txt"]
    assert "4 links (the first: up, nowhere, outside)" in told
    assert "1 version-control folders" in told
    assert "1 special files (the first: pipe)" in told
    assert "3 unreadable folders (the first: closed, entered, listed/sub)" in told
    assert "1 unreadable files (the first: listed/c.txt)" in told


def test_links_out_of_the_folder_and_what_is_no_file_are_told_with_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "same").symlink_to("a.txt")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
    files, left_out = folders.members(tmp_path)
    assert [path.name for path in files] == ["a.txt", "same"]
    assert left_out.told() == "2 links (the first: passwd, zero), 2 special files (the first: pipe, socket)"


def test_of_many_the_first_are_named_and_of_what_is_wanted_none(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n")
    (tmp_path / "build").mkdir()
    for number in range(50):
        (tmp_path / f"{number:02}.log").write_text("x")
        os.mkfifo(tmp_path / f"pipe{number:02}")
    _, left_out = folders.members(tmp_path)
    assert (
        left_out.told()
        == "1 ignored folders, 50 ignored files, 50 special files (the first: pipe00, pipe01, pipe02)"
    )
    assert left_out.told(str.upper).endswith("(the first: PIPE00, PIPE01, PIPE02)")
