"""What runs kept beside their traces, and whose traces are gone."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlm_kernel.trace.journal import journal_path

_KEPT = re.compile(
    r"(?P<trace>.+)\.(?:tools|files|context(?:\.[A-Za-z0-9]{1,10}){0,2}|stdin(?:\.[^.]{1,100})?\.txt)"
)
"""Endings of files that tools gave, of files of chats, of contexts from Python, and of standard input."""


class Kept(NamedTuple):
    """A file or folder that a run kept, and its bytes."""

    path: Path
    size: int


def without_trace(folder: Path) -> Iterator[Kept]:
    """Those in a folder of traces, and below it, that have no trace beside them. Nothing is removed: the
    trace may have been moved, and a replay of it needs them where they are. Blocking.
    """
    for parent, folders, names in os.walk(folder):
        there = {*folders, *names}
        for name in sorted(there):
            found = _KEPT.fullmatch(name)
            if found is None:
                continue
            if name in folders:
                folders.remove(name)
            notebook = f"{found['trace']}.ipynb"
            path = Path(parent, name)
            if not there & {notebook, journal_path(Path(notebook)).name} and not path.is_symlink():
                yield Kept(path, _size(path))


def _size(path: Path) -> int:
    total = 0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(OSError):
            status = file.lstat()
            total += 0 if file.is_dir() else status.st_size
    return total
