"""`rlm diff`: with what a trace is compared, what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.cli import main
from rlm_kernel.trace.schema import OriginMeta
from rlm_kernel.trace.writer import NotebookWriter
from tests.support.trace import STORY, WHEN, meta, tell

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def diff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["rlm", "diff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return run


def write(path: Path, **changes: Any) -> Path:
    tell(NotebookWriter(path, meta(**changes), ()), STORY)
    return path


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return path


def origin(kind: Any, trace: str) -> OriginMeta:
    return OriginMeta(kind=kind, trace=trace, session="1a2b3c4d", cell="turn-01-a", at=WHEN)


def test_the_same_in_another_notebook_exits_with_0(diff: Run, tmp_path: Path) -> None:
    done = diff(write(tmp_path / "a.ipynb"), write(tmp_path / "b.ipynb", limits={"turns": 60}))
    assert done.returncode == 0
    assert "No difference in questions, code, outputs or answers." in done.stdout
    assert "limit turns: 30 → 60" in done.stdout


def test_another_answer_exits_with_1_and_shows_both(diff: Run, tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.ipynb"), edit(write(tmp_path / "b.ipynb"), "About 5.", "About 6.")
    done = diff(one, other)
    assert done.returncode == 1
    assert "answer:\n" in done.stdout
    assert "-About 5.\n" in done.stdout
    assert "+About 6.\n" in done.stdout
    found = json.loads(diff(one, other, "--json").stdout)
    assert found["same"] is False
    assert found["answer"][-1] == "+About 6."


def test_a_fork_alone_is_compared_with_its_origin(diff: Run, tmp_path: Path) -> None:
    first = write(tmp_path / "first.ipynb")
    fork = write(tmp_path / "fork.ipynb", question="Which?", origins=[origin("fork", str(first))])
    done = diff(fork)
    assert done.returncode == 1
    assert done.stdout.index("first.ipynb") < done.stdout.index("fork.ipynb"), "the older one comes first"
    assert "question:\n  -How many?\n  +Which?\n" in done.stdout


def test_an_origin_that_was_moved_is_found_beside_its_fork(diff: Run, tmp_path: Path) -> None:
    write(tmp_path / "first.ipynb")
    fork = write(tmp_path / "fork.ipynb", origins=[origin("fork", "/elsewhere/first.ipynb")])
    assert diff(fork).returncode == 0


@pytest.mark.parametrize(
    ("origins", "why"),
    [
        ((), "it was not made from another trace"),
        ((("resume", "t.ipynb"),), "it was resumed in the same notebook"),
        ((("fork", "/elsewhere/gone.ipynb"),), "made from /elsewhere/gone.ipynb, which does not exist"),
        ((("fork", "t.ipynb"),), "which does not exist"),
    ],
)
def test_a_trace_without_an_origin_is_told_why_and_what_to_type(
    diff: Run, tmp_path: Path, origins: tuple[tuple[str, str], ...], why: str
) -> None:
    done = diff(write(tmp_path / "t.ipynb", origins=[origin(*one) for one in origins]))
    assert done.returncode == 2
    assert why in done.stderr
    assert "rlm diff A B" in done.stderr


def test_nothing_in_a_trace_changes_the_terminal(diff: Run, tmp_path: Path) -> None:
    other = write(tmp_path / "b.ipynb", question="Which\x1b]0;owned\x07\x1b[2J?")
    done = diff(write(tmp_path / "a.ipynb"), other)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
