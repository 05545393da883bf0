"""The host's disk under a kernel's own folder: how much of it code may take, and how what it left there is deleted.

No quota of the system's can be had without privileges, so the host looks at the folder every second and ends a kernel that takes too
much. What lies there is hostile: links are not followed, trees may be deep, and nothing need have permissions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

MAX_FILE = 2 << 30
"""Bytes of one file that a container writes: as many as can be handed over to a child RLM."""
MAX_BYTES = 4 * MAX_FILE
"""Bytes of all that lies in a kernel's folder."""
MAX_ENTRIES = 10_000
MAX_DEPTH = 8
MIN_FREE = 1 << 30
"""Bytes that stay free on the file system, or a tenth of what was free at first if that is less. Deleted files take space, too, as long
as they are open."""
LOOK_SECONDS = 1.0
REMOVE_SECONDS = 30.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = "/rlm/run, which is for sockets (files belong into /tmp)"


class _TooMuch(Exception):
    pass


class DiskGuard:
    """Looks at one kernel's folder on the host. To be made before code runs in the kernel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        free = self._free()
        self._least = 0 if free is None else min(MIN_FREE, free // 10)
        self._bytes = self._entries = 0

    def look(self) -> str:
        """What is too much, as a sentence without its subject; "" if nothing is. Blocking: for so many entries at most."""
        self._bytes = self._entries = 0
        try:
            folder = os.open(self._folder, _FOLDER)
            try:
                self._count(folder, 1)
            finally:
                os.close(folder)
        except FileNotFoundError:
            return ""
        except _TooMuch as found:
            return str(found)
        except OSError:
            return f"it closed {_PLACE}, to the host"
        free = self._free()
        return "" if free is None or free >= self._least else "the host's disk was nearly full"

    def _count(self, folder: int, depth: int) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                self._entries += 1
                # What goes in the meantime is no matter.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    status = entry.stat(follow_symlinks=False)
                    self._bytes += status.st_blocks * 512
                    self._check(depth)
                    if stat.S_ISDIR(status.st_mode):
                        inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                        try:
                            self._count(inner, depth + 1)
                        finally:
                            os.close(inner)

    def _check(self, depth: int) -> None:
        if self._bytes > MAX_BYTES:
            raise _TooMuch(f"it wrote more than {MAX_BYTES / (1 << 30):.3g} GiB into {_PLACE}")
        if self._entries > MAX_ENTRIES or depth > MAX_DEPTH:
            raise _TooMuch(f"it made more than {MAX_ENTRIES:,} files, or folders within folders, in {_PLACE}")

    def _free(self) -> int | None:
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize


def remove_tree(folder: Path, seconds: float = REMOVE_SECONDS) -> bool:
    """Delete a folder that code in a container could write to, once the container is gone. False if it is not done after so many seconds,
    or cannot be. Blocking.

    Folders within it are moved to its top and emptied there, so that no depth and no length of a path matters. Links are not followed.
    """
    if folder.parent.is_symlink():  # in the place of the session's folder: it leads to somebody else's
        return False
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        top = _opened(str(folder), None)
        try:
            ours, before = (f"{secrets.token_hex(8)}-{number}" for number in itertools.count()), [""]
            while (names := _without_files(top, deadline)) and names != before and time.monotonic() < deadline:
                for name in names:
                    with contextlib.suppress(OSError):
                        _lift(name, top, ours, deadline)
                before = names
        finally:
            os.close(top)
        folder.rmdir()
    return not os.path.lexists(folder)


def _lift(name: str, top: int, ours: Iterator[str], deadline: float) -> None:
    """Move what folders a folder holds to the top, and delete it."""
    folder = _opened(name, top)
    try:
        for below in _without_files(folder, deadline):
            os.close(_opened(below, folder))  # without permission to write to it, it could not be moved
            os.rename(below, next(ours), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _opened(name: str, within: int | None) -> int:
    """A folder, whose permissions no longer hinder its owner."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=within)
    except PermissionError:
        closed = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{closed}", 0o700)
        finally:
            os.close(closed)
        folder = os.open(name, _FOLDER, dir_fd=within)
    os.fchmod(folder, 0o700)
    return folder


def _without_files(folder: int, deadline: float) -> list[str]:
    """Delete what is no folder; the names of the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif time.monotonic() < deadline:
                os.unlink(entry.name, dir_fd=folder)
    return folders
