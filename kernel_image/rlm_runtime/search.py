"""grep: the lines that match, of texts of any size.

A pattern that cannot match without a certain text is looked for by that text, which is many times faster than
a regular expression; the lines where it is are then tried with the pattern itself. So what is found is what
searching each line would find.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]

from rlm_runtime import hits
from rlm_runtime.hits import Hit, Hits, by_bytes, line_end
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import parts, without_end
from rlm_runtime.source import BLOCK, Source

_STEP = 64 << 20
"""Bytes from which on libc's search is worth what it takes to get it ready."""
_READ = 1 << 18
"""Bytes that it searches at once."""


def search(
    texts: dict[str, str | LazyText],
    pattern: re.Pattern[str],
    limit: int | None,
    before: int = 0,
    after: int = 0,
) -> Sequence[Hit]:
    """The lines that match, the first `limit` of them, each with so many lines before and after it."""
    found = Hits(pattern, before, after)
    literal, alone = required(pattern)
    for label, given in texts.items():
        searched = found.add(label, given)
        places, lines = searched.places, searched.lines
        for place, line in _lines(searched.text, pattern, literal, alone):
            places.append(place)
            lines.append(line)
            if limit is not None and len(found) >= limit:
                return found.listed()
    return found.listed()


def _lines(
    text: str | LazyText, pattern: re.Pattern[str], literal: str, alone: bool
) -> Iterator[tuple[int, int]]:
    """Where the lines begin that match, and their numbers. `alone`: the literal is all of the pattern."""
    if isinstance(text, str):
        return _by_literal_in_str(text, pattern, literal, alone) if literal else _each_of_str(text, pattern)
    if not by_bytes(text):
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
    find = Finder(source, len(raw))
    at = find(raw, source.start)
    while at >= 0:
        # Not before the last line that was tried: that is as far as a line can reach back.
        begin = data.rfind(b"\n", max(after, at - hits.MAX_LINE // 2), at) + 1 or max(
            after, source.cut(at - hits.MAX_LINE // 2)
        )
        after = max(line_end(source, begin), at + len(raw))
        if alone or pattern.search(without_end(source.decode(begin, after))):
            number += source.newlines(counted, begin)
            counted = begin
            yield begin, number
        at = find(raw, after)


def _each_of_bytes(source: Source, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    data, found, low, number = source.data, pattern.search, source.start, 1
    while low < source.end:
        high = line_end(source, min(source.end, low + BLOCK))
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
        while size > hits.MAX_LINE:
            piece = "".join(kept)
            if found(piece[: hits.MAX_LINE]):
                yield place, number
            place, kept, size = place + hits.MAX_LINE, [piece[hits.MAX_LINE :]], size - hits.MAX_LINE
    if size and found("".join(kept)):
        yield place, number


class Finder:
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
