"""Files as plain text, a part at a time: UTF-8 in memory, with the way back to the bytes of the file.

A format that has its text inside (PDF, Word, a table, an archive) is not read: parsers of such are the
kernel's, in its container. gzip is unpacked, up to a bound.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO

from rlm_kernel import system
from rlm_kernel.proof.normal import Normal

PART = 1 << 19
"""Bytes of a file that are looked at together."""
OVERLAP = 1 << 13
"""Bytes that a part has in common with the one before it."""
MAX_UNPACKED = 4 << 30
_HEAD, _STEP = 1 << 16, 1 << 12
_NOT_READ = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip, or a document of an office program",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file",
    b"{\\rtf": "RTF",
    b"SQLite format 3\0": "a database",
    b"PAR1": "a table (Parquet)",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\0": "packed by xz",
    b"(\xb5/\xfd": "packed by zstd",
    b"\x89PNG\r\n": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PAGES = (
    "cp1252", "cp1251", "cp1250", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "cp1258", "cp874", "cp932", "gb18030", "big5", "cp949", "euc_jp", "iso8859_2", "iso8859_5", "iso8859_7",
    "mac_roman", "mac_cyrillic", "cp850", "cp437", "cp852", "cp855",
)  # fmt: skip
"""As the kernel reads them; the first one that the prompts speak for is taken."""
_WORD = re.compile(r"\w{3,20}")
_HIGH = re.compile(rb"[^\n]{0,40}[\x80-\xff][^\n]{0,60}")


class NotRead(Exception):
    """The file is not read here; the message says what it is."""


@dataclass(frozen=True)
class Part:
    """A part of a text. `raw` is UTF-8. `first`: where it begins in the file, in bytes; `line`: the number of
    the line in which that is, from 1 on. `old`: bytes of `raw` that the part before it has as well.
    """

    raw: bytes
    first: int
    line: int
    encoding: str = "utf-8"
    old: int = 0

    @cached_property
    def normal(self) -> Normal:
        """The normal form of `raw`."""
        return Normal(self.raw)

    def byte(self, place: int) -> int:
        """Where in the file a place of `raw` is, between two characters."""
        if self.encoding == "utf-8":
            return self.first + place
        at = bisect_right(self._steps, (place, 1 << 62)) - 1
        start, before = self._steps[at]
        return self.first + before + self._length(start, place)

    @cached_property
    def _steps(self) -> list[tuple[int, int]]:
        """Places of `raw` between characters, each with the bytes that the file has before it."""
        found, at = [(0, 0)], 0
        while at + _STEP < len(self.raw):
            after = at + _STEP
            while self.raw[after] & 0xC0 == 0x80:
                after -= 1
            found.append((after, found[-1][1] + self._length(at, after)))
            at = after
        return found

    def _length(self, start: int, end: int) -> int:
        text = self.raw[start:end].decode("utf-8", "surrogatepass")
        return len(text.encode(self.encoding, _errors(self.encoding)))

    def line_of(self, place: int) -> int:
        """The number of the line in which a place of `raw` is."""
        step = place // _STEP
        return self._lines[step] + self.raw.count(b"\n", step * _STEP, place)

    @cached_property
    def _lines(self) -> list[int]:
        """The numbers of the lines in which each step begins."""
        steps = range(0, len(self.raw), _STEP)
        return list(accumulate((self.raw.count(b"\n", at, at + _STEP) for at in steps), initial=self.line))


Words = Callable[[], Set[str]]
"""The words of all prompts; called where a file is in a code page."""


def words_beyond_ascii(text: str) -> Iterator[str]:
    """Those words of a text that tell of a code page."""
    if not text.isascii():
        yield from (word for word in _WORD.findall(text) if not word.isascii())


def parts(path: Path, words: Words) -> Iterator[Part]:
    """The parts of a file, in order. Blocking.

    Args:
        path: Of a plain file, or a link to one.
        words: Tell which code page a file is in, where it is neither in UTF-8 nor says so itself: prompts
            have been read from it.

    Raises:
        NotRead: Its text is inside a format, or it is no text.
        OSError: It cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: system.open_plain(name, flags, follow=True)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRead("no plain file")
        head = file.read(_HEAD)
        file.seek(0)
        stream: IO[bytes] = file
        if head.startswith(b"\x1f\x8b"):
            stream = io.BufferedReader(_Gzip(file))
            head = stream.peek(_HEAD)[:_HEAD]
        kind = next((kind for mark, kind in _NOT_READ.items() if head.startswith(mark)), "")
        if kind:
            raise NotRead(kind)
        encoding, mark = _encoding(head, words)
        stream.read(mark)
        yield from _utf8(stream, mark) if encoding == "utf-8" else _decoded(stream, mark, encoding)


def _encoding(head: bytes, words: Words) -> tuple[str, int]:
    """The encoding, and the bytes of its mark. Raises NotRead."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    if b"\0" in head:
        for name, high, low in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
            if high.count(0) > len(high) // 2 and low.count(0) <= len(low) // 50:
                return name, 0
        if head.count(0) > len(head) // 10:
            raise NotRead("no text")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return _page(head, words()), 0
    return "utf-8", 0


def _page(head: bytes, words: Set[str]) -> str:
    """The code page in which most words of the file's beginning are words of prompts; UTF-8 with other bytes
    in it where none is.
    """
    sample = b"\n".join(_HIGH.findall(head)[:200])
    best, most = "utf-8", 0
    for name in ("utf-8", *_PAGES):
        text = sample.decode(name, "replace")
        found = sum(not word.isascii() and word in words for word in set(_WORD.findall(text)))
        if found > most:
            best, most = name, found
    return best


def _utf8(stream: IO[bytes], first: int) -> Iterator[Part]:
    rest, line = b"", 1
    while new := stream.read(PART):
        raw = rest + new
        yield Part(raw, first, line, old=len(rest))
        step = max(0, len(raw) - OVERLAP)
        line += raw.count(b"\n", 0, step)
        first += step
        rest = raw[step:]


def _decoded(stream: IO[bytes], first: int, encoding: str) -> Iterator[Part]:
    """Only whole characters: the places of each part are counted from a character on."""
    errors = _errors(encoding)
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    rest, line = "", 1
    while True:
        new = stream.read(PART)
        text = rest + decoder.decode(new, not new)
        if len(text) > len(rest):
            old = len(rest.encode("utf-8", "surrogatepass"))
            yield Part(text.encode("utf-8", "surrogatepass"), first, line, encoding, old)
        if not new:
            return
        step = max(0, len(text) - OVERLAP)
        line += text.count("\n", 0, step)
        first += len(text[:step].encode(encoding, errors))
        rest = text[step:]


def _errors(encoding: str) -> str:
    """How bytes that are no text are read so that they can be counted."""
    return "surrogatepass" if encoding.startswith("utf-") else "surrogateescape"


class _Gzip(io.RawIOBase):
    """What a gzip file holds. It ends where that is damaged, or has MAX_UNPACKED bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj(wbits=31)
        self._left, self._input = MAX_UNPACKED, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._left > 0:
            given = self._input or self._file.read(_HEAD)
            if not given:
                break
            try:
                made = self._unpacker.decompress(given, min(len(buffer), self._left))
            except zlib.error:
                self._left = 0
                break
            self._input = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if self._unpacker.eof:
                self._unpacker = zlib.decompressobj(wbits=31)
            if made:
                self._left -= len(made)
                buffer[: len(made)] = made
                return len(made)
        return 0
