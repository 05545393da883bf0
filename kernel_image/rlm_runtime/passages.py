"""Where a passage stands in the loaded texts, and which bytes of which file that is.

What is found is checked by the file itself: a span in bytes is told only where these bytes are the passage.
Else it is told in characters of the text that a reader made, as of a PDF.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from rlm_contract import ENCODINGS

from rlm_runtime import files
from rlm_runtime.files import Loaded, Text
from rlm_runtime.hits import by_bytes
from rlm_runtime.lazytext import LazyText
from rlm_runtime.ondisk import OnDisk
from rlm_runtime.picturefile import Picture
from rlm_runtime.search import Finder
from rlm_runtime.source import Source

_STEP = 1 << 20
"""Characters between places of a text whose bytes are counted once."""
_WHOLE = 32 << 20
"""Bytes of a file that is looked through as a whole, where its text is not the plain decoding of its
bytes.
"""
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_counted: dict[str, tuple[int, str, list[int]]] = {}
"""Name of a text to its identity, the encoding, and the bytes before each `_STEP` characters of it."""


class Place(NamedTuple):
    """Where a passage stands: the text's name, and the character of it where it begins; of a large text
    (`by_byte`) the byte of the file. `passage` as it stands there.
    """

    name: str
    at: int
    passage: str
    by_byte: bool = False


class Span(NamedTuple):
    """A passage of a file, as it stands in it, from `start` to before `end`."""

    path: str
    start: int
    end: int
    quote: str
    unit: Literal["bytes", "characters"]
    encoding: str


def places(texts: Mapping[str, Text], passage: str) -> Iterator[Place]:
    """Each place where the texts have the passage exactly, one after the other."""
    for name, text in texts.items():
        if isinstance(text, Picture):
            continue
        if isinstance(text, str):
            yield from (Place(name, at, passage) for at in _in_text(text, passage))
        elif by_bytes(text) and (raw := text.source.raw(passage)):
            yield from (Place(name, at, passage, by_byte=True) for at in _in_bytes(text.source, raw))
        else:
            found = text.places(passage, None, None, overlapping=True)
            yield from (Place(name, at, passage) for at in found)


def _in_text(text: str, passage: str) -> Iterator[int]:
    at = text.find(passage)
    while at >= 0:
        yield at
        at = text.find(passage, at + 1)


def _in_bytes(source: Source, raw: bytes) -> Iterator[int]:
    find = Finder(source, len(raw))
    at = find(raw, source.start)
    while at >= 0:
        yield at
        at = find(raw, at + 1)


def lines(texts: Mapping[str, Text], found: Iterator[Place]) -> Iterator[tuple[Place, int]]:
    """The places with the numbers of the lines where they begin."""
    for name, same in itertools.groupby(found, lambda place: place.name):
        text, number, before = texts[name], 1, 0
        for place in same:
            before = before or (text.source.start if isinstance(text, LazyText) and place.by_byte else 0)
            number += _newlines(text, before, place)
            before = place.at
            yield place, number


def by_byte_of(text: Text) -> bool:
    """Whether places in the text are told by bytes."""
    return isinstance(text, LazyText) and by_bytes(text)


def _newlines(text: Text, low: int, place: Place) -> int:
    """Line ends from a place up to another."""
    if isinstance(text, str):
        return text.count("\n", low, place.at)
    if place.by_byte:
        return text.source.newlines(low, place.at)
    return sum(part.count("\n") for part in text.source.texts(low, place.at)) if place.at > low else 0


def span(text: Text, place: Place, origin: Loaded) -> Span:
    """Where the passage is in its file: by bytes if the file has it so, else by characters."""
    found = _on_disk(text.source, place) if isinstance(text, LazyText) else _in_file(text, place, origin)
    if found is not None:
        start, quote, encoding = found
        return Span(origin.path, start, start + len(quote.encode(encoding)), quote, "bytes", encoding)
    at = place.at
    if place.by_byte and isinstance(text, LazyText):
        at = text.source.characters(text.source.start, at)
    at += sum(len(files.files[part]) for part in _parts_before(place.name, origin))
    return Span(origin.path, at, at + len(place.passage), place.passage, "characters", "utf-8")


def _parts_before(name: str, origin: Loaded) -> list[str]:
    parts = files.parts_of(origin.path) if origin.part_of else []
    return parts[: parts.index(name)] if name in parts else []


def _on_disk(source: Source, place: Place) -> tuple[int, str, str] | None:
    """The byte of a text that stays on disk, the passage as the file has it, and the encoding."""
    if source.encoding not in ENCODINGS:
        return None
    start = place.at
    try:
        if not place.by_byte:
            number = source.block_of(place.at)
            before = source.text(number)[: place.at - source.before(number)]
            start = source.block(number)[0] + len(before.encode(source.encoding))
        return _checked(source.data, start, place.passage, source.encoding)
    except UnicodeError:
        return None


def _in_file(text: str, place: Place, origin: Loaded) -> tuple[int, str, str] | None:
    """The same of a text in memory: the bytes before it are counted, and compared with the file."""
    try:
        encoding = codecs.lookup(origin.encoding or "").name
        if encoding not in ENCODINGS:
            return None
        data = OnDisk(origin.inside)
        start = _mark_of(data, encoding) + _bytes_before(text, place, encoding)
        return _checked(data, start, place.passage, encoding) or _counted_in(text, place, data, encoding)
    except (LookupError, UnicodeError, OSError):
        return None


def _checked(data: OnDisk, start: int, passage: str, encoding: str) -> tuple[int, str, str] | None:
    """The passage if the file has it there, in its own line ends: text has line feeds where its only ones
    are carriage returns.
    """
    for quote in dict.fromkeys((passage, passage.replace("\n", "\r"))):
        raw = quote.encode(encoding)
        if data.part(start, start + len(raw)) == raw and raw.decode(encoding) == quote:
            return start, quote, encoding
    return None


def _mark_of(data: OnDisk, encoding: str) -> int:
    """Bytes of the byte-order marks at the beginning, which the text lacks."""
    mark = _MARK.encode(encoding) if encoding.startswith("utf") else b""
    start = 0
    while mark and data.part(start, start + len(mark)) == mark:
        start += len(mark)
    return start


def _bytes_before(text: str, place: Place, encoding: str) -> int:
    """Bytes of the characters before the passage; of a large text they are counted once."""
    if encoding == "utf-8" and text.isascii():
        return place.at
    known, of, counted = _counted.get(place.name, (0, "", [0]))
    if (known, of) != (id(text), encoding):
        counted = [0]
    while len(counted) <= place.at // _STEP:
        low = (len(counted) - 1) * _STEP
        counted.append(counted[-1] + len(text[low : low + _STEP].encode(encoding)))
    _counted[place.name] = id(text), encoding, counted
    low = place.at // _STEP * _STEP
    return counted[place.at // _STEP] + len(text[low : place.at].encode(encoding))


def _counted_in(text: str, place: Place, data: OnDisk, encoding: str) -> tuple[int, str, str] | None:
    """The passage in a file that holds more or other bytes than its text, such as marks in the middle, or
    the tags of a page: where text and file have it equally often, the same one of them.
    """
    if len(data) > _WHOLE:
        return None
    raw, whole = place.passage.encode(encoding), data.part(0, len(data))
    unit = 4 if "32" in encoding[:6] else 2 if encoding.startswith("utf-16") else 1
    there = [at for at in _all(whole, raw) if at % unit == 0]
    mine = list(_in_text(text, place.passage))
    if len(there) != len(mine) or place.at not in mine:
        return None
    return _checked(data, there[mine.index(place.at)], place.passage, encoding)


def _all(whole: bytes, raw: bytes) -> Iterator[int]:
    at = whole.find(raw)
    while at >= 0:
        yield at
        at = whole.find(raw, at + 1)
