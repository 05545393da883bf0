"""Which paths a client of `rlm mcp` may name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel import system
from rlm_kernel.errors import FileRefused
from rlm_kernel.mcpserver.paths import allowed, folders_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "a b.txt").write_text("a")
    (tmp_path / "outside.txt").write_text("b")
    return tmp_path / "open"


def test_files_and_folders_below_are_found_by_path_name_and_uri(folder: Path) -> None:
    file = folder / "a b.txt"
    for name in (
        str(file),
        "a b.txt",
        file.as_uri(),
        f"file://localhost{file.as_uri()[7:]}",
        "./deep/../a b.txt",
    ):
        assert allowed([name], [folder]) == [file.resolve()]
    assert allowed([str(folder), "deep", "deep"], [folder]) == [folder.resolve(), (folder / "deep").resolve()]


def test_a_link_within_the_folder_is_followed_and_one_out_of_it_is_not(folder: Path) -> None:
    (folder / "in").symlink_to(folder / "a b.txt")
    (folder / "out").symlink_to(folder.parent / "outside.txt")
    assert allowed(["in"], [folder]) == [(folder / "a b.txt").resolve()]
    with pytest.raises(FileRefused, match="not in a folder"):
        allowed(["out"], [folder])


def test_what_lies_outside_is_told_as_what_is_not_there(folder: Path) -> None:
    def told(name: str) -> str:
        with pytest.raises(FileRefused) as refused:
            allowed([name], [folder])
        return str(refused.value).replace(name, "NAME")

    assert told(str(folder.parent / "outside.txt")) == told(str(folder.parent / "nothing.txt"))


def test_a_folder_whose_name_begins_the_same_is_another(folder: Path) -> None:
    other = folder.with_name("open-too")
    other.mkdir()
    with pytest.raises(FileRefused):
        allowed([str(other)], [folder])


def test_without_a_folder_the_error_says_what_to_do() -> None:
    with pytest.raises(FileRefused, match="rlm mcp FOLDER"):
        allowed(["a"], [])
    assert allowed([], []) == []


@given(st.text(max_size=60))
def test_whatever_is_named_lies_below_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    top = tmp_path_factory.getbasetemp().resolve()
    try:
        found = allowed([name], [top])
    except FileRefused:
        return
    assert all(path.is_relative_to(top) for path in found)


def test_a_drive_is_a_path_of_windows_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS_PATHS", False)
    with pytest.raises(FileRefused, match="another machine"):
        allowed(["C:/a.txt"], [folder])


def test_roots_are_folders_of_this_machine(folder: Path) -> None:
    uris = [
        folder.as_uri(),
        "file://elsewhere/a",
        "https://example.org/",
        (folder / "a b.txt").as_uri(),
        "file:///no",
    ]
    assert folders_of(uris) == [folder.resolve()]
    assert len(folders_of([folder.as_uri()] * 1_000)) == 1
