"""Files and folders as a tar archive that is made while it is read: as a container sees them by a mount, and
for every user to read.

Links stay links. What cannot be read is there and closed, so that the kernel counts it; what is no file is a
pipe that nobody writes to. Folders of version control are empty but for their rules of what to ignore.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel import system
from rlm_kernel.errors import FileRefused

BLOCK = 256 << 10
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
_RECORD = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Entry:
    """Of an archive.

    `kind` is one of tarfile's types; `size` in bytes, `mtime` in seconds; `path`: where the content of a file
    is.
    """

    name: str
    kind: bytes
    mode: int
    mtime: int
    size: int = 0
    link: str = ""
    path: Path = Path()

    @property
    def about(self) -> list[str | int]:
        """What tells it from others, but for its content."""
        return [self.name, self.kind.decode(), self.mode, self.link]


def entries(source: Path, name: str) -> Iterator[Entry]:
    """Of a file that is called `name`, or of what is in a folder; the folder itself only if it has a name.

    Folders come before their files.

    Blocking.
    """
    if not source.is_dir():
        yield _entry(name, source, source.stat())
        return
    if name:
        yield _folder(name, source.stat())
    yield from _members(source, f"{name}/" if name else "")


def _members(folder: Path, prefix: str) -> Iterator[Entry]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path, known = folder / name, prefix + name
        try:
            status = path.lstat()
        except OSError:
            continue  # gone since
        if not stat.S_ISDIR(status.st_mode):
            yield _entry(known, path, status)
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Entry(known, tarfile.DIRTYPE, 0, int(status.st_mtime))
        else:
            yield _folder(known, status)
            if name not in VERSION_CONTROL:
                yield from _members(path, f"{known}/")
            elif (rules := path / "info" / "exclude").is_file() and not (
                rules.parent.is_symlink() or rules.is_symlink()
            ):
                # Through a link any file of the host's would go along.
                yield _folder(f"{known}/info", status)
                yield _entry(f"{known}/info/exclude", rules, rules.stat())


def _folder(name: str, status: os.stat_result) -> Entry:
    return Entry(name, tarfile.DIRTYPE, stat.S_IMODE(status.st_mode) & 0o777 | 0o555, int(status.st_mtime))


def _entry(name: str, path: Path, status: os.stat_result) -> Entry:
    mode, mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        with contextlib.suppress(OSError):
            return Entry(name, tarfile.SYMTYPE, 0o777, mtime, link=os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        return Entry(name, tarfile.FIFOTYPE, 0o444, mtime)
    if not os.access(path, os.R_OK):
        return Entry(name, tarfile.REGTYPE, 0, mtime)
    return Entry(name, tarfile.REGTYPE, mode | 0o444, mtime, status.st_size, path=path)


def archive(
    members: Iterable[Entry], stop: Callable[[], bool], sent: Callable[[int], None]
) -> Iterator[bytes]:
    """The archive in pieces of about BLOCK bytes.

    `stop` is asked before each, and ends it; `sent` hears how many bytes of files were read.

    Raises FileRefused for a file that became shorter meanwhile, and where it was stopped. Blocking.
    """
    gathered = bytearray()
    for entry in members:
        gathered += _head(entry)
        if entry.kind == tarfile.REGTYPE and entry.size:
            for block in _blocks(entry, stop):
                sent(len(block))
                gathered += block
                if len(gathered) >= BLOCK:
                    yield bytes(gathered)
                    gathered.clear()
            gathered += bytes(-entry.size % _RECORD)
        elif stop():
            raise FileRefused("Sending files to the engine was stopped.")
    yield bytes(gathered + bytes(2 * _RECORD))


def _head(entry: Entry) -> bytes:
    told = tarfile.TarInfo(entry.name)
    told.type, told.mode, told.mtime, told.size, told.linkname = (
        entry.kind,
        entry.mode,
        entry.mtime,
        entry.size,
        entry.link,
    )
    # Names are bytes in this format, whatever they are, and sizes have no limit.
    return told.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _blocks(entry: Entry, stop: Callable[[], bool]) -> Iterator[bytes]:
    """As many bytes as the head says: what is written to the file's end meanwhile is left."""
    left = entry.size
    with contextlib.ExitStack() as stack:
        try:
            # Another may have put a pipe or a link there meanwhile.
            file = stack.enter_context(open(system.open_plain(entry.path), "rb", buffering=0))
            while left:
                if stop():
                    raise FileRefused("Sending files to the engine was stopped.")
                block = file.read(min(BLOCK, left))
                if not block:
                    raise FileRefused(
                        f"{entry.path} became shorter while it was sent to the engine.",
                        hint="Try again when it no longer changes.",
                    )
                left -= len(block)
                yield block
        except OSError as error:
            raise FileRefused(
                f"{entry.path} cannot be read: {error.strerror or error}.", hint="Check the file."
            ) from error
