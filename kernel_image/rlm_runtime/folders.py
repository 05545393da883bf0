"""The files of a folder: what its ignore rules and version control leave out is counted, not read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
_Rules = list[tuple[str, "GitIgnoreSpec"]]
"""(folder, rules that hold below it), outermost first; folders as in a path that ends in a slash, or "" for the top."""


def members(folder: Path, above: Sequence[Sequence[str]] = ()) -> tuple[list[Path], Counter[str]]:
    """The files below a folder, in order, and how many were left out, by reason.

    The rules are those of git: .gitignore in the folder and below, .git/info/exclude, and `above`: (the folder's place below it, rules)
    of the folders around this one, outermost first.
    """
    left_out: Counter[str] = Counter()
    files: list[Path] = []
    prefix = f"{above[0][0]}/" if above else ""
    # All paths are told from the outermost folder that has rules.
    rules: _Rules = [(prefix[: len(prefix) - len(place) - 1], _spec(text)) for place, text in above]
    if _ignored(prefix, rules):
        rules = []  # named all the same: it is wanted
    rules += _own_rules(folder / ".git" / "info" / "exclude", prefix)
    known = {prefix: rules}

    def closed(error: OSError) -> None:
        left_out["unreadable folders"] += 1

    for parent, folders, names in os.walk(folder, onerror=closed):
        here = prefix + (f"{Path(parent).relative_to(folder).as_posix()}/" if Path(parent) != folder else "")
        rules = known.pop(here) + _own_rules(Path(parent, ".gitignore"), here)
        for name in [name for name in folders if name in VERSION_CONTROL]:
            folders.remove(name)
        left_out["links"] += sum(Path(parent, name).is_symlink() for name in folders)
        kept = [name for name in sorted(folders) if not Path(parent, name).is_symlink() and not _ignored(f"{here}{name}/", rules)]
        left_out["ignored folders"] += sum(not Path(parent, name).is_symlink() for name in folders) - len(kept)
        folders[:] = kept
        known |= {f"{here}{name}/": rules for name in kept}
        for name in sorted(names):
            path = Path(parent, name)
            if _ignored(here + name, rules):
                left_out["ignored files"] += 1
            elif not path.is_file():
                left_out["links" if path.is_symlink() else "special files"] += 1
            else:
                files.append(path)
    return sorted(files), +left_out


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
