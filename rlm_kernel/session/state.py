"""Where a kept session is remembered between commands: `.rlm_state/NAME/` in the working directory.

    state.json   what the session is (State)
    lock         held by the command that uses the session; says which
    files/       what was named after the container had started: links or copies, mounted read-only into it
    history      the lines typed in `rlm chat`

A folder like this can come with a stranger's repository. So nothing in it is believed unless this user's own
register, outside of it, has the session's key; no link in its place is followed; and a session begins in an
empty one: `files` that led elsewhere would be mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from rlm_kernel import system
from rlm_kernel.errors import SetupError, UsageError
from rlm_kernel.nearest import did_you_mean, nearest
from rlm_kernel.pathtext import from_text, to_text

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOK_SECONDS = 0.2
_OURS = frozenset({"state.json", "state.json.new", "lock", "files", "history"})


_NamedPath = Annotated[
    Path,
    BeforeValidator(lambda path: from_text(path) if isinstance(path, str) else path),
    PlainSerializer(lambda path: to_text(str(path))),
]
"""A path whose name may be no UTF-8, which JSON has to be."""


class State(BaseModel):
    """What state.json says.

    `run`: the session's folder of sockets, "." before there is one; `idle` in seconds; `options`: settings by
    dotted name, as first given; `grants`: the files that its container has (`FileGrants.dump`).
    `variables` and `files`: what its kernel had when the last command left it, by the kernel's own word; None
    where that is unknown.
    """

    model_config = ConfigDict(extra="ignore", defer_build=True)

    key: str
    name: str
    trace: _NamedPath
    run: _NamedPath = Path()
    idle: float = 0.0
    created: datetime
    used: datetime
    options: dict[str, Any] = {}
    grants: list[dict[str, Any]] = []
    variables: dict[str, str] | None = None
    files: list[dict[str, Any]] | None = None


class Holder(BaseModel):
    """Who holds a session's lock: process, command, since when."""

    model_config = ConfigDict(defer_build=True)

    pid: int
    command: str
    since: datetime

    def __str__(self) -> str:
        return f"`{self.command}` (process {self.pid}, since {self.since.astimezone():%H:%M:%S})"


class SessionFolder:
    """`.rlm_state/NAME/`. Raises UsageError for a name that is none."""

    def __init__(self, base: Path, name: str = DEFAULT_NAME) -> None:
        if not _NAME.fullmatch(name) or not system.is_possible_name(name):
            raise UsageError(
                f"{name!r} is not a valid name for a session.",
                hint="Use letters, digits, dots, dashes and underscores.",
            )
        self.name = name
        self.path = base.absolute() / name

    @property
    def depot(self) -> Path:
        """Where files go that are named later."""
        return self.path / "files"

    @property
    def history(self) -> Path:
        return self.path / "history"

    def read(self) -> State | None:
        """The session's state; None if there is no session.

        Raises UsageError for one that is damaged, or not of this user's making.
        """
        file = self.path / "state.json"
        try:
            state = State.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = (
                error.strerror if isinstance(error, OSError) else "it does not contain the state of a session"
            )
            raise UsageError(
                f"{file} cannot be read: {why}.", hint=f"Remove {self.path}; the trace is not affected."
            ) from error
        if not re.fullmatch(r"[0-9a-f]{32}", state.key) or not (_register() / state.key).is_file():
            raise UsageError(
                f"The session in {self.path} was not started by you on this machine, so rlm does not use it.",
                hint="Remove that folder to start your own session. To continue from its trace: rlm fork "
                f"{state.trace} QUESTION",
            )
        return state

    def begin(self, trace: Path, options: dict[str, Any]) -> State:
        """A new session's state; it counts once it is written."""
        now = datetime.now(UTC)
        return State(
            key=secrets.token_hex(16), name=self.name, trace=trace, created=now, used=now, options=options
        )

    def write(self, state: State) -> None:
        """Replace the state, whole. Raises SetupError."""
        made = self.path / "state.json.new"
        with _writing(self.path):
            _register().mkdir(parents=True, exist_ok=True, mode=0o700)
            (_register() / state.key).write_text(f"{self.path}\n", encoding="utf-8", errors="replace")
            made.write_text(state.model_dump_json(indent=1), encoding="utf-8")
            system.replace(made, self.path / "state.json")

    def remove(self, state: State) -> None:
        """Forget the session: the folder, and its entry in the register."""
        with contextlib.suppress(OSError):  # it could not be entered either
            (_register() / state.key).unlink(missing_ok=True)
        self._empty()
        self._leave()

    def holder(self) -> Holder | None:
        """Who uses the session now, if anybody."""
        try:
            with (self.path / "lock").open(encoding="utf-8") as lock:
                if system.is_locked(lock.fileno()):
                    return Holder.model_validate_json(lock.read())
        except (OSError, ValidationError):
            pass
        return None

    @contextlib.asynccontextmanager
    async def held(self, command: str, wait: float = 0.0) -> AsyncIterator[None]:
        """Have the session to oneself.

        `command` is what others are told; `wait` in seconds. Raises UsageError when another one has it.
        """
        lock = await self._lock(wait)
        try:
            if not (self.path / "state.json").exists():
                self._empty()
            holder = Holder(pid=os.getpid(), command=command, since=datetime.now(UTC))
            os.ftruncate(lock, 0)
            os.write(lock, holder.model_dump_json().encode())
            yield
        finally:
            if not (self.path / "state.json").exists():  # it was not begun after all, or has ended
                self._empty()
                with contextlib.suppress(OSError):
                    system.remove_open(self.path / "lock", lock)
                self._leave()
            else:
                os.close(lock)

    async def _lock(self, wait: float) -> int:
        deadline = time.monotonic() + wait
        while True:
            lock = self._open_lock()
            if system.lock(lock):
                # The one before may have removed the folder, and with it the file that we have open.
                if os.fstat(lock).st_nlink:
                    return lock
                os.close(lock)
                continue
            os.close(lock)
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"The session {self.name} is in use by {self.holder() or 'another command'}.",
                    hint="Wait for it (RLM_SESSION__WAIT=60 waits up to 60 seconds), or use another "
                    "session: --session NAME",
                )
            await asyncio.sleep(_LOOK_SECONDS)

    def _open_lock(self) -> int:
        with _writing(self.path):
            self._check_place()
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (
                contextlib.suppress(FileExistsError),
                (self.path.parent / ".gitignore").open("x", encoding="utf-8") as ignore,
            ):
                ignore.write("*\n")
            return system.open_plain(self.path / "lock", os.O_RDWR | os.O_CREAT)

    def _check_place(self) -> None:
        """Raise UsageError for a folder that is somebody else's: what is in a session's is deleted when the
        session ends.
        """
        link = next((folder for folder in (self.path.parent, self.path) if folder.is_symlink()), None)
        if link is not None:
            raise UsageError(
                f"{link} is a link, and rlm does not keep sessions behind links.",
                hint="Name the folder itself in session.dir.",
            )
        if self.path.is_dir() and not (self.path / "state.json").exists():
            strange = sorted({entry.name for entry in self.path.iterdir()} - _OURS)
            if strange:
                raise UsageError(
                    f"{self.path} is not the folder of a session: it has {strange[0]!r} in it.",
                    hint="Give the session another name (--session NAME), or another place (session.dir).",
                )

    def _empty(self) -> None:
        """Delete what lies where no session is: parts of one that was cut off, or what somebody else put
        there.
        """
        for name in _OURS - {"lock"}:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _leave(self) -> None:
        """Delete the folders that are empty now: another command may have begun a session there at this
        moment.
        """
        with contextlib.suppress(OSError):
            self.path.rmdir()
        with contextlib.suppress(OSError):
            if {entry.name for entry in self.path.parent.iterdir()} <= {".gitignore"}:
                (self.path.parent / ".gitignore").unlink(missing_ok=True)
                self.path.parent.rmdir()


def sessions(base: Path) -> list[str]:
    """The names of the sessions there."""
    return sorted(file.parent.name for file in base.glob("*/state.json"))


def none_there(folder: SessionFolder) -> UsageError:
    """Of a folder that has no such session: the error, which names those that it has."""
    others = sessions(folder.path.parent)
    near = (
        f"{did_you_mean(nearest(folder.name, others))} The sessions here are: {', '.join(others)}. Name one "
        "with --session."
    ).lstrip()
    return UsageError(
        f"There is no session {folder.name} here.",
        hint=near if others else "Start one: rlm init FILE, or rlm chat.",
    )


def _register() -> Path:
    """A folder with a file for each session of this user on this machine."""
    return system.state_dir() / "sessions"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"The session's state cannot be written to {path}: {error.strerror or error}.",
            hint="Check free space and permissions, or choose another place with session.dir "
            "(RLM_SESSION__DIR).",
        ) from error
