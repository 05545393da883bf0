"""grep: the lines that match, of texts of any size.

A pattern that cannot match without a certain text is looked for by that text, which is many times faster than
a regular expression; the lines where it is are then tried with the pattern itself. So what is found is what
searching each line would find.
"""

from __future__ import annotations

import bisect
import ctypes
import re
from array import array
from collections.abc import Iterator, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from rlm_runtime import memory
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import parts, with_line_feeds, without_end
from rlm_runtime.source import BLOCK, Source

MAX_LINE = 16 << 20
"""Bytes of a line of a large text that are searched at once; a longer one is taken in pieces."""
LISTED = 1_000_000
"""Hits up to which grep gives a list; more are made when they are looked at."""
_STEP = 64 << 20
"""Bytes from which on libc's search is worth what it takes to get it ready."""
_READ = 1 << 18
"""Bytes that it searches at once."""


class Hit(NamedTuple):
    """A line that matched: file, line number from 1, and the line."""

    file: str
    line: int
    text: str

    def __repr__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class Hits(Sequence[Hit]):
    """Hits in sixteen bytes each: where the line begins (a byte of a large text, else a character) and its
    number. A hit is made when it is looked at.
    """

    def __init__(self) -> None:
        self._parts: list[
            tuple[str, str | LazyText, array[int], array[int]]
        ] = []  # of texts that have hits, but for the last
        self._before: list[int] = []
        """Hits before those of each text."""

    def add(self, label: str, text: str | LazyText) -> tuple[array[int], array[int]]:
        """Begin with another text; gives the arrays of places and of line numbers, to be filled before the
        next is begun.
        """
        before = len(self)
        if self._parts and not self._parts[-1][3]:
            self._parts.pop()
            self._before.pop()
        self._before.append(before)
        self._parts.append((label, text, array("Q"), array("Q")))
        return self._parts[-1][2], self._parts[-1][3]

    def __len__(self) -> int:
        return self._before[-1] + len(self._parts[-1][3]) if self._parts else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError("hit index out of range")
        number = bisect.bisect_right(self._before, at) - 1
        label, text, places, lines = self._parts[number]
        at -= self._before[number]
        return Hit(label, lines[at], line_at(text, places[at]))

    def __iter__(self) -> Iterator[Hit]:
        for label, text, places, lines in self._parts:
            for place, line in zip(places, lines, strict=True):
                yield Hit(label, line, line_at(text, place))

    def __repr__(self) -> str:
        return f"<{len(self):,} hits, the first {self[:3]!r}>"

    def listed(self) -> Sequence[Hit]:
        """A list; or these hits themselves, which are made when they are looked at, where they are many or
        their lines are long.
        """
        made: list[Hit] = []
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
    if _by_bytes(text):
        return without_end(text.source.decode(place, _line_end(text.source, place)))
    size = 4096
    while True:
        line, newline, _ = (read := text.read(place, place + size)).partition("\n")
        if newline or len(read) < size or size >= MAX_LINE:
            return line.removesuffix("\r") if newline else line
        size *= 4


def _by_bytes(text: LazyText) -> bool:
    """Its lines are told by the bytes where they begin, not by their characters."""
    return text.whole and text.source.by_bytes


def _line_end(source: Source, place: int) -> int:
    """After the end of the line that has that place; of a very long one where its piece ends."""
    limit = min(source.end, place + MAX_LINE)
    end = source.data.find(b"\n", place, limit)
    return end + 1 if end >= 0 else limit if limit == source.end else source.cut(limit)


def search(texts: dict[str, str | LazyText], pattern: re.Pattern[str], limit: int | None) -> Sequence[Hit]:
    """The lines that match, the first `limit` of them."""
    hits = Hits()
    literal, alone = required(pattern)
    for label, given in texts.items():
        text = with_line_feeds(given) if isinstance(given, str) else given
        places, lines = hits.add(label, text)
        for place, line in _lines(text, pattern, literal, alone):
            places.append(place)
            lines.append(line)
            if limit is not None and len(hits) >= limit:
                return hits.listed()
    return hits.listed()


def _lines(
    text: str | LazyText, pattern: re.Pattern[str], literal: str, alone: bool
) -> Iterator[tuple[int, int]]:
    """Where the lines begin that match, and their numbers. `alone`: the literal is all of the pattern."""
    if isinstance(text, str):
        return _by_literal_in_str(text, pattern, literal, alone) if literal else _each_of_str(text, pattern)
    if not _by_bytes(text):
        return _each_of_lazy(text, pattern)
    if literal and (raw := text.source.raw(literal)):
        return _by_literal_in_bytes(text.source, pattern, raw, alone)
    return _each_of_bytes(text.source, pattern)


def _each_of_str(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    place, number, found = 0, 1, pattern.search
    for part in parts(text):
        *ended, rest = part.split("\n")
        returns = "\r" in part
        for line in ended:
            if found(line.removesuffix("\r") if returns else line):
                yield place, number
            place += len(line) + 1
            number += 1
        if rest and found(rest):
            yield place, number


def _by_literal_in_str(
    text: str, pattern: re.Pattern[str], literal: str, alone: bool
) -> Iterator[tuple[int, int]]:
    at, number, counted = text.find(literal), 1, 0
    while at >= 0:
        begin = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at) + 1
        if alone or pattern.search(without_end(text[begin : end or None])):
            number += text.count("\n", counted, begin)
            counted = begin
            yield begin, number
        if not end:
            return
        at = text.find(literal, end)


def _by_literal_in_bytes(
    source: Source, pattern: re.Pattern[str], raw: bytes, alone: bool
) -> Iterator[tuple[int, int]]:
    data, number, counted, after = source.data, 1, source.start, source.start
    find = _Finder(source, len(raw))
    at = find(raw, source.start)
    while at >= 0:
        # Not before the last line that was tried: that is as far as a line can reach back.
        begin = data.rfind(b"\n", max(after, at - MAX_LINE // 2), at) + 1 or max(
            after, source.cut(at - MAX_LINE // 2)
        )
        after = max(_line_end(source, begin), at + len(raw))
        if alone or pattern.search(without_end(source.decode(begin, after))):
            number += source.newlines(counted, begin)
            counted = begin
            yield begin, number
        at = find(raw, after)


def _each_of_bytes(source: Source, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    data, found, low, number = source.data, pattern.search, source.start, 1
    while low < source.end:
        high = _line_end(source, min(source.end, low + BLOCK))
        raw = data.part(low, high)
        place = low
        texts = str(raw, source.encoding, source.errors).split("\n")
        for line, text in zip(raw.split(b"\n"), texts, strict=True):
            if place == high:
                break  # after the last line's end
            ended = place + len(line) < high
            if found(text.removesuffix("\r") if ended else text):
                yield place, number
            place += len(line) + ended
            number += ended
        low = high


def _each_of_lazy(text: LazyText, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    found, place, number = pattern.search, 0, 1
    kept: list[str] = []
    size = 0
    for part in text.texts():
        *lines, rest = part.split("\n")
        for last in lines:
            line = "".join([*kept, last])
            kept, size = [], 0
            if found(line.removesuffix("\r")):
                yield place, number
            place += len(line) + 1
            number += 1
        kept.append(rest)
        size += len(rest)
        if size > MAX_LINE:
            if found("".join(kept)):
                yield place, number
            place, kept, size = place + size, [], 0
    if size and found("".join(kept)):
        yield place, number


class _Finder:
    """Finds bytes in a source: with libc's search, which is a few times faster than Python's, where there is
    one.
    """

    def __init__(self, source: Source, least: int) -> None:
        """`least`: how many bytes are looked for at once, at least."""
        self._data, self._end = source.data, source.end
        self._search = getattr(ctypes.CDLL(None), "memmem", None) if source.end > _STEP else None
        if self._search is not None:
            self._search.restype = ctypes.c_void_p
            self._search.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
            size = max(_READ, 4 * least)
            self._buffer = (ctypes.c_char * size)()
            self._address = ctypes.addressof(self._buffer)
            self._low = self._high = 0
            """What of the file is in the buffer."""

    def __call__(self, raw: bytes, low: int) -> int:
        if self._search is None:
            return self._data.find(raw, low)
        while low + len(raw) <= self._end:
            if not self._low <= low <= low + len(raw) <= self._high:
                self._low, self._high = low, low + self._data.into(memoryview(self._buffer).cast("B"), low)
            found = self._search(self._address + low - self._low, self._high - low, raw, len(raw))
            if found:
                return int(found) - self._address + self._low
            low = self._high - len(raw) + 1
        return -1


def required(pattern: re.Pattern[str]) -> tuple[str, bool]:
    """The longest text without which the pattern cannot match, "" if there is none; and whether it is all of
    the pattern.
    """
    flags = pattern.flags
    if flags & (re.IGNORECASE | re.LOCALE):
        return "", False
    tree = _parser.parse(pattern.pattern, flags & ~re.UNICODE)
    runs = [""]
    alone = True
    for code, value in tree:
        if code is _constants.LITERAL and value != 10:
            runs[-1] += chr(value)
            continue
        alone = False
        runs.append("")
        if (
            code is _constants.SUBPATTERN
            and not value[1]
            and not value[2]
            and all(part[0] is _constants.LITERAL for part in value[3])
        ):
            runs[-1] = "".join(chr(part[1]) for part in value[3])
            runs.append("")
        elif code is _constants.LITERAL:
            # A line has no newline: nothing matches, and the slow way finds that out as well.
            return "", False
    literal = max(runs, key=len)
    # A carriage return may be of the line's end.
    return ("", False) if "\n" in literal else (literal, alone and bool(literal) and "\r" not in literal)
