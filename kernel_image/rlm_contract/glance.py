"""What a path looks like, so that host and container can tell whether they see the same there.

The time of change (ctime) is the file system's own, in nanoseconds: nobody sets it, so two files hardly ever
have the same one. Where it is not passed on as it is, or where a machine may be the other's copy, an outline
has to be the same too.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator

MOST_ENTRIES = 5_000
"""Entries of a folder that its outline tells of."""
_HEAD = 4096
_USERS = "/proc/self/uid_map"
_PASSED_OVER = (".git", ".hg", ".svn")
_BOOT = "/proc/sys/kernel/random/boot_id"


def changed(path: str) -> int | None:
    """Its ctime in nanoseconds; None of what is not there, or may not be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not os.access(path, os.R_OK | os.X_OK if stat.S_ISDIR(status.st_mode) else os.R_OK):
        return None
    return status.st_ctime_ns


def boot() -> str:
    """Tells one running system from another; "" where none does."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def is_mapped() -> bool:
    """Whether this process is another user for the machine than it says, and not the one who runs a rootless
    engine either: it has the rights of nobody there.
    """
    try:
        with open(_USERS, encoding="ascii") as file:
            return getattr(os, "getuid", int)() != 0 and file.read().split()[:2] != ["0", "0"]
    except OSError:
        return False


def is_closed(folder: str) -> bool:
    """Whether something in it may be read here, and by nobody else."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _PASSED_OVER]
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            wanted = 0o5 if stat.S_ISDIR(mode) else 0o4 if stat.S_ISREG(mode) else 0
            if mode & wanted != wanted and os.access(path, os.R_OK):
                return True
    return False


def outline(path: str) -> list[int]:
    """A checksum of names, sizes, whole seconds of changes and the beginnings of files; how many entries it
    is of, and whether of all.
    """
    checksum = count = 0
    if not os.path.isdir(path):
        return [_of_file(path), 1, 1]
    for line in _lines(path):
        if count == MOST_ENTRIES:
            return [checksum, count, 0]
        checksum, count = zlib.crc32(line, checksum), count + 1
    return [checksum, count, 1]


def _of_file(path: str) -> int:
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            return zlib.crc32(
                file.read(_HEAD) or b"", zlib.crc32(f"{status.st_size} {int(status.st_mtime)}".encode())
            )
    except OSError:
        return 0


def _lines(folder: str) -> Iterator[bytes]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        below = os.path.relpath(parent, folder)
        for name in sorted([*folders, *names]):
            told = f"{below}/{name}"
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                told += f" {status.st_size} {int(status.st_mtime)}"
            yield os.fsencode(told)
