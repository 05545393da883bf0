"""Files that clients sent: what is removed for room or for age, and what never is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rlm_kernel.serve.files import ClientFiles

DAY = 86_400


def sent(traces: Path, number: int, size: int = 100, days_ago: float = 0.0) -> Path:
    """A chat's folder with one file."""
    folder = traces / f"20261129-12000{number}-serve-ann-0000000{number}.files"
    folder.mkdir(parents=True)
    (folder / "message-1.txt").write_bytes(b"x" * size)
    when = time.time() - days_ago * DAY
    os.utime(folder, (when, when))
    return folder


def test_the_oldest_go_first_and_no_more_than_room_is_needed(tmp_path: Path) -> None:
    old, middle, new = (sent(tmp_path, n, days_ago=4 - n) for n in (1, 2, 3))
    assert ClientFiles(tmp_path, 350).make_room(50, ())
    assert old.exists()
    assert ClientFiles(tmp_path, 350).make_room(100, ())
    assert [old.exists(), middle.exists(), new.exists()] == [False, True, True]


def test_files_of_chats_in_use_stay_and_there_is_no_room_then(tmp_path: Path) -> None:
    used, other = sent(tmp_path, 1, days_ago=9), sent(tmp_path, 2)
    assert not ClientFiles(tmp_path, 150, days=1).make_room(100, {used})
    assert [used.exists(), other.exists()] == [True, False]


def test_files_that_are_too_old_go_without_need(tmp_path: Path) -> None:
    old, new = sent(tmp_path, 1, days_ago=3), sent(tmp_path, 2, days_ago=1)
    assert ClientFiles(tmp_path, 10_000, days=2).make_room(0, ())
    assert [old.exists(), new.exists()] == [False, True]
    assert ClientFiles(tmp_path, 10_000, days=0).make_room(0, ())
    assert not new.exists()


@pytest.mark.parametrize(
    "name",
    [
        "mine.files",
        "20261129-120000-serve-ann-00000001.ipynb",
        "20261129-120000-serve-ann-00000001.files.bak",
        "20261129-120000-ask-00000001.files",
        "20261129-120000-serve-../x-00000001.files",
    ],
)
def test_what_no_server_made_is_never_removed(tmp_path: Path, name: str) -> None:
    (folder := tmp_path / name).mkdir(parents=True)
    (folder / "kept").write_bytes(b"x" * 1000)
    ClientFiles(tmp_path, 0, days=0).make_room(1, ())
    assert (folder / "kept").exists()


def test_a_link_with_a_chats_name_leads_nowhere(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "kept").write_bytes(b"x")
    traces = tmp_path / "traces"
    traces.mkdir()
    (traces / "20261129-120000-serve-ann-00000001.files").symlink_to(elsewhere)
    sent(traces, 2)
    (traces / "20261129-120002-serve-ann-00000002.files" / "link").symlink_to(elsewhere)
    ClientFiles(traces, 0, days=0).make_room(1, ())
    assert (elsewhere / "kept").exists()
    assert [path.name for path in traces.iterdir()] == ["20261129-120000-serve-ann-00000001.files"]


def test_a_folder_of_traces_that_is_not_there_has_room(tmp_path: Path) -> None:
    assert ClientFiles(tmp_path / "none", 10).make_room(10, ())
    assert not ClientFiles(tmp_path / "none", 10).make_room(11, ())
