"""The folder of a session on the host, which no container sees but for copies of files in it.

    rlm-1a2b3c4d/        0700, the owner's
        lease            locked by who runs the session
        session.json     what the container was told, for who takes it up
        connection.json  how Jupyter's clients on this host connect to the kernel there is now
        k/               the sockets that it names: the host listens there, and carries them to the kernel
        copies/          files that the container's user may not read where they lie, mounted one by one
        handed/          what the kernel has handed over to children
        about.json       what the session is about, for `rlm attach`

Paths are short because a socket's may have 107 bytes (104 on macOS).
"""

from __future__ import annotations

import contextlib
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
from rlm_contract import VERSION

from rlm_kernel import system
from rlm_kernel.errors import SetupError

UNPRIVILEGED = 61234
"""The uid and gid that a root user's containers run as; any other user's run as that user."""
_NAME = re.compile(r"rlm-[0-9a-f]{8}")
JUST_MADE = 60.0
"""Seconds that a folder without an owner may still be one that is just being made."""
_MAX_PREFIX = 80
_ROOM = "Check free space and permissions there, or set XDG_RUNTIME_DIR to another folder."
_MAX_ABOUT = 1 << 20


class About(BaseModel):
    """What about.json says: who runs the session (`pid`), and what for."""

    session: str
    pid: int
    trace: Path
    question: str
    started: datetime


def container_ids() -> tuple[int, int]:
    """The uid and gid of containers' code as the host sees them: the caller's own, and never 0."""
    uid, gid = system.ids()
    return (UNPRIVILEGED, UNPRIVILEGED) if uid == 0 else (uid, gid or UNPRIVILEGED)


def container_user(rootless: bool) -> str:
    """The same as the engine is told them, uid:gid.

    Those in a `rootless` engine's containers are others: 0 is the user who runs the engine, with no more
    rights on the host than any of their programs, and all else is nobody, who may not read what the host
    gives. So it is 0 there; not for root, whose engine that is not.
    """
    uid, gid = container_ids()
    return "0:0" if rootless and uid == system.ids()[0] else f"{uid}:{gid}"


def _bases() -> Iterator[Path]:
    """Where sessions' folders may lie; new ones in the first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if (
        runtime
        and len(runtime) < _MAX_PREFIX
        and has_utf8_name(runtime)
        and os.access(runtime, os.W_OK | os.X_OK)
    ):
        yield Path(runtime)
    # Not gettempdir(): a long TMPDIR (macOS) leaves no room for a socket's name. Windows has no /tmp, but
    # whatever is called so.
    yield Path("/tmp") if not system.WINDOWS and os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())


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
    """One session's folder.

    Holds its lease, a lock, from `create` or `adopt` to `leave` or `remove`; it falls with this process,
    however that ends. `told` is what the kernel's runtime is told.
    """

    path: Path
    session_id: str
    told: dict[str, Any] = field(default_factory=dict, repr=False)
    idle: float = 0.0
    launches: int = 0
    """How many kernels this session has had."""
    engine: str = ""
    """Where the last of them was started (`engine_address.Address.place`)."""
    _lease_fd: int = -1

    @classmethod
    def create(cls, *, max_request: int, window: int, replayed: bool = False, idle: float = 0.0) -> RunDir:
        """Make the folder.

        `max_request` (bytes), `window` (requests) and `replayed` are told to the kernel's side of the broker;
        `idle` to the container, which outlives its owner by so many seconds. Raises SetupError.
        """
        session_id = secrets.token_hex(4)
        told = {
            "max_request": max_request,
            "window": window,
            "replayed": replayed,
            "token": secrets.token_hex(16),
        }
        run = cls(first_base() / f"rlm-{session_id}", session_id, told, idle)
        try:
            run.path.mkdir(mode=0o700)
            (run.path / "k").mkdir(mode=0o700)
            run._lease_fd = system.open_plain(run.path / "lease", os.O_RDWR | os.O_CREAT)
            system.lock(run._lease_fd)
            run._note()
        except OSError as error:
            run.remove()
            raise SetupError(
                f"The session's folder {run.path} cannot be created: {error.strerror or error}.", hint=_ROOM
            ) from error
        except SetupError:
            run.remove()
            raise
        return run

    @property
    def token(self) -> str:
        return str(self.told["token"])

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong with the folder inside comes out as a SetupError."""
        try:
            yield
        except OSError as error:
            raise SetupError(
                f"The session's folder {self.path} cannot be used: {error.strerror or error}.", hint=_ROOM
            ) from error

    def check(self) -> None:
        """Raise SetupError if somebody deleted the folder. To be asked by its owner."""
        if os.fstat(self._lease_fd).st_nlink == 0:
            raise SetupError(
                f"The session's folder {self.path} was deleted while it was in use.",
                hint="Do not delete it before the run ends. The trace has everything so far: `rlm resume` "
                "continues from there.",
            )

    @staticmethod
    def version(path: Path) -> object:
        """The version of the stream (`VERSION`) that the session in a folder was begun with; None where it
        does not say one.
        """
        try:
            return noted_in(path).get("version")
        except (OSError, ValueError):
            return None

    @staticmethod
    def engine_of(path: Path) -> str:
        """Where the kernel of the session in a folder was started; "" where that is unknown."""
        try:
            return str(noted_in(path).get("engine", ""))
        except (OSError, ValueError):
            return ""

    @classmethod
    def adopt(cls, path: Path) -> RunDir | None:
        """Become the owner of a folder that was left.

        None if it cannot be had: it is gone or damaged, or another has it.
        """
        try:
            noted = noted_in(path)
            told = dict(noted["told"])
            run = cls(
                path,
                path.name.removeprefix("rlm-"),
                told,
                float(noted["idle"]),
                int(noted["launches"]),
                str(noted.get("engine", "")),
            )
            run._lease_fd = system.open_plain(path / "lease", os.O_RDWR)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):
            if system.lock(run._lease_fd):
                return run
        run.leave()
        return None

    def leave(self) -> None:
        """End the lease and keep the folder, for another owner. Idempotent."""
        if self._lease_fd >= 0:
            os.close(self._lease_fd)
            self._lease_fd = -1

    @property
    def container_name(self) -> str:
        """Of the kernel that was launched last."""
        return f"rlm-{self.session_id}-{self.launches}"

    @property
    def address(self) -> str:
        """What the kernel's sockets on the host are called, but for the "-1" to "-5" at the end."""
        return str(self.path / "k" / "k")

    @property
    def spool(self) -> Path:
        return self.path / "handed"

    def new_launch(self, engine: str = "") -> None:
        """Another kernel is to be started, by an engine at this place. Raises SetupError."""
        self.launches += 1
        self.engine = engine
        self._note()

    def _note(self) -> None:
        noted = {
            "version": VERSION,
            "told": self.told,
            "idle": self.idle,
            "launches": self.launches,
            "engine": self.engine,
        }
        self.keep("session.json", json.dumps(noted))

    def keep(self, name: str, text: str) -> Path:
        """Put a small file where no container sees it.

        Whoever reads it meanwhile sees the old one or the new one, whole.

        Raises SetupError.
        """
        path = self.path / name
        made = self.path / f"{name}.new"
        with self.errors():
            made.touch(mode=0o600)
            made.write_text(text, encoding="utf-8")
            system.replace(made, path)
        return path

    def show(self, name: str, text: str) -> Path:
        """Put a small file that whoever is in the container may read, if it is mounted. Raises SetupError."""
        path = self.keep(name, text)
        with self.errors():
            path.chmod(0o644)
        return path

    def describe(self, *, trace: Path, question: str) -> None:
        """Say what the session is about, so that `rlm attach` can name it. Raises SetupError."""
        # Undecodable bytes of the command line are no JSON.
        shown, place = (text.encode("utf-8", "replace").decode() for text in (question, str(trace)))
        about = About(
            session=self.session_id,
            pid=os.getpid(),
            trace=Path(place),
            question=shown,
            started=datetime.now(UTC),
        )
        self.keep("about.json", about.model_dump_json())

    def remove(self) -> None:
        """End the lease and delete the folder. Idempotent."""
        self.leave()
        remove_folder(self.path)


@dataclass(frozen=True)
class LiveSession:
    """A session of this user on this machine whose owner lives.

    `connection`: the connection file of its kernel.
    """

    about: About
    connection: Path


def live_sessions() -> list[LiveSession]:
    """Those that were described, oldest first."""
    found = [_live(folder) for folder in session_folders()]
    return sorted((session for session in found if session), key=lambda session: session.about.started)


def session_folders() -> list[Path]:
    """Those of this user on this machine, whether their owner lives or not."""
    return [
        folder
        for base in dict.fromkeys(_bases())
        for folder in base.glob("rlm-*")
        if is_session_folder(folder)
    ]


def is_session_folder(folder: Path) -> bool:
    """Whether `folder` is called as they are, is no link, and this user's: anybody can make one in /tmp."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return bool(_NAME.fullmatch(folder.name)) and stat.S_ISDIR(status.st_mode) and system.is_own(status)


def _live(folder: Path) -> LiveSession | None:
    try:
        with (folder / "about.json").open(encoding="utf-8") as file:
            about = About.model_validate_json(file.read(_MAX_ABOUT))
        return LiveSession(about, folder / "connection.json") if _held(folder) else None
    except (OSError, ValidationError, UnicodeError):
        return None


def noted_in(folder: Path) -> dict[str, Any]:
    """What session.json says. Raises OSError, and ValueError if it is damaged, or anything but a file."""
    with open(system.open_plain(folder / "session.json"), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no file")
        try:
            noted = json.loads(file.read(_MAX_ABOUT))
        except RecursionError:
            raise ValueError("it is nested too deep") from None
    if not isinstance(noted, dict):
        raise ValueError("it holds no object")
    return noted


def sweep() -> list[str]:
    """Delete the folders of sessions whose owner was killed; not of those that are kept between commands.

    The sessions' ids. Blocking.
    """
    swept = []
    for folder in session_folders():
        with contextlib.suppress(OSError, ValueError):
            if not noted_in(folder).get("idle") and left_alone(folder):
                remove_folder(folder)
                swept.append(folder.name.removeprefix("rlm-"))
    return swept


def left_alone(folder: Path) -> bool:
    """Whether nobody owns a session's folder, and it is not just being made. Raises OSError."""
    # One that is just being made is not held yet.
    return time.time() - (folder / "lease").stat().st_mtime > JUST_MADE and not _held(folder)


def is_owned(folder: Path) -> bool:
    """Whether a session's folder is there, and whoever runs the session lives and has not let go of it."""
    try:
        return _held(folder)
    except OSError:
        return False


def _held(folder: Path) -> bool:
    """Whether a session has an owner. Raises OSError."""
    with (folder / "lease").open("rb") as file:
        return system.is_locked(file.fileno())


def remove_folder(folder: Path) -> None:
    """Delete a session's folder whose containers are gone. Blocking."""
    shutil.rmtree(folder, ignore_errors=True)
