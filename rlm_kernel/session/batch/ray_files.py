"""Files on their way: those that questions are asked of, to the nodes of a cluster, each once by its digest;
and those that a question leaves, home.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from rlm_kernel import system
from rlm_kernel.errors import FileRefused, SetupError, TraceError, TraceNotWritten
from rlm_kernel.session.digests import look_at

PIECE = 4 << 20
"""Bytes that are sent at one time."""
STORE = 16 << 30
"""Bytes of files that a node keeps: beyond that those go that no question needs now, the oldest first."""
MOST_LEFT = 100_000
"""Files of a question that come home, those of its children included."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BASE = "rlm-nodes"


@dataclass(frozen=True)
class Member:
    """A file of what is sent or left: where it lies below the whole ("" where it is the whole)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Parcel:
    """A file or folder of the user's: `digest` tells it from any other content."""

    path: Path
    directory: bool
    digest: str
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)


class Parcels:
    """The files of a batch's questions: each is read once for its digest, as long as it does not change."""

    def __init__(self, most: int = 1_000) -> None:
        self._known: OrderedDict[str, Parcel] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def of(self, path: Path) -> Parcel:
        """Of a file or folder, whose links have been followed. Blocking. Raises FileRefused."""
        seen = look_at(path)
        key = seen.key
        with self._lock:
            if seen.settled and (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
        members = tuple(
            Member(name, size, digest_of(path / name if seen.directory else path))
            for name, size, *_ in seen.members
        )
        digest = _digest_of_folder(members) if seen.directory else members[0].digest
        parcel = Parcel(path, seen.directory, digest, members)
        with self._lock:
            self._known[key] = parcel
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return parcel


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Blocking. Raises FileRefused."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileRefused(f"{path} cannot be read: {error.strerror or error}.") from error


def _digest_of_folder(members: Sequence[Member]) -> str:
    told = json.dumps([[one.name, one.size, one.digest] for one in members])
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


Piece = tuple[int, int, bytes]
"""The number of a member, a place in it, and what stands there."""


def pieces(parcel: Parcel) -> Iterator[list[Piece]]:
    """All of it, PIECE bytes at one time; many small files go together. Blocking. Raises FileRefused."""
    batch: list[Piece] = []
    size = 0
    for number, member in enumerate(parcel.members):
        path = parcel.path / member.name if parcel.directory else parcel.path
        try:
            with path.open("rb") as file:
                at = 0
                while block := file.read(min(PIECE - size, member.size - at)):
                    batch.append((number, at, block))
                    at, size = at + len(block), size + len(block)
                    if size >= PIECE:
                        yield batch
                        batch, size = [], 0
        except OSError as error:
            raise FileRefused(f"{path} cannot be read: {error.strerror or error}.") from error
    if batch:
        yield batch


class Store:
    """The files that a node has of a batch, and what its questions leave. Blocking, and for any thread."""

    def __init__(self, name: str, most: int = STORE) -> None:
        """`name`: of the store on this machine, with nothing of the user's in it. Raises SetupError."""
        self._most = most
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._pins: dict[str, set[str]] = {}
        uid, _ = system.ids()
        base = Path(tempfile.gettempdir()) / f"{_BASE}-{uid}"
        try:
            base.mkdir(mode=0o700, exist_ok=True)
            if not (system.is_own(base.lstat()) and not base.is_symlink()):
                raise SetupError(
                    f"{base} belongs to another user.", hint="Set TMPDIR to another folder on that node."
                )
            self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
            self._owned = os.open(self.folder / "new", os.O_RDWR | os.O_CREAT, 0o600)
            system.lock(self._owned)
            os.write(self._owned, str(os.getpid()).encode())
            os.rename(self.folder / "new", self.folder / "lock")  # held from the moment that it is there
            (self.folder / "runs").mkdir()
        except OSError as error:
            raise SetupError(
                f"A node of the cluster has no room for files in {base}: {error.strerror or error}."
            ) from error

    def sweep(self) -> list[int]:
        """Remove the stores of processes of this machine that were killed; which ones these were."""
        ended: list[int] = []
        for folder in self.folder.parent.iterdir():
            with contextlib.suppress(OSError, ValueError):
                file = os.open(folder / "lock", os.O_RDWR)
                try:
                    if system.is_locked(file):
                        continue
                    told = os.read(file, 20)
                finally:
                    os.close(file)
                _remove(folder)
                ended.append(int(told))
        return ended

    def pin(self, run: str, wanted: Sequence[str]) -> list[str]:
        """Have these kept as long as the run lasts; which of them are not here."""
        with self._lock:
            self._pins[run] = set(wanted)
            for digest in wanted:
                if digest in self._sizes:
                    self._sizes.move_to_end(digest)
            return [digest for digest in dict.fromkeys(wanted) if digest not in self._sizes]

    def put(self, digest: str, members: Sequence[Member], got: Sequence[Piece]) -> None:
        """Some pieces of what is to be called so. Raises FileRefused."""
        place = self._coming(digest)
        for number, at, block in got:
            path = _below(place, members[number].name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if at else "wb") as file:
                file.seek(at)
                file.write(block)

    def finish(self, digest: str, members: Sequence[Member], directory: bool) -> None:
        """All of it has come. Raises FileRefused where it is not what it was said to be."""
        place = self._coming(digest)
        place.mkdir(exist_ok=True) if directory else None
        for member in members:
            path = _below(place, member.name)
            if not member.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            if not path.is_file() or digest_of(path) != member.digest:
                _remove(place)
                raise FileRefused("A file changed while rlm sent it.", hint="Ask this question again.")
        whole = _digest_of_folder(members) if directory else members[0].digest
        if whole != digest:
            raise FileRefused("The received file does not match its digest.")
        _open_to_container(place)
        os.replace(place, self.path(digest))
        with self._lock:
            self._sizes[digest] = sum(member.size for member in members)
            self._make_room()

    def path(self, digest: str) -> Path:
        """Where it is, once it is here."""
        return self.folder / _checked(digest)

    def run(self, run: str) -> Path:
        """The folder for what a run leaves."""
        return self.folder / "runs" / _checked(run, any_=True)

    def left_by(self, run: str) -> list[Member]:
        """The files that a run has left."""
        folder = self.run(run)
        found: list[Member] = []
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                if len(found) < MOST_LEFT and path.is_file() and not path.is_symlink():
                    place = path.relative_to(folder).as_posix()
                    found.append(Member(place, path.stat().st_size, digest_of(path)))
        return found

    def read(self, run: str, name: str, at: int) -> bytes:
        """A piece of a file that a run has left."""
        with _below(self.run(run), name).open("rb") as file:
            file.seek(at)
            return file.read(PIECE)

    def drop(self, run: str) -> None:
        """Nothing of the run is wanted any more. Idempotent."""
        _remove(self.run(run))
        with self._lock:
            self._pins.pop(run, None)
            self._make_room()

    def close(self) -> None:
        """Remove all of it. Idempotent."""
        _remove(self.folder)

    def _coming(self, digest: str) -> Path:
        return self.folder / f"{_checked(digest)}.part"

    def _make_room(self) -> None:
        pinned = set().union(*self._pins.values())
        for digest in [one for one in self._sizes if one not in pinned]:
            if sum(self._sizes.values()) <= self._most:
                return
            del self._sizes[digest]
            _remove(self.path(digest))


class Home:
    """Takes the files that a run has left, beside the place of its trace. Blocking; a context manager."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __enter__(self) -> Self:
        """Raises TraceNotWritten."""
        try:
            self._trace.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self._trace.stem[:50]}-", dir=self._trace.parent))
        except OSError as error:
            raise _not_written(self._trace, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self._folder)

    def write(self, member: Member, at: int, block: bytes) -> None:
        """A piece of a file. Raises TraceNotWritten, TraceError."""
        path = _below(self._folder, member.name)
        if at + len(block) > member.size:
            raise TraceError(f"The file {member.name} of a trace is longer than announced.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if at else "wb") as file:
                file.seek(at)
                file.write(block)
        except OSError as error:
            raise _not_written(self._trace, error) from error

    def keep(self, members: Sequence[Member]) -> None:
        """Put all of it beside the trace, the notebook last. Raises TraceError where it is not what it was
        said to be, TraceNotWritten.
        """
        for member in members:
            if digest_of(_below(self._folder, member.name)) != member.digest:
                raise TraceError(f"The file {member.name} of a trace was damaged in transit.")
        try:
            for name in sorted(os.listdir(self._folder), key=lambda name: name == self._trace.name):
                place = self._trace.with_name(name)
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                system.replace(self._folder / name, place)
        except OSError as error:
            raise _not_written(self._trace, error) from error


def _not_written(trace: Path, error: OSError) -> TraceNotWritten:
    return TraceNotWritten(
        f"The trace {trace} cannot be written: {error.strerror or error}.",
        hint="Free some space or check the folder's permissions.",
    )


def _below(folder: Path, name: str) -> Path:
    """A place in the folder. Raises FileRefused for one outside it: the name comes from another machine."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name:
        raise FileRefused(f"{name[:200]!r} is not a path inside a folder.")
    return folder.joinpath(*pure.parts)


def _checked(name: str, *, any_: bool = False) -> str:
    if not (re.fullmatch(r"[0-9a-f]{32}", name) if any_ else _DIGEST.fullmatch(name)):
        raise FileRefused(f"{name[:100]!r} is not a digest.")
    return name


def _open_to_container(place: Path) -> None:
    """The container's user, another one, may read it; nobody may change it."""
    for path in [place, *(place.rglob("*") if place.is_dir() else ())]:
        path.chmod(0o755 if path.is_dir() else 0o444)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            place.unlink()
