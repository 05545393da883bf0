"""Rootless engines of a test's own, with the user to run each, and podman as root.

They need root, to make that user and to become them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.own_engine import PATH, ROOT, OwnEngine, User


class Rootless(OwnEngine):
    """Docker. Where cgroups have version 1, it limits nothing."""

    needs: tuple[str, ...] = ("rootlesskit", "newuidmap", "useradd", "setpriv")
    links = False
    seen_of_the_first = frozenset({"fd", "oom_score_adj", "oom_adj", "sched", "autogroup", "coredump_filter"})

    def __init__(self) -> None:
        super().__init__("--rootless")
        self.home = self.folder / "home"
        self.user = User(self.folder.name, self.home)
        shutil.chown(self.folder, self.user.name, self.user.name)
        self._own = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": PATH,
        }

    def _command(self) -> list[str]:
        kit = ["rootlesskit", "--net=host", "--copy-up=/run", f"--state-dir={self.folder}/kit"]
        # They write there, whatever they are told; here it is root's engine's.
        return self._as_user(
            [*kit, "sh", "-c", 'rm -f /run/docker /run/containerd && exec "$0" "$@"', *super()._command()],
            self._own,
        )

    def command(self, *arguments: str, at: Path = Path(), **environment: str) -> list[str]:
        """What runs Python with these arguments as the user of this engine, in a folder in their home."""
        more = self.environment | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'kernel_image'}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # Python may lie where only root may look, as in root's home.
        look = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        return self._as_user([sys.executable, *arguments], self._own | more | environment, *look, at=at)

    def _as_user(
        self, command: list[str], environment: dict[str, str], *more: str, at: Path = Path()
    ) -> list[str]:
        become = ["setpriv", f"--reuid={self.user.name}", f"--regid={self.user.name}", "--init-groups", *more]
        return [
            *become,
            "env",
            "-i",
            f"--chdir={self.home / at}",
            *(f"{name}={value}" for name, value in environment.items()),
            *command,
        ]

    def close(self) -> None:
        super().close()
        self.user.remove()


class RootlessPodman(Rootless):
    """Where cgroups have version 1, it limits nothing either."""

    needs = ("podman", "crun", "newuidmap", "useradd", "setpriv")
    keeps_stdin = False

    def _command(self) -> list[str]:
        # By itself it may take a storage driver that copies the image for each container.
        podman = [
            "podman",
            "--storage-driver=overlay",
            "--log-level=error",
            "system",
            "service",
            "--time=0",
            self._socket,
        ]
        return self._as_user(podman, self._own)


class Podman(OwnEngine):
    """As root."""

    needs = ("podman", "crun")
    keeps_stdin = False
    links = False

    def _command(self) -> list[str]:
        places = [
            f"--root={self.folder}/data",
            f"--runroot={self.folder}/exec",
            f"--tmpdir={self.folder}/tmp",
        ]
        usual = ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--log-level=error"]
        return ["podman", *places, *usual, "system", "service", "--time=0", self._socket]
