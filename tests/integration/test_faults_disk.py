"""The disk is full, or folders go away, while a run needs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, MODELS, PLAIN, TEXT, Script, answered, sound, understood
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.tree import containers, short_folder

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.hostile]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 2 << 20) as made:
        yield made


def ask(rlm: Rlm, trace: Path, *more: str) -> Any:
    Path("in.txt").write_text(TEXT)
    return rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", str(trace), "--json", *more)


def resumed(rlm: Rlm, trace: Path) -> None:
    """After a fault nothing is left behind, and the run reaches its answer once the fault is mended."""
    assert containers(os.getpid()) == []
    done = rlm("resume", str(trace), "--json")
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
    sound(trace)
    assert containers(os.getpid()) == []


def test_the_disk_is_full_before_the_trace_is_there(rlm: Rlm, script: Script, disk: SmallDisk) -> None:
    disk.fill()
    done = ask(rlm, disk.path / "t.ipynb")
    assert done.returncode == 1
    understood(done.stderr, "cannot be written: No space left on device", "Free some space")
    assert [path.name for path in disk.path.iterdir()] == ["ballast"]
    assert containers(os.getpid()) == []


# A cell's start, in a batch, beside a child at work, between two turns, with the answer on its way.
@pytest.mark.parametrize("moment", [("root", 1), ("sub", 3), ("sub", 10), ("root", 4), ("root", 5)])
@pytest.mark.parametrize("spare", [0, 8192])
def test_the_disk_gets_full_while_the_trace_is_written(
    rlm: Rlm, script: Script, disk: SmallDisk, moment: tuple[str, int], spare: int
) -> None:
    trace = disk.path / "t.ipynb"
    script.faults[moment] = lambda: disk.fill(spare)
    done = ask(rlm, trace)
    assert done.returncode == 1
    understood(done.stderr, "cannot be written: No space left on device", "Free some space", "rlm resume")
    assert sound(trace).meta.status == "running"
    assert not list(disk.path.rglob("*.tmp"))
    disk.free()
    resumed(rlm, trace)


GROWING = (*(f"seen = len(context)\nprint('{letter}' * 300_000)" for letter in "abcdefg"), "FINAL(seen)")


def test_the_trace_itself_fills_the_disk(
    rlm: Rlm, script: Script, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = disk.path / "t.ipynb"
    script.turns = GROWING
    monkeypatch.setenv("RLM_LIMITS__OUTPUT_CHARS", "1000")
    done = ask(rlm, trace)
    assert done.returncode == 1
    understood(done.stderr, "No space left on device", "rlm resume")
    before = sound(trace)
    assert trace.stat().st_size > 600_000
    assert before.code_cells[-1].meta.status in ("ok", "running")
    assert {path.name for path in disk.path.iterdir()} <= {"t.ipynb", "t.prompts.zst"}
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk.path)], check=True)
    done = rlm("resume", str(trace), "--json")
    assert (done.returncode, answered(done.stdout)) == (0, len(TEXT)), done.stderr
    sound(trace)


def read_only(folder: Path) -> Callable[[], None]:
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    return lambda: subprocess.run(["umount", str(folder)], check=True) and None


def renamed(folder: Path) -> Callable[[], None]:
    away = folder.with_name("away")
    folder.rename(away)
    return lambda: away.rename(folder) and None


def replaced(folder: Path) -> Callable[[], None]:
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("a file")

    def mend() -> None:
        folder.unlink()
        away.rename(folder)

    return mend


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (read_only, "Read-only file system"),
        (renamed, "No such file or directory"),
        (replaced, "Not a directory"),
    ],
    ids=["read-only", "moved away", "a file in its place"],
)
@pytest.mark.parametrize("moment", [("sub", 3), ("root", 3)])
def test_the_traces_folder_goes_away_during_the_run(
    rlm: Rlm,
    script: Script,
    disk: SmallDisk,
    harm: Callable[[Path], Callable[[], None]],
    words: str,
    moment: tuple[str, int],
) -> None:
    script.turns = PLAIN
    folder = disk.path / "traces"
    folder.mkdir()
    mend: list[Callable[[], None]] = []
    script.faults[moment] = lambda: mend.append(harm(folder))
    try:
        done = ask(rlm, folder / "t.ipynb")
    finally:
        mend[0]()
    assert done.returncode == 1
    understood(done.stderr, "cannot be written", words, "Free some space or check the folder")
    assert sound(folder / "t.ipynb").meta.status == "running"
    resumed(rlm, folder / "t.ipynb")


# The session's own folder


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def session(runtime: Path) -> Path:
    (found,) = runtime.glob("rlm-*")
    return found


# The folder itself, what describes it, the line of those who wait for room, the kernel's connection, the
# sockets for Jupyter's programs.
@pytest.mark.parametrize("inodes", [2, 3, 5, 6, 7, 8, 9, 10, 12, 16])
def test_the_disk_of_the_sessions_folder_is_full(
    rlm: Rlm, script: Script, runtime: Path, monkeypatch: pytest.MonkeyPatch, inodes: int
) -> None:
    """Full after so many files."""
    with small_disk(runtime / "d", 1 << 20, nr_inodes=inodes) as disk:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(disk.path))
        done = ask(rlm, Path("t.ipynb"))
        assert containers(os.getpid()) == []
        # The line of those who wait for room is everybody's, and stays.
        assert [path.name for path in disk.path.iterdir() if not path.name.startswith("rlm_line-")] == []
    assert done.returncode == 3
    understood(done.stderr, "No space left on device", "Check free space", "XDG_RUNTIME_DIR")


# In a cell, between two, before the last.
@pytest.mark.parametrize("moment", [("sub", 3), ("root", 3), ("root", 4)])
def test_the_sessions_folder_is_deleted_during_the_run(
    rlm: Rlm, script: Script, runtime: Path, moment: tuple[str, int]
) -> None:
    script.turns = PLAIN
    script.faults[moment] = lambda: shutil.rmtree(session(runtime))
    done = ask(rlm, Path("t.ipynb"))
    assert done.returncode == 3
    understood(done.stderr, "was deleted while it was in use", "rlm resume")
    assert script.asked["root", 0] <= moment[1], "no turn after turn that can do nothing"
    before = sound(Path("t.ipynb"))
    assert (before.meta.status, before.meta.stop_reason) == ("finished", "error")
    resumed(rlm, Path("t.ipynb"))


def test_a_link_in_the_place_of_the_sessions_folder_is_not_followed(
    rlm: Rlm, script: Script, runtime: Path
) -> None:
    def link() -> None:
        folder = session(runtime)
        folder.rename(folder.with_name("away"))
        (runtime / "elsewhere" / "r1").mkdir(parents=True)
        (runtime / "elsewhere" / "r1" / "kept").write_text("somebody's file")
        folder.symlink_to("elsewhere")

    script.turns = PLAIN
    script.faults["sub", 3] = link
    done = ask(rlm, Path("t.ipynb"))
    assert (done.returncode, answered(done.stdout)) == (0, ANSWER), (
        "what runs goes on: it does not need the name"
    )
    assert (runtime / "elsewhere" / "r1" / "kept").exists()
    assert containers(os.getpid()) == []
    sound(Path("t.ipynb"))


def test_a_new_kernel_is_needed_and_the_runtime_folder_is_gone(
    rlm: Rlm, script: Script, runtime: Path
) -> None:
    away = runtime.with_name(f"{runtime.name}-away")
    script.turns = ("import os\nos._exit(1)", *PLAIN)
    script.faults["root", 1] = lambda: runtime.rename(away)
    try:
        done = ask(rlm, Path("t.ipynb"))
    finally:
        away.rename(runtime)
    assert done.returncode == 3
    understood(done.stderr, "A new kernel could not be started", "cannot be used: No such file or directory")
    sound(Path("t.ipynb"))
    script.turns = PLAIN
    assert containers(os.getpid()) == []


def test_without_a_runtime_folder_sessions_lie_elsewhere(
    rlm: Rlm, script: Script, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.turns = PLAIN
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "gone"))
    done = ask(rlm, Path("t.ipynb"))
    assert (done.returncode, answered(done.stdout)) == (0, ANSWER)
    assert not (runtime / "gone").exists()


# The cache


@pytest.mark.parametrize("moment", [None, ("sub", 3), ("root", 3)])
def test_the_disk_of_the_cache_is_full(
    rlm: Rlm, script: Script, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, moment: tuple[str, int] | None
) -> None:
    monkeypatch.setenv("RLM_CACHE__DIR", str(disk.path / "calls"))
    monkeypatch.setenv("RLM_SUB_LLM__TEMPERATURE", "0")
    script.turns = PLAIN
    if moment is None:
        disk.fill()
    else:
        script.faults[moment] = disk.fill
    done = ask(rlm, Path("t.ipynb"), "--cache")
    assert (done.returncode, answered(done.stdout)) == (0, ANSWER), done.stderr
    assert done.stderr.count("The cache cannot be used, so this run continues without it") == 1
    sound(Path("t.ipynb"))
    disk.free()
    again = ask(rlm, Path("u.ipynb"), "--cache")
    assert (again.returncode, answered(again.stdout)) == (0, ANSWER), again.stderr
    assert "cannot be used" not in again.stderr
