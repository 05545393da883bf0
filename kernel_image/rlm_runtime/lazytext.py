"""Text that is larger than the kernel's memory has room for: a str in all that is asked of it, and never read
as a whole.

LazyText is what `context` is for a large file. What it gives is what the same str would give. Regular
expressions see it through a window that moves over it: a match, with all that it looks ahead and behind, may
be `SPAN` characters long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, AnyStr

from rlm_runtime.source import Source
from rlm_runtime.windows import Found, matches, take_regular_expressions

SPAN = 1 << 20
"""Characters that a match may have, with what it looks at around it, to be found for sure."""
WINDOW = 4 << 20
"""Characters that a regular expression sees at once, besides."""
LEAST_LINE = 1 << 20
"""Characters that a line may have in any memory; else it may have a quarter of what may be in memory at
once.
"""
MAX_MATCH = 64 << 20
"""Characters of a match that is still followed where it is longer than SPAN."""


class TooLarge(MemoryError):
    """The text, or the part of it that was asked for, does not fit into the kernel's memory."""


class LazyText:
    """The characters from `first` to before `last` (None: to the end) of a source.

    `limit`: characters that may be in memory at once; a longer slice is a LazyText again.
    """

    def __init__(self, source: Source, limit: int, first: int = 0, last: int | None = None) -> None:
        self.source = source
        self._limit = limit
        self._first = first
        self._last = last
        take_regular_expressions(LazyText)

    @property
    def whole(self) -> bool:
        """It is all of its file."""
        return self._first == 0 and self._last is None

    def __len__(self) -> int:
        return (self.source.length if self._last is None else self._last) - self._first

    def __bool__(self) -> bool:
        return bool(self.read(0, 1))

    def __repr__(self) -> str:
        size = f"{self.source.end - self.source.start:,} bytes" if self.whole else f"{len(self):,} characters"
        return (
            f"<LazyText of {size}, too large for memory, beginning {self.read(0, 60)!r}. Use slices, "
            "grep, find, count, splitlines, chunks>"
        )

    def __str__(self) -> str:
        if (self._last or self.source.end) - self._first > self._limit and len(self) > self._limit:
            raise TooLarge(f"this text has {len(self):,} characters, too many for memory: {_INSTEAD}")
        return "".join(self.texts())

    def __getattr__(self, name: str) -> Any:
        if hasattr(str, name) and not name.startswith("__"):
            raise AttributeError(
                f"a LazyText has no .{name}(), as it would need the whole text in memory: {_INSTEAD}",
                name=name,
                obj=self,
            )
        raise AttributeError(f"'LazyText' object has no attribute {name!r}", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        if (
            isinstance(other, LazyText)
            and other.source is self.source
            and (other._first, other._last) == (self._first, self._last)
        ):
            return True
        if not isinstance(other, (str, LazyText)) or len(self) != len(other):
            return False if isinstance(other, (str, LazyText)) else NotImplemented
        at = 0
        for text in self.texts():
            if text != str(other[at : at + len(text)]):
                return False
            at += len(text)
        return True

    __hash__ = None  # type: ignore[assignment]

    def texts(self) -> Iterator[str]:
        """Its text in pieces, one after the other."""
        return self.source.texts(self._first, self._last)

    # Slices

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self._char(index.__index__())
        start, stop, step = index.start, index.stop, 1 if index.step is None else index.step
        near_end = start is not None and start < 0 and (stop is None or stop < 0) and -start <= self._limit
        if step > 0 and near_end and self._last is None:
            return self._tail(-start)[start:stop:step]
        if step < 0 or (start or 0) < 0 or (stop or 0) < 0:
            start, stop, step = index.indices(len(self))
            if step < 0:
                low, high = (stop + 1, start + 1) if start > stop else (0, 0)
                return str(self._part(low, high))[::step]
        return self._part(start or 0, stop) if step == 1 else str(self._part(start or 0, stop))[::step]

    def _char(self, index: int) -> str:
        if index < 0 and self._last is None and -index <= self._limit:
            tail = self._tail(-index)
            found = tail[0] if len(tail) == -index else ""
        else:
            at = index + len(self) if index < 0 else index
            found = self.read(at, at + 1) if at >= 0 else ""
        if not found:
            raise IndexError("string index out of range")
        return found

    def _tail(self, count: int) -> str:
        """The last characters, so many at most."""
        if self._last is not None:
            return self.read(max(0, len(self) - count), len(self))
        return self.source.tail(min(count, len(self)) if self._first else count)

    def read(self, start: int, stop: int) -> str:
        """The characters between two places that are not negative, whatever their number, as a str."""
        last = self._first + stop
        return "".join(
            self.source.texts(self._first + start, last if self._last is None else min(self._last, last))
        )

    def _part(self, start: int, stop: int | None) -> str | LazyText:
        """The characters between two places that are not negative."""
        first = self._first + start
        last = (
            self._last
            if stop is None
            else self._first + stop
            if self._last is None
            else min(self._last, self._first + stop)
        )
        if last is not None and last <= first:
            return ""
        if last is None or last - first > self._limit:
            first, last = (
                min(first, self.source.length),
                min(self.source.length if last is None else last, self.source.length),
            )
            if last - first > self._limit:
                return LazyText(self.source, self._limit, first, last)
        return "".join(self.source.texts(first, last))

    # Looking for a text

    def __contains__(self, sub: str) -> bool:
        return self.find(sub) >= 0

    def find(self, sub: str, start: int | None = None, end: int | None = None) -> int:
        """Where the text is first, as str.find."""
        return next(self.places(sub, start, end), -1)

    def rfind(self, sub: str, start: int | None = None, end: int | None = None) -> int:
        """Where the text is last, as str.rfind."""
        return max(self.places(sub, start, end, overlapping=True), default=-1)

    def index(self, sub: str, start: int | None = None, end: int | None = None) -> int:
        """As find; raises ValueError if the text is not there."""
        found = self.find(sub, start, end)
        if found < 0:
            raise ValueError("substring not found")
        return found

    def rindex(self, sub: str, start: int | None = None, end: int | None = None) -> int:
        """As rfind; raises ValueError if the text is not there."""
        found = self.rfind(sub, start, end)
        if found < 0:
            raise ValueError("substring not found")
        return found

    def count(self, sub: str, start: int | None = None, end: int | None = None) -> int:
        """How often the text is there, without overlaps, as str.count."""
        if not sub:
            low, high = self._range(start, end)
            return max(0, high - low + 1)
        if start is not None or end is not None:
            low, high = self._range(start, end)
            part = self._part(low, high) if low < high else ""
            return part.count(sub)
        raw = self.source.raw(sub) if self.whole else None
        if raw == b"\n":
            return self.source.newlines(self.source.start, self.source.end)
        return _count(self.texts(), sub) if raw is None else _count(self.source.parts(), raw)

    def startswith(
        self, prefix: str | tuple[str, ...], start: int | None = None, end: int | None = None
    ) -> bool:
        """As str.startswith."""
        prefixes = prefix if isinstance(prefix, tuple) else (prefix,)
        low, high = (
            self._range(start, end)
            if start is not None or end is not None
            else (0, max(map(len, prefixes), default=0))
        )
        return low <= high and any(self.read(low, min(high, low + len(text))) == text for text in prefixes)

    def endswith(
        self, suffix: str | tuple[str, ...], start: int | None = None, end: int | None = None
    ) -> bool:
        """As str.endswith."""
        suffixes = suffix if isinstance(suffix, tuple) else (suffix,)
        if start is None and end is None:
            return any(not text or self._tail(len(text)) == text for text in suffixes)
        low, high = self._range(start, end)
        return low <= high and any(
            len(text) <= high - low and self.read(high - len(text), high) == text for text in suffixes
        )

    def _range(self, start: int | None, end: int | None) -> tuple[int, int]:
        """As str takes them: cut off at the end, but a start beyond it stays beyond it."""
        size = len(self)
        low, high, _ = slice(start, end).indices(size)
        return (start if start is not None and start > size else low), high

    def places(
        self, sub: str, start: int | None, end: int | None, *, overlapping: bool = False
    ) -> Iterator[int]:
        """Where the text begins each time: characters of this text."""
        if start is None and end is None:
            low, high = 0, None
        else:
            low, high = self._range(start, end)
            if low > high:
                return
        raw = self.source.raw(sub)
        if not sub:
            yield from range(low, (len(self) if high is None else high) + 1)
        elif raw is not None and self.whole:
            yield from self._places_by_bytes(raw, len(sub), low, high, overlapping)
        else:
            yield from self._places_by_text(sub, low, high, overlapping)

    def _places_by_bytes(
        self, raw: bytes, size: int, low: int, high: int | None, overlapping: bool
    ) -> Iterator[int]:
        source = self.source
        number = source.block_of(low) if low else 0
        here, char = source.block(number)[0], source.before(number)  # a place, and the characters before it
        at, free = source.data.find(raw, here), low
        while at >= 0:
            char += source.characters(here, at)
            here = at
            if high is not None and char + size > high:
                return
            found = char >= free
            if found:
                yield char
                free = char + (1 if overlapping else size)
            at = source.data.find(raw, at + (len(raw) if found and not overlapping else 1))

    def _places_by_text(self, sub: str, low: int, high: int | None, overlapping: bool) -> Iterator[int]:
        kept, here = "", low
        part = self._part(low, high)
        for text in part.texts() if isinstance(part, LazyText) else (part,):
            kept += text
            at = kept.find(sub)
            done = 0
            while at >= 0:
                yield here + at
                done = at + (1 if overlapping else len(sub))
                at = kept.find(sub, done)
            done = max(done, len(kept) - len(sub) + 1)
            kept, here = kept[done:], here + done

    # Lines and pieces

    def splitlines(self, keepends: bool = False) -> Iterator[str]:
        """The lines as grep(1) has them, one after the other: see rlm_runtime.lines.

        Raises TooLarge where one is too long for memory.
        """
        before: str | None = None
        for part in self._parts("\n", -1, lines=True):
            if before is not None:
                yield f"{before}\n" if keepends else before.removesuffix("\r")
            before = part
        if before:
            yield before

    def __iter__(self) -> Iterator[str]:
        """The lines. A str gives its characters: of so many nobody wants that."""
        return self.splitlines()

    def split(self, sep: str | None = None, maxsplit: int = -1) -> Iterator[Any]:
        """The parts between separators, one after the other, as str.split has them in a list."""
        if sep == "":
            raise ValueError("empty separator")
        if sep is None:
            return (found.group() for found in self.finditer(r"\S+"))
        return self._parts(sep, maxsplit, lines=False)

    def _parts(self, sep: str, maxsplit: int, *, lines: bool) -> Iterator[Any]:
        """The parts between separators.

        One that is too long to be kept as it is read is a slice; of `lines`, an error as soon as it is.
        """
        longest = max(self._limit // 4, LEAST_LINE)
        kept: list[str] = []  # of the part that has begun, all but what may be the beginning of a separator
        edge, size, start, number = "", 0, 0, 0
        for text in self.texts() if maxsplit else ():
            *ended, rest = (edge + text).split(sep, maxsplit - number if maxsplit > 0 else -1)
            for part in ended:
                end = start + size + len(part)
                yield "".join([*kept, part]) if size <= longest else self._part(start, end)
                kept, size, start, number = [], 0, end + len(sep), number + 1
            if number == maxsplit:
                break
            done = max(0, len(rest) - len(sep) + 1)
            edge, size = rest[done:], size + done
            kept.append(rest[:done])
            if size > longest:
                if lines:
                    raise TooLarge(
                        f"line {number + 1:,} has more than {longest:,} characters, too many for memory: "
                        f"{_PIECES}"
                    )
                kept = []
        yield "".join([*kept, edge]) if number != maxsplit and size <= longest else self._part(start, None)

    def pieces(self, size: int, overlap: int = 0) -> Iterator[str]:
        """Pieces of so many characters, each with the last ones of the piece before it."""
        parts: list[str] = []
        have, kept, more = 0, "", False
        for text in self.texts():
            parts.append(text)
            have += len(text)
            if have <= size:
                continue  # joined once, not with every block
            kept, at = "".join(parts), 0
            while len(kept) - at > size:
                yield kept[at : at + size]
                at += size - overlap
                more = True
            parts = [kept[at:]]
            have = len(parts[0])
        if have and not (more and have <= overlap):
            yield "".join(parts)

    # Regular expressions

    def finditer(
        self, pattern: str | re.Pattern[str], flags: int = 0, *, span: int = SPAN
    ) -> Iterator[Found]:
        """The matches one after the other, as re.finditer; see `span` at the head of this module."""
        return matches(re.compile(pattern, flags), self.texts(), span, WINDOW, MAX_MATCH)

    def search(self, pattern: str | re.Pattern[str], flags: int = 0) -> Found | None:
        """The first match, as re.search."""
        return next(self.finditer(pattern, flags), None)

    def match(self, pattern: str | re.Pattern[str], flags: int = 0) -> re.Match[str] | None:
        """A match at the beginning, as re.match. It may have WINDOW characters."""
        return re.compile(pattern, flags).match(self.read(0, WINDOW))

    def findall(self, pattern: str | re.Pattern[str], flags: int = 0) -> list[Any]:
        """What matches, as re.findall."""
        return [_group(found) for found in self.finditer(pattern, flags)]


_PIECES = "take it in pieces: chunks(size), slices, grep, or context.finditer(pattern)"
_INSTEAD = (
    "take a slice, or use grep, find, count, in, splitlines, split, finditer, search, findall, or "
    "chunks(size)"
)


def _count(parts: Iterable[AnyStr], sub: AnyStr) -> int:
    """How often something is there in what comes in parts, without overlaps."""
    found, rest = 0, sub[:0]
    for part in parts:
        if len(sub) == 1:
            found += part.count(sub)
            continue
        *before, rest = (rest + part).split(sub)
        found += len(before)
        rest = rest[max(0, len(rest) - len(sub) + 1) :]
    return found


def _group(found: Any) -> Any:
    groups = found.groups("")
    return found.group() if not groups else groups[0] if len(groups) == 1 else groups
