"""A text file that stays on disk: its bytes, and what is known of where its characters are.

The text is what `bytes.decode(encoding, errors)` would give. It is decoded in blocks that are cut where no
character is cut, so that the decoded blocks together are the decoded whole. How many characters a block has
is found out when it is first needed.
"""

from __future__ import annotations

import bisect
import codecs
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from rlm_runtime.ondisk import OnDisk
from rlm_runtime.unpacking import Unreadable

BLOCK = 1 << 20
"""Bytes of a block, about."""
_UNITS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
_LINE = 1 << 20
"""Bytes in which a line feed is looked for, in encodings of East Asia: it is never part of another character,
damaged or not.
"""
_APART, _LINE_APART = re.compile(rb"[\x00-\x2f]"), re.compile(rb"\n")
"""What is looked for where a line is longer: no part of a character either, but in encodings that switch by
escapes.
"""
_HALF = re.compile(rb"[\x81-\xfe][0-9]")
LONGEST = 16 << 20
"""Bytes in which it must be."""
_NEAR = 1 << 12
"""Bytes that are looked through for it at once."""
_SMALL = 1 << 16
_READ = 1 << 18
"""Bytes that are read at once where they are only looked through: they stay in the processor's cache."""
_SEEN = 1 << 24
"""Bytes of the beginning in which the first line end is, of a text whose only ones are carriage returns."""


class Source:
    """A file and its encoding, which is a codec's name; `start` skips a byte-order mark.

    `errors`: the codec's error handler; another one than "replace" makes of bytes beyond ASCII characters
    beyond ASCII. Safe to use from several threads.
    """

    def __init__(
        self, path: Path, encoding: str = "utf-8", start: int = 0, block: int = BLOCK, errors: str = "replace"
    ) -> None:
        self.data = OnDisk(path)
        self.path = path
        self.encoding = codecs.lookup(encoding).name
        self.start, self.end = start, len(self.data)
        self._block = block
        self.errors = errors
        self._unit = _UNITS.get(self.encoding, 1)
        self._utf8 = self.encoding == "utf-8"
        self._single = self._unit == 1 and not self._utf8 and _is_single_byte(self.encoding)
        self._apart = _LINE_APART if self.encoding.startswith("iso2022") else _APART
        self._returns = False
        self._returns = self._only_returns()
        self._chars = [0]  # characters before each block, as far as they are counted
        self._counting = threading.Lock()

    @property
    def by_bytes(self) -> bool:
        """Text can be searched as bytes, and a newline is the byte 10."""
        return (self._utf8 or (self._single and b"\n".decode(self.encoding) == "\n")) and not self._returns

    def raw(self, text: str) -> bytes | None:
        """The bytes that a text is in the file; None where it could also have come out of other ones, or
        cannot be there.
        """
        if (
            not self.by_bytes
            or "\N{REPLACEMENT CHARACTER}" in text
            or (self.errors != "replace" and not text.isascii())
        ):
            return None
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError:
            return None

    def _only_returns(self) -> bool:
        """Whether carriage returns are the only line ends, as rlm_runtime.lines has it.

        Most texts tell within their first block.
        """
        found = False
        for number in range(self.blocks):
            text = self.text(number)
            if "\n" in text:
                return False
            found = found or "\r" in text
            if not found and (number + 1) * self._block >= _SEEN:
                return False
        return found

    @property
    def blocks(self) -> int:
        return -(-(self.end - self.start) // self._block)

    @property
    def counted(self) -> bool:
        """The characters of the whole are counted."""
        return self._single or len(self._chars) > self.blocks

    @property
    def length(self) -> int:
        """Characters of the whole."""
        return self.before(self.blocks)

    def cut(self, place: int) -> int:
        """The place, or one near it, where the bytes can be cut without cutting a character."""
        if place <= self.start or place >= self.end:
            return min(max(place, self.start), self.end)
        if self._utf8:
            for back in range(4):
                if place - back <= self.start or self.data.byte(place - back) & 0xC0 != 0x80:
                    return max(place - back, self.start)
            return place  # no sequence is that long: these bytes belong to none
        if self._unit > 1:
            return self._cut_units(place)
        if self._single:
            return place
        found = self.data.find(b"\n", place, place + _LINE)
        while found >= 0 and self._is_open(found):
            found = self.data.find(b"\n", found + 1, place + _LINE)
        if found >= 0:
            return found + 1
        for low in range(place, min(self.end, place + LONGEST), _NEAR):
            for apart in self._apart.finditer(self.data.part(low, low + _NEAR)):
                if not self._is_open(low + apart.start()):
                    return low + apart.end()
        if self.end - place <= LONGEST:
            return self.end
        raise Unreadable(
            f"it has more than {LONGEST:,} bytes of {self.encoding} without a line end or a space, too many "
            "to be taken "
            f"apart. Convert it first: iconv -f {self.encoding} -t utf-8"
        )

    def _is_open(self, place: int) -> bool:
        """Whether the bytes before may be the half of a character of four bytes, which a decoder tells by
        what stands behind them: in damaged texts of gb18030.
        """
        return self.encoding == "gb18030" and bool(
            _HALF.fullmatch(self.data.part(max(place - 2, self.start), place))
        )

    def _cut_units(self, place: int) -> int:
        place -= (place - self.start) % self._unit
        if self._unit == 2 and place - 2 >= self.start:
            high = self.data.byte(place - 1) if self.encoding.endswith("le") else self.data.byte(place - 2)
            if 0xD8 <= high <= 0xDB:
                return place - 2
        return place

    def block(self, number: int) -> tuple[int, int]:
        """The bytes of a block: from, to.

        It may be empty, or longer than others, in the encodings of East Asia. Raises Unreadable.
        """
        return self.cut(self.start + number * self._block), self.cut(self.start + (number + 1) * self._block)

    def parts(self) -> Iterator[bytes]:
        """All its bytes, one part after the other."""
        return (self.data.part(low, min(low + _READ, self.end)) for low in range(self.start, self.end, _READ))

    def text(self, number: int) -> str:
        """The text of a block."""
        return self.decode(*self.block(number))

    def decode(self, low: int, high: int) -> str:
        """The text of bytes that were cut right."""
        text = str(self.data.part(low, high), self.encoding, self.errors)
        return text.replace("\r", "\n") if self._returns else text

    def before(self, block: int) -> int:
        """The characters before a block."""
        if self._single:
            return self.block(block)[0] - self.start
        with self._counting:
            while len(self._chars) <= block:
                low, high = self.block(len(self._chars) - 1)
                raw = self.data.part(low, high)
                size = (
                    high - low
                    if self._utf8 and raw.isascii()
                    else len(raw.decode(self.encoding, self.errors))
                )
                self._chars.append(self._chars[-1] + size)
        return self._chars[block]

    def characters(self, low: int, high: int) -> int:
        """How many characters there are between two places where some begin."""
        if self._single:
            return high - low
        found = 0
        if high - low > self._block:  # by blocks, which are counted once
            first, last = self._block_with(low), self._block_with(high)
            found = self.before(last) - self.before(first) - len(self.decode(self.block(first)[0], low))
            low = self.block(last)[0]
        return found + len(self.decode(low, high))

    def _block_with(self, place: int) -> int:
        number = min((place - self.start) // self._block, self.blocks)
        while self.block(number)[0] > place:
            number -= 1
        return number

    def block_of(self, char: int) -> int:
        """The block that has the nth character; `blocks` if there are not so many."""
        if self._single:
            return min(char // self._block, self.blocks)
        while self._chars[-1] <= char and len(self._chars) <= self.blocks:
            self.before(len(self._chars))
        return bisect.bisect_right(self._chars, char) - 1 if char < self._chars[-1] else self.blocks

    def texts(self, first: int, last: int | None) -> Iterator[str]:
        """The characters from the first to before the last (None: to the end), block by block."""
        number = self.block_of(first) if first else 0
        here = self.before(number)
        while number < self.blocks and (last is None or here < last):
            text = self.text(number)
            shown = text[max(0, first - here) : None if last is None else last - here]
            if shown:
                yield shown
            here += len(text)
            number += 1

    def tail(self, count: int) -> str:
        """The last characters, so many at most, without a look at those before them."""
        parts: list[str] = []
        number = self.blocks
        while number and count > 0:
            number -= 1
            parts.append(self.text(number)[-count:])
            count -= len(parts[-1])
        return "".join(reversed(parts))

    def newlines(self, low: int, high: int) -> int:
        """How many bytes 10 there are between two places."""
        if high - low < _SMALL:
            return self.data.part(low, high).count(b"\n")
        import numpy

        buffer = numpy.empty(_READ, dtype=numpy.uint8)
        found = 0
        while low < high:
            size = min(self.data.into(memoryview(buffer), low), high - low)
            found += int(numpy.count_nonzero(buffer[:size] == 10))
            low += size
        return found


def _is_single_byte(encoding: str) -> bool:
    """Each byte is a character."""
    try:
        every = bytes(range(256)).decode(encoding, "replace")
    except (LookupError, UnicodeError):
        return False
    return len(every) == 256
