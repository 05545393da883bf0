"""What the user is told of how files were read, and of what was left out; each once."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rlm_runtime.labels import on_a_line

SHOWN = 200
"""Remarks that are printed at the end of a load."""
_NAMED = 3
"""Files of one remark that are named."""
_told: dict[str, None] = {}
_to_tell: list[str] = []
"""Those of the load in progress."""


def add(about: str, what: str) -> None:
    """Something to be told at the end of the load in progress."""
    remark = f"{about}: {what}"
    if remark not in _told:
        _told[remark] = None
        _to_tell.append(remark)


def tell() -> None:
    """What was guessed or left out, for the user and for whoever looks at the cell's outputs."""
    for remark in _to_tell[:SHOWN]:
        print(f"Note: {' '.join(remark.split())}", file=sys.stderr)
    if len(_to_tell) > SHOWN:
        print(f"Note: … and {len(_to_tell) - SHOWN:,} more", file=sys.stderr)
    _to_tell.clear()


def grouped(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Names of files with what is noted of each; what holds for several files once."""
    alike: dict[str, list[str]] = {}
    for name, note in notes:
        alike.setdefault(note, []).append(on_a_line(name))
    return [
        f"{', '.join(names[:_NAMED])}"
        f"{f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else ''}: {note}"
        for note, names in alike.items()
    ]
