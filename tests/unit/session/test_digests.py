"""Digests: taken once, kept by what `stat` says, given up when told, and said to be missing where they
are.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.session import digests
from rlm_kernel.session.digests import KEPT_FROM, digest_of, file_meta, look_at

NEVER = threading.Event()
LARGE = b"a" * (KEPT_FROM + 1)


def made(path: Path, data: bytes = LARGE, *, age: float = 3600.0) -> Path:
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read."""
    read: list[Path] = []
    original = digests._sha256

    def counted(path: Path, until: threading.Event) -> tuple[str, bool]:
        read.append(path)
        return original(path, until)

    monkeypatch.setattr(digests, "_sha256", counted)
    return read


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[Path]) -> None:
    path = made(tmp_path / "a.txt")
    for _ in range(3):
        assert file_meta(path, digest_until=NEVER).sha256 == sha256(LARGE)
    assert reads == [path]
    made(path, b"b" * len(LARGE), age=1800.0)
    assert file_meta(path, digest_until=NEVER).sha256 == sha256(b"b" * len(LARGE)), (
        "the same size, another time"
    )
    other = made(tmp_path / "other.txt", b"c" * len(LARGE), age=60.0)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert file_meta(path, digest_until=NEVER).sha256 == sha256(b"c" * len(LARGE)), (
        "the same size and time, another file"
    )


def test_a_folder_is_kept_as_a_whole(tmp_path: Path, reads: list[Path]) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    made(folder / "a.txt")
    made(folder / "sub" / "b.txt", b"b")
    first = file_meta(folder, digest_until=NEVER)
    assert (file_meta(folder, digest_until=NEVER), len(reads)) == (first, 2)
    made(folder / "sub" / "c.txt", b"")
    assert file_meta(folder, digest_until=NEVER).sha256 != first.sha256


def test_what_was_written_just_now_is_not_kept(tmp_path: Path, reads: list[Path]) -> None:
    for age in (0.0, -3600.0):  # and what comes from a clock that is ahead
        path = made(tmp_path / "new.txt", age=age)
        for _ in range(2):
            file_meta(path, digest_until=NEVER)
    assert len(reads) == 4


def test_the_kept_ones_are_the_users_alone_bounded_and_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_KEPT", 3)
    for name in "abcd":
        file_meta(made(tmp_path / name, LARGE + name.encode()), digest_until=NEVER)
    file = digests._file()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir() if "digests" in entry.name] == [file.name]
    assert list(digests._kept().values()) == [sha256(LARGE + name) for name in (b"b", b"c", b"d")]


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_as_none(kept: bytes, tmp_path: Path) -> None:
    path = made(tmp_path / "a.txt")
    file = digests._file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(kept)
    assert file_meta(path, digest_until=NEVER).sha256 == sha256(LARGE)
    assert list(digests._kept().values()) == [sha256(LARGE)]


def test_a_folder_that_takes_none_costs_only_the_next_reading(tmp_path: Path, reads: list[Path]) -> None:
    digests._file().parent.parent.mkdir(parents=True, exist_ok=True)
    digests._file().parent.write_text("in the way")
    path = made(tmp_path / "a.txt")
    assert {file_meta(path, digest_until=NEVER).sha256 for _ in range(2)} == {sha256(LARGE)}
    assert len(reads) == 2


def test_it_is_given_up_when_told(tmp_path: Path) -> None:
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # minutes, if it was read
    until = threading.Event()
    threading.Timer(0.2, until.set).start()
    meta = file_meta(path, digest_until=until)
    assert (meta.size, meta.sha256, meta.digest) == (1 << 40, None, "pending")
    assert file_meta(tmp_path, digest_until=until).digest == "pending"


def test_what_changes_while_it_is_read_is_marked(tmp_path: Path) -> None:
    path = made(tmp_path / "a.txt")
    seen = look_at(path)
    made(path, LARGE + b"more", age=10.0)
    assert digest_of(seen, NEVER) == {"sha256": None, "digest": "changed"}
    assert file_meta(path, digest_until=NEVER).sha256 == sha256(LARGE + b"more")


def test_readers_of_the_same_file_wait_for_the_one_who_reads(tmp_path: Path, reads: list[Path]) -> None:
    path = made(tmp_path / "a.txt", LARGE * 64)
    found: list[Any] = []
    readers = [
        threading.Thread(target=lambda: found.append(file_meta(path, digest_until=NEVER).sha256))
        for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [sha256(LARGE * 64)] * 4
    assert len(reads) == 1


def test_what_is_a_pipe_by_now_is_not_waited_for(tmp_path: Path) -> None:
    path = made(tmp_path / "a.txt", b"a")
    seen = look_at(path)
    path.unlink()
    os.mkfifo(path)
    assert digest_of(seen, NEVER) == {"sha256": None, "digest": "unreadable"}
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "gone").symlink_to("nowhere")
    assert (look_at(folder).members, file_meta(folder, digest_until=NEVER).sha256) == ((), sha256(b""))


def test_what_may_not_be_looked_at_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can be listed and not entered, as a usual user meets it."""
    (tmp_path / "closed").mkdir()
    made(tmp_path / "closed" / "a.txt")
    made(tmp_path / "b.txt", b"b")
    original = Path.stat

    def refused(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    meta = file_meta(tmp_path, digest_until=NEVER)
    assert (meta.directory, meta.size, meta.digest) == (True, 1, None)
