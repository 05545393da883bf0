"""Folders of sessions whose owner was killed go with the next session; those of others stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_kernel.sandbox import rundir
from rlm_kernel.sandbox.rundir import RunDir, sweep

LONG_AGO = 1_000_000_000


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunDir]:
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))

    def made(*, idle: float = 0.0, when: float = LONG_AGO) -> RunDir:
        run = RunDir.create(max_request=1, window=1, idle=idle)
        os.utime(run.path / "lease", (when, when))
        return run

    return made


def test_a_folder_that_nobody_owns_any_more_is_deleted(make: Callable[..., RunDir]) -> None:
    run = make()
    run.leave()  # as the system does for a process that was killed
    sweep()
    assert not run.path.exists()


def test_folders_of_living_owners_of_kept_sessions_and_new_ones_stay(make: Callable[..., RunDir]) -> None:
    living, kept, new = make(), make(idle=60), make(when=4_000_000_000)
    kept.leave()
    new.leave()
    sweep()
    assert all(run.path.exists() for run in (living, kept, new))
    living.remove()


def test_what_is_not_ours_stays(make: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make()
    run.leave()
    strange = tmp_path / "rlm-nothing-of-ours"
    run.path.rename(strange)
    half = tmp_path / "rlm-12345678"
    half.mkdir()
    linked = tmp_path / "rlm-87654321"
    linked.symlink_to(strange)
    sweep()
    assert all(path.exists() for path in (strange, half, linked))
