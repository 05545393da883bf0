"""Which parts of texts stand in which sources: looked up by anchors, then compared byte for byte both ways.

The texts (prompts) are in memory and indexed; sources (files) are read once, part by part.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlm_kernel.proof.anchors import KEY, Anchors
from rlm_kernel.proof.chains import BEHIND, LEAST, Match
from rlm_kernel.proof.normal import Normal, readable, without_numbers
from rlm_kernel.proof.plaintext import Part, words_beyond_ascii

MOST_PLACES = 32
"""Places of a source at which the same passage is looked at; of more it is told that there are more."""
_SAME_IN_TEXT = 3
"""Places of one text that the same key may have: what comes again more often is not looked up."""
_PAIRS = 4_096
"""Places of texts, times places of sources, that are compared for one key: of boilerplate only the first."""
_FEW_OTHERS = 4
"""Further places of texts that the same key may have; more are told apart by what stands beside it."""
_BESIDE = tuple((before, LEAST - KEY - 2 - before) for before in range(0, LEAST - KEY, 3))
"""Bytes before and after the key: a passage that has the key has one of these pairs."""
_LONG, _SHORT = 256, 64
"""What is shorter, and inside of what is long, is neither a passage of its own nor another place of that."""
_BEYOND = (_SHORT - KEY) // 2
_PRUNED = 1_000
"""Matches of a text from which those that do not count are dropped on the way."""
BATCH = 16 << 20
"""Characters of texts that are looked for at once: for more, the sources are read again."""
_FINE, _FINE_UP_TO, _COARSE = 8, 16 << 20, 16
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


def batches(texts: Sequence[str]) -> Iterator[range]:
    """Numbers of texts that are looked for together; at least one batch, which may be empty."""
    first = size = 0
    for number, text in enumerate(texts):
        if number > first and size + len(text) > BATCH:
            yield range(first, number)
            first, size = number, 0
        size += len(text)
    yield range(first, len(texts))


class Matcher:
    """Finds the parts of some texts in sources. Bounded by the texts' size, however large the sources are."""

    def __init__(self, texts: Sequence[str]) -> None:
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._anchors = Anchors(_FINE if sum(map(len, raw)) <= _FINE_UP_TO else _COARSE)
        self._texts = texts
        self._entries: list[_Entry] = []
        self._known: dict[bytes, int] = {}
        self._more: dict[bytes, array[int]] = {}
        self._seen: dict[bytes, int] = {}  # up to one more than MOST_PLACES
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
        self._covered = bytearray(len(self._all))  # by a long match: 1
        self._tell_apart()
        self._firsts = [entry.first for entry in self._entries]
        self._left = [_WORK_LEAST + _WORK * len(entry.normal.text) for entry in self._entries]
        self.matches: list[list[Match]] = [[] for _ in texts]
        self._most = [_PRUNED] * len(texts)
        self.cut: set[int] = set()

    def _index(self, entry: _Entry) -> None:
        text = entry.normal.text
        places = self._anchors.of(text)
        keys = [text[at : at + KEY] for at in places]
        counts = Counter(keys)
        for at, key in zip(places, keys, strict=True):
            place = entry.first + at
            if counts[key] <= _SAME_IN_TEXT:
                self._note(key, place)

    def _note(self, key: bytes, place: int) -> None:
        if self._known.setdefault(key, place) != place:
            self._more.setdefault(key, array("Q")).append(place)

    def _tell_apart(self) -> None:
        """Index the places of common keys by the bytes beside them: by chance the key alone is the same."""
        for key, others in list(self._more.items()):
            if len(others) > _FEW_OTHERS:
                for place in (self._known[key], *others):
                    for longer in self._longer(self._all, place):
                        self._note(longer, place)

    @staticmethod
    def _longer(text: bytes, at: int) -> Iterator[bytes]:
        """The key at a place with what stands beside it, in the ways in which a passage may have it."""
        for before, after in _BESIDE:
            if at >= before:
                yield b"%d%b" % (before, text[at - before : at + KEY + after])

    def _places(self, text: bytes, at: int, key: bytes) -> Iterator[int]:
        """Places of texts that may be the same as this one of a source, and LEAST bytes long."""
        few = len(self._more.get(key, ())) <= _FEW_OTHERS
        for known in (key,) if few else self._longer(text, at):
            if (place := self._known.get(known)) is not None:
                yield place
                yield from self._more.get(known, ())

    @cached_property
    def words(self) -> frozenset[str]:
        """Words beyond ASCII of all texts."""
        texts = {entry.text: entry.raw for entry in self._entries}
        return frozenset(word for raw in texts.values() for word in words_beyond_ascii(readable(raw)))

    def scan(self, source: int, parts: Iterable[Part]) -> None:
        """Look for the texts in a source; `matches` has what was found, by text."""
        known, seen = self._known, self._seen
        for part in parts:
            text = part.normal.text
            places = self._anchors.of(text)
            keys = [text[at : at + KEY] for at in places]
            if known.keys().isdisjoint(keys):
                continue
            found = _Part(source, part, part.normal)
            seen_before = len(Normal(part.raw[: part.old]).text) - KEY
            for at, key in zip(places, keys, strict=True):
                if key in known and (count := seen.get(key, 0)) <= MOST_PLACES:
                    seen[key] = count + (at > seen_before)
                    self._hit(found, at, key)

    def forget(self) -> None:
        """Begin anew with other sources."""
        self._seen.clear()
        self.matches = [[] for _ in self._texts]
        self._most = [_PRUNED] * len(self._texts)
        self._covered = bytearray(len(self._all))

    def times(self, text: int, start: int, end: int) -> int:
        """At how many places a passage (bytes `start` to `end` of a text) stands at most, by its keys."""
        entry = self._entries[self._number(text)]
        form = Normal(entry.raw[start:end]).text
        counts = [self._seen.get(form[at : at + KEY], 0) for at in self._anchors.of(form)]
        return min((count for count in counts if count), default=0)

    def _hit(self, found: _Part, at: int, key: bytes) -> None:
        seen, others = self._seen[key], self._more.get(key, ())
        if seen > MOST_PLACES or (seen > 1 and seen * len(others) > _PAIRS):
            return
        text, done, covered = found.normal.text, found.done, self._covered
        for place in self._places(text, at, key):
            line = at - place
            if at < done.get(line, 0) or (covered[place] and self._is_short(place, text, at)):
                continue
            number = bisect_right(self._firsts, place) - 1
            if self._left[number] <= 0:
                self.cut.add(self._entries[number].text)
                continue
            after = _same_after(self._all, place + KEY, text, at + KEY)
            before = _same_before(self._all, place, text, at)
            done[line] = at + KEY + after
            self._left[number] -= before + _EACH + after
            size = before + KEY + after
            inside = covered[place - before] and covered[place + KEY + after - 1]
            if size >= (_SHORT if inside else LEAST):
                self._take(found, self._entries[number], place - before, at - before, size)

    def _is_short(self, place: int, text: bytes, at: int) -> bool:
        """Whether what is the same around a key is too short to count inside of a long match."""
        one, here, there = self._all, place + KEY, at + KEY
        return (
            one[here : here + _BEYOND] != text[there : there + _BEYOND]
            and one[max(0, place - _BEYOND) : place] != text[max(0, at - _BEYOND) : at]
        )

    def _cover(self, entry: _Entry, start: int, end: int) -> None:
        """Note that a long match has these bytes of a text, in each form of it."""
        for form in self._entries[self._number(entry.text) :]:
            if form.text != entry.text:
                break
            low, high = form.first + form.normal.index(start), form.first + form.normal.index(end)
            self._covered[low:high] = b"\1" * (high - low)

    def _number(self, text: int) -> int:
        """The number of a text's first form."""
        return bisect_left(self._entries, text, key=lambda one: one.text)

    def _prune(self, text: int) -> None:
        """Drop short matches of a text that are inside of long ones: they come by chance, before these."""
        long = bytearray(len(self._entries[self._number(text)].raw))
        for one in self.matches[text]:
            if one.size >= _LONG:
                long[one.start : one.end] = b"\1" * (one.end - one.start)
        self.matches[text] = [
            one
            for one in self.matches[text]
            if one.size >= _SHORT or not (long[one.start] and long[one.end - 1])
        ]
        self._most[text] = max(_PRUNED, 2 * len(self.matches[text]))

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
        after = _same_after(raw, here, there, over, end - here + _RAW_MORE)
        exact = here - before <= start + _RAW_MORE and here + after >= end - _RAW_MORE
        if exact:  # what is the same beyond in the normal form alone is so by chance
            start, end = _whole(raw, here - before, here + after)
            low, high = over + start - here, over + end - here
        where = part.byte(low), part.byte(high), part.line_of(low)
        known = self.matches[entry.text]
        behind = there[high : high + BEHIND]
        known.append(Match(start, end, found.source, *where, size, exact, behind, part.encoding))
        if size >= _LONG:
            self._cover(entry, start, end)
        if len(known) > self._most[entry.text]:
            self._prune(entry.text)


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


def _same_after(one: bytes, at: int, other: bytes, there: int, most: int = 1 << 40) -> int:
    """How many bytes are the same from two places on."""
    most = min(len(one) - at, len(other) - there, most)
    same, step = 0, 64
    while same < most and step:
        if step > most - same:
            step = most - same
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
        if step > most - same:
            step = most - same
        if one[at - same - step : at - same] == other[there - same - step : there - same]:
            same += step
            step = min(2 * step, 1 << 16)
        else:
            step //= 2
    return same
