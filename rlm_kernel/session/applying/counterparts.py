"""Which new file stands for which file of a trace, and the trace's code with the new names in place of the
old.

The code itself is changed, and no second name is kept in the kernel: so an answer that prints a file's name
prints the new one, and the notebook runs by itself.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from rlm_kernel.errors import UsageError
from rlm_kernel.pathtext import recorded
from rlm_kernel.session.tracefiles import file_named
from rlm_kernel.trace.schema import FileMeta

_WITH_NAMES = "load_file|records|text|switch_to|remove_file|open|Path|read_csv|read_text"
"""Functions whose first argument is a file: there a word without a dot is one, too."""
_CHOOSES = re.compile(
    r"(?:startswith|endswith|removeprefix|removesuffix|fnmatch\w*|name\s*=)"
    r"[\s(]*[\"'](?P<part>[^\"'\n]{3,80})[\"']"
)
_MOST = 4_000
"""Names that are changed in code."""


@dataclass(frozen=True)
class New:
    """A new file or folder, by its real path."""

    path: Path
    directory: bool


@dataclass(frozen=True)
class Pair:
    """A file of the trace and the new one in its place."""

    old: FileMeta
    new: New


@dataclass(frozen=True)
class Counterparts:
    """The pairs, and what has no counterpart on either side."""

    pairs: Sequence[Pair]
    gone: Sequence[FileMeta] = ()
    added: Sequence[New] = ()

    @property
    def changes(self) -> Sequence[tuple[str, str]]:
        """What a file was called, and what it is called now, where these differ; the longest first."""
        return [(old, new) for old, new in self.names if old != new]

    @cached_property
    def names(self) -> Sequence[tuple[str, str]]:
        """The path and the name in the kernel of each file, then and now."""
        olds = [*(recorded(one.old.path) for one in self.pairs), *(recorded(one.path) for one in self.gone)]
        news = [*(one.new.path for one in self.pairs), *(one.path for one in self.added)]
        found: dict[str, str] = {}
        before, now = _tails(olds), _tails(news)
        for place in range(len(self.pairs)):
            found |= {str(olds[place]): str(news[place]), before[place]: now[place]}
        kept = list(found.items())[:_MOST]
        return sorted(kept, key=lambda one: -len(one[0]))

    def renamed(self, text: str) -> str:
        """Words with the new names in place of the old."""
        if not self._patterns:
            return text
        return self._patterns.sub(self._now, text)

    def in_code(self, text: str) -> str:
        """The same of code, in whose strings the names stand: quotes in a name end none."""
        if not self._patterns:
            return text
        return self._patterns.sub(lambda match: re.sub(r"[\\'\"]", r"\\\g<0>", self._now(match)), text)

    def left_over(self, code: str) -> str:
        """A part of an old file's name by which code chooses files, and that no new one has; "" if none."""
        old = [PurePath(name).name for name, _ in self.names]
        new = [PurePath(name).name for _, name in self.names]
        for match in _CHOOSES.finditer(code):
            part = match["part"].strip("*")
            if len(part) > 2 and any(part in name for name in old) and not any(part in name for name in new):
                return part
        return ""

    def names_one(self, code: str) -> bool:
        """Whether code has the name or path of one of the trace's files in it."""
        return any(old in code for old, _ in self.names)

    @cached_property
    def _patterns(self) -> re.Pattern[str] | None:
        found = [_pattern(old) for old, _ in self.changes]
        return re.compile("|".join(found)) if found else None

    def _now(self, match: re.Match[str]) -> str:
        now = dict(self.changes)
        return now[match.group()]


def _pattern(name: str) -> str:
    """Where a name stands for the file: a word without a dot or slash only where code wants a file."""
    word = re.escape(name)
    if "." in name.strip(".") or "/" in name or "\\" in name:
        return rf"(?<![\w./\\-]){word}(?![\w-]|\.\w)"
    before = [rf"(?<=files\[{quote})" for quote in "'\""]
    before += [rf"(?<=name={quote})" for quote in "'\""]
    before += [rf"(?<={function}\({quote})" for function in _WITH_NAMES.split("|") for quote in "'\""]
    return rf"(?:{'|'.join(before)}){word}(?=['\"])"


def _tails(paths: Sequence[PurePath]) -> list[str]:
    """What the kernel calls files: the shortest end of each path that tells it from the others."""
    sizes = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-size:]) for path, size in zip(paths, sizes, strict=True)]
        counts = Counter(names)
        longer = [
            place
            for place, name in enumerate(names)
            if counts[name] > 1 and sizes[place] < len(paths[place].parts)
        ]
        if not longer:
            return names
        for place in longer:
            sizes[place] += 1


def counterparts(old: Sequence[FileMeta], new: Sequence[New], given: Mapping[str, New]) -> Counterparts:
    """The pairs: as `given` (by a name or path of the trace), one for one, by equal name, and then by kind in
    their order.

    Raises UsageError for a name that the trace does not have.
    """
    left, free = list(old), [*new, *(one for one in given.values() if one not in new)]
    pairs: list[Pair] = []

    def pair(meta: FileMeta, one: New) -> None:
        pairs.append(Pair(meta, one))
        left.remove(meta)
        free.remove(one)

    for name, one in given.items():
        meta = file_named(name, list(old))
        if meta not in left or one not in free:
            raise UsageError(f"{name} is named twice.", hint="Give each file of the trace once: -f OLD=NEW")
        pair(meta, one)
    if len(left) == len(free) == 1 and left[0].directory == free[0].directory:
        pair(left[0], free[0])
    _by(left, free, pair, lambda path, _: path.name)
    _by_words(left, free, pair)
    _by(left, free, pair, lambda path, directory: "/" if directory else _kind(path))
    placed = {id(meta): place for place, meta in enumerate(old)}
    return Counterparts(sorted(pairs, key=lambda one: placed[id(one.old)]), left, free)


def _by_words(left: Sequence[FileMeta], free: Sequence[New], pair: Callable[[FileMeta, New], None]) -> None:
    """Pair those of a kind whose names share a word that no other's has: `sales.csv`, `april-sales.csv`."""
    old = [(_words(recorded(meta.path)), meta.directory) for meta in left]
    new = [(_words(one.path), one.directory) for one in free]
    both = (
        Counter(word for words, _ in old for word in words),
        Counter(word for words, _ in new for word in words),
    )
    telling = {word for word in both[0] if both[0][word] == both[1][word] == 1}
    has = {word: place for place, (words, _) in enumerate(new) for word in words & telling}
    found: dict[int, set[int]] = {}
    for place, (meta, (words, directory)) in enumerate(zip(left, old, strict=True)):
        like = {
            has[word]
            for word in words & telling
            if free[has[word]].directory == directory
            and _kind(recorded(meta.path)) == _kind(free[has[word]].path)
        }
        if len(like) == 1:
            found.setdefault(like.pop(), set()).add(place)
    alone = [(left[min(places)], free[at]) for at, places in found.items() if len(places) == 1]
    for meta, one in alone:
        pair(meta, one)


def _words(path: PurePath) -> set[str]:
    return set(re.findall(r"[^\W\d_]{2,}", path.stem.casefold()))


def _kind(path: PurePath) -> str:
    return path.suffix.casefold()


def _by(
    left: Sequence[FileMeta],
    free: Sequence[New],
    pair: Callable[[FileMeta, New], None],
    key: Callable[[PurePath, bool], str],
) -> None:
    """Pair those with the same key, in their order."""
    waiting: dict[tuple[str, bool], list[New]] = defaultdict(list)
    for one in free:
        waiting[key(one.path, one.directory), one.directory].append(one)
    for meta in list(left):
        if same := waiting.get((key(recorded(meta.path), meta.directory), meta.directory)):
            pair(meta, same.pop(0))
