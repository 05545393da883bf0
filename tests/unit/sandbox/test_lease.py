"""The lock by which an owner shows that it lives, and the folder that goes with it, whatever is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlm_kernel.sandbox import rundir
from rlm_kernel.sandbox.rundir import RunDir

LONG_AGO = 1_000_000_000
Make = Callable[..., RunDir]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))
    all_made = []

    def made(**options: float) -> RunDir:
        run = RunDir.create(max_request=1, window=1, **options)
        run.describe(trace=Path("/t.ipynb"), question="?")
        os.utime(run.path / "lease", (LONG_AGO, LONG_AGO))
        all_made.append(run)
        return run

    yield made
    for run in all_made:
        run.remove()


def is_held(run: RunDir) -> bool:
    return rundir._held(run.path)


def test_it_is_held_until_it_is_left_and_has_one_owner(make: Make) -> None:
    run = make()
    assert is_held(run)
    assert RunDir.adopt(run.path) is None
    run.leave()
    assert not is_held(run)
    second = RunDir.adopt(run.path)
    assert second is not None
    assert is_held(run)
    second.leave()


def test_it_falls_with_a_process_that_is_killed(make: Make) -> None:
    run = make()
    run.leave()
    code = (
        "import sys, pathlib, time\nfrom rlm_kernel.sandbox.rundir import RunDir\n"
        "run = RunDir.adopt(pathlib.Path(sys.argv[1])); print(run is not None, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert is_held(run)
        owner.kill()
    assert not is_held(run)
