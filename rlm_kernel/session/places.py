"""Names of traces that are made up: no two runs get the same one, in one process or in many.

Questions that begin in the same second would have the same name. So a name is taken at once, by an empty
file, which the notebook replaces as soon as there is one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path

_taken: dict[Path, int] = {}
"""Names whose runs have not ended, and the processes that took them: a fork has taken nothing."""


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
    if _taken.pop(path, None) is not None:
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
    _taken[path] = os.getpid()
    return True


@atexit.register
def _give_all_back() -> None:
    for path, owner in list(_taken.items()):
        if owner == os.getpid():
            give_back(path)
