"""The folder of a session on the host: what the container is given, and where its kernel puts its sockets.

    rlm-1a2b3c4d/        0700, the owner's
        host/            mounted read-only at /rlm/host: connection.json, session.json, lease, the broker's socket, file copies
        r1/, r2/ …       mounted writable at /rlm/run, a fresh one for each kernel: the kernel's five ZMQ sockets

The host never writes into r1, r2 …, and connects to the sockets there once, before any cell has run (`zmq_context`).
Paths are short because a socket's may have 107 bytes (104 on macOS).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rlm_kernel.errors import SetupError

UNPRIVILEGED = 61234
"""The uid and gid that a root user's containers run as; any other user's run as that user."""
_MAX_PREFIX = 80


def container_ids() -> tuple[int, int]:
    """The uid and gid for containers: the caller's own, and never 0."""
    uid, gid = os.getuid(), os.getgid()
    return (UNPRIVILEGED, UNPRIVILEGED) if uid == 0 else (uid, gid or UNPRIVILEGED)


def _base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and len(runtime) < _MAX_PREFIX and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    # Not gettempdir(): a long TMPDIR (macOS) leaves no room for a socket's name.
    return Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())


@dataclass
class RunDir:
    """One session's folder. Holds the lease lock from `create` to `remove`; the lock falls with this process, however it ends."""

    path: Path
    session_id: str
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _launches: int = 0
    _lease_fd: int = -1

    @classmethod
    def create(cls, *, max_request: int, window: int) -> RunDir:
        """Make the folder. `max_request` (bytes) and `window` (requests) are told to the kernel's side of the broker."""
        session_id = secrets.token_hex(4)
        try:
            path = _base() / f"rlm-{session_id}"
            path.mkdir(mode=0o700)
            run = cls(path, session_id)
            run.host.mkdir(mode=0o755)
            lease = run.host / "lease"
            lease.touch(mode=0o644)
            run._lease_fd = os.open(lease, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(run._lease_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SetupError(
                f"The session's folder cannot be made: {error}.", hint="Check free space and permissions, or set XDG_RUNTIME_DIR."
            ) from error
        run.give("session.json", json.dumps({"token": run.token, "max_request": max_request, "window": window}))
        return run

    @property
    def host(self) -> Path:
        return self.path / "host"

    @property
    def broker_socket(self) -> Path:
        return self.host / "broker"

    @property
    def launches(self) -> int:
        """How many kernels this session has had."""
        return self._launches

    def give(self, name: str, text: str) -> Path:
        """Put a small file where the container can read it, and nobody else can."""
        path = self.host / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        own(path)
        return path

    def new_launch(self) -> Path:
        """A fresh writable folder for the next kernel's sockets."""
        self._launches += 1
        sockets = self.path / f"r{self._launches}"
        sockets.mkdir(mode=0o700)
        own(sockets)
        return sockets

    def remove(self) -> None:
        """End the lease and delete the folder. Idempotent."""
        if self._lease_fd >= 0:
            os.close(self._lease_fd)
            self._lease_fd = -1
        shutil.rmtree(self.path, ignore_errors=True)


def own(path: Path) -> None:
    """Give a path to the containers' user where that is not the caller."""
    uid, gid = container_ids()
    if uid != os.getuid():
        os.chown(path, uid, gid, follow_symlinks=False)
