"""The journal beside a notebook: what was heard is on disk although the notebook is not written at each
event.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlm_kernel.engine.events import CallFinished, CellFinished, CellOutput, CellStarted, Noted
from rlm_kernel.errors import RLMError, TraceError, TraceNotWritten
from rlm_kernel.trace import notebook_file
from rlm_kernel.trace.journal import journal_path
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.reader import fold_all, read_notebook, read_trace
from rlm_kernel.trace.taken import ended
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.engine import stream
from tests.support.sandbox import until
from tests.support.trace import STORY, call, cell, load, meta, result, tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.ipynb"


@pytest.fixture(autouse=True)
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook is written whole at the beginning and at the end alone, progress with every event."""
    for name, value in (("AHEAD", 0), ("SHARE", 0), ("RATE", 1e-6)):
        monkeypatch.setattr(notebook_file, name, value)
    monkeypatch.setattr(NotebookWriter, "_save_now_and_then", NotebookWriter._save_running)


def plain(node: Any) -> Any:
    """A notebook as data, without what tells of its writing, and without the running cell's clock."""
    data = json.loads(nbformat.writes(node))
    for name in ("journal", "journaled"):
        data["metadata"]["rlm"].pop(name, None)
    for found in data["cells"]:
        if found["metadata"]["rlm"].get("status") == "running":
            found["metadata"]["rlm"].pop("seconds", None)
            found["metadata"]["execution"] = {}
    return data


def as_before(tmp_path: Path, events: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook of a writer that writes it whole at each event."""
    with monkeypatch.context() as patch:
        patch.setattr(notebook_file, "AHEAD", 1e9)
        other = tmp_path / "whole" / "t.ipynb"
        tell(NotebookWriter(other, meta(), []), STORY[:events])
        return plain(load(other))


@pytest.mark.parametrize("events", range(1, len(STORY)))
def test_a_run_cut_off_anywhere_is_complete(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    writer = NotebookWriter(path, meta(), [])
    before = path.stat().st_ino
    tell(writer, STORY[:events])
    assert path.stat().st_ino == before, "not written again"
    load(path)  # and valid as it is
    assert plain(read_notebook(path)) == as_before(tmp_path, events, monkeypatch)


def test_the_end_is_whole_and_the_journal_is_gone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(NotebookWriter(path, meta(), []), STORY)
    assert os.listdir(tmp_path) == ["t.ipynb"]
    found = load(path)
    assert "journal" not in found.metadata.rlm
    assert plain(found) == as_before(tmp_path, len(STORY), monkeypatch)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        '{"n": 1',
        "\x00\x00\x00",
        "[1]\n",
        "null\n",
        '{"n": 99, "cells": [{"cell": 7}]}\n',
        "[" * 100_000 + "\n",
    ],
)
def test_what_is_behind_a_torn_or_odd_record_does_not_count(path: Path, kept: str) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    whole = plain(read_notebook(path))
    with journal_path(path).open("a") as file:
        file.write(kept)
    assert plain(read_notebook(path)) == whole


def test_a_torn_last_record_loses_itself_alone(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:7])
    before = plain(read_notebook(path))
    size = journal_path(path).stat().st_size
    tell(writer, STORY[7:8])
    raw = journal_path(path).read_bytes()
    for length in range(size, len(raw)):
        journal_path(path).write_bytes(raw[:length])
        assert plain(read_notebook(path)) == before
    journal_path(path).write_bytes(raw)
    assert plain(read_notebook(path)) != before


def test_a_record_that_the_disk_has_no_room_for_leaves_no_half_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:7])
    real = os.write

    def full(file: int, data: Any) -> int:
        if len(data) > 20:
            return real(file, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(TraceError, match="No space left on device"):
            writer(Noted("lost?"))
    tell(writer, STORY[7:9])
    assert [found.id for found in read_notebook(path).cells] == [
        "title",
        "parameters",
        "setup",
        "note-01-1",
        "turn-01",
        "turn-01-a",
    ]


def test_the_journal_is_for_its_owner_alone_and_follows_no_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    journal_path(path).symlink_to(tmp_path / "mine")
    tell(NotebookWriter(path, meta(), []), STORY[:9])
    assert (tmp_path / "mine").read_text() == "mine"
    assert journal_path(path).stat().st_mode & 0o777 == 0o600


def journal_of(path: Path, events: int) -> bytes:
    """The journal of another run."""
    tell(NotebookWriter(path, meta(), []), STORY[:events])
    return journal_path(path).read_bytes()


def test_another_runs_journal_is_not_believed(path: Path, tmp_path: Path) -> None:
    other = journal_of(tmp_path / "other.ipynb", 9)
    writer = NotebookWriter(path, meta(), [])
    journal_path(path).write_bytes(other)
    assert [found.id for found in read_trace(path).cells] == ["title"]
    assert journal_path(path).read_bytes() == other
    tell(writer, STORY)
    assert not journal_path(path).exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_read(path: Path, tmp_path: Path, kind: str) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    journal = journal_path(path)
    journal.rename(tmp_path / "away")
    if kind == "link":
        journal.symlink_to(tmp_path / "away")
    elif kind == "pipe":
        os.mkfifo(journal)
    else:
        journal.mkdir()
    assert [found.id for found in read_trace(path).cells] == ["title"]


def killed(path: Path, events: int) -> None:
    """A run that is killed after so many events, in a process of its own."""
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom rlm_kernel.trace import notebook_file\n"
        "notebook_file.AHEAD = notebook_file.SHARE = 0; notebook_file.RATE = 1e-6\n"
        "from rlm_kernel.trace.writer import NotebookWriter\nfrom tests.support.trace import STORY, meta, "
        "tell\n"
        "NotebookWriter._save_now_and_then = NotebookWriter._save_running\n"
        f"tell(NotebookWriter(Path({str(path)!r}), meta(), []), STORY[:{events}])\nos.kill(os.getpid(), "
        "signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


def test_what_a_killed_run_left_is_folded_by_the_next_command(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(path, 9)
    shutil.copytree(tmp_path, tmp_path / "deep")
    assert len(load(path).cells) == 1
    assert plain(read_trace(path).node) == as_before(tmp_path, 9, monkeypatch)
    assert not journal_path(path).exists()
    assert plain(load(path)) == as_before(tmp_path, 9, monkeypatch), "any program opens it now"
    assert fold_all(tmp_path) == [tmp_path / "deep" / "t.ipynb"]
    assert plain(load(tmp_path / "deep" / "t.ipynb")) == plain(load(path))


@pytest.mark.parametrize(("events", "calls"), [(12, 1), (14, 2)])
def test_a_cell_whose_run_was_killed_shows_what_its_calls_were(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int, calls: int
) -> None:
    killed(path, events)
    found = read_trace(path)
    for node in (found.node, load(path)):
        table = cell(node, "turn-01-a").outputs[0]
        assert is_made(table)
        assert table.data["text/html"].count("<tr>") == 1 + calls
    assert not any(map(is_made, found.cells[-1].outputs))
    again = NotebookWriter(path, found.meta, [], ended(found.node.cells))
    again(Noted("The session goes on."))
    assert [is_made(one) for one in cell(load(path), "turn-01-a").outputs].count(True) == 1
    monkeypatch.setattr(notebook_file, "AHEAD", 1e9)
    tell(NotebookWriter(tmp_path / "whole.ipynb", meta(), []), STORY[:events])
    assert is_made(cell(load(tmp_path / "whole.ipynb"), "turn-01-a").outputs[0]), (
        "nobody may read it with rlm"
    )


def test_a_run_that_goes_on_is_read_and_let_alone(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    ids = [found.id for found in read_trace(path).cells]
    assert ids[-1] == "turn-01-a"
    assert journal_path(path).exists()
    assert fold_all(path.parent) == []
    tell(writer, STORY[9:])
    assert os.listdir(path.parent) == ["t.ipynb"]


def test_where_nothing_may_be_written_a_killed_run_is_read_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(path, 9)

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", denied)
        assert read_trace(path).cells[-1].id == "turn-01-a"
    assert journal_path(path).exists()


def test_a_trace_that_is_taken_up_is_whole_before_the_old_journal_goes(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:18])
    writer.release()
    node = read_notebook(path)
    going = NotebookWriter(path, meta(), [], [found for found in node.cells if found.id != "title"])
    assert read_notebook(path).cells == node.cells
    tell(going, STORY[18:20])
    assert "turn-01-b" in path.read_text()
    tell(going, STORY[20:])
    assert os.listdir(path.parent) == ["t.ipynb"]
    assert cell(load(path), "turn-01-a").outputs


@pytest.mark.parametrize("harm", ["deleted", "moved away with its folder"])
def test_a_journal_that_goes_away_is_noticed_at_the_next_event(path: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "traces"
    writer = NotebookWriter(folder / "t.ipynb", meta(), [])
    tell(writer, STORY[:9])
    if harm == "deleted":
        journal_path(folder / "t.ipynb").unlink()
        tell(writer, STORY[9:16])
        assert len(read_trace(folder / "t.ipynb").cells) == 6
        return
    folder.rename(tmp_path / "away")
    with pytest.raises(TraceError, match="No such file or directory"):
        tell(writer, STORY[14:15])
    (tmp_path / "away").rename(folder)
    tell(writer, STORY[14:])
    assert os.listdir(folder) == ["t.ipynb"]


def test_progress_goes_on_from_progress(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    text = ""
    for number in range(50):
        text += f"line {number}\n"
        writer(CellOutput("turn-01-a", [stream("first\n", "stderr"), stream(text)]))
        writer(CallFinished("turn-01-a", call(number)))
    found = read_trace(path).cells[-1]
    assert [output["text"] for output in found.outputs] == ["first\n", text]
    assert [one.id for one in found.meta.calls] == [f"7-1-{number}" for number in range(50)]  # type: ignore[union-attr]
    assert journal_path(path).stat().st_size < 50_000, "the outputs are not repeated"


def test_outputs_that_are_made_anew_all_the_time_do_not_fill_the_disk(path: Path) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    for number in range(200):
        writer(CellOutput("turn-01-a", [stream(f"{number} " * 20_000)]))
    assert journal_path(path).stat().st_size < 200_000
    writer(CellFinished(1, result("turn-01-a", "x", outputs=[stream("last")])))
    assert read_trace(path).cells[-1].outputs[0]["text"] == "last"


async def test_the_notebook_follows_the_journal_without_another_event(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_file, "RATE", 100_000)
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:9])
    await until(lambda: "turn-01-a" in path.read_text(), 5)
    assert writer._whole_due is None, "with nothing new it is not written again"
    writer.release()


def test_a_small_trace_is_whole_after_each_event_and_has_no_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_file, "AHEAD", 4_000_000)
    writer = NotebookWriter(path, meta(), [])
    for event in STORY:
        tell(writer, [event])
        assert os.listdir(path.parent) == ["t.ipynb"]
        if isinstance(event, CellStarted):
            assert load(path).cells[-1].id == event.cell_id


async def test_a_run_whose_end_cannot_be_written_leaves_its_journal_to_who_takes_it_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NotebookWriter(path, meta(), [])
    tell(writer, STORY[:-1])
    before = plain(read_notebook(path))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(TraceNotWritten, match="No space left on device"):
            tell(writer, STORY[-1:])
    assert writer._whole_due is None, "it is not written later, over what somebody else has made of it"
    assert plain(read_trace(path).node) == before
    assert os.listdir(path.parent) == ["t.ipynb"], "folded: nobody holds it any more"


@pytest.mark.parametrize("name", ["a\0b.ipynb", "..", "x" * 300 + ".ipynb"])
def test_a_path_that_no_file_can_have_is_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(RLMError):
        read_trace(tmp_path / name)
