"""Workbooks, databases and Parquet files: each is read in a process of its own.

Their readers are compiled code. A damaged or hostile file can end the process that reads it, take all its
memory, or keep it busy for ever. So that process has bounds of its own, and the kernel only takes what it
writes: the tables as CSV, one after the other. A table that ends its reader costs itself alone, because the
next process goes on after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlm_runtime import tablewriter as writer
from rlm_runtime.readers import Read
from rlm_runtime.unpacking import Budget, Unreadable

_LARGEST = 256 << 20
"""Bytes of one piece at most: the reader is not trusted."""
_PIECE = 1 << 20
_REASON = 300
_NAME = 100
_LISTED = 3
_PROCESSES = 20
"""Processes for one file at most."""
_NO_ROOM = "there is no more room. Ask the user for a larger `sandbox.memory`"
_FAR = ". In a sheet, a single cell far from the others is enough"
_ENDS = {
    signal.SIGXCPU: f"it takes more than {writer.SECONDS} seconds to read",
    signal.SIGKILL: "it takes more memory than there is",
}


def tables(kind: str, file: IO[bytes], budget: Budget) -> Read:
    """The tables of a file as CSV: the text itself where there is one table, else a part for each.

    `kind`: a key of tablewriter.READERS. Raises Unreadable.
    """
    found = _Found(budget.room)
    with _descriptor(file) as (descriptor, path):
        for _ in range(_PROCESSES):
            begun = found.begun
            ended = _one_process([kind, str(begun), path], descriptor, found)
            if not ended:
                break
            if not found.begun:
                raise Unreadable(f"{ended}. Save what you need of it as .csv, and name that")
            if found.begun > begun:
                found.lose(ended + (_FAR if kind == "spreadsheet" else ""))
            if found.begun in (begun, len(found.names)):
                break
    read = found.read()
    budget.keep(sum(len(str(part.text).encode("utf-8", "surrogatepass")) for _, part in read.parts))
    return read


class _Found:
    """What has come of a file so far. `room`: bytes of text that it may have."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.names: list[str] = []
        self._tables: list[tuple[str, bytearray, list[str]]] = []
        self._lost: list[str] = []
        self._lacks: dict[str, str] = {}

    @property
    def begun(self) -> int:
        """How many tables were begun."""
        return len(self._tables)

    def lose(self, why: str) -> None:
        """The rest of the table in progress cannot be had."""
        name, text, notes = self._tables[-1]
        if text:
            notes.append(f"only its first {text.count(10):,} lines: {why}")
        else:
            self._lost.append(f"{name}: {why}")

    def take(self, kind: bytes, data: bytes) -> bool:
        """A piece of what the reader writes; whether that was the last. Raises Unreadable."""
        if kind == writer.TEXT:
            if len(data) > self._room:
                self.lose(_NO_ROOM)
                self._lost += [f"{name}: {_NO_ROOM}" for name in self.names[self.begun :]]
                return True
            self._room -= len(data)
            self._tables[-1][1].extend(data)
            return False
        told = json.loads(data)
        if kind == writer.NAMES:
            self.names = [str(name) for name in told]
        elif kind == writer.TABLE:
            self._tables.append((self._name(str(told)), bytearray(), []))
        elif kind == writer.NOTE:
            self._tables[-1][2].append(told[:_REASON])
        elif kind == writer.LACK:
            self._lacks[self._tables[-1][0]] = told[:_REASON]
        elif kind == writer.LOST:
            self.lose(told[:_REASON])
        elif kind == writer.FAILED:
            raise Unreadable(told[:_REASON])
        return bool(kind == writer.END)

    def _name(self, name: str) -> str:
        """A table's name as one that can be typed, and that no other has."""
        shown = "".join(char if char.isprintable() else " " for char in name).strip()[:_NAME]
        taken = {name for name, _, _ in self._tables}
        wanted = shown or f"table {self.begun + 1}"
        return next(
            name
            for name in (wanted, *(f"{wanted} ({n})" for n in range(2, self.begun + 3)))
            if name not in taken
        )

    def read(self) -> Read:
        """The whole. Raises Unreadable where all was lost."""
        for name, text, notes in self._tables:
            if text and name in self._lacks:
                notes.append(self._lacks.pop(name))
        kept = [
            (name, Read(text.decode("utf-8", "replace"), lacks=tuple(notes)))
            for name, text, notes in self._tables
            if text
        ]
        empty = tuple(f"{name}: {lacks}" for name, lacks in self._lacks.items())  # as they have no rows
        if self._lost and not kept:
            raise Unreadable(
                f"nothing in it can be read; {self._lost[0]}. Save what you need of it as .csv, and "
                f"name that."
            )
        if not kept:
            return Read("", lacks=empty or ("there is nothing in its tables",))
        lost = "; ".join(self._lost[:_LISTED]) + ("; …" if len(self._lost) > _LISTED else "")
        lacks = (
            (f"{len(self._lost):,} of {len(self.names):,} tables in it left out ({lost})",) if lost else ()
        )
        if len(kept) == 1 and not lost:
            return kept[0][1]._replace(lacks=(*kept[0][1].lacks, *empty))
        return Read("", lacks=(*lacks, *empty), parts=tuple(kept))


@contextlib.contextmanager
def _descriptor(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """A file that the process can open, and its path, if it has one."""
    name: Any = getattr(file, "name", None)
    if isinstance(name, (str, Path)):
        file.seek(0)
        yield file.fileno(), str(name)
        return
    file.seek(0)
    copy = os.memfd_create("table")
    try:
        while piece := file.read(_PIECE):
            os.write(copy, piece)
        os.lseek(copy, 0, os.SEEK_SET)
        yield copy, ""
    finally:
        os.close(copy)


def _one_process(arguments: list[str], descriptor: int, found: _Found) -> str:
    """Take what one process writes; why it ended before its time, or "". Raises Unreadable."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", writer.__name__, *arguments],
        stdin=descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "RUST_BACKTRACE": "0"},
        start_new_session=True,  # Ctrl-C is for the kernel, which ends it
    ) as process:
        try:
            for kind, data in _pieces(process.stdout):
                if found.take(kind, data):
                    return ""
        finally:
            process.kill()
    return _why(process.wait())


def _pieces(pipe: Any) -> Iterator[tuple[bytes, bytes]]:
    while len(head := pipe.read(writer.HEAD.size)) == writer.HEAD.size:
        kind, size = writer.HEAD.unpack(head)
        data = pipe.read(size) if size <= _LARGEST else b""
        if len(data) < size:
            return
        yield kind, data


def _why(status: int) -> str:
    known = _ENDS.get(-status)  # type: ignore[call-overload]
    if known:
        return known
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"status {status}"
    return f"it takes more memory than there is, or is damaged (its reader ended with {name})"
