"""What somebody meant who wrote a name that is not known."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

_LIKE = 0.6
"""How much names must be alike, from 0 to 1."""
_MOST = 5000
"""Names of one folder that are looked at."""


def nearest(name: str, known: Iterable[str], like: float = _LIKE) -> str | None:
    """The known name that is most like it, upper or lower case; None if none is like it."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower, 1, like)
    return by_lower[found[0]] if found else None


def nearest_path(path: Path) -> Path | None:
    """What is there and has almost the name of a path that is not there: in its folder, or in one whose name is almost that. Blocking."""
    folder = path.parent
    if path == folder:
        return None
    if not folder.is_dir() and ((found := nearest_path(folder)) is None or not (folder := found).is_dir()):
        return None
    if (same := folder / path.name).exists():
        return same
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MOST), entries, strict=False)]
    except OSError:
        return None
    # Its ending forgotten, or another one.
    stem = path.stem.lower() if path.suffix else path.name.lower()
    alike = nearest(path.name, names) or next((name for name in sorted(names) if Path(name).stem.lower() == stem), None)
    return folder / alike if alike is not None else None


def did_you_mean(name: object | None) -> str:
    """A sentence for a hint; "" of None."""
    return f"Did you mean {name}?" if name is not None else ""
