"""A Docker engine of a test's own, which may be stopped, killed and started again. Needs root and dockerd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

_DAEMON = shutil.which("dockerd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")
_NAMESPACE = "rlm-tests"
_SECONDS = 60.0


def why_not() -> str:
    """Why there can be none here; "" if there can be one."""
    return "needs root" if os.getuid() else "needs dockerd" if _DAEMON is None else ""


class OwnEngine:
    """`address` is for DOCKER_HOST. Between `start` and `close`. `more`: options of dockerd."""

    def __init__(self, *more: str) -> None:
        self._more = more
        self._folder = Path(mkdtemp(prefix="rlm-engine-"))
        self._folder.chmod(0o711)  # where it maps users, they pass through
        self.address = f"unix://{self._folder}/sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.RLock()
        """It is stopped in one thread and started in another."""

    def start(self) -> None:
        """Returns when it answers."""
        with self._turn:
            self._start()

    def _start(self) -> None:
        for pid in ("pid", "exec/containerd/containerd.pid"):  # of one that was killed, and that perhaps nobody has collected
            (self._folder / pid).unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + _SECONDS
        while self.docker("version").returncode:
            assert time.monotonic() < until, f"the engine does not start: {self.log()}"
            assert self._process.poll() is None, f"the engine ended: {self.log()}"
            time.sleep(0.1)

    def _command(self) -> list[str]:
        assert _DAEMON is not None
        apart = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid"]
        paths = [argument if argument.startswith("--") else str(self._folder / argument) for argument in apart]
        names = [f"--containerd-namespace={_NAMESPACE}", f"--containerd-plugins-namespace={_NAMESPACE}-plugins"]
        no_network = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        return [_DAEMON, "--host", self.address, *paths, *names, *no_network, *self._more, "--shutdown-timeout=5", "--log-level=error"]

    def load(self, image: str) -> None:
        """Take an image over from the usual engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "--host", self.address, "load"], stdin=saved.stdout, stdout=subprocess.DEVNULL, check=True)
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
        self.revive()  # to end the containers that a killed one has left
        for name in self.containers():
            self.docker("rm", "--force", name)
        self.stop()
        for left in self._processes():
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        mounts = [
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1].startswith(str(self._folder))
        ]
        for mount in reversed(mounts):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "--host", self.address, *arguments], capture_output=True, text=True, check=False)

    def containers(self) -> list[str]:
        listed = self.docker("ps", "--all", "--format", "{{.Names}}")
        assert listed.returncode == 0, listed.stderr
        return listed.stdout.split()

    def _processes(self) -> Iterator[int]:
        """What engines that were killed have left: the parents of their containers."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self._folder).encode() in (entry / "cmdline").read_bytes():
                    yield int(entry.name)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def _end(self, signum: int) -> None:
        with self._turn:
            if self._process is not None:
                self._process.send_signal(signum)
                self._process.wait(_SECONDS)
                self._process = None
