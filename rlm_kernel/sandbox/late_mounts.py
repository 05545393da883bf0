"""A folder that a running container sees read-only, for files that are named after it has started: by hard
link, reflink or copy.

The host alone writes here. A hard link is the user's own file under another name, so nothing about it is ever
changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rlm_kernel import system
from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.rundir import container_ids
from rlm_kernel.sandbox.tarstream import entries

_BLOCK, _ENDLESS = 1 << 20, 1 << 30
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_TOLD_FROM = 256 << 20
"""Bytes of a copy from which its progress is told."""
Say = Callable[[str], None]


class LateMounts:
    """Gives files and folders into `folder`, each under a number of its own. All methods block."""

    def __init__(self, folder: Path, say: Say = lambda _text: None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        folder.chmod(0o755)
        self.folder = folder
        self._say = say

    def give(self, source: Path, stop: Callable[[], bool] = lambda: False) -> Path:
        """Put a file or folder there; where it is now. `stop` is asked now and then, and ends a copy.

        Raises FileRefused where that cannot be done; then nothing of it is left.
        """
        number = (
            max((int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit()), default=0) + 1
        )
        target = self.folder / str(number)
        try:
            if source.is_dir():
                self._tree(source, target, stop)
            else:
                self._file(source, target, stop)
        except BaseException as error:
            shutil.rmtree(target, ignore_errors=True)
            target.unlink(missing_ok=True)
            if isinstance(error, BlockingIOError):
                hint = f"Pipe its content in: timeout 5 cat {source} | rlm ask … -f -"
                raise FileRefused(
                    f"{source} cannot be read: it is a pipe that waits for a writer.", hint=hint
                ) from error
            if isinstance(error, OSError):
                hint = f"Check free space in {self.folder}, and that the file can be read."
                raise FileRefused(
                    f"{source} cannot be given to the kernel: {error.strerror or error}.", hint=hint
                ) from error
            raise
        return target

    def _tree(self, source: Path, target: Path, stop: Callable[[], bool]) -> None:
        target.mkdir()
        target.chmod(0o755)  # whatever the umask
        for entry in entries(source, ""):
            place = target / entry.name
            if not entry.mode or entry.kind == tarfile.FIFOTYPE:
                _stand_in(place)
            elif entry.kind == tarfile.DIRTYPE:
                place.mkdir()
                place.chmod(0o755)
            elif entry.kind == tarfile.SYMTYPE:
                # It leads, inside, to what is there, and never out of the container. Windows lets few users
                # make one: then it is not there.
                with contextlib.suppress(OSError):
                    place.symlink_to(entry.link)
            else:
                if stop():
                    raise FileRefused(f"Passing {source} to the kernel was stopped.")
                with contextlib.suppress(FileNotFoundError):  # gone since
                    self._member(entry.path, place, stop)

    def _member(self, source: Path, target: Path, stop: Callable[[], bool]) -> None:
        """A file of a folder; where it cannot be had, something that cannot be read is in its place."""
        try:
            self._file(source, target, stop)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            target.unlink(missing_ok=True)
            _stand_in(target)

    def _file(self, source: Path, target: Path, stop: Callable[[], bool]) -> None:
        # Not blocking: another may have put a pipe there meanwhile.
        file = system.open_plain(source)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise FileRefused(f"{source} is no longer a regular file.")
            if readable_inside(status) and _linked(source, target, status):
                return
            self._copy(file, status.st_size, source, target, stop)
        finally:
            os.close(file)

    def _copy(self, file: int, size: int, source: Path, target: Path, stop: Callable[[], bool]) -> None:
        made = system.open_plain(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        try:
            if not system.share_content(file, made):
                if size > shutil.disk_usage(self.folder).free:
                    raise OSError(28, f"there is no room for its {size:,} bytes")
                for done in _blocks(file, made):
                    if stop():
                        raise FileRefused(f"Copying {source} was stopped.")
                    if size >= _TOLD_FROM:
                        self._say(f"copying {source.name} … {done / 1e9:.1f} of {size / 1e9:.1f} GB")
        finally:
            os.close(made)
        if not _is_containers_user():
            system.give(target, *container_ids())


def _stand_in(place: Path) -> None:
    """An empty file that nobody may read, for what cannot be given: the kernel counts it with what it cannot
    read, and tells it.
    """
    os.close(system.open_plain(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0))


def _blocks(file: int, made: int) -> Iterator[int]:
    """Copy, and give the bytes done so far.

    Raises OSError, also for what is made when it is read and does not end.
    """
    done = 0
    size = os.fstat(file).st_size
    while block := os.read(file, _BLOCK):
        left = memoryview(block)
        while left:
            left = left[os.write(made, left) :]
        done += len(block)
        if done > max(size, _ENDLESS):
            raise OSError(27, f"it has more than {_ENDLESS:,} bytes and no size")
        yield done


def _linked(source: Path, target: Path, status: os.stat_result) -> bool:
    """Link, where the file system and the permissions allow it, and what was linked is what was looked at."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        return False
    now = target.lstat()
    if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
        return True
    target.unlink()
    return False


def _is_containers_user() -> bool:
    return container_ids()[0] == system.ids()[0]


def readable_inside(status: os.stat_result) -> bool:
    """Whether the container's user may read the file, or list and enter the folder."""
    if _is_containers_user():
        return True
    uid, gid = container_ids()
    who = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    wanted = (0o5 if stat.S_ISDIR(status.st_mode) else 0o4) << who
    return status.st_mode & wanted == wanted
