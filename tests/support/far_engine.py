"""Engines on another host, as it seems from here: they have a root folder, a /tmp and homes of their own, and
are reached over loopback.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import BinaryIO

from tests.support.certificates import make_certificates
from tests.support.own_engine import PATH, OwnEngine

_LOOPBACK = "127.0.0.1"
_TRIES = 5


class Tls(OwnEngine):
    """Over tcp. Both sides show certificates."""

    far = True

    def __init__(self) -> None:
        super().__init__()
        self._certificates = self.folder / "client"
        make_certificates(self.folder / "server", self._certificates)
        names = {"tlscacert": "ca.pem", "tlscert": "server-cert.pem", "tlskey": "server-key.pem"}
        files = [f"--{option}={self.folder}/server/{name}" for option, name in names.items()]
        self._more = ("--host=fd://", "--tlsverify", *files)
        self._port = 0

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self._certificates)}

    def _open(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        # Its network has no way to here. So it gets a socket of this network, as from systemd.
        listener = socket.create_server((_LOOPBACK, self._port))
        self._port = listener.getsockname()[1]
        self.address = f"tcp://{_LOOPBACK}:{self._port}"
        given = [
            "bash",
            "-c",
            'exec 3<&"$0"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"',
            str(listener.fileno()),
            *self._command(),
        ]
        with listener:
            return subprocess.Popen(
                self._machine.command(*given),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
            )


class Desktop(OwnEngine):
    """As Docker Desktop: by a unix socket of this machine, but far.

    Only `shared` is at the same path on both sides, through FUSE.
    """

    needs = ("bindfs",)
    far = True

    def _prepare(self) -> None:
        self.shared.mkdir()


_SSHD = """
ListenAddress {loopback}:{port}
HostKey {folder}/ssh/host
AuthorizedKeysFile {folder}/ssh/mine.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
"""
_SSH = """
Host *
    IdentityFile {folder}/ssh/mine
    IdentitiesOnly yes
    HostKeyAlias far
    UserKnownHostsFile {folder}/ssh/known
    GlobalKnownHostsFile none
    BatchMode yes
    LogLevel ERROR
"""


class Ssh(OwnEngine):
    """Over ssh, which asks for no password and finds what it needs in a configuration of its own."""

    needs = ("ssh", "sshd", "ssh-keygen")
    far = True

    def __init__(self) -> None:
        super().__init__("--host=unix:///run/docker.sock")  # where a client over there looks
        self._ssh = self.folder / "ssh"
        self._ssh.mkdir(mode=0o700)
        for name in ("host", "mine"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self._ssh / name],
                check=True,
            )
        (self._ssh / "known").write_text(f"far {(self._ssh / 'host.pub').read_text()}")
        (self._ssh / "config").write_text(_SSH.format(folder=self.folder))
        # ssh looks for its configuration in the home that the system tells, whatever HOME says.
        (self._ssh / "bin").mkdir()
        (self._ssh / "bin/ssh").write_text(
            f'#!/bin/sh\nexec {shutil.which("ssh", path=PATH)} -F {self._ssh}/config "$@"\n'
        )
        (self._ssh / "bin/ssh").chmod(0o755)
        self._unlock_root()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"PATH": f"{self._ssh}/bin:{os.environ['PATH']}"}

    def start(self, image: str = "") -> None:
        super().start(image)
        for _ in range(_TRIES):  # a free port may be another's a moment later
            with socket.create_server((_LOOPBACK, 0)) as free:
                port = free.getsockname()[1]
            if self._listens(port):
                self.address = f"ssh://root@{_LOOPBACK}:{port}"
                return
        raise AssertionError(f"sshd does not start: {self.log()}")

    def _listens(self, port: int) -> bool:
        (self._ssh / "sshd").write_text(_SSHD.format(folder=self.folder, loopback=_LOOPBACK, port=port))
        sshd = [shutil.which("sshd", path=PATH) or "sshd", "-D", "-e", "-f", str(self._ssh / "sshd")]
        with (self.folder / "log").open("ab") as log:
            command = self._machine.command(*sshd, network=False)
            self._server = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while self._server.poll() is None:
            try:
                socket.create_connection((_LOOPBACK, port)).close()
                return True
            except ConnectionRefusedError:
                time.sleep(0.05)
        return False

    def close(self) -> None:
        super().close()
        if self._server is not None:
            self._server.wait()

    def _unlock_root(self) -> None:
        """Over there root may have a password that locks the account."""
        shadow = self.files("/etc/shadow")
        lines = [line.split(":", 2) for line in shadow.read_text().splitlines()]
        shadow.write_text(
            "".join(f"{name}:{'*' if name == 'root' else word}:{rest}\n" for name, word, rest in lines)
        )
