"""Having a Docker engine: the one that answers, else one installed and started here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.errors import DockerError, SetupError
from rlm_kernel.sandbox.debian import apt_install, is_root_on_debian
from rlm_kernel.sandbox.docker_host import connect

if TYPE_CHECKING:
    from docker import DockerClient

START_SECONDS = 60
_DAEMON_LOG = Path("/var/log/dockerd.log")
_PID_FILES = (
    (Path("/var/run/docker.pid"), "dockerd"),
    (Path("/var/run/docker/containerd/containerd.pid"), "containerd"),
)


def ensure_engine(progress: Callable[[str], None]) -> DockerClient:
    """A client of the engine that answers.

    Where none does, root on a Debian-like host installs and starts one. Blocking.

    `progress` hears of each step before it is taken.

    Raises:
        SetupError: none answers and none may (RLM_INSTALL_DOCKER=0) or can be set up here.
    """
    try:
        return connect()
    except DockerError as error:
        problem = error
    if os.environ.get("DOCKER_HOST") or not is_root_on_debian():
        raise problem
    if os.environ.get("RLM_INSTALL_DOCKER") == "0":
        raise SetupError(
            f"{problem.message} rlm may not install and start one, because RLM_INSTALL_DOCKER=0 is set.",
            hint="Start Docker Engine (`apt-get install docker.io`, `service docker start`), or unset "
            "RLM_INSTALL_DOCKER.",
        ) from problem
    progress(problem.message)
    if _find("dockerd") is None:
        apt_install("docker.io", "rlm needs it to run the kernel's container", progress)
    return _start(progress)


def _start(progress: Callable[[str], None]) -> DockerClient:
    if Path("/run/systemd/system").is_dir():
        service = ["systemctl", "start", "docker"]
    else:
        service = ["service", "docker", "start"]
    progress(f"starting Docker Engine: {' '.join(service)}")
    if _succeeds(service) and (client := _wait_for_answer(START_SECONDS / 2)):
        return client
    progress(f"starting Docker Engine: dockerd (its log is {_DAEMON_LOG})")
    daemon = _find("dockerd")
    if daemon is None:
        raise DockerError(
            "Docker Engine is installed, but rlm cannot find dockerd.",
            hint="`apt-get install --reinstall docker.io`",
        )
    for pid_file, program in _PID_FILES:
        _drop_if_stale(pid_file, program)
    with _DAEMON_LOG.open("ab") as log:  # it is to outlive this process
        subprocess.Popen([daemon], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    if client := _wait_for_answer(START_SECONDS):
        return client
    raise DockerError(
        f"Docker Engine was started, but does not answer after {START_SECONDS} s.",
        hint=f"Its log is {_DAEMON_LOG}.",
    )


def _drop_if_stale(pid_file: Path, program: str) -> None:
    """Remove the pid file of a program that was killed.

    dockerd refuses to start while a process has that number, even a dead one that nobody has collected, or
    another program.
    """
    try:
        pid = int(pid_file.read_text())
        name, state = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
        running = name == program and state.split()[0] not in ("Z", "X")
    except FileNotFoundError:
        running = False
    except (OSError, ValueError, IndexError):
        return
    if not running:
        pid_file.unlink(missing_ok=True)


def _wait_for_answer(seconds: float) -> DockerClient | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return connect()
        except DockerError:
            time.sleep(0.2)
    return None


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")


def _succeeds(command: list[str]) -> bool:
    program = _find(command[0])
    if program is None:
        return False
    quiet = subprocess.DEVNULL  # not a pipe: a daemon that keeps it open would be waited for
    return subprocess.run([program, *command[1:]], stdin=quiet, stdout=quiet, stderr=quiet).returncode == 0
