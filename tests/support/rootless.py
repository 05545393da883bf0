"""A rootless engine of a test's own, and the user to run it. Needs root, to make that user and to become them."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.support import own_engine
from tests.support.own_engine import OwnEngine

ROOT = Path(__file__).parents[2]
PROGRAMS = {"docker": ("dockerd", "rootlesskit", "newuidmap"), "podman": ("podman", "newuidmap")}
"""By kind of engine."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not(kind: str) -> str:
    """Why there can be none here; "" if there can be one."""
    missing = [program for program in (*PROGRAMS[kind], "useradd", "setpriv") if shutil.which(program, path=_PATH) is None]
    return own_engine.why_not() or (f"needs {', '.join(missing)} (scripts/engines.sh)" if missing else "")


class User:
    """A user of the machine, with subordinate ids, from now until `remove`."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), "--user-group", "--shell", "/bin/sh", name], check=True)
        self.uid = pwd.getpwnam(name).pw_uid
        home.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(home, name, name)

    def remove(self) -> None:
        subprocess.run(["userdel", "--force", self.name], check=True, stderr=subprocess.DEVNULL)


class RootlessEngine(OwnEngine):
    """Docker or podman, by `kind`. Where cgroups have version 1, it limits nothing."""

    def __init__(self, kind: str) -> None:
        super().__init__("--rootless")
        self._kind = kind
        self.home = self._folder / "home"
        self.user = User(self._folder.name, self.home)
        shutil.chown(self._folder, self.user.name, self.user.name)
        self._environment = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), "PATH": _PATH}

    def _command(self) -> list[str]:
        if self._kind == "docker":
            kit = ["rootlesskit", "--net=host", "--copy-up=/run", f"--state-dir={self._folder}/kit"]
            # They write there, whatever they are told; here it is root's engine's.
            engine = [*kit, "sh", "-c", 'rm -f /run/docker /run/containerd && exec "$0" "$@"', *super()._command()]
        else:  # by itself it may take a storage driver that copies the image for each container
            engine = ["podman", "--storage-driver=overlay", "--log-level=error", "system", "service", "--time=0", self.address]
        return self._as_user(engine, self._environment)

    def command(self, *arguments: str, **environment: str) -> list[str]:
        """What runs Python with these arguments as the user of this engine."""
        more = {"DOCKER_HOST": self.address, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernel_image'}", "PYTHONDONTWRITEBYTECODE": "1"}
        # Python may lie where only root may look, as in root's home.
        look = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        return self._as_user([sys.executable, *arguments], self._environment | more | environment, *look)

    def _as_user(self, command: list[str], environment: dict[str, str], *more: str) -> list[str]:
        become = ["setpriv", f"--reuid={self.user.name}", f"--regid={self.user.name}", "--init-groups", *more]
        return [*become, "env", "-i", f"--chdir={self.home}", *(f"{name}={value}" for name, value in environment.items()), *command]

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.user.remove()

    def _processes(self) -> Iterator[int]:
        """All of the user's."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if entry.stat().st_uid == self.user.uid:
                    yield int(entry.name)
