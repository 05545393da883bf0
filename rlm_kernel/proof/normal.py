"""The normal form in which a passage is the same whatever code has done to it on its way into a prompt.

Letters and digits are kept, in lower case where they are ASCII; spaces, line ends and punctuation are not.
Escapes of JSON, Python and HTML count as what they stand for. So a passage has one normal form in a file, in
an f-string, in `json.dumps`, quoted, indented or wrapped anew.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate, compress, islice

_KEPT = bytes(byte for byte in range(256) if byte >= 0x80 or chr(byte).isalnum())
_DROPPED = bytes(byte for byte in range(256) if byte not in _KEPT)
_LOWER = bytes(range(256)).lower()
_IS_KEPT = bytes(byte in _KEPT for byte in range(256))
_STEP = 512
"""Bytes after which kept ones are counted: a place in the normal form is found within so many."""
_ESCAPE = re.compile(
    rb"\\{1,8}(?:u[dD][89abAB][0-9a-fA-F]{2}\\{1,8}u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|[nrtbf])"
    rb"|(?:\\{1,8}x[0-9a-fA-F]{2})+"
    rb"|&(?:amp|lt|gt|quot|apos|nbsp|#[0-9]{1,5}|#[xX][0-9a-fA-F]{1,4});"
)
_UNIT = re.compile(rb"u([0-9a-fA-F]{4})")
_LONG_UNIT = re.compile(rb"U([0-9a-fA-F]{8})")
_BYTE = re.compile(rb"x([0-9a-fA-F]{2})")
_NO_LETTERS = re.compile(
    rb"(?:\xc2[\x80-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf]|\xe2\x80[\x80-\xbf]|\xe2\x81[\x80-\xaf]|\xe2\x88\x92"
    rb"|\xe3\x80[\x80-\x83\x88-\xa0\xb0]|\xef\xbb\xbf|\xef\xbc[\x81-\x8f\x9a-\xa0\xbb-\xbf]|\xef\xbd[\x80\x9b-\xa5])+"
)
"""Spaces and punctuation beyond ASCII in UTF-8: hard spaces, dashes, curly quotes, those of Chinese and
Japanese. Code makes plain ones of them, and `split()` takes the spaces for spaces.
"""
_NO_WORD = rb"[^\w\n\x80-\xff]"
_NUMBERED = re.compile(
    rb"^(?:%b{0,20}(?:[A-Za-z]{1,12}%b{0,3})?\d{1,9}%b+|[^\s:]{1,200}:\d{1,9}[:-])" % ((_NO_WORD,) * 3),
    re.MULTILINE,
)
"""What code puts before lines: `17: `, `[17] `, `Line 17 | `, `L17 `, `name.txt:17:`."""
_LEAST_NUMBERED = 3


def _unescaped(found: re.Match[bytes]) -> bytes:
    """What an escape stands for, in as many bytes: spaces are dropped later."""
    text = found.group()
    return (_meant(text) if text[:1] == b"\\" else b"").ljust(len(text))


def _meant(text: bytes) -> bytes:
    """What escapes of a backslash stand for, in UTF-8."""
    if text.lstrip(b"\\")[:1] == b"x":  # characters of a text, or bytes of an encoded one
        raw = bytes.fromhex(b"".join(_BYTE.findall(text)).decode())
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1").encode("utf-8")
        return raw
    if long := _LONG_UNIT.search(text):
        return bytes.fromhex(long[1].decode()).decode("utf-32-be", "ignore").encode("utf-8")
    units = b"".join(bytes.fromhex(unit.decode()) for unit in _UNIT.findall(text))
    return units.decode("utf-16-be", "ignore").encode("utf-8", "ignore")


def padded(raw: bytes) -> bytes:
    """The text with its escapes undone and plain spaces and punctuation, each byte at its place: what is
    shorter is filled with spaces.
    """
    plain = _ESCAPE.sub(_unescaped, raw) if b"\\" in raw or b"&" in raw else raw
    return plain if plain.isascii() else _NO_LETTERS.sub(_spaces, plain)


def _spaces(found: re.Match[bytes]) -> bytes:
    return b" " * len(found.group())


def readable(raw: bytes) -> str:
    """The text with its escapes undone, as people read it."""
    text = _ESCAPE.sub(lambda found: _unescaped(found).rstrip() or b" ", raw)
    return text.decode("utf-8", "replace")


def without_numbers(raw: bytes) -> bytes | None:
    """The text with spaces in place of numbers and labels before its lines; None where it has none."""
    found, count = _NUMBERED.subn(lambda one: b" " * len(one.group()), raw)
    return found if count >= _LEAST_NUMBERED else None


class Normal:
    """The normal form of a text in UTF-8: `text`. Its places are found in the text again."""

    def __init__(self, raw: bytes) -> None:
        self._padded = padded(raw)
        self.text = self._padded.translate(_LOWER, _DROPPED)

    @cached_property
    def _counts(self) -> list[int]:
        """How many bytes before each step are kept."""
        steps = range(0, len(self._padded), _STEP)
        return [0, *accumulate(len(self._padded[at : at + _STEP].translate(None, _DROPPED)) for at in steps)]

    def place(self, index: int) -> int:
        """Where in the text the byte of the normal form with this index is."""
        step = bisect_right(self._counts, index) - 1
        at = step * _STEP
        kept = self._padded[at : at + _STEP].translate(_IS_KEPT)
        return at + next(islice(compress(range(len(kept)), kept), index - self._counts[step], None))

    def index(self, place: int) -> int:
        """How many bytes of the normal form are before a place of the text."""
        step = place // _STEP
        return self._counts[step] + len(self._padded[step * _STEP : place].translate(None, _DROPPED))
