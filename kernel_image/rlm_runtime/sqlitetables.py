"""The tables and views of a SQLite database.

It is opened where nothing can be written. What its schema holds is not trusted: a view that never ends is
stopped, and nothing in it can load or reach other files.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlm_runtime import memory
from rlm_runtime.tablewriter import Table
from rlm_runtime.unpacking import Unreadable

MAGIC = b"SQLite format 3\0"
_SECONDS = 5
"""Of computing, for a view."""
_STEPS = 100_000
_BESIDE = ("-wal", "-journal")
"""Files that hold changes which are not in the database yet."""
_DIALECT = "export its tables as .csv, and name these"


def tables(path: str, name: str) -> list[Table]:
    """The tables, then the views, by name. Raises Unreadable."""
    with open(path, "rb") as file:
        head = file.read(20)
    if not head.startswith(MAGIC):
        raise Unreadable(
            f"it is no SQLite database, or an encrypted one. Save it without a password, or {_DIALECT}."
        )
    connection, note = _open(path, name, in_log=head[18:20] == b"\2\2")
    connection.set_authorizer(_allowed)
    try:
        found = connection.execute(
            "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', "
            "'view', 'virtual') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type = 'view', name"
        ).fetchall()
    except sqlite3.Error as error:
        raise Unreadable(
            f"its list of tables cannot be read ({error}). Mend it with `.recover` of sqlite3."
        ) from None
    return [
        Table(
            name,
            partial(_rows, connection, name, bounded=kind != "table"),
            "; ".join(_notes(kind, note if not place else "")),
        )
        for place, (kind, name) in enumerate(found)
    ]


def _notes(kind: str, note: str) -> list[str]:
    return [text for text in ("a view" if kind == "view" else "", note) if text]


def _open(path: str, name: str, *, in_log: bool) -> tuple[sqlite3.Connection, str]:
    """A connection, and what it does not see."""
    if not name:
        return _unnamed(path), ""
    beside = [name + ending for ending in _BESIDE if _size(name + ending)]
    note = ""
    if beside:
        if sum(map(_size, (name, *beside))) <= memory.one_text():
            return _settled(name), ""
        note = f"too large to be read with {Path(beside[0]).name}, so the latest changes are missing"
    elif in_log:
        note = f"if there is a {Path(name).name}-wal beside it, what that holds is missing: name the folder"
    return _configured(f"file:{quote(name)}?mode=ro&immutable=1"), note


def _unnamed(path: str) -> sqlite3.Connection:
    """Of a file that is in memory alone."""
    data = bytearray(Path(path).read_bytes())
    data[18:20] = b"\1\1"  # a database in memory has no log
    connection = _configured(":memory:")
    connection.deserialize(bytes(data))
    return connection


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _settled(name: str) -> sqlite3.Connection:
    """A copy into which SQLite has written what lay beside the database."""
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        for ending in ("", *_BESIDE):
            if _size(name + ending):
                shutil.copyfile(name + ending, copy + ending)
        settling = sqlite3.connect(copy)
        try:
            settling.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.Error as error:
            raise Unreadable(f"what lies beside it cannot be merged into it ({error})") from None
        finally:
            settling.close()
        connection = _configured(f"file:{quote(copy)}?mode=ro&immutable=1")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        return connection  # which reads on in the file that has no name any more


def _configured(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _allowed(action: int, *_: Any) -> int:
    return (
        sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK
    )


def _rows(connection: sqlite3.Connection, name: str, *, bounded: bool) -> Iterator[Any]:
    end = time.process_time() + _SECONDS
    connection.set_progress_handler(lambda: bounded and time.process_time() > end, _STEPS)
    try:
        cursor = connection.execute(f'SELECT * FROM "{name.replace(chr(34), chr(34) * 2)}"')
        yield [column[0] for column in cursor.description]
        yield from cursor
    except sqlite3.OperationalError as error:
        if bounded and "interrupted" in str(error):
            raise Unreadable(f"it was stopped after {_SECONDS} seconds of computing") from None
        raise
