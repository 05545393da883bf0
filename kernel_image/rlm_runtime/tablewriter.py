"""The process that reads a workbook, a database or a Parquet file, and writes its tables as CSV.

`python -m rlm_runtime.tablewriter KIND FIRST PATH`: the file is standard input, and PATH what it is called,
or "". Tables before the number FIRST are passed over. `apart` starts it, and takes what it writes.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib
import io
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from rlm_runtime import memory
from rlm_runtime.unpacking import Unreadable

HEAD = struct.Struct("<cI")
"""What stands before each piece: its kind, and how many bytes it has."""
NAMES, TABLE, TEXT, NOTE, LACK, LOST, FAILED, END = b"n", b"t", b"x", b"o", b"k", b"l", b"f", b"e"
"""Kinds of pieces: the names of all tables, one begins, rows of it, a note on it, what it lacks, its rest
cannot be read, nothing can, all is done.
"""
READERS = {"spreadsheet": "sheettables", "SQLite": "sqlitetables", "Parquet": "parquettables"}
"""Kinds of files to the modules that read them: each has `tables(path, name)`."""
SECONDS = 120
"""Of computing, for one process."""
_PIECE = 1 << 16
_MOST = 1_000
"""Tables of one file that are read at most."""
_OPENED = "/proc/self/fd/0"
_AS_IT_IS = frozenset((str, int))
_CONTROLS = frozenset(range(32)) - {9, 10, 13}


class Table(NamedTuple):
    """A table of a file: the first of its rows has the names of its columns, where the file knows them.

    `rows` raises whatever is wrong with it; Unreadable says it in words for the user. `note` says what kind
    of table it is, and `lacks` what of it is missing, which is told where it has no rows, too.
    """

    name: str
    rows: Callable[[], Iterable[Sequence[Any]]]
    note: str = ""
    lacks: str = ""


def main(kind: str, first: str, path: str) -> None:
    """Write the tables of the file to standard output."""
    bound()
    try:
        reader = importlib.import_module(f"rlm_runtime.{READERS[kind]}")
        found: list[Table] = reader.tables(_OPENED, path)
    except BaseException as error:  # compiled readers raise what is no Exception
        _send(FAILED, _told(error))
        return
    _send(NAMES, [table.name for table in found])
    for table in found[int(first) : _MOST]:
        _send(TABLE, table.name)
        if table.note:
            _send(NOTE, table.note)
        if table.lacks:
            _send(LACK, table.lacks)
        try:
            _write(table.rows())
        except BaseException as error:
            _send(LOST, _told(error))
    _send(END, None)


def bound() -> None:
    """Give this process its bounds: half of the memory, and so many seconds of computing."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory.total() // 2,) * 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # rather this process than the kernel


def _told(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"


def _send(kind: bytes, value: Any) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    sys.stdout.buffer.write(HEAD.pack(kind, len(data)) + data)
    sys.stdout.buffer.flush()


def _write(rows: Iterable[Sequence[Any]]) -> None:
    """Rows as CSV, in pieces that end where a row ends. One without cells is an empty line."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    # A carriage return alone is a line's end to readers, and the writer does not quote it.
    write_quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow
    for row in rows:
        if row:
            cells = [value if type(value) in _AS_IT_IS else cell(value) for value in row]
            returns = any(type(value) is str and "\r" in value for value in cells)
            (write_quoted if returns else write)(cells)
        else:
            text.write("\n")
        if text.tell() >= _PIECE:
            _send(TEXT, text.getvalue().encode("utf-8", "replace"))
            text.seek(0)
            text.truncate()
    if text.tell():
        _send(TEXT, text.getvalue().encode("utf-8", "replace"))


def cell(value: Any) -> str:
    """A value as it stands in the CSV: dates and times by ISO 8601, nothing for what is missing, lists and
    dicts as JSON, bytes that are no text by their number.
    """
    if value is None or value != value:
        return ""
    if type(value) is float:
        return repr(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes(bytes(value))
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)


def _duration(value: datetime.timedelta) -> str:
    """Hours, minutes and seconds, as sheets show them."""
    seconds, rest = divmod(abs(value), datetime.timedelta(seconds=1))
    fraction = f".{rest.microseconds:06}".rstrip("0") if rest else ""
    sign = "-" if value < datetime.timedelta() else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def _bytes(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"[{len(value):,} bytes]"
    return f"[{len(value):,} bytes]" if _CONTROLS.intersection(value) else text


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers, texts and truth values stay what they are."""
    if isinstance(value, dict):
        return {cell(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value if value is None or isinstance(value, (str, int)) else cell(value)


if __name__ == "__main__":
    main(*sys.argv[1:4])
    sys.stdout.buffer.flush()
    os._exit(0)  # what a compiled reader does as it is taken down is of no interest
