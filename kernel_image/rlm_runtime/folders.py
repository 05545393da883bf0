"""The files of a folder.

Whatever in it is not given to code is counted, with a few names: ignored, a link, closed, no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
_Rules = list[tuple[str, "GitIgnoreSpec"]]
"""(folder, rules that hold below it), outermost first; folders as in a path that ends in a slash, or "" for
the top.
"""
_NAMES = 3
_WANTED = frozenset({"ignored files", "ignored folders", "version-control folders"})
"""What is left out because the user wants it so: nobody asks for its names."""


class LeftOut:
    """What was left out, by reason: how many, and the first of their names."""

    def __init__(self) -> None:
        self._first: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, name: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < _NAMES:
            first.append(name)

    def told(self, shown: Callable[[str], str] = str) -> str:
        """ "310 ignored files, 2 links (the first: a, b)"; "" if it is nothing."""
        return ", ".join(self._told(reason, shown) for reason in self._counts)

    def _told(self, reason: str, shown: Callable[[str], str]) -> str:
        counted = f"{self._counts[reason]:,} {reason}"
        return (
            counted
            if reason in _WANTED
            else f"{counted} (the first: {', '.join(map(shown, self._first[reason]))})"
        )


def members(folder: Path, above: Sequence[Sequence[str]] = ()) -> tuple[list[Path], LeftOut]:
    """The files below a folder, in order, and what was left out.

    The rules are those of git: .gitignore in the folder and below, .git/info/exclude, and `above`: (the
    folder's place below it, rules) of the folders around this one, outermost first.
    """
    left_out = LeftOut()
    files: list[Path] = []
    prefix = f"{above[0][0]}/" if above else ""
    # All paths are told from the outermost folder that has rules.
    rules: _Rules = [(prefix[: len(prefix) - len(place) - 1], _spec(text)) for place, text in above]
    if _ignored(prefix, rules):
        rules = []  # named all the same: it is wanted
    rules += _own_rules(folder / ".git" / "info" / "exclude", prefix)
    known = {prefix: rules}

    def closed(error: OSError) -> None:
        left_out.add("unreadable folders", os.path.relpath(os.fsdecode(error.filename), folder))

    for parent, folders, names in os.walk(folder, onerror=closed):
        below = f"{Path(parent).relative_to(folder).as_posix()}/" if Path(parent) != folder else ""
        here = prefix + below
        rules = known.pop(here) + _own_rules(Path(parent, ".gitignore"), here)
        kept = []
        for name in sorted(folders):
            if reason := _passed_over(Path(parent, name), _ignored(f"{here}{name}/", rules)):
                left_out.add(reason, below + name)
            else:
                kept.append(name)
        folders[:] = kept
        known |= {f"{here}{name}/": rules for name in kept}
        for name in sorted(names):
            path = Path(parent, name)
            if reason := "ignored files" if _ignored(here + name, rules) else _no_file(path, folder):
                left_out.add(reason, below + name)
            else:
                files.append(path)
    return sorted(files), left_out


def _passed_over(folder: Path, ignored: bool) -> str:
    """Why a folder is not looked into; "" if it is."""
    if folder.name in VERSION_CONTROL:
        return "version-control folders"
    if os.path.islink(folder):
        return "links"
    return "ignored folders" if ignored else ""


def _no_file(path: Path, folder: Path) -> str:
    """Why something is no file that can be read; "" if it is one.

    A link counts as what it leads to, if that is in the folder.
    """
    try:
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            kind = (
                path.stat().st_mode
                if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
                else 0
            )
    except PermissionError:
        return "unreadable files"
    except OSError:  # it leads nowhere, or is gone since
        return "links"
    return "" if stat.S_ISREG(kind) else "special files" if kind else "links"


def _spec(text: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(text.splitlines())
    except ValueError:  # a line that is no pattern: git, too, goes on without it
        return GitIgnoreSpec.from_lines([line for line in text.splitlines() if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _own_rules(file: Path, here: str) -> _Rules:
    try:
        return [(here, _spec(file.read_text("utf-8", "replace")))] if file.is_file() else []
    except OSError:
        return []


def _ignored(path: str, rules: _Rules) -> bool:
    """The last rule that has a say decides, the innermost file's first."""
    for here, spec in reversed(rules):
        said = spec.check_file(path[len(here) :]).include
        if said is not None:
            return said
    return False
