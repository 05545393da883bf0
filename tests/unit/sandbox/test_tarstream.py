"""Files and folders as an archive: unpacked, they are to code what they are by a mount."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlm_runtime.folders import members

from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.tarstream import BLOCK, archive, entries

NAMES = st.sampled_from(
    [
        "a",
        "b.txt",
        ".gitignore",
        ".git",
        "gr\u00f6\u00dfe",
        "two\nlines",
        " ",
        "x" * 120,
        os.fsdecode(b"caf\xe9"),
        "info",
        "exclude",
    ]
)
FILES = st.one_of(
    st.binary(max_size=600),
    st.sampled_from(["link:a", "link:../b.txt", "link:/etc/passwd", "link:.", "pipe", "empty folder"]),
)
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), FILES, max_size=12)


def build(folder: Path, tree: dict[str, bytes | str]) -> None:
    for name, what in tree.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, bytes):
                path.write_bytes(what)
            elif what == "pipe":
                os.mkfifo(path)
            elif what == "empty folder":
                path.mkdir()
            else:
                path.symlink_to(what.removeprefix("link:"))
        except OSError:
            continue  # it is a folder, or lies in a file


def unpack(packed: bytes, at: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed), encoding="utf-8", errors="surrogateescape") as tar:
        tar.extractall(at, filter="fully_trusted")


def told(folder: Path) -> tuple[dict[str, bytes], str]:
    """What the kernel makes of a folder: its files with their content, and what is left out."""
    found, left_out = members(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}, left_out.told()


@given(TREES)
def test_a_folder_looks_the_same_as_by_a_mount(tree: dict[str, bytes | str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder, copy = Path(base, "folder"), Path(base, "copy")
        folder.mkdir()
        copy.mkdir()
        build(folder, tree)
        unpack(b"".join(archive(entries(folder, ""), lambda: False, lambda _size: None)), copy)
        assert told(copy) == told(folder)
        for path in copy.rglob("*"):
            assert path.is_symlink() or path.stat().st_mode & 0o444 == 0o444


def test_a_file_has_its_name_and_can_be_read_by_all(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * (BLOCK + 1))
    (tmp_path / "secret").chmod(0o600)
    sizes: list[int] = []
    pieces = list(archive(entries(tmp_path / "secret", "content"), lambda: False, sizes.append))
    assert max(map(len, pieces)) <= BLOCK + 2 * tarfile.BLOCKSIZE * 2
    assert sum(sizes) == BLOCK + 1
    unpack(b"".join(pieces), tmp_path)
    assert (tmp_path / "content").read_bytes() == (tmp_path / "secret").read_bytes()
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o644


def test_a_file_that_grows_is_sent_as_far_as_it_went_and_one_that_shrinks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * 1000)
    found = list(entries(path, "content"))
    path.write_bytes(b"a" * 5000)
    unpack(b"".join(archive(found, lambda: False, lambda _size: None)), tmp_path)
    assert (tmp_path / "content").read_bytes() == b"a" * 1000
    path.write_bytes(b"a")
    with pytest.raises(FileRefused, match="became shorter while it was sent"):
        list(archive(found, lambda: False, lambda _size: None))


def test_what_is_stopped_ends_between_two_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK * 4)
    done: list[int] = []
    with pytest.raises(FileRefused, match="was stopped"):
        list(archive(entries(path, "content"), lambda: len(done) == 2, done.append))
    assert sum(done) == 2 * BLOCK


def test_a_file_of_many_gigabytes_needs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 40 << 30)
    pieces = archive(entries(path, "content"), lambda: False, lambda _size: None)
    head = next(pieces)
    told_size = tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape").size
    assert told_size == 40 << 30
    assert all(len(next(pieces)) <= BLOCK + tarfile.BLOCKSIZE for _ in range(10))
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("link", [".git/info", ".git/info/exclude"])
def test_no_link_leads_out_of_a_folder(tmp_path: Path, link: str) -> None:
    """Its files may be anybody's: what a link leads to was not named."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "exclude").write_text("secret")
    place = tmp_path / "folder" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "out" / ("exclude" if place.name == "exclude" else ""))
    assert b"secret" not in b"".join(
        archive(entries(tmp_path / "folder", ""), lambda: False, lambda _size: None)
    )


def test_a_file_that_a_link_takes_the_place_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder" / "a.txt").write_text("public")
    members = list(entries(tmp_path / "folder", ""))
    (tmp_path / "folder" / "a.txt").unlink()
    (tmp_path / "folder" / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(FileRefused, match="cannot be read"):
        list(archive(members, lambda: False, lambda _size: None))
