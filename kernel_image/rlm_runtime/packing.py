"""Texts in pieces for prompts: small files together, each under its name, and large ones in parts.

A piece never has more characters than was asked for, the lines with names among them. Every character of
every text is in a piece, in order, and without an overlap in one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rlm_runtime.labels import on_a_line
from rlm_runtime.lazytext import LazyText

_PART = len(" (part 1000000 of 1000000)")
_LEAST = 8
"""Characters of a name that is cut."""


def pieces(texts: Mapping[str, str | LazyText], size: int, overlap: int) -> Iterator[str]:
    """One text is cut as it is; several are packed, each under a line `=== name ===`.

    `overlap`: how many of the last characters of a piece begin the next one of the same text.
    """
    if len(texts) == 1:
        return _cut(next(iter(texts.values())), size, overlap)
    return _packed(texts, size, overlap)


def _cut(text: str | LazyText, size: int, overlap: int) -> Iterator[str]:
    if isinstance(text, LazyText):
        yield from text.pieces(size, overlap)
        return
    for start in range(0, len(text), size - overlap):
        yield text[start : start + size]
        if start + size >= len(text):
            break


def _packed(texts: Mapping[str, str | LazyText], size: int, overlap: int) -> Iterator[str]:
    held: list[str] = []
    room = size
    for name, text in texts.items():
        for block in _blocks(name, text, size, overlap):
            if held and len(block) + 1 > room:
                yield "\n".join(held)
                held, room = [], size
            room -= len(block) + bool(held)
            held.append(block)
    if held:
        yield "\n".join(held)


def _blocks(name: str, text: str | LazyText, size: int, overlap: int) -> Iterator[str]:
    """A text under its name; in parts that name themselves where it has more than `size` characters."""
    head = _head(name, "", size // 2)
    room = size - len(head)
    whole = text[: room + 1]
    if isinstance(whole, str) and len(whole) <= room:
        if block := head + whole:
            yield block
        return
    most = (size - overlap) // 2
    reserved = _head(name, " " * _PART, most)
    room = size - len(reserved)
    known = not isinstance(text, LazyText) or text.source.counted
    of = f" of {-(-(len(text) - overlap) // (room - overlap))}" if known else ""
    for number, piece in enumerate(_cut(text, room, overlap), 1):
        yield (_head(name, f" (part {number}{of})", most) if reserved else "") + piece


def _head(name: str, part: str, most: int) -> str:
    """The line above a text, of at most so many characters: of a long name the end. "" where a name has no
    room.
    """
    shown, room = on_a_line(name), most - len(f"=== {part} ===\n")
    if room < min(_LEAST, len(shown)):
        return ""
    return f"=== {shown if len(shown) <= room else '…' + shown[1 - room :]}{part} ===\n"
