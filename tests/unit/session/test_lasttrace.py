"""The trace that `rlm resume`, `replay`, `show`, `export` and `open` take where none is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.config import Settings, load_settings
from rlm_kernel.errors import UsageError
from rlm_kernel.session.lasttrace import last_trace
from rlm_kernel.session.state import SessionFolder
from rlm_kernel.trace.schema import ParentMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell


def write(path: Path, when: float, events: Any = STORY, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = NotebookWriter(path, meta(**changes), ())
    tell(writer, events)
    writer.release()
    os.utime(path, (when, when))
    return path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load_settings(None, {})


def test_it_is_the_one_that_was_written_last(settings: Settings) -> None:
    write(settings.trace.dir / "b.ipynb", 1_000)
    newest = write(settings.trace.dir / "a.ipynb", 2_000)
    assert last_trace(settings) == newest


def test_a_run_that_was_cut_off_counts_too(settings: Settings) -> None:
    write(settings.trace.dir / "done.ipynb", 1_000)
    cut = write(settings.trace.dir / "cut.ipynb", 2_000, STORY[:9])
    assert last_trace(settings) == cut


def test_children_other_notebooks_damaged_ones_and_links_are_not_meant(
    settings: Settings, tmp_path: Path
) -> None:
    folder = settings.trace.dir
    mine = write(folder / "mine.ipynb", 1_000)
    parent = ParentMeta(trace="mine.ipynb", session="1", cell="turn-01-a")
    write(folder / "child.ipynb", 2_000, parent=parent)
    write(folder / "mine.children" / "turn-01-a-1.ipynb", 3_000, parent=parent)
    (folder / "other.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (folder / "cut.ipynb").write_text('{"cells": [{"cell_type": "code", "metadata"')
    (folder / "folder.ipynb").mkdir()
    os.mkfifo(folder / "pipe.ipynb")
    outside = write(tmp_path / "elsewhere" / "theirs.ipynb", 4_000)
    (folder / "link.ipynb").symlink_to(outside)
    assert last_trace(settings) == mine


def test_the_trace_of_a_session_is_found_wherever_it_is(settings: Settings, tmp_path: Path) -> None:
    write(settings.trace.dir / "asked.ipynb", 1_000)
    kept = write(tmp_path / "elsewhere" / "session.ipynb", 2_000)
    folder = SessionFolder(settings.session.dir)
    folder.path.mkdir(parents=True)
    folder.write(folder.begin(kept, {}))
    assert last_trace(settings) == kept


def test_where_there_is_none_it_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(UsageError, match="There is no trace in rlm-traces") as caught:
        last_trace(settings)
    assert "rlm ask" in caught.value.hint
