"""Globs over folders of any shape."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from rlm_kernel.errors import UsageError
from rlm_kernel.session.batch.questions import count_files
from rlm_kernel.session.globs import matching
from rlm_kernel.session.inputs import expand

NAMES = some.sampled_from(["a", "b.txt", ".h", "[x]"])
PARTS = some.sampled_from(["a", "*", "**", "*.txt", "?", ".*", "[[]x]", "[!a]*", ".", ""])


def files(names: Iterable[str]) -> set[str]:
    return {os.path.normpath(name) for name in names if os.path.isfile(name)}


@example([[".h", ".h", "a", "a"]], ["**", ".*", ".*", "a", "a"], False)
@example([["a", ".h", "a"]], ["**", "a"], False)
@example([["a", "b.txt"]], [".", "**", ".", "", "*.txt"], False)
@given(
    some.lists(some.lists(NAMES, min_size=1, max_size=4), max_size=8),
    some.lists(PARTS, min_size=1, max_size=5),
    some.booleans(),
)
def test_files_that_match_are_those_that_pythons_own_glob_finds(
    tmp_path_factory: Any, paths: list[list[str]], parts: list[str], whole: bool
) -> None:
    if parts[-1] in (".", ""):
        parts = [*parts, "*"]  # alone it stands for folders, and beneath ** for what is in them
    folder = tmp_path_factory.mktemp("tree")
    for path in paths:
        place = folder.joinpath(*path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        except OSError:
            continue  # it is a file there, or beneath one
    pattern = os.path.join(folder if whole else "", *parts)
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = glob.glob(pattern, recursive=True)
        assert files(matching(pattern)) == files(found)
    finally:
        os.chdir(before)


@pytest.mark.timeout(20)
def test_links_that_lead_in_circles_have_each_file_asked_of_once(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").touch()
    for name in ("back", "again", "once more"):  # 3 ** 40 paths
        (folder / name).symlink_to(".")
    (folder / "broken").symlink_to("nowhere")
    (folder / ".DS_Store").touch()
    (tmp_path / "link").symlink_to("docs")
    for pattern in (folder, folder / "**", folder / "**/*", folder / "**/*.txt", tmp_path / "link"):
        assert count_files([str(pattern)]) == 1, pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "notes [2024]/*.txt",
        "notes [2024]/**",
        "./notes [2024]/**/*.txt",
        "notes [2024]//a {b}.txt",
        "**/./*.txt",
        "./**/",
    ],
)
def test_what_people_write_finds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    folder = tmp_path / "notes [2024]"
    folder.mkdir()
    (folder / "a {b}.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert files(matching(pattern)) == {os.path.join("notes [2024]", "a {b}.txt")}


def test_a_pattern_with_braces_that_finds_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        expand([tmp_path / "*.{md,txt}"], Path())
    assert "one pattern for each" in refused.value.hint
