"""Which parts of texts stand in which sources: looked up by anchors, then compared byte for byte both ways.

The texts (prompts) are in memory and indexed; sources (files) are read once, part by part.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlm_kernel.proof.anchors import KEY, Anchors
from rlm_kernel.proof.chains import LEAST, Match
from rlm_kernel.proof.normal import Normal, readable, without_numbers
from rlm_kernel.proof.plaintext import Part, words_beyond_ascii

MOST_PLACES = 32
"""Places of a source at which the same passage is looked at; of more it is told that there are more."""
_SAME_IN_TEXT = 3
"""Places of one text that the same key may have: what comes again more often is not looked up."""
_PAIRS = 4_096
"""Places of texts, times places of sources, that are compared for one key: of boilerplate only the first."""
_FINE, _FINE_UP_TO, _COARSE = 8, 32 << 20, 16
"""How far anchors are apart, and bytes of texts from which they are farther apart."""
_WORK, _WORK_LEAST = 128, 1 << 20
"""Bytes that are compared for each byte of a text, and at least: hostile texts match everywhere."""
_EACH = 32
"""Bytes to which a comparison amounts at least."""
_RAW_MORE = 8
"""Spaces and punctuation at the ends of a passage that are compared as well."""


@dataclass(frozen=True)
class _Entry:
    """A form of a text: as it is, or without the numbers of its lines.

    `first`: where it begins in the index.
    """

    text: int
    raw: bytes
    normal: Normal
    first: int


class Matcher:
    """Finds the parts of some texts in sources. Bounded by the texts' size, however large the sources are."""

    def __init__(self, texts: Sequence[str]) -> None:
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._anchors = Anchors(_FINE if sum(map(len, raw)) <= _FINE_UP_TO else _COARSE)
        self._texts = texts
        self._entries: list[_Entry] = []
        self._known: dict[bytes, int] = {}
        self._more: dict[bytes, array[int]] = {}
        self._seen: Counter[bytes] = Counter()
        first, forms = 0, []
        for number, one in enumerate(raw):
            plain = without_numbers(one)
            for form in (one,) if plain is None else (one, plain):
                entry = _Entry(number, one, Normal(form), first)
                forms.append(entry.normal.text)
                self._entries.append(entry)
                self._index(entry)
                first += len(entry.normal.text) + 1
        self._all = b"\0".join(forms)  # no normal form has a NUL: nothing is compared beyond its text
        self._firsts = [entry.first for entry in self._entries]
        self._left = [_WORK_LEAST + _WORK * len(entry.normal.text) for entry in self._entries]
        self.matches: list[list[Match]] = [[] for _ in texts]
        self.cut: set[int] = set()

    def _index(self, entry: _Entry) -> None:
        text = entry.normal.text
        places = self._anchors.of(text)
        keys = [text[at : at + KEY] for at in places]
        counts = Counter(keys)
        for at, key in zip(places, keys, strict=True):
            place = entry.first + at
            if counts[key] <= _SAME_IN_TEXT and self._known.setdefault(key, place) != place:
                self._more.setdefault(key, array("Q")).append(place)

    @cached_property
    def words(self) -> frozenset[str]:
        """Words beyond ASCII of all texts."""
        texts = {entry.text: entry.raw for entry in self._entries}
        return frozenset(word for raw in texts.values() for word in words_beyond_ascii(readable(raw)))

    def scan(self, source: int, parts: Iterable[Part]) -> None:
        """Look for the texts in a source; `matches` has what was found, by text."""
        known = self._known
        for part in parts:
            text = part.normal.text
            places = self._anchors.of(text)
            keys = [text[at : at + KEY] for at in places]
            if known.keys().isdisjoint(keys):
                continue
            found = _Part(source, part, part.normal)
            seen_before = len(Normal(part.raw[: part.old]).text) - KEY
            for at, key in zip(places, keys, strict=True):
                if key in known:
                    self._seen[key] += at > seen_before
                    self._hit(found, at, key)

    def forget(self) -> None:
        """Begin anew with other sources."""
        self._seen.clear()
        self.matches = [[] for _ in self._texts]

    def times(self, text: int, start: int, end: int) -> int:
        """At how many places a passage (bytes `start` to `end` of a text) stands at most, by its keys."""
        entry = self._entries[bisect_left(self._entries, text, key=lambda one: one.text)]
        form = Normal(entry.raw[start:end]).text
        counts = [self._seen[form[at : at + KEY]] for at in self._anchors.of(form)]
        return min((count for count in counts if count), default=0)

    def _hit(self, found: _Part, at: int, key: bytes) -> None:
        seen, others = self._seen[key], self._more.get(key, ())
        if seen > MOST_PLACES or (seen > 1 and seen * len(others) > _PAIRS):
            return
        for place in (self._known[key], *others):
            line = at - place
            if at < found.done.get(line, 0):
                continue
            number = bisect_right(self._firsts, place) - 1
            if self._left[number] <= 0:
                self.cut.add(self._entries[number].text)
                continue
            text = found.normal.text
            after = _same_after(self._all, place + KEY, text, at + KEY)
            before = _same_before(self._all, place, text, at)
            found.done[line] = at + KEY + after
            self._left[number] -= before + _EACH + after
            if before + KEY + after >= LEAST:
                self._take(found, self._entries[number], place - before, at - before, before + KEY + after)

    def _take(self, found: _Part, entry: _Entry, place: int, at: int, size: int) -> None:
        """Note a match of so many bytes of normal form, with the places that it has in both texts."""
        text = found.normal.text
        while size and text[at] & 0xC0 == 0x80:  # not from the middle of a character
            place, at, size = place + 1, at + 1, size - 1
        while size and at + size < len(text) and text[at + size] & 0xC0 == 0x80:
            size -= 1
        if not size:
            return
        part, raw, there = found.part, entry.raw, found.part.raw
        index, middle = place - entry.first, size // 2
        start, end = entry.normal.place(index), entry.normal.place(index + size - 1) + 1
        low, high = found.normal.place(at), found.normal.place(at + size - 1) + 1
        here, over = entry.normal.place(index + middle), found.normal.place(at + middle)
        before = _same_before(raw, here, there, over, here - start + _RAW_MORE)
        after = _same_after(raw[: end + _RAW_MORE], here, there, over)
        exact = here - before <= start + _RAW_MORE and here + after >= end - _RAW_MORE
        if exact:  # what is the same beyond in the normal form alone is so by chance
            start, end = _whole(raw, here - before, here + after)
            low, high = over + start - here, over + end - here
        where = part.byte(low), part.byte(high), part.line_of(low)
        self.matches[entry.text].append(Match(start, end, found.source, *where, size, exact))


class _Part:
    """A part of a source while it is looked at. `done`: up to where each diagonal has been compared."""

    def __init__(self, source: int, part: Part, normal: Normal) -> None:
        self.source, self.part, self.normal = source, part, normal
        self.done: dict[int, int] = {}


def _whole(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """The part without pieces of characters at its ends."""
    while start < end and raw[start] & 0xC0 == 0x80:
        start += 1
    while start < end < len(raw) and raw[end] & 0xC0 == 0x80:
        end -= 1
    return start, end


def _same_after(one: bytes, at: int, other: bytes, there: int) -> int:
    """How many bytes are the same from two places on."""
    most = min(len(one) - at, len(other) - there)
    same, step = 0, 64
    while same < most and step:
        step = min(step, most - same)
        if one[at + same : at + same + step] == other[there + same : there + same + step]:
            same += step
            step = min(2 * step, 1 << 16)
        else:
            step //= 2
    return same


def _same_before(one: bytes, at: int, other: bytes, there: int, most: int = 1 << 40) -> int:
    """How many bytes are the same before two places."""
    most = min(at, there, most)
    same, step = 0, 64
    while same < most and step:
        step = min(step, most - same)
        if one[at - same - step : at - same] == other[there - same - step : there - same]:
            same += step
            step = min(2 * step, 1 << 16)
        else:
            step //= 2
    return same
