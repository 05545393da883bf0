"""The disk is full, or folders go away, while a run needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Rlm
from tests.support.faults import ANSWER, MODELS, TEXT, Script, answered, sound, understood
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.tree import containers

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
