"""A Docker engine of a test's own, which may be stopped, killed and started again. Needs root and dockerd.

Its processes, mounts and network are those of a machine of its own, so that nothing of them is left, whatever
becomes of the test.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

import docker

from tests.support.layers import link_image
from tests.support.machine import Machine, signal_child

ROOT = Path(__file__).parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REACH = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_USUAL = {name: os.environ[name] for name in _REACH if name in os.environ}
"""What leads to the usual engine, whatever a test sets."""
_FOLDERS = Path("/var/lib")
"""Where the usual engine's images are too, to be linked."""
_PREFIX = "rlm-engine-"
_SECONDS = 60.0


def _plain() -> dict[str, str]:
    """In which docker does what its arguments say."""
    return {name: value for name, value in os.environ.items() if name not in _REACH}


def usual_environment() -> dict[str, str]:
    """In which docker reaches the usual engine."""
    return _plain() | _USUAL


def lacks(*programs: str) -> str:
    """Why there can be no engine of a test's own here that needs these programs; "" if there can be one."""
    missing = [
        name
        for name in ("dockerd", "docker", "unshare", "nsenter", *programs)
        if shutil.which(name, path=PATH) is None
    ]
    return (
        "needs root" if os.getuid() else f"needs {', '.join(missing)} (scripts/engines.sh)" if missing else ""
    )


class OwnEngine:
    """`address` is for DOCKER_HOST, `environment` is all that a command needs to reach it.

    Between `start` and `close`.

    `more`: options of dockerd. `config`: what it reads as its daemon.json.
    """

    needs: tuple[str, ...] = ()
    """Programs, beside those of all engines here."""
    far = False
    """Whether it sees none of this machine's files."""
    keeps_stdin = True
    """Whether a container's stdin stays open when a client leaves, where StdinOnce is not set."""
    own_kernel = False
    """Whether its containers have a kernel of their own."""
    seen_of_the_first = frozenset[str]()
    """What code sees of the first process (of `tests.integration.test_lease.LOOK`)."""
    links = True
    """Whether it keeps images as the usual engine does: not if it maps users."""

    def __init__(self, *more: str, config: dict[str, Any] | None = None) -> None:
        _clear_away()
        self._more = more
        self.folder = Path(mkdtemp(prefix=_PREFIX, dir=_FOLDERS))
        self.folder.chmod(0o711)  # where it maps users, they pass through
        self._lock = os.open(self.folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.folder / "new").rename(self.folder / "lock")  # others may look for it from now on
        (self.folder / "daemon.json").write_text(json.dumps(config or {}))
        self._socket = f"unix://{self.folder}/sock"
        self.address = self._socket
        self.shared = self.folder / "shared"
        """Of Desktop's: what both sides see."""
        self._prepare()
        self._machine = Machine(self.folder, far=self.far, keep=self._lock)
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.RLock()
        """It is stopped in one thread and started in another."""

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.address}

    def _prepare(self) -> None:
        """What its folder has before its machine is there."""

    def start(self, image: str = "") -> None:
        """Returns when it answers, and has the image."""
        with self._turn:
            linked = (
                bool(image) and self.links and link_image(image, self.folder / "data", usual_environment())
            )
            self._start()
        if image and not linked:
            self.load(image)

    def _start(self) -> None:
        for pid in (
            "pid",
            "exec/containerd/containerd.pid",
        ):  # of one that was killed, and that perhaps nobody has collected
            (self.folder / pid).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = self._open(log)
        until = time.monotonic() + _SECONDS
        while self.docker("version").returncode:
            assert time.monotonic() < until, f"the engine does not start: {self.log()}"
            assert self._process.poll() is None, f"the engine ended: {self.log()}"
            time.sleep(0.1)

    def _open(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._machine.command(*self._command()), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def _command(self) -> list[str]:
        apart = [
            "--data-root",
            "data",
            "--exec-root",
            "exec",
            "--pidfile",
            "pid",
            "--config-file",
            "daemon.json",
        ]
        paths = [argument if argument.startswith("--") else str(self.folder / argument) for argument in apart]
        no_network = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        limits = [f"--cgroup-parent=/{self.folder.name}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        return [
            "dockerd",
            "--host",
            self._socket,
            *paths,
            *no_network,
            *limits,
            *self._more,
            "--shutdown-timeout=5",
            "--log-level=error",
        ]

    def load(self, image: str) -> None:
        """Take an image over from the usual engine."""
        with subprocess.Popen(
            ["docker", "save", image], stdout=subprocess.PIPE, env=usual_environment()
        ) as saved:
            load = ["docker", "--host", self._socket, "load"]
            subprocess.run(load, stdin=saved.stdout, stdout=subprocess.DEVNULL, env=_plain(), check=True)
        assert saved.returncode == 0

    def stop(self) -> None:
        """As `systemctl stop docker` does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Its containers run on."""
        self._end(signal.SIGKILL)

    def revive(self) -> None:
        """Start it if it was ended."""
        with self._turn:
            if self._process is None:
                self._start()

    def close(self) -> None:
        """End it with all that it started, and remove what it wrote."""
        with suppress(AssertionError):
            self.revive()  # to end the containers that a killed one has left
            self.clear()
        self._machine.close()
        if self._process is not None:
            self._process.wait()
            self._process = None
        _remove(self.folder)
        os.close(self._lock)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Its own client, by the shortest way."""
        command = ["docker", "--host", self._socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=_plain(), check=False)

    @contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """docker-py's client, by the shortest way."""
        client = docker.DockerClient(base_url=self._socket)
        try:
            yield client
        finally:
            client.close()

    def containers(self) -> list[str]:
        listed = self.docker("ps", "--all", "--format", "{{.Names}}")
        assert listed.returncode == 0, listed.stderr
        return listed.stdout.split()

    def clear(self) -> None:
        """Remove all containers and volumes."""
        for name in self.containers():
            self.docker("rm", "--force", name)
        if names := self.docker("volume", "ls", "--quiet").stdout.split():
            self.docker("volume", "rm", "--force", *names)

    def command(self, *arguments: str, at: Path = Path(), **environment: str) -> list[str]:
        """What runs Python with these arguments, in a folder, as one who uses this engine."""
        more = (
            self.environment
            | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernel_image'}", "PYTHONDONTWRITEBYTECODE": "1"}
            | environment
        )
        return [
            "env",
            f"--chdir={at}",
            *(f"{name}={value}" for name, value in more.items()),
            sys.executable,
            *arguments,
        ]

    def rlm(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `rlm` on this engine."""
        command = self.command(
            "-m", "rlm_kernel", *arguments, LITELLM_LOCAL_MODEL_COST_MAP="True", **environment
        )
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def files(self, path: str) -> Path:
        """What the engine finds at an absolute path, as a path of this machine."""
        return self._machine.root / path.lstrip("/")

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _end(self, signum: int) -> None:
        with self._turn:
            if self._process is not None:
                with suppress(IndexError, OSError):
                    signal_child(self._process, signum)
                self._process.wait(_SECONDS)
                self._process = None


class GVisor(OwnEngine):
    """Each container has a kernel of its own, `runsc`. Here it needs no hardware, and limits nothing."""

    needs = ("runsc",)
    own_kernel = True
    seen_of_the_first = frozenset({"environ", "maps", "auxv", "fd", "fd/0"})

    def __init__(self) -> None:
        runsc = {
            "path": shutil.which("runsc", path=PATH),
            "runtimeArgs": ["--network=none", "--platform=ptrace", "--ignore-cgroups"],
        }
        super().__init__(config={"runtimes": {"runsc": runsc}, "default-runtime": "runsc"})


class User:
    """A user of the machine, with subordinate ids, from now until `remove`."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        subprocess.run(
            [
                "useradd",
                "--no-create-home",
                "--home-dir",
                str(home),
                "--user-group",
                "--shell",
                "/bin/sh",
                name,
            ],
            check=True,
        )
        self.uid = pwd.getpwnam(name).pw_uid
        home.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(home, name, name)

    def remove(self) -> None:
        subprocess.run(["userdel", "--force", self.name], check=True, stderr=subprocess.DEVNULL)


class Remapped(OwnEngine):
    """Its containers' users, root too, are nobody on this machine (`userns-remap`)."""

    needs = ("useradd", "newuidmap")
    links = False

    def __init__(self) -> None:
        super().__init__()
        self.user = User(self.folder.name, self.folder / "home")
        self._more = (f"--userns-remap={self.user.name}",)

    def close(self) -> None:
        super().close()
        self.user.remove()


def _clear_away() -> None:
    """What tests that were killed have left: folders whose lock nobody holds."""
    for folder in _FOLDERS.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(KeyError):
                    pwd.getpwnam(folder.name)
                    subprocess.run(
                        ["userdel", "--force", folder.name], check=False, stderr=subprocess.DEVNULL
                    )
                _remove(folder)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    groups = Path("/sys/fs/cgroup")
    for group in [*groups.glob(f"{folder.name}/**/"), *groups.glob(f"*/{folder.name}/**/")][
        ::-1
    ]:  # the inner ones first
        with suppress(OSError):
            group.rmdir()
    shutil.rmtree(folder, ignore_errors=True)
