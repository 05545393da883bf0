"""The folder of a session on the host: what the container is given, and where its kernel puts its sockets.

    rlm-1a2b3c4d/        0700, the owner's
        host/            mounted read-only at /rlm/host: connection.json, session.json, lease, the broker's socket, file copies
        r1/, r2/ …       mounted writable at /rlm/run, a fresh one for each kernel: the kernel's five ZMQ sockets
        k1/, k2/ …       the host's own names of these sockets, as hard links; not mounted. With `one_address`: k/, always the last ones
        connection.json  how clients on the host connect to the kernel there is now; not mounted
        about.json       what the session is about, for `rlm attach`; not mounted

The host never writes into r1, r2 …, nor opens anything there by name: code in the container can put what it likes in a socket's place.
It reaches the sockets by the names in k1, k2 …, which were made before any cell ran and which no container sees.
Paths are short because a socket's may have 107 bytes (104 on macOS).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rlm_kernel.errors import KernelError, SetupError
from rlm_kernel.sandbox import lease
from rlm_kernel.sandbox.disk import remove_tree

UNPRIVILEGED = 61234
"""The uid and gid that a root user's containers run as; any other user's run as that user."""
LEASE_PATIENCE = 2.0
"""Seconds that another holder of the lease has to let go."""
_NAME = re.compile(r"rlm-[0-9a-f]{8}")
JUST_MADE = 60.0
"""Seconds that a folder without an owner may still be one that is just being made."""
_MAX_PREFIX = 80
_ROOM = "Check free space and permissions there, or set XDG_RUNTIME_DIR to another folder."
_MAX_ABOUT = 1 << 20
_SOCKETS = range(1, 6)
PROTOCOL = 1
"""Version of what host and kernel say to each other besides Jupyter's protocol (`rlm_runtime.wire.PROTOCOL`). To be raised with each change
after which the one does not understand the other.
"""


class About(BaseModel):
    """What about.json says: who runs the session (`pid`), and what for."""

    session: str
    pid: int
    trace: Path
    question: str
    started: datetime


def container_ids() -> tuple[int, int]:
    """The uid and gid of containers' code as the host sees them: the caller's own, and never 0."""
    uid, gid = os.getuid(), os.getgid()
    return (UNPRIVILEGED, UNPRIVILEGED) if uid == 0 else (uid, gid or UNPRIVILEGED)


def container_user(rootless: bool) -> str:
    """The same as the engine is told them, uid:gid.

    Those in a `rootless` engine's containers are others: 0 is the user who runs the engine, with no more rights on the host than any of
    their programs, and all else is nobody, who may not read what the host gives. So it is 0 there; not for root, whose engine that is not.
    """
    uid, gid = container_ids()
    return "0:0" if rootless and uid == os.getuid() else f"{uid}:{gid}"


def _bases() -> Iterator[Path]:
    """Where sessions' folders may lie; new ones in the first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and len(runtime) < _MAX_PREFIX and has_utf8_name(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        yield Path(runtime)
    # Not gettempdir(): a long TMPDIR (macOS) leaves no room for a socket's name.
    yield Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())


def first_base() -> Path:
    """Where this user's new things go."""
    return next(_bases())


def has_utf8_name(path: str | Path) -> bool:
    """Whether an engine can be told the path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class RunDir:
    """One session's folder. Holds the lease lock from `create` or `adopt` to `leave` or `remove`; it falls with this process,
    however that ends.

    `one_address`: each kernel is found where the one before it was, by clients that connect again.
    """

    path: Path
    session_id: str
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    one_address: bool = False
    idle: float = 0.0
    _launches: int = 0
    _lease_fd: int = -1

    @classmethod
    def create(cls, *, max_request: int, window: int, one_address: bool = False, replayed: bool = False, idle: float = 0.0) -> RunDir:
        """Make the folder.

        `max_request` (bytes), `window` (requests) and `replayed` are told to the kernel's side of the broker; `idle` to the container,
        which outlives its owner by so many seconds. Raises SetupError.
        """
        session_id = secrets.token_hex(4)
        told = {"protocol": PROTOCOL, "max_request": max_request, "window": window, "replayed": replayed, "idle": idle}
        path = first_base() / f"rlm-{session_id}"
        run = cls(path, session_id, one_address=one_address, idle=idle)
        try:
            path.mkdir(mode=0o700)
            # Changed afterwards, as a umask of 077 would keep the container's user out.
            run.host.mkdir()
            run.host.chmod(0o755)
            file = run.host / "lease"
            file.touch()
            file.chmod(0o644)
            run._lease_fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            if not lease.take(run._lease_fd):
                raise OSError("another process has taken its lease")
            run.give("session.json", json.dumps(told | {"token": run.token}))
        except OSError as error:
            run.remove()
            raise SetupError(f"The session's folder {path} cannot be made: {error.strerror or error}.", hint=_ROOM) from error
        except SetupError:
            run.remove()
            raise
        return run

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong with the folder inside comes out as a SetupError."""
        try:
            yield
        except OSError as error:
            raise SetupError(f"The session's folder {self.path} cannot be used: {error.strerror or error}.", hint=_ROOM) from error

    def check(self) -> None:
        """Raise SetupError if somebody deleted the folder, with what leads to the broker. To be asked by its owner."""
        if os.fstat(self._lease_fd).st_nlink == 0:
            raise SetupError(
                f"The session's folder {self.path} was deleted while it was in use.",
                hint="Leave it alone until the run ends. What was done is in the trace: `rlm resume` goes on from there.",
            )

    @staticmethod
    def protocol(path: Path) -> object:
        """The version of the protocol that the session in a folder was begun with; None where it does not say one."""
        try:
            return told_in(path).get("protocol")
        except (OSError, ValueError):
            return None

    @classmethod
    def adopt(cls, path: Path) -> RunDir | None:
        """Become the owner of a folder that was left. Blocking, for `LEASE_PATIENCE` seconds at most. None if it cannot be had: it is
        gone or damaged, or code in the container holds the lease.
        """
        try:
            told = told_in(path)
            run = cls(path, path.name.removeprefix("rlm-"), token=str(told["token"]), idle=float(told.get("idle", 0)))
            run._launches = max((int(folder.name[1:]) for folder in path.glob("r[0-9]*")), default=0)
            # Not blocking: code in the container may have asked to be told before the file is opened for writing (F_SETLEASE).
            run._lease_fd = os.open(run.host / "lease", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        deadline = time.monotonic() + LEASE_PATIENCE
        while not lease.take(run._lease_fd):
            if time.monotonic() > deadline:
                run.leave()
                return None
            time.sleep(0.02)  # a container of an earlier version looks whether there is an owner, which takes no time
        return run

    def leave(self) -> None:
        """End the lease and keep the folder, for another owner. Idempotent."""
        if self._lease_fd >= 0:
            os.close(self._lease_fd)
            self._lease_fd = -1

    @property
    def host(self) -> Path:
        return self.path / "host"

    @property
    def broker_socket(self) -> Path:
        return self.host / "broker"

    @property
    def sockets(self) -> Path:
        """The folder that the container can write to: hostile."""
        return self.path / f"r{self._launches}"

    @property
    def launches(self) -> int:
        """How many kernels this session has had."""
        return self._launches

    @property
    def container_name(self) -> str:
        """Of the kernel that was launched last."""
        return f"rlm-{self.session_id}-{self._launches}"

    def give(self, name: str, text: str) -> Path:
        """Put a small file where the container can read it, and nobody else can. Raises SetupError."""
        path = self.host / name
        with self.errors():
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
            own(path)
        return path

    def keep(self, name: str, text: str) -> Path:
        """Put a small file where no container sees it. Whoever reads it meanwhile sees the old one or the new one, whole.

        Raises SetupError.
        """
        path = self.path / name
        made = self.path / f"{name}.new"
        with self.errors():
            made.touch(mode=0o600)
            made.write_text(text, encoding="utf-8")
            made.replace(path)
        return path

    def describe(self, *, trace: Path, question: str) -> None:
        """Say what the session is about, so that `rlm attach` can name it. Raises SetupError."""
        # Undecodable bytes of the command line are no JSON.
        shown, place = (text.encode("utf-8", "replace").decode() for text in (question, str(trace)))
        about = About(session=self.session_id, pid=os.getpid(), trace=Path(place), question=shown, started=datetime.now(UTC))
        self.keep("about.json", about.model_dump_json())

    def new_launch(self) -> Path:
        """A fresh writable folder for the next kernel's sockets, which are to be named k-1 to k-5 there. Raises SetupError."""
        self._launches += 1
        sockets = self.sockets
        with self.errors():
            sockets.mkdir(mode=0o700)
            own(sockets)
            if self.one_address:
                shutil.rmtree(self._links, ignore_errors=True)  # the last kernel's
            self._links.mkdir(mode=0o700)
        return sockets

    @property
    def address(self) -> str:
        """What the host calls the kernel's sockets, but for the "-1" to "-5" at the end."""
        return str(self._links / "k")

    @property
    def _links(self) -> Path:
        return self.path / ("k" if self.one_address else f"k{self._launches}")

    def link_sockets(self) -> None:
        """Give the kernel's sockets the host's own names. Call when it listens and before any cell runs. Raises KernelError."""
        try:
            for number in _SOCKETS:
                name = f"k-{number}"
                os.link(self.sockets / name, self._links / name, follow_symlinks=False)
                # Looked at here, where nobody can replace it any more.
                if not stat.S_ISSOCK((self._links / name).lstat().st_mode):
                    raise KernelError(f"{name} is no socket: something else than a kernel runs in the container.")
        except OSError as error:
            why = error.strerror or error
            raise KernelError(f"The kernel's sockets in {self.path} cannot be linked: {why}.", hint=_ROOM) from error

    def remove(self) -> None:
        """End the lease and delete the folder. Idempotent."""
        self.leave()
        remove_folder(self.path)


@dataclass(frozen=True)
class LiveSession:
    """A session of this user on this machine whose owner lives. `connection`: the connection file of its kernel."""

    about: About
    connection: Path


def live_sessions() -> list[LiveSession]:
    """Those that were described, oldest first."""
    found = [_live(folder) for folder in session_folders()]
    return sorted((session for session in found if session), key=lambda session: session.about.started)


def session_folders() -> list[Path]:
    """Those of this user on this machine, whether their owner lives or not."""
    return [folder for base in dict.fromkeys(_bases()) for folder in base.glob("rlm-*") if is_session_folder(folder)]


def is_session_folder(folder: Path) -> bool:
    """Whether `folder` is called as they are, is no link, and this user's: anybody can make one in /tmp."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return bool(_NAME.fullmatch(folder.name)) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _live(folder: Path) -> LiveSession | None:
    try:
        with (folder / "about.json").open(encoding="utf-8") as file:
            about = About.model_validate_json(file.read(_MAX_ABOUT))
        with (folder / "host" / "lease").open("rb") as file:
            return LiveSession(about, folder / "connection.json") if lease.held(file.fileno()) else None
    except (OSError, ValidationError, UnicodeError):
        return None


def told_in(folder: Path) -> dict[str, Any]:
    """What session.json says. Raises OSError, and ValueError if it is damaged, or anything but a file."""
    with open(os.open(folder / "host" / "session.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no file")
        try:
            told = json.loads(file.read(_MAX_ABOUT))
        except RecursionError:
            raise ValueError("it is nested too deep") from None
    if not isinstance(told, dict):
        raise ValueError("it holds no object")
    return told


def sweep() -> list[str]:
    """Delete the folders of sessions whose owner was killed; not of those that are kept between commands. The sessions' ids. Blocking."""
    swept = []
    for folder in session_folders():
        with contextlib.suppress(OSError, ValueError):
            if not told_in(folder).get("idle") and left_alone(folder):
                remove_folder(folder)
                swept.append(folder.name.removeprefix("rlm-"))
    return swept


def left_alone(folder: Path) -> bool:
    """Whether nobody owns a session's folder, of this version or of an earlier one, and it is not just being made. Raises OSError."""
    with (folder / "host" / "lease").open("rb") as file:
        # One that is just being made is not held yet.
        if lease.held(file.fileno()) or time.time() - os.fstat(file.fileno()).st_mtime < JUST_MADE:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def remove_folder(folder: Path) -> None:
    """Delete a session's folder whose containers are gone. Blocking. What takes too long is left, with its lease, for the next `sweep`."""
    removed = [remove_tree(writable) for writable in folder.glob("r[0-9]*")]
    if all(removed):
        shutil.rmtree(folder, ignore_errors=True)


def own(path: Path) -> None:
    """Give a path to the containers' user where that is not the caller."""
    uid, gid = container_ids()
    if uid != os.getuid():
        os.chown(path, uid, gid, follow_symlinks=False)
