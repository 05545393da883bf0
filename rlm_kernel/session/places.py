"""Names of traces that are made up: no two runs get the same one, in one process or in many.

Questions that begin in the same second would have the same name. So a name is taken at once, by an empty
file, which the notebook replaces as soon as there is one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlm_kernel.trace.heads import SETTING_UP_SECONDS

_MADE_UP = re.compile(r"\d{8}-\d{6}-.+\.ipynb")
"""The form of names that are made up."""


@dataclass(frozen=True)
class _Taken:
    """`process`: the one that took the name, since a fork has taken nothing. `folders`: those that were made
    for it, the innermost first.
    """

    process: int
    folders: list[Path]


_taken: dict[Path, _Taken] = {}
"""Names whose runs have not ended."""


def free_path(path: Path) -> Path:
    """The path, or the first with a number behind its stem that nothing has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def take_path(path: Path) -> Path:
    """As `free_path`, absolute, and nobody else gets it from now on.

    Where no file can be made, nothing is taken: the run says why. Whoever takes a name calls `give_back` when
    its run has ended, however it did. What is still empty when the process ends is removed.
    """
    number, free = 1, path.absolute()
    while not _take(free):
        number += 1
        free = path.absolute().with_stem(f"{path.stem}-{number}")
    return free


def give_back(path: Path) -> None:
    """Remove what `take_path` has made, if nothing was written there. A path that was not taken is left."""
    if (taken := _taken.pop(path, None)) is not None:
        with contextlib.suppress(OSError):  # a folder that something is in stays, and those above it
            if not path.lstat().st_size:
                path.unlink()
                for folder in taken.folders:
                    folder.rmdir()


def left_empty(folder: Path) -> Iterator[Path]:
    """The empty notebooks in a folder that runs have left which were killed while they were set up. Blocking.

    A name that was taken a short time ago may be that of a run which still is.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            with contextlib.suppress(OSError):
                if _MADE_UP.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    if not found.st_size and time.time() - found.st_mtime > SETTING_UP_SECONDS:
                        yield Path(entry.path)


def _take(path: Path) -> bool:
    try:
        folders = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _make(path)
        except FileNotFoundError:  # another process gave the folder back at this moment
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path)
    except FileExistsError:
        return not path.parent.is_dir()  # else it is the folder that is a file
    except OSError:
        return True
    _taken[path] = _Taken(os.getpid(), folders)
    return True


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


@atexit.register
def _give_all_back() -> None:
    for path, taken in list(_taken.items()):
        if taken.process == os.getpid():
            give_back(path)
