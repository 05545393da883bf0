"""The lock by which an owner shows that it lives, and the folder that goes with it, whatever is in it."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlm_kernel.errors import SetupError
from rlm_kernel.sandbox import lease, rundir
from rlm_kernel.sandbox.disk import remove_tree
from rlm_kernel.sandbox.rundir import RunDir, live_sessions, sweep

LONG_AGO = 1_000_000_000
Make = Callable[..., RunDir]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(rundir, "_bases", lambda: iter([tmp_path]))
    all_made = []

    def made(**options: float) -> RunDir:
        run = RunDir.create(max_request=1, window=1, **options)
        run.describe(trace=Path("/t.ipynb"), question="?")
        os.utime(run.host / "lease", (LONG_AGO, LONG_AGO))
        all_made.append(run)
        return run

    yield made
    for run in all_made:
        run.remove()


def is_held(run: RunDir) -> bool:
    with (run.host / "lease").open("rb") as file:
        return lease.held(file.fileno())


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
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert is_held(run)
        owner.kill()
    assert not is_held(run)


@pytest.mark.parametrize("command", [fcntl.F_OFD_SETLK, fcntl.F_SETLK])
def test_what_is_open_for_reading_holds_no_lock_like_the_owners(make: Make, command: int) -> None:
    run = make()
    run.leave()
    with (run.host / "lease").open("rb") as inside:
        fcntl.flock(inside, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.fcntl(inside, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        fcntl.fcntl(inside, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        assert not is_held(run)
        assert live_sessions() == []


@pytest.mark.parametrize("lock", ["flock", "read lock", "lease on the file"])
def test_a_folder_whose_lease_another_has_locked_cannot_be_adopted(make: Make, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    monkeypatch.setattr(rundir, "LEASE_PATIENCE", 0.1)
    run = make()
    run.leave()
    code = (
        "import fcntl, signal, struct, sys, time\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfile = open(sys.argv[1], 'rb')\n"
        "{'flock': lambda: fcntl.flock(file, fcntl.LOCK_EX),"
        " 'read lock': lambda: fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0)),"
        " 'lease on the file': lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)}[sys.argv[2]]()\n"
        "print('locked', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.host / "lease"), lock], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        begun = time.monotonic()
        assert RunDir.adopt(run.path) is None
        assert time.monotonic() - begun < 10
        other.kill()
    adopted = RunDir.adopt(run.path)
    assert adopted is not None
    adopted.leave()


def test_a_lease_that_is_taken_as_it_is_made_is_said(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "take", lambda _lease: False)
    with pytest.raises(SetupError, match="another process has taken its lease"):
        make()


def test_folders_of_an_earlier_version_whose_owner_lives_are_not_swept(make: Make) -> None:
    run = make()
    run.leave()
    with (run.host / "lease").open("rb+") as earlier:
        fcntl.flock(earlier, fcntl.LOCK_EX)
        sweep()
        assert run.path.exists()
    sweep()
    assert not run.path.exists()


def test_a_tree_goes_whatever_is_in_it_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    for folder in (outside, top / "locked" / "in" / "deeper", top / "0.gone"):
        folder.mkdir(parents=True)
    (outside / "file").touch()
    outside.chmod(0o500)
    (top / "link").symlink_to(outside)
    (top / "locked" / "in" / "link").symlink_to(outside)
    (top / "locked" / "file").touch()
    (top / "locked" / "in").chmod(0)
    (top / "locked").chmod(0)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(top)
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.fchdir(here)
        os.close(here)
    remove_tree(top)
    assert not top.exists()
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert outside.stat().st_mode & 0o777 == 0o500
    remove_tree(top)
