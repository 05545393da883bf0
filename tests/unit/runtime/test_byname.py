"""Loaded files are in the working directory by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from rlm_runtime import byname


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; what is given is beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr(byname, "_folder", [folder])
    monkeypatch.setattr(byname, "_made", set())
    return folder


def given(work: Path, text: str) -> Path:
    path = work.parent / f"given-{text}"
    path.write_text(text)
    return path


def test_a_file_is_there_by_its_name_also_in_a_folder(work: Path) -> None:
    byname.link("a.log", given(work, "one"))
    byname.link("notes/2024/b.txt", given(work, "two"))
    assert (work / "a.log").read_text() == "one"
    assert (work / "notes/2024/b.txt").read_text() == "two"


def test_a_name_that_is_loaded_again_is_the_new_file(work: Path) -> None:
    byname.link("a.log", given(work, "one"))
    byname.link("a.log", given(work, "two"))
    assert (work / "a.log").read_text() == "two"


def test_what_code_wrote_there_stays(work: Path) -> None:
    (work / "a.log").write_text("mine")
    byname.link("a.log", given(work, "one"))
    assert (work / "a.log").read_text() == "mine"
    byname.link("b.log", given(work, "one"))
    (work / "b.log").unlink()
    (work / "b.log").write_text("mine")
    byname.link("b.log", given(work, "two"))
    assert (work / "b.log").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "..", "../a", "/etc/passwd", "a/../../b", "a\0b", "n" * 5000, "."])
def test_a_name_that_is_no_place_below_it_makes_nothing(work: Path, name: str) -> None:
    byname.link(name, given(work, "one"))
    assert list(work.iterdir()) == []
    assert len(list(work.parent.iterdir())) == 2


def test_links_are_no_more_than_a_bound(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byname, "_MOST", 2)
    for number in range(5):
        byname.link(f"{number}.txt", given(work, "one"))
    assert len(list(work.iterdir())) == 2
