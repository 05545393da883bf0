"""The journal of a trace: what has changed since its notebook was last written whole, one record a line, in a
hidden file beside it.

A record is on the disk as soon as its event is over, so that the notebook itself need not be written at each
event. The first line has the id that the notebook has in `metadata.rlm.journal`: a journal of another run is
not believed. Each record has a number (`n`); those up to the notebook's `journaled` are in the notebook
already. A last line that was cut off does not count. The writer holds a lock on the journal as long as it
lives: a journal without one was left by a run that was killed, and is folded into its notebook.

A record: {"n", "meta": fields of metadata.rlm that have changed, "files": {"keep", "rest"}, "cells":
[{"cell", "behind"}], "progress": {"cell", "seconds", "calls": those that have ended since, "outputs":
{"keep", "more", "rest"}}}.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlm_kernel import system
from rlm_kernel.trace import calltable
from rlm_kernel.trace.nodes import node_of
from rlm_kernel.trace.notebook_json import replace, serialised
from rlm_kernel.trace.packed import check_values, parse_record
from rlm_kernel.trace.parts import is_made

MAX_JOURNAL = 1 << 29
"""Bytes of a journal that is read."""
MAX_RECORDS = 1_000_000
"""Records of a journal that are read."""
_TRIES = 4
"""How often a notebook is read that is replaced while it is read."""


def journal_path(notebook: Path) -> Path:
    """Where the journal of a notebook is."""
    return notebook.with_name(f".{notebook.name}.log")


class Journal:
    """The journal of a notebook that is being written.

    The file is there from the first record on. Raises OSError.
    """

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
        file, self._file = self._file, None
        if file is None:
            self._path.unlink(missing_ok=True)
        else:
            system.remove_open(
                self._path, file
            )  # before it is unlocked: nobody must take it for one that was left

    def release(self) -> None:
        """Let go of the file, and leave it as it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _create(self) -> None:
        # Made anew: what lies in its place is not of this run, and may be a link to any file there is.
        self._path.unlink(missing_ok=True)
        self._file, self._size = (
            system.open_plain(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND),
            0,
        )
        with contextlib.suppress(OSError):  # a file system without locks: then nobody else folds it either
            system.lock(self._file)
        try:
            self._write(json.dumps({"journal": self.id}))
        except OSError:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                system.remove_open(self._path, file)
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
    """The notebook that `read` reads from `path`, with what its journal has beyond it.

    Raises what `read` does, and ValueError.
    """
    return _completed(_real(path), read)[0]


def fold(path: Path, read: Callable[[], Any], check: Callable[[Any], object]) -> bool:
    """Write the journal that a killed run left into its notebook, and delete it; whether there was one.

    A run that goes on is let alone, and a journal that is not the notebook's. `check` raises for a notebook
    that is not to be written. Raises OSError, ValueError, and what `read` and `check` do: then all is as it
    was.
    """
    path = _real(path)
    if (file := _opened(path)) is None:
        return False
    with contextlib.ExitStack() as held:
        held.callback(os.close, file)
        try:
            if not system.lock(file):
                return False
        except OSError:
            return False
        journal = journal_path(path)
        if not os.path.samestat(os.stat(journal, follow_symlinks=False), os.fstat(file)):
            return False  # its run has ended just now
        node, believed = _completed(path, read)
        if not believed:
            return False
        check(node)
        replace(path, (serialised(cell, check=False) for cell in node.cells), node.metadata, durable=True)
        held.pop_all()
        system.remove_open(journal, file)
        return True


def left_in(folder: Path) -> Iterator[Path]:
    """The notebooks in a folder and below it that have a journal; none that a link leads to."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            notebook = Path(parent, name.removeprefix(".").removesuffix(".log"))
            if (
                name == journal_path(notebook).name
                and notebook.suffix == ".ipynb"
                and not notebook.is_symlink()
            ):
                yield notebook


def _real(path: Path) -> Path:
    """Where the file is that a path leads to: its journal is beside that."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _completed(path: Path, read: Callable[[], Any]) -> tuple[Any, bool]:
    """The notebook, and whether its journal was believed."""
    for _ in range(_TRIES):
        before = _stamp(path)
        node = read()
        named, number = _ours(node).get("journal"), _ours(node).get("journaled", 0)
        raw = (
            _journal_of(path, named) if isinstance(named, str) and named and isinstance(number, int) else None
        )
        if _stamp(path) == before:  # else a writer has replaced it meanwhile, and begun its journal again
            break
    for name in (
        ("journal", "journaled") if named else ()
    ):  # of a notebook that is being written; this one is complete
        _ours(node).pop(name, None)
    if raw is not None:
        _apply(node, _records(raw, number))
        for cell in node.cells:
            with contextlib.suppress(
                AttributeError, KeyError, TypeError, ValueError
            ):  # damaged: that is told
                calltable.renew(cell)
    return node, raw is not None


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _opened(notebook: Path) -> int | None:
    """The journal beside a notebook, for reading, to be closed; None where none may be believed: a plain file
    of the notebook's owner.
    """
    try:
        file = system.open_plain(journal_path(notebook))
    except (OSError, ValueError):  # also where the path is none that a file can have
        return None
    found = os.fstat(file)
    with contextlib.suppress(OSError):
        if (
            stat.S_ISREG(found.st_mode)
            and found.st_size <= MAX_JOURNAL
            and found.st_uid == notebook.stat().st_uid
        ):
            return file
    os.close(file)
    return None


def _journal_of(path: Path, named: str) -> bytes | None:
    """The records of the notebook's journal; None if there is none with this id.

    Raises ValueError for one with too many values.
    """
    if (file := _opened(path)) is None:
        return None
    with os.fdopen(file, "rb") as stream:
        try:
            first = parse_record(stream.readline(1_000))
        except ValueError:
            return None
        if first.get("journal") != named:
            return None
        raw = stream.read(MAX_JOURNAL)
    check_values(raw)
    return raw


def _records(raw: bytes, number: int) -> Iterator[dict[str, Any]]:
    """The records after the one with this number, up to the first that is not whole."""
    for line in itertools.islice(io.BytesIO(raw), MAX_RECORDS):
        try:
            record = parse_record(line) if line.endswith(b"\n") else {}
        except ValueError:
            return
        if not isinstance(found := record.get("n"), int):
            return
        if found > number:
            yield record


def _ours(node: Any) -> dict[str, Any]:
    found = node.metadata.get("rlm") if isinstance(getattr(node, "metadata", None), dict) else None
    return found if isinstance(found, dict) else {}


def _apply(node: Any, records: Iterator[dict[str, Any]]) -> None:
    """Bring a notebook to the state of the last record.

    A record that does not fit ends it: what comes after it builds on it.
    """
    ours, cells = _ours(node), _Cells(node.cells)
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        for record in records:
            for change in record.get("cells", ()):
                cells.put(node_of(change["cell"]), change.get("behind"))
            if "progress" in record:
                cells.advance(node_of(record["progress"]))
            if "files" in record:
                ours.setdefault("files", [])[record["files"]["keep"] :] = record["files"]["rest"]
            ours.update(node_of(record.get("meta", {})))
    node.cells = cells.in_order()


class _Cells:
    """Cells to which records are applied, each in a time that does not grow with what was there before."""

    def __init__(self, cells: list[Any]) -> None:
        self._cells: dict[str, Any] = {str(cell.get("id")): cell for cell in cells}
        ids = list(self._cells)
        self._next: dict[str, str] = dict(zip(["", *ids], [*ids, ""], strict=True))
        """Of each the one behind it. `""` is before the first and behind the last."""
        self._before: dict[str, str] = {other: one for one, other in self._next.items()}
        self._grown: Any = None
        self._more: list[str] = []

    def put(self, cell: Any, behind: str | None) -> None:
        """Add a cell, or put it in the place of the one with its id.

        `behind` another: where a new one goes, or an old one moves to.
        """
        name = cell["id"]
        if not isinstance(name, str) or not name:
            raise ValueError("it has no id")
        if behind not in self._cells or behind == name:
            behind = None
        if behind is not None and name in self._cells:
            self._link(self._before[name], self._next[name])
        if behind is not None or name not in self._cells:
            before = self._before[""] if behind is None else behind
            following = self._next[before]
            self._link(before, name)
            self._link(name, following)
        self._cells[name] = cell

    def _link(self, one: str, other: str) -> None:
        self._next[one], self._before[other] = other, one

    def advance(self, progress: Any) -> None:
        """Add to a running cell what it has done."""
        cell = self._cells[progress.cell]
        ours = cell.metadata.rlm
        ours.seconds = progress.seconds
        if progress.get("calls"):
            ours.setdefault("calls", []).extend(progress.calls)
        change = progress.get("outputs")
        if change is None:
            return
        ours_first = bool(cell.outputs) and is_made(cell.outputs[0])  # the table of calls
        del cell.outputs[ours_first + change.keep :]
        if change.more:
            if cell.outputs[-1] is not self._grown:
                self._join()
                self._grown = cell.outputs[-1]
            self._more.append(change.more)
        cell.outputs.extend(change.rest)

    def _join(self) -> None:
        """Put what a text has got behind it, all at once: one by one, each would copy all of it."""
        if self._more:
            self._grown.text = "".join([self._grown.text, *self._more])
        self._grown, self._more = None, []

    def in_order(self) -> list[Any]:
        self._join()
        name, found = self._next[""], []
        while name:
            found.append(self._cells[name])
            name = self._next[name]
        return found
