"""The journal of a trace: what has changed since its notebook was last written whole, one record a line, in a hidden file beside it.

A record is on the disk as soon as its event is over, so that the notebook itself need not be written at each event. The first line has
the id that the notebook has in `metadata.rlm.journal`: a journal of another run is not believed. Each record has a number (`n`); those up
to the notebook's `journaled` are in the notebook already. A last line that was cut off does not count. The writer holds a lock on the
journal as long as it lives: a journal without one was left by a run that was killed, and is folded into its notebook.

A record: {"n", "meta": fields of metadata.rlm that have changed, "files": {"keep", "rest"}, "cells": [{"cell", "behind"}], "progress":
{"cell", "seconds", "calls": those that have ended since, "outputs": {"keep", "more", "rest"}}}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_JOURNAL = 1 << 29
"""Bytes of a journal that are read."""
_TRIES = 4
"""How often a notebook is read that is replaced while it is read."""


def journal_path(notebook: Path) -> Path:
    """Where the journal of a notebook is."""
    return notebook.with_name(f".{notebook.name}.log")


class Journal:
    """The journal of a notebook that is being written. The file is there from the first record on. Raises OSError."""

    def __init__(self, notebook: Path) -> None:
        self._path = journal_path(notebook)
        self._file: int | None = None
        self._size = 0
        self.id = ""
        """What the notebook must have in its metadata before the first record is written."""

    def name(self) -> None:
        """Begin another journal, whose first record comes when the notebook has its id."""
        self.release()
        self.id = secrets.token_hex(16)

    @property
    def lost(self) -> bool:
        """Somebody has deleted, moved or replaced the file, or its folder."""
        if self._file is None:
            return False
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return True
        return not os.path.samestat(there, os.fstat(self._file))

    def append(self, record: str) -> None:
        """Write a record, a JSON text, down. After a failure the journal is as it was before."""
        if self._file is None:
            self._create()
        self._write(record)

    def clear(self) -> None:
        """Forget all records: the notebook has been written whole."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, 0)
            self._size = 0
            self._write(json.dumps({"journal": self.id}))
        except OSError:
            self.remove()  # the next record makes another

    def remove(self) -> None:
        """Delete what is there, of whatever run: the notebook has been written whole."""
        self._path.unlink(missing_ok=True)  # before it is unlocked: nobody must take it for one that was left
        self.release()

    def release(self) -> None:
        """Let go of the file, and leave it as it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _create(self) -> None:
        # Made anew: what lies in its place is not of this run, and may be a link to any file there is.
        self._path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file, self._size = os.open(self._path, flags, 0o600), 0
        with contextlib.suppress(OSError):  # a file system without locks: then nobody else folds it either
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            self._write(json.dumps({"journal": self.id}))
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self.release()
            raise

    def _write(self, line: str) -> None:
        assert self._file is not None
        raw = f"{line}\n".encode("utf-8", "replace")
        left = memoryview(raw)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # a half of a line would spoil the next one
            raise
        self._size += len(raw)


# Reading


def completed(path: Path, read: Callable[[], Any]) -> Any:
    """The notebook that `read` reads from `path`, with what its journal has beyond it. Raises what `read` does."""
    for _ in range(_TRIES):
        before = _stamp(path)
        node = read()
        records = list(_records(path, node))
        if _stamp(path) == before:  # else a writer has replaced it meanwhile, and begun its journal again
            break
    _apply(node, records)
    return node


def fold(path: Path, read: Callable[[], Any]) -> bool:
    """Write the journal that a killed run left into its notebook, and delete it; whether there was one.

    A run that goes on is let alone, and a journal that is not the notebook's. Raises OSError, and what `read` does.
    """
    from rlm_kernel.trace.notebook_file import replace, serialised

    with _opened(path) as file:
        if file is None or path.is_symlink():
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        journal = journal_path(path)
        if not os.path.samestat(os.stat(journal, follow_symlinks=False), os.fstat(file)):
            return False  # its run has ended just now
        if _ours(read()).get("journal") != _id_of(file):
            return False
        node = completed(path, read)
        replace(path, (serialised(cell, check=False) for cell in node.cells), node.metadata, durable=True)
        journal.unlink()
        return True


def fold_all(folder: Path, read: Callable[[Path], Any]) -> list[Path]:
    """Fold what is left of journals in a folder and below it. The notebooks that were completed; what cannot be is let alone."""
    done = []
    for left in folder.rglob(".*.ipynb.log"):
        notebook = left.with_name(left.name.removeprefix(".").removesuffix(".log"))
        with contextlib.suppress(Exception):  # no notebook, or none that may be written
            if fold(notebook, lambda path=notebook: read(path)):  # type: ignore[misc]
                done.append(notebook)
    return sorted(done)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _opened(notebook: Path) -> Iterator[int | None]:
    """The journal beside a notebook, for reading; None where there is none that may be believed: a plain file of the notebook's owner."""
    try:
        file = os.open(journal_path(notebook), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # also where the path is none that a file can have
        yield None
        return
    try:
        found = os.fstat(file)
        plain = stat.S_ISREG(found.st_mode) and found.st_size <= MAX_JOURNAL
        yield file if plain and found.st_uid == notebook.stat().st_uid else None
    except FileNotFoundError:
        yield None
    finally:
        os.close(file)


def _lines(file: int) -> Iterator[dict[str, Any]]:
    """The records of an open journal, up to the first that is not whole."""
    with os.fdopen(os.dup(file), "rb") as stream:
        stream.seek(0)
        for line in stream:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                return
            if not isinstance(record, dict):
                return
            yield record


def _id_of(file: int) -> Any:
    first: dict[str, Any] = next(_lines(file), {})
    return first.get("journal") or "none"


def _records(path: Path, node: Any) -> Iterator[dict[str, Any]]:
    """What the notebook's journal has beyond the notebook."""
    named, number = _ours(node).get("journal"), _ours(node).get("journaled", 0)
    if not isinstance(named, str) or not named or not isinstance(number, int):
        return
    with _opened(path) as file:
        if file is None or _id_of(file) != named:
            return
        for record in _lines(file):
            if isinstance(found := record.get("n"), int) and found > number:
                yield record


def _ours(node: Any) -> dict[str, Any]:
    found = node.metadata.get("rlm") if isinstance(getattr(node, "metadata", None), dict) else None
    return found if isinstance(found, dict) else {}


def _apply(node: Any, records: list[dict[str, Any]]) -> None:
    """Bring a notebook to the state of the last record. A record that does not fit ends it: what comes after it builds on it."""
    from nbformat import from_dict

    ours = _ours(node)
    if ours.get("journal"):
        for name in ("journal", "journaled"):  # of a notebook that is being written; this one is complete
            ours.pop(name, None)
    if not records:
        return
    cells: dict[str, Any] = {str(cell.get("id")): cell for cell in node.cells}
    for record in records:
        try:
            for change in record.get("cells", ()):
                cell = from_dict(change["cell"])  # type: ignore[no-untyped-call]
                cells = _placed(cells, cell, change.get("behind"))
            if "progress" in record:
                _advance(cells, from_dict(record["progress"]))  # type: ignore[no-untyped-call]
            if "files" in record:
                files = record["files"]
                ours["files"] = [*ours.get("files", [])[: files["keep"]], *files["rest"]]
            ours.update(from_dict(record.get("meta", {})))  # type: ignore[no-untyped-call]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
            break
    node.cells = list(cells.values())


def _placed(cells: dict[str, Any], cell: Any, behind: str | None) -> dict[str, Any]:
    """The cells with a new or a changed one. `behind` another: where a new one goes, or an old one moves to."""
    if behind is None or behind not in cells:
        cells[cell.id] = cell
        return cells
    cells.pop(cell.id, None)
    order: dict[str, Any] = {}
    for name, other in cells.items():
        order[name] = other
        if name == behind:
            order[cell.id] = cell
    return order


def _advance(cells: Mapping[str, Any], progress: Any) -> None:
    """Add to a running cell what it has done."""
    cell = cells[progress.cell]
    ours = cell.metadata.rlm
    ours.seconds = progress.seconds
    if progress.calls:
        ours.setdefault("calls", []).extend(progress.calls)
    change = progress.get("outputs")
    if change is not None:
        kept = cell.outputs[: change.keep]
        if change.more:
            kept[-1].text += change.more
        cell.outputs = [*kept, *change.rest]
