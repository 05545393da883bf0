"""JSON that a container or a model's server sent, parsed in bounded memory: `[{},{},…]` would grow to 24
times its size.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

MAX_PARSED = 64 << 20
"""Bytes, about, that parsing one text may take beside the text."""
MAX_VALUES = 500_000
"""Strings, lists, dicts and commas of one text."""
MAX_DEPTH = 100
"""Levels of lists and objects that readers take.

Twice and a half as deep, pydantic writes them no more; ten times, Python.
"""
MAX_DIGITS = 4_300
"""Of an integer: Python itself reads no more, and raises."""
_PER_VALUE = 80
"""Bytes, about: an entry of a dict is three of them, two short texts and their place."""
_SMALL = 64 << 10
"""Bytes of a text that fits, though each of them were a value: most texts are smaller, and need not be looked
through.
"""
_MARKS = (b'"', b",", b"[", b"{")
# No quote is looked at twice, whatever follows it: else a text of quotes would take for ever.
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)


class TooMuch(ValueError):
    """A text is over a limit; the message says which."""


def parse(data: bytes | bytearray | str, *, first: bool = False) -> Any:
    """The value of a JSON text, whatever its leaves and its depth: those who read it say of each part whether
    it will do.

    Of a name that an object has twice the last value counts. An integer over MAX_DIGITS is NaN, so that it
    costs no more than its own field; NaN, Infinity and line ends in texts are taken for what they say.
    `first`: whatever follows the value is left.

    Raises ValueError for what is no JSON, and TooMuch for what would take more memory than it may, or is
    deeper than Python's parser goes.
    """
    if not _fits(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data):
        raise TooMuch(
            f"parsing it takes more than {MAX_PARSED:,} bytes, or it has more than {MAX_VALUES:,} values"
        )
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return _DECODER.raw_decode(text)[0] if first else _DECODER.decode(text)
    except (RecursionError, MemoryError):
        raise TooMuch("it is nested too deep") from None


def shallow(value: Any) -> bool:
    """Whether lists and dicts stand in each other at most MAX_DEPTH deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        inner = (item for one in level for item in (one.values() if isinstance(one, dict) else one))
        level = [item for item in inner if isinstance(item, dict | list)]
    return not level


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.nan


_DECODER = json.JSONDecoder(strict=False, parse_int=_integer)
"""Made once: `json.loads` would make one for each text."""


def _fits(data: bytes | bytearray) -> bool:
    if len(data) <= _SMALL:
        return True
    plain = data.isascii()
    # Python gives each character of a text as many bytes as its widest one needs.
    text = len(data) * (1 if plain else 4)
    texts = len(data) * (1 if plain and b"\\u" not in data else 4)
    values = min(MAX_VALUES, (MAX_PARSED - text - texts) // _PER_VALUE)
    if values < 0 or sum(map(data.count, _MARKS)) <= values:
        return values >= 0
    # They may stand in texts: count again, which takes longer.
    return all(number <= values for number, _ in enumerate(_VALUE.finditer(data), 1))


def size_of(value: Any) -> int:
    """Bytes that a parsed value takes."""
    size, left = 0, [value]
    while left:
        part = left.pop()
        size += sys.getsizeof(part)
        if isinstance(part, dict):
            left.extend(part)
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return size
