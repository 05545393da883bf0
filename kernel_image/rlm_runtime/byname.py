"""Loaded files where code looks for them by their names: `open("app.log")`, `pd.read_csv("orders.csv")`.

The working directory has a link to each, so code that was written for files reads them as they are.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

_MOST = 1_000
_folder: list[Path] = []
_made: set[Path] = set()


def install() -> None:
    """Called once, when the kernel starts, in the folder that is to have the links."""
    _folder[:] = [Path.cwd()]


def link(name: str, inside: Path) -> None:
    """Have a file or a folder by its name in the working directory.

    What is there by that name already, and is no link of ours, stays. Where no link can be made, there is
    none.
    """
    parts = PurePosixPath(name).parts
    if not _folder or not parts or ".." in parts or name.startswith("/") or "\0" in name:
        return
    place = _folder[0].joinpath(*parts)
    if place not in _made and len(_made) >= _MOST:
        return
    with contextlib.suppress(OSError, ValueError):
        if place in _made and place.is_symlink():
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(inside)
        _made.add(place)
