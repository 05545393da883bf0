"""Faults around a run: a full disk, folders that go, models that fail, clocks that jump.

It ends in words, its trace is whole, and it can go on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine import loop
from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, MODELS, PLAIN, TEXT, Script, answered, sound, understood
from tests.support.model_server import ModelServer
from tests.support.tree import containers, short_folder

pytestmark = pytest.mark.xdist_group("faults")
SIZE = 4 << 20
"""Bytes of the small disk."""
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk takes root")


def ask(rlm: Rlm, *more: str, trace: Path = Path("t.ipynb")) -> Any:
    Path("in.txt").write_text(TEXT)
    return rlm("ask", "RUN1 How long is it?", "-f", "in.txt", *MODELS, "--trace", str(trace), "--json", *more)


def resumes(rlm: Rlm, trace: Path = Path("t.ipynb"), *more: str) -> None:
    """The run reaches its answer."""
    done = rlm("resume", str(trace), "--json", *more)
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
    sound(trace)


class Disk:
    """A small disk, to be filled up and emptied again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def empty(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    with short_folder() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
        try:
            yield Disk(Path(folder))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


# The disk of the trace


@needs_root
def test_a_disk_that_is_full_from_the_start(rlm: Rlm, script: Script, disk: Disk) -> None:
    disk.fill()
    done = ask(rlm, trace=disk.path / "t.ipynb")
    assert done.returncode != 0
    understood(done.stderr, "No space left on device")
    assert not list(disk.path.glob("*.ipynb*"))
    disk.empty()
    assert answered(ask(rlm, trace=disk.path / "t.ipynb").stdout) == ANSWER


@needs_root
@pytest.mark.hostile
@pytest.mark.parametrize("moment", [("root", 2), ("sub", 5), ("root", 3), ("root", 5)])
def test_a_disk_that_fills_up_while_the_trace_is_written(rlm: Rlm, script: Script, disk: Disk, moment: tuple[str, int]) -> None:
    script.faults[moment] = disk.fill
    trace = disk.path / "t.ipynb"
    done = ask(rlm, trace=trace)
    assert done.returncode != 0, done.stdout
    understood(done.stderr, "No space left on device")
    sound(trace)
    disk.empty()
    resumes(rlm, trace)
    assert [path.name for path in disk.path.iterdir() if path.name.startswith(".")] == []


@needs_root
@pytest.mark.hostile
def test_a_trace_that_outgrows_its_disk(rlm: Rlm, script: Script, disk: Disk) -> None:
    big = "print('x' * 490_000)"
    script.turns = (PLAIN[0], *[f"{big}\n{n}" for n in range(8)], *PLAIN[1:])
    trace = disk.path / "t.ipynb"
    done = ask(rlm, trace=trace)
    assert done.returncode != 0
    understood(done.stderr, "No space left on device")
    sound(trace)
    moved = Path("moved.ipynb")
    shutil.copy(trace, moved)
    resumes(rlm, moved)


# Folders


@pytest.mark.hostile
@pytest.mark.parametrize("what", ["deleted", "a link"])
def test_the_folder_of_the_trace_is_gone_during_the_run(rlm: Rlm, script: Script, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()

    def gone() -> None:
        shutil.rmtree(folder)
        if what == "a link":
            (tmp_path / "elsewhere").mkdir()
            folder.symlink_to(tmp_path / "elsewhere")

    script.faults["root", 2] = gone
    done = ask(rlm, trace=folder / "t.ipynb")
    if done.returncode == 0:
        assert answered(done.stdout) == ANSWER
        sound(folder / "t.ipynb")
    else:
        understood(done.stderr, "trace")


def deleted(runtime: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(runtime, ignore_errors=True)


@pytest.mark.hostile
@pytest.mark.parametrize("moment", [("root", 1), ("sub", 5), ("root", 2)])
def test_the_sessions_folder_is_deleted_during_the_run(
    rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, moment: tuple[str, int]
) -> None:
    with short_folder() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        script.turns, script.seconds = PLAIN, 0.5  # the host looks every second
        script.faults[moment] = deleted(Path(runtime))
        done = ask(rlm)
        assert done.returncode == 3, done.stdout
        understood(done.stderr, "folder")
        Path(runtime).mkdir(exist_ok=True)
        sound(Path("t.ipynb"))
        resumes(rlm)
        Path(runtime).mkdir(exist_ok=True)
        assert containers(os.getpid()) == []


def test_a_runtime_folder_that_is_not_there(rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    done = ask(rlm)
    if done.returncode == 0:
        assert answered(done.stdout) == ANSWER
    else:
        understood(done.stderr, "XDG_RUNTIME_DIR")


@needs_root
@pytest.mark.hostile
def test_a_runtime_folder_on_a_full_disk(rlm: Rlm, script: Script, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(disk.path))
    disk.fill()
    done = ask(rlm)
    assert done.returncode == 3
    understood(done.stderr, "No space left on device")
    disk.empty()
    assert answered(ask(rlm).stdout) == ANSWER


# Models


@pytest.mark.hostile
@pytest.mark.parametrize("fault", ["auth", "server_error", "disconnect"])
def test_a_model_that_fails_in_the_middle_and_is_there_again(rlm: Rlm, script: Script, openai_env: ModelServer, fault: Any) -> None:
    script.faults["sub", 9] = lambda: openai_env.fail(fault, times=40, retry_after="0")
    done = ask(rlm)
    sound(Path("t.ipynb"))
    openai_env._faults.clear()
    if done.returncode == 0:
        assert answered(done.stdout) == ANSWER, "it got over it"
        return
    assert done.returncode in (1, 3)
    understood(done.stderr)
    resumes(rlm)


@pytest.mark.hostile
def test_a_last_answer_that_never_comes(rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LAST_ANSWER_SECONDS", 1.0)
    script.turns = PLAIN
    script.faults["root", 3] = lambda: time.sleep(4)
    done = ask(rlm, "--max-turns", "2")
    assert done.returncode == 1
    assert "no answer (turns)" in done.stderr
    assert sound(Path("t.ipynb")).meta.stop_reason == "turns"
    resumes(rlm, Path("t.ipynb"), "--max-turns", "9")


# The clock


@pytest.mark.parametrize("jump", [pytest.param(86_400.0, marks=pytest.mark.hostile), -86_400.0])
def test_the_clock_jumps_by_a_day(rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    real = time.time

    def leap() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + jump)

    script.faults["sub", 3] = leap
    done = ask(rlm, "--timeout", "60", "--cache")
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
    assert sound(Path("t.ipynb")).meta.totals.seconds < 60  # type: ignore[union-attr]
