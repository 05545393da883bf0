"""The files of a trace: noted as a run has them; found again where they were, or where the user says, and checked before any cell runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import FileRefused, UsageError
from rlm_kernel.sandbox.grants import resolve
from rlm_kernel.session.inputs import CONTEXT, STDIN, TEXT, file_meta
from rlm_kernel.session.stage import Say, Stage, await_nothing
from rlm_kernel.trace.reader import TraceFile
from rlm_kernel.trace.schema import FileMeta

if TYPE_CHECKING:
    from rlm_kernel.trace.writer import NotebookWriter


_TOLD_FROM = 256 << 20
"""Bytes of files from which it is told that they are read."""


class FileNotes:
    """Notes the files of a run in its trace: their sizes before the kernel has them, their digests when they have been read.

    A context manager: they are read in threads, beside what is done in it and no further.
    """

    def __init__(self, on: Stage, writer: NotebookWriter) -> None:
        self._on = on
        self._writer = writer
        self._over = threading.Event()
        self._reading: set[asyncio.Task[None]] = set()

    def __enter__(self) -> FileNotes:
        self._read(file.path for file in self._writer.files if not file.sha256)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for task in self._reading:
            await_nothing(task)

    async def locate(self, asked: str) -> Mapping[str, Any]:
        """As of the stage; a file that is granted by it is noted first."""
        found = await self._on.locate(asked)
        await self.note()
        return found

    async def note(self) -> None:
        """Note what was granted since."""
        new = self._new(self._on.grants.places())
        if new:
            metas = await asyncio.to_thread(_metas, new, None)
            there = self._new(new)  # another call may have noted it meanwhile
            self._writer.set_files([*self._writer.files, *(meta for name, meta in metas.items() if name in there)])
            self._read(there)

    async def complete(self) -> None:
        """Wait until the trace has all digests."""
        if any(not task.done() for task in self._reading):
            self._on.say("reading the input for its digest …")
        await asyncio.gather(*self._reading)

    def _new(self, places: Mapping[Any, Path]) -> dict[str, Path]:
        known = {file.path for file in self._writer.files}
        return {str(name): place for name, place in places.items() if str(name) not in known}

    def _read(self, names: Iterable[str]) -> None:
        places = {str(name): place for name, place in self._on.grants.places().items()}
        wanted = {name: places[name] for name in names if name in places}
        if wanted:
            self._reading.add(asyncio.create_task(self._digest(wanted)))

    async def _digest(self, places: Mapping[str, Path]) -> None:
        read = await asyncio.to_thread(_metas, places, self._over)
        if not self._over.is_set():
            files = [read[file.path].model_copy(update={"made": file.made}) if file.path in read else file for file in self._writer.files]
            self._writer.set_files(files)


def _metas(places: Mapping[str, Path], digest_until: threading.Event | None) -> dict[str, FileMeta]:
    metas = {name: file_meta(place, digest_until=digest_until) for name, place in places.items()}
    return {name: meta.model_copy(update={"path": name}) for name, meta in metas.items()}


@dataclass(frozen=True)
class Checked:
    """A file of a trace, as it is now. `path`: where it is; None if it is nowhere. `fault`: why it is not the one that it was, or "".

    `proven`: its content is that of then, by its digest.
    """

    meta: FileMeta
    path: Path | None
    fault: str = ""
    proven: bool = False


@dataclass(frozen=True)
class TraceFiles:
    """Where the files of a trace are, in its order; `known_as` is what the trace calls them. `changed` says what is not as it was, or
    not known to be.
    """

    paths: list[Path]
    known_as: list[Path]
    changed: list[str]


async def look_up_files(
    trace: TraceFile, given: Mapping[str, Path] | None = None, *, allow_changed: bool = False, say: Say = lambda _text: None
) -> TraceFiles:
    """`find_files` in a thread; of files that take their time `say` hears."""
    if sum(file.size for file in trace.meta.files) > _TOLD_FROM:
        say("checking the trace's files …")
    return await asyncio.to_thread(find_files, trace, given, allow_changed=allow_changed)


def find_files(trace: TraceFile, given: Mapping[str, Path] | None = None, *, allow_changed: bool = False) -> TraceFiles:
    """Find a trace's files and check their sizes and digests, all of them before anything is said. Blocking.

    `given`: where a file is now, by its recorded path, or by its last part where only one has it. `allow_changed`: a file that is not
    what it was is not refused, but told in `changed`.

    Raises UsageError for a name that the trace does not have, FileRefused for files that are missing or have changed.
    """
    files = check_files(trace, given)
    missing = [file.fault for file in files if file.path is None]
    changed = [file.fault for file in files if file.path is not None and file.fault]
    refused = missing if allow_changed else missing + changed
    if refused:
        hint = "Say where it is: --file NAME=PATH" if missing else "Give the one that it was: --file NAME=PATH, or --allow-changed"
        raise FileRefused(" ".join(refused), hint=hint)
    unknown = [
        f"Whether {file.path} has changed is not known: it has the size that it had, and the run was cut off before its sha256 was there."
        for file in files
        if not file.fault and not file.proven
    ]
    paths = [file.path.absolute() for file in files if file.path is not None]
    return TraceFiles(paths, [Path(file.meta.path) for file in files], changed + unknown)


def check_files(trace: TraceFile, given: Mapping[str, Path] | None = None) -> list[Checked]:
    """Each file of a trace, in its order: given, or at its recorded place, or by its name beside the trace. Blocking. Raises UsageError."""
    metas = trace.meta.files
    places = {_named(name, metas).path: path for name, path in (given or {}).items()}
    return [_check(meta, [places[meta.path]] if meta.path in places else _places(trace, meta)) for meta in metas]


def named_files(trace: TraceFile, given: Mapping[str, Path]) -> dict[str, Path]:
    """Of places that were given, by name or path, for the files of several traces, those of this one."""
    known = {meta.path for meta in trace.meta.files}
    names = Counter(Path(path).name for path in known)
    return {name: place for name, place in given.items() if name in known or names[name] == 1}


def _named(name: str, metas: list[FileMeta]) -> FileMeta:
    exact = [meta for meta in metas if meta.path == name] or [meta for meta in metas if Path(meta.path).name == name]
    if len(exact) != 1:
        what = "has no file" if not exact else "has several files"
        raise UsageError(f"The trace {what} {name}.", hint=f"Its files: {', '.join(meta.path for meta in metas) or 'none'}.")
    return exact[0]


def _places(trace: TraceFile, meta: FileMeta) -> list[Path]:
    recorded = Path(meta.path)
    # A made one is named after its trace, which may have been given another name since.
    made = [trace.path.with_suffix(ending) for ending in (CONTEXT, STDIN, TEXT) if recorded.name.endswith(ending)]
    return [recorded, trace.path.with_name(recorded.name), *made]


def _check(meta: FileMeta, places: list[Path]) -> Checked:
    """The first of the places where the file is as it was, else the first where there is one."""
    there: list[Checked] = []
    for path in dict.fromkeys(places):
        try:
            resolve(path)
        except FileRefused as refused:
            # The first place is where it is looked for by name; what it has to say counts if no other place has it.
            there.append(Checked(meta, None, refused.message if os.path.exists(path) else f"{path} is not there."))
            continue
        try:
            fault = _changed(meta, path)
        except OSError as error:
            there.append(Checked(meta, None, f"{path} cannot be read: {error.strerror or error}."))
            continue
        there.append(Checked(meta, path, fault, proven=not fault and meta.sha256 is not None))
        if not fault:
            return there[-1]
    return next((file for file in there if file.path is not None), there[0])


def _changed(meta: FileMeta, path: Path) -> str:
    now = file_meta(path)
    if now.directory != meta.directory or now.size != meta.size:
        return f"{path} has changed: {now.size:,} bytes, then it had {meta.size:,}."
    if meta.sha256 and file_meta(path, digest_until=threading.Event()).sha256 != meta.sha256:
        return f"{path} has changed: its size is the same, its sha256 is not."
    return ""
