"""Where the numbers, names and quotations of an answer stand in files: code may have found them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlm_kernel.proof.normal import Normal
from rlm_kernel.proof.pieces import pieces, plain, words_of
from rlm_kernel.proof.plaintext import Part

MOST_WORDS = 24
"""Words of an answer that are looked for in all files."""
MOST_PLACES = 3
"""Places that are told; others are counted."""
MOST_COUNTED = 1_000
"""Places from which no more are counted (but in the part of the file that is at hand)."""
_LEAST, _LONGEST = 5, 80
"""Bytes of the normal form: fewer stand everywhere, and longer texts are passages."""


def words_in(answer: str) -> list[str]:
    """What of an answer can be looked for in files: the words that tell its pieces, and short pieces."""
    found: dict[bytes, str] = {}
    for _, piece in pieces(answer):
        for word in (plain(piece), *words_of(piece)):
            form = Normal(word.encode("utf-8", "replace")).text
            if _LEAST <= len(form) <= _LONGEST:
                found.setdefault(form, word)
        if len(found) >= MOST_WORDS:
            break
    return list(found.values())[:MOST_WORDS]


class Words:
    """Looks for words in parts of files, on their way to somebody else.

    `places`: of each word, as source, first and last byte and line; `counts`: how often it stands there.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._forms = {word: Normal(word.encode("utf-8", "replace")).text for word in words}
        self.places: dict[str, list[tuple[int, int, int, int]]] = {word: [] for word in self._forms}
        self.counts = dict.fromkeys(self._forms, 0)

    def through(self, source: int, parts: Iterable[Part]) -> Iterator[Part]:
        """The parts as they came; what stands in two of them counts once."""
        last = dict.fromkeys(self._forms, -1)
        for part in parts:
            for word, form in self._forms.items():
                for start, end in _places(part, form) if self.counts[word] < MOST_COUNTED else ():
                    first = part.byte(start)
                    if first <= last[word]:
                        continue
                    last[word] = first
                    self.counts[word] += 1
                    if len(self.places[word]) < MOST_PLACES:
                        self.places[word].append((source, first, part.byte(end), part.line_of(start)))
            yield part


def _places(part: Part, form: bytes) -> Iterator[tuple[int, int]]:
    """Where a word stands by itself, and not in a longer one."""
    normal, at, count = part.normal, -1, 0
    while count < MOST_COUNTED and (at := normal.text.find(form, at + 1)) >= 0:
        start, end = normal.place(at), normal.place(at + len(form) - 1) + 1
        if not _goes_on(part.raw[max(0, start - 2) : start][::-1]) and not _goes_on(part.raw[end : end + 2]):
            count += 1
            yield start, end


def _goes_on(beside: bytes) -> bool:
    """Whether a word or number goes on there; a comma or point between digits belongs to a number."""
    first, second = beside[:1], beside[1:]
    return first.isalnum() or first >= b"\x80" or (first in (b".", b",") and second.isdigit())
