"""Models that fail and clocks that jump: a run ends in words, its trace is whole, and it can go on.

The engine's faults are in test_faults_engine.py, those of disks and folders in test_faults_disk.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.engine import loop
from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, MODELS, PLAIN, TEXT, Script, answered, sound, understood
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.xdist_group("faults")


def ask(rlm: Rlm, *more: str) -> Any:
    Path("in.txt").write_text(TEXT)
    return rlm("ask", "How long is it?", "-f", "in.txt", *MODELS, "--trace", "t.ipynb", "--json", *more)


def resumes(rlm: Rlm, *more: str) -> None:
    """The run reaches its answer."""
    done = rlm("resume", "t.ipynb", "--json", *more)
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
    sound(Path("t.ipynb"))


# Models


@pytest.mark.hostile
@pytest.mark.parametrize("fault", ["auth", "server_error", "disconnect"])
def test_a_model_that_fails_in_the_middle_and_is_there_again(
    rlm: Rlm, script: Script, openai_env: ModelServer, fault: Any
) -> None:
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
    resumes(rlm, "--max-turns", "9")


# The clock


@pytest.mark.parametrize("jump", [pytest.param(86_400.0, marks=pytest.mark.hostile), -86_400.0])
def test_the_clock_jumps_by_a_day(
    rlm: Rlm, script: Script, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real = time.time

    def leap() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + jump)

    script.faults["sub", 3] = leap
    done = ask(rlm, "--timeout", "60", "--cache")
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
    assert sound(Path("t.ipynb")).meta.totals.seconds < 60  # type: ignore[union-attr]
