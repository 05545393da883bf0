"""An engine over ssh, with a program of that name that stands in: what goes wrong is told, and nothing is
left.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from rlm_kernel.errors import DockerError
from rlm_kernel.sandbox import docker_host, engine_errors
from rlm_kernel.sandbox.engine_ssh import Ssh
from tests.support.sandbox import until

ENGINE = """
import sys
while True:
    line = sys.stdin.buffer.readline()
    if not line:
        break
    if line == b"\\r\\n":
        sys.stdout.buffer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 22\\r\\n\\r\\n{"ApiVersion": "1.41"}')
        sys.stdout.flush()
"""
"""What answers every request."""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a program to be run as ssh; what it was told is in `told` beside it, a line each time."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@far:2222")
    return tmp_path / "ssh"


def put(ssh: Path, script: str) -> None:
    ssh.write_text(f'#!/bin/sh\necho $$ "$@" >> {shlex.quote(str(ssh.parent))}/told\n{script}\n')
    ssh.chmod(0o755)


async def test_requests_share_one_ssh_which_ends_with_the_client(ssh: Path) -> None:
    put(ssh, f"exec {sys.executable} -c {shlex.quote(ENGINE)}")
    client = docker_host.connect()
    client.version()
    client.version()
    (told,) = (ssh.parent / "told").read_text().splitlines()
    pid, _, arguments = told.partition(" ")
    assert arguments.endswith("-l me -p 2222 -- far docker system dial-stdio")
    assert "-oBatchMode=yes" in arguments
    assert "-oServerAliveInterval=15" in arguments
    client.close()
    await until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("said", "told", "hint"),
    [
        ("Host key verification failed.", "does not know far", "ssh -p 2222 me@far"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "does not trust far",
            "ssh-keygen -R",
        ),
        ("me@far: Permission denied (publickey,password).", "was refused by far", "ssh-add"),
        ("ssh: Could not resolve hostname far: Name or service not known", "cannot reach far", "address"),
        ("bash: line 1: docker: command not found", "no `docker` command on far", "Install it"),
        ("docker: 'system dial-stdio' is not a docker command.", "too old on far", "18.09"),
        (
            "permission denied while trying to connect to the Docker daemon socket at …",
            "may not use Docker on far",
            "usermod",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
            "No Docker engine answers on far",
            "Start it",
        ),
        ("Something new.", "over ssh to far failed: Something new", "docker version"),
        ("", "the connection was closed", "docker version"),
    ],
)
def test_what_ssh_says_is_told_with_what_to_do(ssh: Path, said: str, told: str, hint: str) -> None:
    put(ssh, f"echo {shlex.quote(said)} >&2; exit 255")
    with pytest.raises(DockerError) as caught:
        docker_host.connect()
    assert told in caught.value.message
    assert hint in caught.value.hint


def test_a_shell_that_prints_is_told(ssh: Path) -> None:
    put(ssh, f"echo Welcome; exec {sys.executable} -c {shlex.quote(ENGINE)}")
    with pytest.raises(DockerError, match=r"not from Docker: Welcome") as caught:
        docker_host.connect()
    assert "prints something when it starts" in caught.value.hint


def test_a_machine_that_does_not_answer_is_told(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_errors, "ANSWER_SECONDS", 1)
    put(ssh, "exec cat >/dev/null")
    with pytest.raises(DockerError, match="did not answer within 1 s") as caught:
        docker_host.connect()
    assert "on that machine" in caught.value.hint


def test_a_machine_without_ssh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    with pytest.raises(DockerError, match="ssh cannot be started") as caught:
        docker_host.connect()
    assert "Install it" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "by_hand"),
    [
        ("ssh://Far", "ssh Far"),
        ("ssh://me@[::1]:22", "ssh -p 22 me@::1"),
        ("ssh://me%40home@far/run/user/1000/podman/podman.sock", "ssh me@home@far"),
    ],
)
def test_an_address_is_taken_apart(url: str, by_hand: str) -> None:
    assert Ssh(url).by_hand == by_hand
