"""An engine that is reached by ssh.

A program of that name stands in for it, and runs here what it is to run over there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_lease import OWNER, end, running
from tests.support.sandbox import until

SSH = """#!/bin/sh
echo $$ >> "$(dirname "$0")/told"
for last; do :; done
unset DOCKER_HOST
exec $last
"""


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_image: Any, docker_client: Any) -> Path:
    """Stands in; `told` beside it holds the numbers of its processes."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "ssh").write_text(SSH)
    (place / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@far")
    return place


def left(ssh: Path) -> list[str]:
    """Processes of ssh that are there still."""
    return [pid for pid in (ssh / "told").read_text().split() if _runs(Path("/proc", pid, "stat"))]


def _runs(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_kernel_works_and_leaves_no_ssh(sandbox: Any, ssh: Path) -> None:
    box = await sandbox()
    assert await box.text("print(len('x' * 3_000_000 ), llm_query('hello'))") == "3000000 echo hello"
    assert len((await box.run("print('y' * 3_000_000)")).outputs) > 0
    await box.stop()
    await until(lambda: not left(ssh))


def test_a_container_ends_with_its_owner_and_ssh_with_both(docker_client: Any, ssh: Path) -> None:
    cell = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/rlm/run/host')\nwhile True: "
        "print('x' * 1000)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, cell, "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        _, name = owner.stdout.readline().split()
        assert owner.stdout.readline() == "on\n"
        assert running(docker_client, name)
        owner.send_signal(signal.SIGKILL)
    assert end(docker_client, name, 10) < 5
    asyncio.run(until(lambda: not left(ssh)))


async def test_ssh_that_dies_ends_the_kernel_and_a_new_one_is_started(sandbox: Any, ssh: Path) -> None:
    box = await sandbox()
    await box.run("x = 1")
    begun = time.monotonic()
    task = asyncio.create_task(box.run("import time; time.sleep(1000)"))
    await asyncio.sleep(0.5)
    for pid in left(ssh):
        os.kill(int(pid), signal.SIGKILL)
    result = await task
    assert result.status == "died"
    assert (
        "connection to its container broke" in result.notices[0] or "the Docker engine" in result.notices[0]
    )
    assert time.monotonic() - begun < 30
    assert await box.text("print(6 * 7)") == "42"
