"""Globs over folders of any shape: `**` follows no links to folders, which may lead in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

_ANY = "**"


def why_none(pattern: str) -> str:
    """What to do about a pattern that matches nothing, for people."""
    if "{" in pattern:
        return "Only a shell expands braces: give one pattern for each alternative."
    return "Check the pattern, and put it in quotes; ** matches folders at any depth."


def matching(pattern: str) -> Iterator[str]:
    """The files that match, as `glob.iglob(pattern, recursive=True)` has them, in no order, and folders:
    nothing that is hidden, unless the pattern begins with a dot there, too. A folder whose name looks like a
    pattern (`notes [2024]`) is that folder. Blocking.
    """
    parts = _with_names(pattern.replace(os.altsep or os.sep, os.sep).split(os.sep))
    if _ANY not in parts:
        yield from glob.iglob(os.sep.join(parts))
        return
    first = parts.index(_ANY)
    top, rest = os.sep.join(parts[:first]), [part for part in parts[first:] if part not in ("", os.curdir)]
    folders_alone = parts[-1] in ("", os.curdir) and rest[-1] != _ANY
    if rest[-1] == _ANY:
        rest.append("*")  # what is beneath, and not the folder itself
    if first and not top:
        top = os.sep  # an absolute pattern
    for base in glob.iglob(top) if glob.has_magic(top) else [top]:
        yield from (name for name in _beneath(base, rest) if not folders_alone or os.path.isdir(name))


def _with_names(parts: Sequence[str]) -> list[str]:
    """The parts of a pattern, with those escaped at its beginning that are names of what is there."""
    made: list[str] = []
    for at, part in enumerate(parts):
        if glob.has_magic(part):
            # A name with brackets is common; one with a star is what hardly anybody means by a star.
            if "*" in part or "?" in part or not os.path.lexists(os.sep.join(parts[: at + 1])):
                return [*made, *parts[at:]]
            part = glob.escape(part)
        made.append(part)
    return made


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
