"""The folder that a kernel can write to, on the host's disk: how it is watched and how it is deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlm_kernel.sandbox import disk, rundir
from rlm_kernel.sandbox.disk import DiskGuard, remove_tree
from rlm_kernel.sandbox.rundir import RunDir, sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "r1"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "kept").write_text("kept")
    return path


def deep(folder: Path, levels: int, name: str = "d" * 200) -> None:
    """Folders within folders, deeper than any path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def many(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"f{number}").touch()


def odd(folder: Path) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"\x1b]0;t\x07", b"-rf", b"n" * 255):
        os.mkdir(os.fsencode(folder) + b"/" + name)
        os.mkfifo(os.fsencode(folder) + b"/p" + name[:254])
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 40)
    os.link(folder / "sparse", folder / "linked")


def closed(folder: Path) -> None:
    inner = folder / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (inner / "f").touch()
    for path in (inner, inner.parent, inner.parents[1], folder):
        path.chmod(0)


def linked(folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent / "outside")
    (folder / "file").symlink_to(folder.parent / "outside" / "kept")
    (folder / "self").symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "out").symlink_to("../../outside")


def wide_and_deep(folder: Path) -> None:
    for number in range(20):
        deep(folder, 100, f"d{number}")


SHAPES: dict[str, Callable[[Path], None]] = {
    "deep": lambda folder: deep(folder, 5_000),
    "many": lambda folder: many(folder, 20_000),
    "odd": odd,
    "closed": closed,
    "links": linked,
    "wide and deep": wide_and_deep,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_lies_there_is_deleted_and_no_link_followed(folder: Path, outside: Path, shape: str) -> None:
    SHAPES[shape](folder)
    assert remove_tree(folder)
    assert not os.path.lexists(folder)
    assert (outside / "kept").read_text() == "kept"


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    assert not remove_tree(tmp_path / "link")
    assert (outside / "kept").exists()
    assert remove_tree(tmp_path / "nothing")


def test_it_takes_no_longer_than_it_may_and_goes_on_later(folder: Path) -> None:
    deep(folder, 3_000)
    many(folder, 3_000)
    started = time.monotonic()
    assert not remove_tree(folder, 0.01)
    assert time.monotonic() - started < 5
    assert remove_tree(folder)


def test_what_cannot_be_deleted_is_left_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rmdir", refuse)
    started = time.monotonic()
    assert not remove_tree(folder)
    assert time.monotonic() - started < 5


def test_a_session_that_was_left_with_such_a_folder_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))
    run = RunDir.create(max_request=1, window=1)
    deep(run.new_launch(), 2_000)
    os.utime(run.host / "lease", (1_000_000_000, 1_000_000_000))
    run.leave()
    sweep()
    assert not run.path.exists()


def test_a_session_s_folder_goes_whatever_its_kernels_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))
    run = RunDir.create(max_request=1, window=1)
    for shape in (closed, odd, lambda folder: deep(folder, 2_000)):
        shape(run.new_launch())
    run.remove()
    assert not run.path.exists()


def test_sockets_and_what_is_handed_over_are_not_too_much(folder: Path) -> None:
    many(folder, 500)
    (folder / "h-1-1").write_bytes(b"x" * 10_000_000)
    (folder / "sub").mkdir()
    assert DiskGuard(folder).look() == ""


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (lambda folder: deep(folder, 20, "d"), "folders within folders"),
        (lambda folder: many(folder, 10_001), "10,000 files"),
        (
            lambda folder: [(folder / f"d{n}").mkdir() for n in range(6)] and [many(folder / f"d{n}", 2_000) for n in range(6)],
            "10,000 files",
        ),
        (lambda folder: (folder / "big").write_bytes(b"x" * 3_000_000), "GiB into /rlm/run"),
    ],
)
def test_too_much_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, shape: Callable[[Path], object], why: str) -> None:
    monkeypatch.setattr(disk, "MAX_BYTES", 2_000_000)
    guard = DiskGuard(folder)
    assert guard.look() == ""
    shape(folder)
    assert why in guard.look()


def test_a_file_with_holes_counts_as_what_it_takes(folder: Path) -> None:
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 40)
    assert DiskGuard(folder).look() == ""


def test_a_link_is_not_looked_through(folder: Path, outside: Path) -> None:
    many(outside, 11_000)
    (folder / "out").symlink_to(outside)
    (folder / "self").symlink_to(folder)
    guard = DiskGuard(folder)
    assert guard.look() == ""
    # Nor the folder itself, should a link stand in its place.
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(outside)
    assert "closed" in guard.look()


@pytest.mark.skipif(os.getuid() == 0, reason="root may look everywhere")
def test_what_cannot_be_looked_at_is_too_much(folder: Path) -> None:
    (folder / "a").mkdir(mode=0)
    assert "closed" in DiskGuard(folder).look()


def test_a_folder_that_is_gone_is_no_matter(folder: Path) -> None:
    guard = DiskGuard(folder)
    folder.rmdir()
    assert guard.look() == ""


@pytest.mark.parametrize(
    ("first", "now", "told"), [(10 << 30, 2 << 30, ""), (10 << 30, 500 << 20, "nearly full"), (500 << 20, 400 << 20, "")]
)
def test_a_disk_that_fills_up_ends_the_kernel_though_nothing_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, first: int, now: int, told: str
) -> None:
    free = [first]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free[0], f_frsize=1))
    guard = DiskGuard(folder)
    free[0] = now
    assert told in guard.look()
    assert bool(guard.look()) is bool(told)
