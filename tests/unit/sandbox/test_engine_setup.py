from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rlm_kernel.sandbox.engine_setup import _drop_if_stale


def test_pid_file_of_a_running_program_stays_and_of_any_other_process_goes(tmp_path: Path) -> None:
    own = Path("/proc/self/comm").read_text().strip()
    pid_file = tmp_path / "docker.pid"
    pid_file.write_text(str(os.getpid()))
    _drop_if_stale(pid_file, own)
    assert pid_file.exists()
    _drop_if_stale(pid_file, "dockerd")
    assert not pid_file.exists()


def test_pid_file_of_a_dead_process_that_nobody_collected_goes(tmp_path: Path) -> None:
    pid_file = tmp_path / "docker.pid"
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        pid_file.write_text(f"{child.pid}\n")
        _drop_if_stale(pid_file, name)
    assert not pid_file.exists()


def test_missing_or_unreadable_pid_file_is_let_be(tmp_path: Path) -> None:
    _drop_if_stale(tmp_path / "none.pid", "dockerd")
    (tmp_path / "odd.pid").write_text("what?")
    _drop_if_stale(tmp_path / "odd.pid", "dockerd")
    assert (tmp_path / "odd.pid").exists()
