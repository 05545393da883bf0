"""What a path looks like: the same for the same, from both sides, and another for others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from rlm_contract import glance

from rlm_kernel.sandbox.shares import _same


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "a.txt").write_text("a")
    (tmp_path / "tree" / "b.txt").write_text("b")
    return tmp_path / "tree"


def seen(path: Path, before: int | None, *, same_system: bool) -> list[object]:
    """What a container's first process says of a path (`bridge._seen`)."""
    changed = glance.changed(str(path))
    proven = changed == before and (same_system or not path.is_dir())
    return [changed, None if proven or changed is None else glance.outline(str(path))]


@pytest.mark.parametrize("same_system", [True, False])
@pytest.mark.parametrize("part", ["", "b.txt"])
def test_the_same_path_is_the_same(tree: Path, part: str, same_system: bool) -> None:
    before = glance.changed(str(tree / part))
    assert _same(str(tree / part), before, seen(tree / part, before, same_system=same_system))


@pytest.mark.parametrize("same_system", [True, False])
def test_a_copy_elsewhere_is_the_same_only_as_far_as_nothing_in_it_was_changed(
    tree: Path, tmp_path: Path, same_system: bool
) -> None:
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    before = glance.changed(str(tree))
    assert _same(str(tree), before, seen(copy, before, same_system=same_system))
    (copy / "deep" / "a.txt").write_text("another")
    assert not _same(str(tree), before, seen(copy, before, same_system=same_system))
    before = glance.changed(str(tree / "b.txt"))
    assert _same(str(tree / "b.txt"), before, seen(copy / "b.txt", before, same_system=same_system))
    times = (tree / "b.txt").stat()
    (copy / "b.txt").write_text("c")
    os.utime(copy / "b.txt", ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time
    assert not _same(str(tree / "b.txt"), before, seen(copy / "b.txt", before, same_system=same_system))


def test_a_file_that_is_written_to_all_the_time_is_the_same(tree: Path) -> None:
    path = tree / "b.txt"
    before = glance.changed(str(path))
    path.write_text("more")
    told = seen(path, before, same_system=True)
    path.write_text("and more")
    assert _same(str(path), before, told)


def test_what_is_not_there_or_closed_is_not_the_same(tree: Path) -> None:
    before = glance.changed(str(tree))
    assert glance.changed(str(tree / "none")) is None
    assert not _same(str(tree), before, seen(tree / "none", before, same_system=True))
    assert not _same(str(tree), before, None)
    assert not _same(str(tree), before, ["nonsense"])


def test_a_large_folder_of_another_system_is_no_proof(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "MOST_ENTRIES", 2)
    copy = Path(shutil.copytree(tree, tmp_path / "copy"))
    before = glance.changed(str(tree))
    assert not _same(str(tree), before, seen(copy, before, same_system=False))
    assert _same(str(tree), before, seen(tree, before, same_system=False))
