"""Namespaces that stand in for a machine: what runs in one ends with it, and with the test that made it,
however that ends. Needs root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_NEAR = "echo ready; read -r _"
"""This machine's own files. The mounts that are made later are seen too."""
_FAR = """
mount -t tmpfs far "$1/root" && cd "$1/root"
mkdir -p usr proc sys dev mnt root home run/sshd var/lib tmp ".$1" old
chmod 1777 tmp
cp -a /etc .
ln -s /run var/run
for name in bin sbin lib lib64; do
    if [ -L "/$name" ]; then cp -a "/$name" .; elif [ -d "/$name" ]; then mkdir "$name" && mount --bind "/$name" "$name"; fi
done
for name in usr sys dev; do mount --rbind "/$name" "$name"; done
mount -t proc proc proc
mount --bind "$1" ".$1"
if [ -d "$1/shared" ]; then bindfs "$1/shared" ".$1/shared"; fi
pivot_root . old && umount -l old && rmdir old
hostname far
"""
"""The programs and settings of this machine, and nothing else of it: a /tmp, homes and a /run of its own,
which are empty.

If `folder` has a `shared`, that is seen there through FUSE, as Docker Desktop shares folders.
"""
_ALL = ("--mount", "--net", "--uts", "--ipc", "--pid")


class Machine:
    """Between its making and `close`.

    `folder` is seen in it at the same path, and has a place `root` for the root of a far one.

    `far`: it has files of its own. `keep`: a descriptor that lives as long as it does.
    """

    def __init__(self, folder: Path, *, far: bool = False, keep: int) -> None:
        (folder / "root").mkdir(exist_ok=True)
        script = f"set -eu\n{_FAR if far else ''}{_NEAR}"
        apart = ["unshare", *_ALL, "--fork", "--kill-child", "--mount-proc", "--propagation", "slave"]
        # Its first process ends as nobody holds the other end of this pipe, and takes all others with it.
        self._first = subprocess.Popen(
            [*apart, "bash", "-c", script, "machine", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(keep,),
            cwd="/",
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == b"ready\n", "no machine of the test's own could be made"
        self._pid = child(self._first)
        self.root = Path(f"/proc/{self._pid}/root")
        """Its files, from here."""

    def command(self, *command: str, network: bool = True) -> list[str]:
        """What runs a command in it. Without `network`, its network is this machine's."""
        into = [name for name in _ALL if network or name != "--net"]
        return ["nsenter", f"--target={self._pid}", *into, "--", *command]

    def close(self) -> None:
        self._first.communicate()


def child(process: subprocess.Popen[bytes]) -> int:
    """The process that a command with namespaces of its own has started, by its number here."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def signal_child(process: subprocess.Popen[bytes], signum: int) -> None:
    """nsenter hands no signals on."""
    os.kill(child(process), signum)
