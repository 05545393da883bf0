"""Names of files in the kernel: how they are made, and which files a name means.

A name is the shortest tail of the file's path on the host that tells it from the others, with slashes
whatever the host's system. It is never an absolute path.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import NamedTuple, TypeVar

from rlm_runtime import charsets, kinds

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_GLOB = re.compile(r"[*?\[]")
_NEAR, _COMPARED = 5, 2_000
"""Names that an error offers, and among how many those that are spelt alike are looked for."""
_SHOWN = 80
_Text = TypeVar("_Text")


class Wanted(NamedTuple):
    """A file that is to have a name: its path on the host, and of how many parts the name is at least."""

    path: PurePath
    least: int = 1


def on_host(path: str) -> PurePath:
    """A path as the host's system has it: its last part is a file's name."""
    return PureWindowsPath(path) if _WINDOWS.match(path) else PurePosixPath(path)


def told_apart(wanted: Sequence[Wanted], taken: Collection[str]) -> list[str]:
    """A name for each: the shortest tail of its path that none of the others has and that is not taken; with
    a number where not even the whole path tells two apart.
    """
    parts = [_parts(path) for path, _ in wanted]
    sizes = [least for _, least in wanted]
    names = [_name(*one) for one in zip(parts, sizes, strict=True)]
    while True:
        counts = Counter(names)
        longer = [
            place
            for place, name in enumerate(names)
            if sizes[place] < len(parts[place]) and (counts[name] > 1 or name in taken)
        ]
        if not longer:
            return _numbered(names, taken)
        for place in longer:
            sizes[place] += 1
            names[place] = _name(parts[place], sizes[place])


def _parts(path: PurePath) -> list[str]:
    """Its parts without the root: `C:` is a part `C`, and of `\\\\server\\share` each is one."""
    root = re.split(r"[\\/]+", path.anchor.replace(":", ""))
    return [*filter(None, root), *path.parts[bool(path.anchor) :]] or ["root"]


def _name(parts: Sequence[str], size: int) -> str:
    return shown("/".join(parts[-size:]))


def _numbered(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """The names, each once."""
    found: dict[str, None] = {}
    for name in names:
        path = PurePosixPath(name)
        others = (
            str(path.with_name(f"{path.stem} ({number}){path.suffix}")) for number in itertools.count(2)
        )
        free = (one for one in itertools.chain([name], others) if one not in found and one not in taken)
        found[next(free)] = None
    return list(found)


def shown(name: str) -> str:
    """A name as it can be read and typed: one that is not UTF-8 by the code page of its text."""
    if name.isascii():
        return name
    try:
        return charsets.decode_name(os.fsencode(name))
    except UnicodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def on_a_line(name: str) -> str:
    """A name as it is; one with line breaks or signs that are not seen as Python's literal of it."""
    return name if name.isprintable() else repr(name)


def meant(name: str, texts: Mapping[str, _Text]) -> dict[str, _Text]:
    """Which texts a name means: the one that is called so, else all that a pattern such as `*.log` or
    `notes/*` fits, where `*` stands for slashes, too, else all of the folder, or the parts of the file, of
    that name. A pattern that fits a file, such as `*.xlsx`, means its parts, too.

    Raises KeyError, which tells names that are nearly the same.
    """
    if name in texts:
        return {name: texts[name]}
    if _GLOB.search(name):
        fits = re.compile(fnmatch.translate(name)).match
        found = {label: text for label, text in texts.items() if fits(label) or any(map(fits, _files(label)))}
    else:
        below = f"{name.rstrip('/')}/"
        found = {label: text for label, text in texts.items() if label.startswith(below)}
    if not found:
        raise KeyError(unknown(name, texts))
    return found


def _files(label: str) -> Iterator[str]:
    """The names of the files that a text of this name is a part of: `book.xlsx` of `book.xlsx/Sales`."""
    parts = label.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)) if kinds.is_format(parts[end - 1]))


def unknown(name: str, names: Collection[str]) -> str:
    """That no file has that name, with those that are nearly the same, or else some that there are."""
    said = f"no file named {str(name)[:_SHOWN]!r} is loaded"
    if not names:
        return f"{said}, and no other"
    near = _near(str(name), names)
    listed = ", ".join(one[:_SHOWN] for one in (near or itertools.islice(names, _NEAR)))
    more = len(names) - (0 if near else _NEAR)
    rest = (
        f" ({len(names):,} files in all: list_files())" if near else f" and {more:,} more" if more > 0 else ""
    )
    return f"{said}; {'did you mean' if near else 'there are'}: {listed}{rest}"


def _near(name: str, names: Collection[str]) -> list[str]:
    last = PurePosixPath(name.replace("\\", "/").casefold()).name
    same = (one for one in names if last and PurePosixPath(one.casefold()).name == last)
    if found := list(itertools.islice(same, _NEAR)):
        return found
    some = list(itertools.islice(names, _COMPARED))
    lasts: dict[str, str] = {}
    for one in some:
        lasts.setdefault(PurePosixPath(one).name, one)
    close = [lasts[one] for one in difflib.get_close_matches(PurePosixPath(name).name, lasts, _NEAR)]
    return list(dict.fromkeys([*difflib.get_close_matches(name, some, _NEAR), *close]))[:_NEAR]
