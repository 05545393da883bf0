"""Globs over folders of any shape: `**` follows no links to folders, which may lead in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

_ANY = "**"


def matching(pattern: str) -> Iterator[str]:
    """The files that match, as `glob.iglob(pattern, recursive=True)` has them, in no order, and folders:
    nothing that is hidden, unless the pattern begins with a dot there, too. Blocking.
    """
    parts = pattern.split("/" if os.sep == "/" else os.sep)
    if _ANY not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index(_ANY)
    top, rest = os.sep.join(parts[:first]), parts[first:]
    if rest[-1] == _ANY:
        rest.append("*")  # what is beneath, and not the folder itself
    if first and not top:
        top = os.sep  # an absolute pattern
    for base in glob.iglob(top) if glob.has_magic(top) else [top]:
        yield from _beneath(base, rest)


def _beneath(base: str, patterns: Sequence[str]) -> Iterator[str]:
    dotted = any(pattern.startswith(".") for pattern in patterns)
    for folder, folders, names in os.walk(base or os.curdir):
        inside = os.path.relpath(folder, base or os.curdir)
        above = [] if inside == os.curdir else inside.split(os.sep)
        for name in (*folders, *names):
            if _fits([*above, name], patterns):
                yield os.path.join(base, *above, name)
        folders[:] = [name for name in folders if dotted or not name.startswith(".")]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern."""
    fitting = {0}  # how many of the names the patterns so far may stand for
    for pattern in patterns:
        if pattern == _ANY:
            for at in range(min(fitting), len(names)):
                if at in fitting and not names[at].startswith("."):
                    fitting.add(at + 1)
        else:
            fitting = {at + 1 for at in fitting if at < len(names) and _fits_one(names[at], pattern)}
        if not fitting:
            return False
    return len(names) in fitting


def _fits_one(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
