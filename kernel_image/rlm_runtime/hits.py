"""What grep gives: hits, each made when it is looked at from where its line begins.

All hits of a text share one `File`, its name, which knows the text and the pattern. So a hit can tell where
its match is and what is around it, and is still no more than the file, the line number and the line.
"""

from __future__ import annotations

import bisect
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rlm_runtime import memory
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import with_line_feeds, without_end
from rlm_runtime.source import Source

MAX_LINE = 16 << 20
"""Bytes of a line of a large text that are searched at once; a longer one is taken in pieces."""
LISTED = 1_000_000
"""Hits up to which grep gives a list; more are made when they are looked at."""
SHOWN = 400
"""Characters up to which a line is shown as a whole, and of a match that is shown."""
BESIDE = 150
"""Characters that are shown on each side of the match of a longer line."""
_COUNTED = 1 << 20
"""Characters of a line in which matches are counted."""


class Searched:
    """A text that is searched, the pattern, and where the lines with hits begin: a byte of a large text, else
    a character.
    """

    def __init__(
        self, text: str | LazyText, pattern: re.Pattern[str], before: int = 0, after: int = 0
    ) -> None:
        """`before`, `after`: how many lines around each hit belong to it."""
        self.given = text
        self.text = with_line_feeds(text) if isinstance(text, str) else text
        self.pattern = pattern
        self.context = before, after
        self.places, self.lines = array("Q"), array("Q")
        self._counted = (0, 0)
        """A byte, and the characters before it."""

    def place(self, hit: Hit) -> int:
        """Where the hit's line begins."""
        at = bisect.bisect_left(self.lines, hit.line)
        while at < len(self.lines) and self.lines[at] == hit.line:
            # Pieces of a line that is too long have its number.
            if self.lines[at + 1 : at + 2] != array("Q", [hit.line]) or self.line(at) == hit.text:
                return self.places[at]
            at += 1
        raise ValueError(f"line {hit.line:,} of {str(hit.file)!r} is no hit of this search")

    def line(self, at: int) -> str:
        """The line of the hit with this number."""
        return line_at(self.text, self.places[at])

    def characters(self, place: int) -> int:
        """The characters before a place."""
        if isinstance(self.text, str) or not by_bytes(self.text):
            return place
        source, (known, count) = self.text.source, self._counted
        if not known <= place <= known + MAX_LINE:
            known, count = source.start, 0
        self._counted = place, count + source.characters(max(known, source.start), place)
        return self._counted[1]

    def around(self, place: int, low: int, high: int) -> str:
        """The text from `low` to before `high`, which are characters counted from where the line begins."""
        text = self.given
        if isinstance(text, str):
            return text[max(0, place + low) : place + high]
        if not by_bytes(text):
            return text.read(max(0, place + low), place + high)
        source, end = text.source, line_end(text.source, place)
        line = source.decode(place, end)
        # No character has more than four bytes.
        front = source.decode(source.cut(max(source.start, place + 4 * low)), place) if low < 0 else ""
        back = source.decode(end, source.cut(end + 4 * (high - len(line)))) if high > len(line) else ""
        return front[low:] + line[max(0, low) : high] + back[: max(0, high - len(line))]

    def lines_before(self, place: int) -> list[str]:
        """As many of the lines before the one that begins there as belong to a hit."""
        found: list[str] = []
        while len(found) < self.context[0] and (begin := self._line_before(place)) < place:
            found.append(line_at(self.text, begin))
            place = begin
        return found[::-1]

    def _line_before(self, place: int) -> int:
        """Where the line before the one at a place begins; the place itself at the text's beginning."""
        text = self.text
        if isinstance(text, str):
            return text.rfind("\n", 0, max(0, place - 1)) + 1
        if by_bytes(text):
            low = text.source.cut(max(text.source.start, place - MAX_LINE))
            return text.source.data.rfind(b"\n", low, max(low, place - 1)) + 1 or low
        size = 1024
        while True:
            low = max(0, place - size)
            at = text.read(low, max(low, place - 1)).rfind("\n") + 1
            if at or not low or size >= MAX_LINE:
                return low + at
            size *= 4

    def lines_after(self, place: int) -> list[str]:
        """As many of the lines after the one that begins there as belong to a hit."""
        found: list[str] = []
        while len(found) < self.context[1] and (place := self._line_after(place)) >= 0:
            found.append(line_at(self.text, place))
        return found

    def _line_after(self, place: int) -> int:
        """Where the line after the one at a place begins; -1 if there is none."""
        text = self.text
        if isinstance(text, str):
            end = text.find("\n", place) + 1
            return end if 0 < end < len(text) else -1
        if by_bytes(text):
            end = line_end(text.source, place)
            return end if end < text.source.end else -1
        size = 1024
        while True:
            read = text.read(place, place + size)
            if end := read.find("\n") + 1:
                return place + end if text.read(place + end, place + end + 1) else -1
            if len(read) < size:
                return -1
            if size >= MAX_LINE:
                return place + size
            size *= 4


class File(str):
    """The name of a file, in hits, with what is known of the search."""

    searched: Searched | None = None
    pattern: re.Pattern[str] | None = None

    def __reduce__(self) -> Any:
        return _file, (str(self), self.pattern)

    def __deepcopy__(self, _memo: Any) -> File:
        return self


def _file(name: str, pattern: re.Pattern[str] | None, searched: Searched | None = None) -> File:
    made = File(name)
    made.pattern, made.searched = pattern, searched
    return made


class Hit(NamedTuple):
    """A line that matched: file, line number from 1, and the line."""

    file: str
    line: int
    text: str

    @property
    def match(self) -> str:
        """The text that matched; in a line with several matches, the first."""
        return self.text.__getitem__(slice(*self.span()))

    @property
    def start(self) -> int:
        """The character of the file's text at which the match begins: `context[hit.start:]` begins with it.

        The characters of a large text are counted when this is first asked.
        """
        searched, place = self._searched()
        return searched.characters(place) + self.span()[0]

    def around(self, n: int = BESIDE) -> str:
        """The match, with `n` characters on each side of it from the file's text, across line ends."""
        low, high = self.span()
        searched, place = self._searched()
        return searched.around(place, low - max(0, n), high + max(0, n))

    @property
    def before(self) -> list[str]:
        """The lines before it, as many as `grep(..., before=)` was asked for."""
        return self._context()[0]

    @property
    def after(self) -> list[str]:
        """The lines after it, as many as `grep(..., after=)` was asked for."""
        return self._context()[1]

    def _context(self) -> tuple[list[str], list[str]]:
        if not (isinstance(self.file, File) and self.file.searched and any(self.file.searched.context)):
            return [], []
        searched, place = self._searched()
        return searched.lines_before(place), searched.lines_after(place)

    def span(self) -> tuple[int, int]:
        """Where the match is in `text`."""
        pattern = self.file.pattern if isinstance(self.file, File) else None
        found = pattern.search(self.text) if pattern else None
        return found.span() if found else (0, 0)

    def _searched(self) -> tuple[Searched, int]:
        """Raises ValueError for a hit that is no longer one of a text."""
        searched = self.file.searched if isinstance(self.file, File) else None
        if searched is None:
            raise ValueError(
                "this hit was copied out of its process, and its text is not with it: call grep here, or "
                "take .start and .around(n) before"
            )
        return searched, searched.place(self)

    def __repr__(self) -> str:
        return "\n".join(_listing([self]))

    def shown(self) -> str:
        """The line, and of a long one the part with the match."""
        text = self.text
        if len(text) <= SHOWN:
            return text
        low, high = self.span()
        match = text[low:high]
        if len(match) > SHOWN:
            match = f"{match[: SHOWN // 2]}…{match[-SHOWN // 2 :]}"
        left = f"{'…' if low > BESIDE else ''}{text[max(0, low - BESIDE) : low]}"
        right = f"{text[high : high + BESIDE]}{'…' if len(text) > high + BESIDE else ''}"
        return f"{left}{match}{right} [line of {len(text):,} characters{self._others()}]"

    def _others(self) -> str:
        """How many matches its line has, where there are several."""
        if not (isinstance(self.file, File) and self.file.pattern):
            return ""
        part = self.text[:_COUNTED]
        count = sum(1 for _ in self.file.pattern.finditer(part))
        more = "at least " if len(part) < len(self.text) else ""
        return f", this is the first of {more}{count:,} matches" if count > 1 else ""


def _listing(hits: Iterable[Hit]) -> Iterator[str]:
    """Lines that show hits as grep -C does: each line once, `--` between those that are apart."""
    last: tuple[str, int] | None = None
    """The line that was shown last."""
    after: list[str] = []
    for hit in hits:
        if last is not None:
            yield from _after(last, after, hit)
            last = last[0], last[1] + len(after)
        before, following = hit._context()
        first = hit.line - len(before)
        if last is not None and last[0] == hit.file and first <= last[1] + 1:
            before = before[max(0, last[1] + 1 - first) :] if hit.line > last[1] else []
        elif last is not None and (before or after or following):
            yield "--"
        for number, line in enumerate(before, hit.line - len(before)):
            yield f"{hit.file}-{number}- {_cut(line)}"
        yield f"{hit.file}:{hit.line}: {hit.shown()}"
        last, after = (hit.file, hit.line), following
    if last is not None:
        yield from _after(last, after, None)


def _after(last: tuple[str, int], after: list[str], next_hit: Hit | None) -> Iterator[str]:
    """The lines after a hit, up to the next one."""
    for number, line in enumerate(after, last[1] + 1):
        if next_hit is not None and next_hit.file == last[0] and number >= next_hit.line > last[1]:
            del after[number - last[1] - 1 :]
            return
        yield f"{last[0]}-{number}- {_cut(line)}"


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}… [line of {len(line):,} characters]"


class HitList(list[Hit]):
    """Hits with lines around them. Shown, no line comes twice."""

    def __repr__(self) -> str:
        return "\n".join(_listing(self)) if self else "[]"

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return HitList(found) if isinstance(index, slice) else found


class Hits(Sequence[Hit]):
    """Hits in sixteen bytes each: where the line begins and its number. A hit is made when it is looked
    at.
    """

    def __init__(self, pattern: re.Pattern[str], before: int = 0, after: int = 0) -> None:
        """`before`, `after`: how many lines around each hit belong to it."""
        self._pattern = pattern
        self._context = before, after
        self._parts: list[tuple[File, Searched]] = []  # of texts that have hits, but for the last
        self._before: list[int] = []
        """Hits before those of each text."""

    def add(self, label: str, text: str | LazyText) -> Searched:
        """Begin with another text, whose places and lines are to be filled before the next is begun."""
        before = len(self)
        if self._parts and not self._parts[-1][1].lines:
            self._parts.pop()
            self._before.pop()
        self._before.append(before)
        searched = Searched(text, self._pattern, *self._context)
        self._parts.append((_file(label, self._pattern, searched), searched))
        return searched

    def __len__(self) -> int:
        return self._before[-1] + len(self._parts[-1][1].lines) if self._parts else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._list(self[at] for at in range(*index.indices(len(self))))
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError("hit index out of range")
        number = bisect.bisect_right(self._before, at) - 1
        file, searched = self._parts[number]
        at -= self._before[number]
        return Hit(file, searched.lines[at], searched.line(at))

    def __iter__(self) -> Iterator[Hit]:
        for file, searched in self._parts:
            for place, line in zip(searched.places, searched.lines, strict=True):
                yield Hit(file, line, line_at(searched.text, place))

    def __repr__(self) -> str:
        return f"<{len(self):,} hits, the first {self[:3]!r}>"

    def _list(self, hits: Iterable[Hit]) -> list[Hit]:
        return HitList(hits) if any(self._context) else list(hits)

    def listed(self) -> Sequence[Hit]:
        """A list; or these hits themselves, which are made when they are looked at, where they are many or
        their lines are long.
        """
        made = self._list(())
        room = memory.one_text() // 4
        for hit in self if len(self) <= LISTED else ():
            made.append(hit)
            room -= len(hit.text)
            if room < 0:
                return self
        return made if len(made) == len(self) else self


def line_at(text: str | LazyText, place: int) -> str:
    """The line that begins there, without its end: a character's place in a str, a byte's in a LazyText."""
    if isinstance(text, str):
        end = text.find("\n", place) + 1
        return without_end(text[place : end or None])
    if by_bytes(text):
        return without_end(text.source.decode(place, line_end(text.source, place)))
    size = 4096
    while True:
        size = min(size, MAX_LINE)
        line, newline, _ = (read := text.read(place, place + size)).partition("\n")
        if newline or len(read) < size or size >= MAX_LINE:
            return line.removesuffix("\r") if newline else line
        size *= 4


def by_bytes(text: LazyText) -> bool:
    """Its lines are told by the bytes where they begin, not by their characters."""
    return text.whole and text.source.by_bytes


def line_end(source: Source, place: int) -> int:
    """After the end of the line that has that place; of a very long one where its piece ends."""
    limit = min(source.end, place + MAX_LINE)
    end = source.data.find(b"\n", place, limit)
    return end + 1 if end >= 0 else limit if limit == source.end else source.cut(limit)
