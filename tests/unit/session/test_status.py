"""What is told of a session that nobody enters: by what the last command wrote down, and by its container."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.usage import Use
from rlm_kernel.session import status
from rlm_kernel.session.state import SessionFolder, State
from rlm_kernel.session.status import look_at, told_by
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, meta, tell

FILES = [{"name": "b.txt", "path": "/data/b.txt", "characters": 5, "active": True}]
USE = Use(2 << 20, 1 << 30, 61.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionFolder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    monkeypatch.setattr(status, "_use", lambda _session: USE)
    writer = NotebookWriter(tmp_path / "t.ipynb", meta(), [])
    tell(writer, STORY)
    writer.close()
    folder = SessionFolder(Path(".rlm_state").absolute())
    folder.path.mkdir(parents=True)
    begun = folder.begin(tmp_path / "t.ipynb", {})
    folder.write(begun.model_copy(update={"variables": {"x": "int"}, "files": FILES, "idle": 600.0}))
    return folder


async def test_it_tells_what_the_last_command_wrote_down_and_changes_nothing(folder: SessionFolder) -> None:
    before = (folder.path / "state.json").read_bytes()
    found = await look_at()
    assert (found.condition, found.variables, found.files) == ("idle", {"x": "int"}, FILES)
    assert (found.questions, found.totals.turns) == (1, 2)
    assert found.as_json()["container"] == {"memory": 2 << 20, "memory_limit": 1 << 30, "cpu_seconds": 61.0}
    assert any(line.endswith("2 of 1,024 MiB of memory, 1 min of CPU time so far") for line in found.lines())
    assert (folder.path / "state.json").read_bytes() == before


async def test_beside_a_command_that_uses_the_session_it_tells_who_does(folder: SessionFolder) -> None:
    async with folder.held("rlm run"):
        found = await look_at()
    assert found.condition == "busy"
    assert found.holder is not None
    assert found.holder.command == "rlm run"
    assert (found.variables, [file["name"] for file in found.files]) == (None, ["a.txt"])


async def test_of_one_whose_container_has_ended_the_trace_tells(
    folder: SessionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_use", lambda _session: None)
    found = await look_at()
    assert (found.condition, found.variables, found.idle_left) == ("gone", None, None)
    assert [file["name"] for file in found.files] == ["a.txt"]


@pytest.mark.parametrize(
    ("variables", "counts", "line"),
    [
        ({"buffers": "list, 1,203 long, 45,678 characters"}, (1203, 45_678), "1,203 (45,678 characters)"),
        ({}, (0, 0), "0 (0 characters)"),
        ({"buffers": "dict, 3 long"}, None, None),
        ({"buffers": "list, ٣ long, 1 characters"}, None, None),
        ({"buffers": "list, ,, long, , characters"}, None, None),
        (None, None, None),
    ],
)
async def test_it_shows_the_buffers(
    folder: SessionFolder,
    variables: dict[str, str] | None,
    counts: tuple[int, int] | None,
    line: str | None,
) -> None:
    state = folder.read()
    assert state is not None
    folder.write(state.model_copy(update={"variables": variables}))
    found = await look_at()
    told = counts and dict(zip(("count", "characters"), counts, strict=True))
    assert found.as_json()["buffers"] == told
    assert [said for said in found.lines() if said.startswith("buffers")] == (
        [f"buffers     {line}"] if line else []
    )


async def never() -> Any:
    await asyncio.Event().wait()


async def broken() -> Any:
    raise KernelError("it ended")


@pytest.mark.parametrize("answer", [never, broken])
async def test_a_kernel_that_does_not_answer_keeps_nobody(
    folder: SessionFolder, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_TELL_SECONDS", 0.01)
    running: Any = SimpleNamespace(kernel=SimpleNamespace(alive=True, files=answer, variables=answer))
    state = folder.read()
    assert state is not None
    told: State = await told_by(running, state)
    assert (told.variables, told.files) == (None, None)
