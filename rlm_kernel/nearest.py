"""The path that somebody may have meant who named one that is not there."""

from __future__ import annotations

import difflib
import itertools
import os
import unicodedata
from pathlib import Path

_MANY = 10_000
"""Names of a folder that are compared."""
_LIKE = 0.72


def nearest(path: Path) -> Path | None:
    """A path that is there and is written nearly like this absolute one, which is not; None if there is none. Blocking."""
    here = Path(path.anchor)
    for part in path.parts[1:]:
        step = here / part
        if not os.path.lexists(step):
            found = _like(here, part)
            if found is None:
                return None
            step = here / found
        here = step
    return here


def _like(folder: Path, name: str) -> str | None:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MANY)]
    except OSError:
        return None
    plain = {_plain(there): there for there in sorted(names, reverse=True)}
    wanted = _plain(name)
    swapped = [there for there in plain if len(wanted) > 2 and sorted(there) == sorted(wanted)]
    close = [wanted] if wanted in plain else swapped or difflib.get_close_matches(wanted, plain, 1, _LIKE)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    """Without what is not seen, or typed wrong most often: case, and how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()
