"""What somebody meant who wrote a name that is not known, or a path that is not there."""

from __future__ import annotations

import difflib
import itertools
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath

from rlm_kernel.pathtext import seen_from

_LIKE = 0.6
"""How much names must be alike, from 0 to 1."""
_PATH_LIKE = 0.72
_MANY = 10_000
"""Names of one folder that are compared."""


def nearest(name: str, known: Iterable[str], like: float = _LIKE) -> str | None:
    """The known name that is most like it; None if none is. Upper or lower case makes no difference."""
    by_plain = {_plain(one): one for one in known}
    wanted = _plain(name)
    if wanted in by_plain:
        return by_plain[wanted]
    swapped = [there for there in by_plain if len(wanted) > 2 and sorted(there) == sorted(wanted)]
    found = swapped or difflib.get_close_matches(wanted, by_plain, 1, like)
    return by_plain[found[0]] if found else None


def nearest_path(path: Path, *, other_ending: bool = True) -> Path | None:
    """A path that is there and is written nearly like this one, which is not; None if there is none.

    Relative where it was. Blocking.

    `other_ending`: one that differs in its ending alone, or has one more, counts too.
    """
    wanted = path.expanduser()
    whole = Path(os.path.abspath(wanted))
    here = Path(whole.anchor)
    for part in whole.parts[1:]:
        step = here / part
        if not os.path.lexists(step):
            found = _in_folder(here, part, other_ending)
            if found is None:
                return None
            step = here / found
        here = step
    return here if wanted.is_absolute() else Path(seen_from(here))


def is_same_name(one: str, other: str) -> bool:
    """Whether two names differ in nothing but case and how an accent is encoded."""
    return _plain(one) == _plain(other)


def did_you_mean(name: object | None) -> str:
    """A sentence for a hint; "" of None."""
    return f"Did you mean {name}?" if name is not None else ""


def _in_folder(folder: Path, name: str, other_ending: bool) -> str | None:
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name for entry in itertools.islice(entries, _MANY)), reverse=True)
    except OSError:
        return None
    if (near := nearest(name, names, _PATH_LIKE)) is not None or not other_ending:
        return near
    stem = _plain(PurePath(name).stem)
    return next((one for one in reversed(names) if _plain(PurePath(one).stem) == stem), None)


def _plain(name: str) -> str:
    """Without what is not seen, or typed wrong most often: case, and how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()
