"""A line of commands: whoever came first goes first.

Each has a file in a folder, called after the time at which it came, and touches it again and again. One whose
file is old was killed, or stopped as by Ctrl-Z: it keeps nobody waiting, and is back in its place when it
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rlm_kernel import system
from rlm_kernel.sandbox.containers import is_gone

TOUCH_SECONDS = 1.0
STOPPED_SECONDS = 10.0
"""Without a touch, after which a command does not count any more."""
_FORGET_SECONDS = 600.0


class Place:
    """A command's place in a line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = False
        self._name = f"{time.time_ns():020}-{os.getpid()}-{secrets.token_hex(4)}"

    def is_first(self) -> bool:
        """Whether nobody waits who came before.

        True where the folder cannot be used: then nobody waits for others.
        """
        try:
            names = os.listdir(self._folder)
        except OSError:
            return True
        return not any(name < self._name and _counts(self._folder / name) for name in names)

    def touch(self) -> bool:
        if self._left:
            return True
        try:
            (self._folder / self._name).touch(mode=0o600)
        except OSError:
            return False
        return True

    def leave(self) -> None:
        """Let the next one go. Idempotent."""
        if self._left:
            return
        self._left = True
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
            self._folder.rmdir()  # by the last one


def others_wait(folder: Path, seconds: float) -> bool:
    """Whether a command of another process has waited for so many seconds."""
    before = time.time_ns() - int(seconds * 1e9)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            came, _, rest = name.partition("-")
            ours = rest.partition("-")[0] == str(os.getpid())
            if came.isdigit() and int(came) < before and not ours and _counts(folder / name):
                return True
    return False


@contextlib.asynccontextmanager
async def place_in(folder: Path) -> AsyncIterator[Place]:
    """A place in the line of a folder, made if need be, until the context ends."""
    place = Place(folder if _made(folder) else folder / "nowhere")
    if not place.touch():  # whoever left last has removed the folder at this moment
        _made(folder)
        place.touch()
    touching = asyncio.create_task(_keep(place))
    try:
        yield place
    finally:
        touching.cancel()
        place.leave()


async def _keep(place: Place) -> None:
    while True:
        await asyncio.sleep(TOUCH_SECONDS)
        place.touch()


def _made(folder: Path) -> bool:
    """Whether it is there, and this user's: anybody can make something of its name in /tmp."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and system.is_own(status)


def _counts(ticket: Path) -> bool:
    """Whether the command of a file waits still. The file is removed if it will not come back."""
    try:
        age = abs(time.time() - ticket.lstat().st_mtime)  # the clock may have been put back
    except OSError:
        return False
    gone = is_gone(ticket.name.partition("-")[2].partition("-")[0])
    if gone or age > _FORGET_SECONDS:
        with contextlib.suppress(OSError):
            ticket.unlink()
    return not gone and age < STOPPED_SECONDS
