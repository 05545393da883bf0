"""The files of a trace: noted as a run has them; found again where they were, or where the user says, and
checked before any cell runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rlm_kernel import system
from rlm_kernel.engine.protocols import PauseTimer
from rlm_kernel.errors import FileRefused, TraceError, UsageError
from rlm_kernel.pathtext import is_foreign, recorded, spelled
from rlm_kernel.sandbox.grants import resolve
from rlm_kernel.session.contexts import TABLES
from rlm_kernel.session.digests import be_quiet, file_meta
from rlm_kernel.session.environment import Environment, Say, silent
from rlm_kernel.session.inputs import KEPT
from rlm_kernel.session.toolfiles import FOLDER
from rlm_kernel.session.tree import FOLDER as CHILDREN
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.schema import FileMeta

if TYPE_CHECKING:
    from rlm_kernel.trace.writer import NotebookWriter


_TOLD_FROM = 256 << 20
"""Bytes of files from which it is told that they are read."""
_SOON, _SOON_SECONDS = 64 << 20, 0.5
"""Bytes whose digests are about to be there when a run ends, and how long they have then: the answer has been
given.
"""
_TELL_SECONDS = 1.0
_WRITE_SECONDS = 0.2
"""How long digests wait for others, to be written with them.

It is less than what they have at the end of a run.
"""


class FileNotes:
    """Notes the files of a run in its trace: their sizes before the kernel has them, their digests as soon as
    they have been read.

    An async context manager. They are read in a thread beside what is done in it, which nobody waits for:
    what is not read by its end stays pending. `until`: set when nobody needs them any more; without it that
    is the end of the context.
    """

    def __init__(
        self, environment: Environment, writer: NotebookWriter, until: threading.Event | None = None
    ) -> None:
        self._environment = environment
        self._writer = writer
        self._over = until or threading.Event()
        self._goes_on = until is not None
        self._closed = False
        self._known = {file.path: file for file in writer.files}
        self._found: dict[str, FileMeta] = {}
        self._due: asyncio.TimerHandle | None = None
        self._reading: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> FileNotes:
        places = {str(name): place for name, place in self._environment.grants.places().items()}
        wanted = [
            name
            for name, file in self._known.items()
            if file.sha256 is None and file.digest in (None, "pending")
        ]
        self._read({name: places[name] for name in wanted if name in places})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            left = sum(file.size for file in self._known.values() if file.digest == "pending")
            if error is None and self._reading and left <= _SOON:
                await asyncio.wait(self._reading, timeout=_SOON_SECONDS)
        finally:
            self._write()
            self._closed = True
            if not self._goes_on:
                self._over.set()

    async def locate(self, asked: str, asking: PauseTimer) -> Mapping[str, Any]:
        """As of the environment; a file that is granted by it is noted first."""
        found = await self._environment.locate(asked, asking)
        if found["path"] not in self._known:
            await self.note()
        return found

    async def note(self) -> None:
        """Note what was granted since."""
        new = {
            str(name): place
            for name, place in self._environment.grants.places().items()
            if str(name) not in self._known
        }
        if new:
            metas = await asyncio.to_thread(metas_of, new)
            there = {
                meta.path: meta for meta in metas if meta.path not in self._known
            }  # another call may have noted it meanwhile
            self._known |= there
            self._writer.set_files(there.values())
            self._read({name: new[name] for name in there})

    def _read(self, wanted: Mapping[str, Path]) -> None:
        if wanted:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            self._reading.add(done)
            done.add_done_callback(self._reading.discard)
            # A daemon: neither the program's end nor that of its loop waits for it.
            threading.Thread(
                target=self._digest, args=(wanted, loop, done), name="rlm-digests", daemon=True
            ).start()

    def _digest(
        self, places: Mapping[str, Path], loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]
    ) -> None:
        be_quiet()
        read: dict[str, FileMeta] = {}
        told = time.monotonic()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            for name, place in places.items():
                read[name] = file_meta(place, digest_until=self._over)
                if time.monotonic() - told > _TELL_SECONDS:
                    loop.call_soon_threadsafe(self._set, dict(read))
                    read.clear()
                    told = time.monotonic()
            loop.call_soon_threadsafe(self._set, read, done)

    def _set(self, read: Mapping[str, FileMeta], done: asyncio.Future[None] | None = None) -> None:
        for name, meta in read.items():
            if meta.digest != "pending":
                self._known[name] = self._found[name] = _with_digest(self._known[name], meta)
        if self._found and not self._closed and self._due is None:
            self._due = asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._write)
        if done is not None and not done.done():
            done.set_result(None)

    def _write(self) -> None:
        """Have in the trace what was found; once for many files, and once after its end."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        found, self._found = self._found, {}
        if found and not self._closed:
            with contextlib.suppress(TraceError):  # the next event raises it again
                self._writer.set_files(found.values())


def _with_digest(file: FileMeta, read: FileMeta) -> FileMeta:
    if read.size != file.size:
        return file.model_copy(update={"sha256": None, "digest": "changed"})
    return file.model_copy(update={"sha256": read.sha256, "digest": read.digest})


def metas_of(places: Mapping[Any, Path], *, made: bool = False) -> list[FileMeta]:
    """What a trace says of files, by the names that the kernel knows them by, before they are read.

    Blocking.
    """
    return [
        file_meta(place, made=made).model_copy(update={"path": str(name)}) for name, place in places.items()
    ]


_WHY_UNKNOWN = {
    None: "the run was cut off before its sha256 was computed",
    "pending": "the run ended before its sha256 was computed",
    "changed": "it was being changed while its sha256 was computed",
    "unreadable": "it could not be read to compute its sha256",
}


@dataclass(frozen=True)
class Checked:
    """A file of a trace, as it is now.

    `path`: where it is; None if it is nowhere. `fault`: why it is not the one that it was, or "".

    `proven`: its content is that of then, by its digest.
    """

    meta: FileMeta
    path: Path | None
    fault: str = ""
    proven: bool = False


@dataclass(frozen=True)
class TraceFiles:
    """Where the files of a trace are, in its order; `known_as` is what the trace calls them.

    `changed` says what is not as it was, or not known to be.
    """

    paths: list[Path]
    known_as: list[Path]
    changed: list[str]


async def look_up_files(
    trace: TraceFile,
    given: Mapping[str, Path] | None = None,
    *,
    allow_changed: bool = False,
    say: Say = silent,
) -> TraceFiles:
    """`find_files` in a thread, which stops reading when this is cancelled; of files that take their time
    `say` hears.
    """
    if sum(file.size for file in trace.meta.files) > _TOLD_FROM:
        say("checking the trace's files …")
    stop = threading.Event()
    try:
        return await asyncio.to_thread(find_files, trace, given, allow_changed=allow_changed, stop=stop)
    finally:
        stop.set()


def find_files(
    trace: TraceFile,
    given: Mapping[str, Path] | None = None,
    *,
    allow_changed: bool = False,
    stop: threading.Event | None = None,
) -> TraceFiles:
    """Find a trace's files and check their sizes and digests, all of them before anything is said. Blocking.

    `given`: where a file is now, by its recorded path, or by its last part where only one has it.
    `allow_changed`: a file that is not what it was is not refused, but told in `changed`. `stop`: set when
    nobody waits for the result any more.

    Raises UsageError for a name that the trace does not have, FileRefused for files that are missing or have
    changed.
    """
    files = check_files(trace, given, stop)
    missing = [file.fault for file in files if file.path is None]
    changed = [file.fault for file in files if file.path is not None and file.fault]
    refused = missing if allow_changed else missing + changed
    if refused:
        hint = (
            "Give its new place: --file NAME=PATH"
            if missing
            else "Give the original file: --file NAME=PATH, or accept the change: --allow-changed"
        )
        raise FileRefused(" ".join(refused), hint=hint)
    unknown = [
        f"It is not known whether {file.path} has changed: its size is the same, and "
        f"{_WHY_UNKNOWN[file.meta.digest]}."
        for file in files
        if not file.fault and not file.proven
    ]
    paths = [file.path.absolute() for file in files if file.path is not None]
    return TraceFiles(paths, [Path(file.meta.path) for file in files], changed + unknown)


def check_files(
    trace: TraceFile, given: Mapping[str, Path] | None = None, stop: threading.Event | None = None
) -> list[Checked]:
    """Each file of a trace, in its order: given, or at its recorded place, or by its name beside the trace.

    Blocking. Raises UsageError.
    """
    metas = trace.meta.files
    places = {file_named(name, metas).path: path for name, path in (given or {}).items()}
    until = stop or threading.Event()
    return [
        _check(meta, [places[meta.path]] if meta.path in places else _places(trace, meta), until)
        for meta in metas
    ]


def named_files(trace: TraceFile, given: Mapping[str, Path]) -> dict[str, Path]:
    """Of places that were given, by name or path, for the files of several traces, those of this one."""
    known = {meta.path for meta in trace.meta.files}
    names = Counter(recorded(path).name for path in known)
    return {name: place for name, place in given.items() if name in known or names[name] == 1}


def file_named(name: str, metas: list[FileMeta]) -> FileMeta:
    """The file of a trace that is called so: by its path, or by its last part where only one has it.

    Raises UsageError.
    """
    exact = [meta for meta in metas if meta.path == name] or [
        meta for meta in metas if recorded(meta.path).name == name
    ]
    if len(exact) != 1:
        what = "has no file" if not exact else "has several files"
        raise UsageError(
            f"The trace {what} {name}.",
            hint=f"Its files: {', '.join(meta.path for meta in metas) or 'none'}.",
        )
    return exact[0]


def _places(trace: TraceFile, meta: FileMeta) -> list[Path]:
    name = recorded(meta.path).name
    there = [] if is_foreign(meta.path) or system.is_remote(meta.path) else [Path(meta.path)]
    # A made one is named after its trace, which may have been given another name since.
    made = [trace.path.with_suffix(ending) for ending in KEPT if name.endswith(ending)]
    within = recorded(meta.path).parent.name
    for ending in (FOLDER, TABLES):  # a tool gave it, or it was one table of several
        if within.endswith(ending):
            made += [trace.path.with_suffix(ending) / name, trace.path.with_name(within) / name]
    beside = [home / name for home in _homes(trace.path)] if name else []
    return [spelled(place) for place in (*there, *beside, *made)]


def _homes(trace: Path) -> list[Path]:
    """The folder of a trace and, of a child's, those of the traces above it."""
    homes = [trace.parent]
    while homes[-1].name.endswith(CHILDREN):
        homes.append(homes[-1].parent)
    return homes


def _check(meta: FileMeta, places: list[Path], until: threading.Event) -> Checked:
    """The first of the places where the file is as it was, else the first where there is one."""
    there: list[Checked] = []
    for path in dict.fromkeys(places):
        try:
            resolve(path)
        except FileRefused as refused:
            # The first place is where it is looked for by name; what it has to say counts if no other place
            # has it.
            there.append(
                Checked(meta, None, refused.message if os.path.exists(path) else f"{path} is not there.")
            )
            continue
        try:
            fault = _changed(meta, path, until)
        except OSError as error:
            there.append(Checked(meta, None, f"{path} cannot be read: {error.strerror or error}."))
            continue
        there.append(Checked(meta, path, fault, proven=not fault and meta.sha256 is not None))
        if not fault:
            return there[-1]
    nowhere = Checked(
        meta, None, f"{meta.path} is a path on another system, and the file is not next to the trace."
    )
    return next((file for file in there if file.path is not None), there[0] if there else nowhere)


def _changed(meta: FileMeta, path: Path, until: threading.Event) -> str:
    now = file_meta(
        path, most=meta.size
    )  # a trace may name any folder: it is not walked farther than it can be the one that it was
    if now.directory != meta.directory or now.size != meta.size:
        least = "over " if now.directory and now.size > meta.size else ""
        return f"{path} has changed: {least}{now.size:,} bytes, then it had {meta.size:,}."
    if meta.sha256 and file_meta(path, digest_until=until).sha256 != meta.sha256:
        return f"{path} has changed: its size is the same, its sha256 is not."
    return ""
