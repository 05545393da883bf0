"""Names of traces that are made up: no two runs get the same one, in one process or in many.

Questions that begin in the same second would have the same name. So a name is taken at once, by an empty
file, which the notebook replaces as soon as there is one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path

_taken: set[Path] = set()


def free_path(path: Path) -> Path:
    """The path, or the first with a number behind its stem that nothing has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def take_path(path: Path) -> Path:
    """As `free_path`, absolute, and nobody else gets it from now on.

    Where no file can be made, nothing is taken: the run says why. What is still empty when the process ends
    is removed.
    """
    number, free = 1, path.absolute()
    while not _take(free):
        number += 1
        free = path.absolute().with_stem(f"{path.stem}-{number}")
    return free


def give_back(path: Path) -> None:
    """Remove what `take_path` has made, if nothing was written there."""
    if path in _taken:
        _taken.discard(path)
        with contextlib.suppress(OSError):
            if not path.lstat().st_size:
                path.unlink()


def _take(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return not path.parent.is_dir()  # else it is the folder that is a file
    except OSError:
        return True
    if not _taken:
        atexit.register(_give_all_back, os.getpid())
    _taken.add(path)
    return True


def _give_all_back(owner: int) -> None:
    if os.getpid() == owner:  # a fork of it has taken nothing
        for path in list(_taken):
            give_back(path)
