"""Digests of files and folders: taken beside the work, kept for the next time, and given up as soon as they
would be waited for.

A digest is kept by what `stat` says of what was read (path, size, mtime, inode, device): a file of many
gigabytes is read once. What was written too short a time before it was read is not kept: a change within one
tick of the file system's clock could not be seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlm_kernel import system
from rlm_kernel.trace.schema import FileMeta

MAX_KEPT = 4_000
"""Digests that are kept; the oldest go first."""
KEPT_FROM = 1 << 20
"""Bytes from which a digest is worth being kept."""
SETTLED_SECONDS = 2.0
"""Age from which a file's time of change tells of every later change: the coarsest clock of a file system."""
_BLOCK = 1 << 20
_LOOK_SECONDS = 0.05
State = Literal["pending", "changed", "unreadable"]

_lock = threading.Lock()
_under_way: dict[str, threading.Event] = {}


@dataclass(frozen=True)
class Seen:
    """A file or folder as `stat` tells of it.

    `members` of a folder: path below it, size, mtime (ns), inode, device; of a file one.
    """

    path: Path
    directory: bool
    members: tuple[tuple[str, int, int, int, int], ...]

    @property
    def size(self) -> int:
        """In bytes; of a folder that of its files."""
        return sum(member[1] for member in self.members)

    @property
    def key(self) -> str:
        """Tells it from any other, and from what it is after a change."""
        told = json.dumps([str(self.path.absolute()), self.directory, *self.members])
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def settled(self) -> bool:
        """Whether any change from now on would be seen."""
        newest = max((member[2] for member in self.members), default=0)
        return newest + SETTLED_SECONDS * 1e9 <= time.time_ns()


def look_at(path: Path, most: int | None = None) -> Seen:
    """What is there now: of a folder all files that can be seen, of what is gone or closed nothing. Blocking.

    `most`: bytes of files beyond which no more of a folder's are looked at.
    """
    if not os.path.isdir(path):
        return Seen(path, False, tuple(_seen("", path)))
    members: list[tuple[str, int, int, int, int]] = []
    size = 0
    for name, file in _files(path):
        for found in _seen(name, file):
            members.append(found)
            size += found[1]
        if most is not None and size > most:
            break
    return Seen(path, True, tuple(members))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path.relative_to(folder).as_posix(), path


def _seen(name: str, path: Path) -> Iterator[tuple[str, int, int, int, int]]:
    with contextlib.suppress(OSError, ValueError):  # gone since, or in a folder that cannot be entered
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            yield name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def file_meta(
    path: Path, *, made: bool = False, digest_until: threading.Event | None = None, most: int | None = None
) -> FileMeta:
    """What the trace says of a file or folder. Blocking. `most`: see `look_at`.

    With an event it is read whole for its digest, unless the event comes first: then that is pending, as it
    is without one.
    """
    seen = look_at(path, most)
    meta = FileMeta(path=str(path), directory=seen.directory, size=seen.size, made=made, digest="pending")
    return meta if digest_until is None else meta.model_copy(update=digest_of(seen, digest_until))


def digest_of(seen: Seen, until: threading.Event) -> dict[str, str | None]:
    """FileMeta's fields `sha256` and `digest`: as they are kept, or by reading all of it, once however many
    ask. Blocking.
    """
    key = seen.key
    while not until.is_set():
        with _lock:
            other = _under_way.get(key)
            if other is None:
                _under_way[key] = done = threading.Event()
        if other is not None:
            other.wait(_LOOK_SECONDS)
            continue
        try:
            return _digest(seen, key, until)
        finally:
            with _lock:
                del _under_way[key]
            done.set()
    return {"sha256": None, "digest": "pending"}


def sha256_of(path: Path, until: threading.Event) -> str | None:
    """Of a file, or of the files of a folder.

    None where that is not to be had, because it is being changed, say, or `until` comes first.

    Blocking.
    """
    return digest_of(look_at(path), until)["sha256"]


def _digest(seen: Seen, key: str, until: threading.Event) -> dict[str, str | None]:
    worth = seen.size >= KEPT_FROM
    if worth and (kept := _kept().get(key)):
        return {"sha256": kept, "digest": None}
    settled = seen.settled
    sha256, state = _read(seen, until)
    if sha256 is not None and look_at(seen.path) != seen:
        sha256, state = None, "changed"
    if sha256 is not None and worth and settled:
        _keep(key, sha256)
    return {"sha256": sha256, "digest": state}


def _read(seen: Seen, until: threading.Event) -> tuple[str | None, State | None]:
    if not seen.directory:
        digest, whole = _sha256(seen.path, until) if seen.members else ("", False)
        return (digest, None) if digest and whole else (None, "pending" if until.is_set() else "unreadable")
    total = hashlib.sha256()
    for name, *_ in seen.members:
        digest, _ = _sha256(seen.path / name, until)
        if not digest:
            return None, "pending"
        total.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest(), None


def _sha256(path: Path, until: threading.Event) -> tuple[str, bool]:
    """Of the file's bytes, and whether it could be read to its end; "" if the event came first."""
    digest = hashlib.sha256()
    try:
        # Not blocking: it may be a pipe by now, or a file that waits for what somebody writes.
        with open(path, "rb", buffering=0, opener=_not_blocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return digest.hexdigest(), False
            while block := file.read(_BLOCK):
                if until.is_set():
                    return "", False
                digest.update(block)
            return digest.hexdigest(), block is not None
    except OSError:
        return digest.hexdigest(), False


def _not_blocking(path: str, flags: int) -> int:
    return system.open_plain(path, flags, follow=True)


def be_quiet() -> None:
    """Have the calling thread give way to others, where the system has that for a thread."""
    system.be_quiet(threading.get_native_id())


def _file() -> Path:
    return system.cache_dir() / "digests.json"


def _kept() -> dict[str, str]:
    """The digests that are kept, the oldest first; none where they cannot be read."""
    try:
        found = json.loads(_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in known if isinstance(value, str) and len(value) == len(key) == 64}


def _keep(key: str, sha256: str) -> None:
    """Keep a digest, in a file that is replaced whole; of two programs at once the last one's counts.

    Where that fails, it is not kept.
    """
    file = _file()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = {name: value for name, value in _kept().items() if name != key} | {key: sha256}
        text = json.dumps(dict(list(kept.items())[-MAX_KEPT:]))
        descriptor, made = tempfile.mkstemp(prefix="digests-", dir=file.parent)  # for its owner alone
        try:
            with open(descriptor, "w", encoding="ascii") as new:
                new.write(text)
            system.replace(made, file)
        except OSError:
            os.unlink(made)
            raise
