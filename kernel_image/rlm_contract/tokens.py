"""About how many tokens a text has, without the tokenizer of a model.

Each provider has a tokenizer of its own, and most can only be had over the network. The estimate takes a
fraction of a millisecond, whatever the length. `benchmarks/tokens.py` compares it with real ones: it is
within a quarter of their mean for English, code, logs, JSON, Chinese, Japanese, Korean, Russian, Hindi and
emoji. They differ among themselves by more: by a factor of two for numbers, of three for Hindi.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Final

SAMPLE: Final = 2048
"""Characters of a text that are looked at, in so many places:"""
_PLACES = 8
_TEXTS = 16
"""Texts of many that are looked at."""
MOST_CHARS: Final = 16
"""Of a token, at most: white space and what is said again and again have long ones."""
_ASCII = {
    r"[A-Za-z]+": 0.93,
    r"[A-Za-z](?<=[A-Za-z]{7})": 0.27,
    r"[A-Z](?<=[a-z].)": 0.9,
    r"[A-Z](?<=[A-Z]{2})": 0.8,
    r"[0-9]+": 0.93,
    r"[0-9]": 0.37,
    r"[!-/:-@\[-`{-~]": 0.6,
    r"\n\s*": 1.6,
}
"""Tokens of each match: words, and more for long ones, humps and capitals; numbers; marks; lines."""
_BEYOND = (
    (0x0080, 0.65),  # letters with accents, of the west of Europe
    (0x0100, 1.2),  # and of its east
    (0x0370, 0.72),  # Greek
    (0x0400, 0.43),  # Cyrillic
    (0x0530, 0.57),  # Armenian, Hebrew, Arabic
    (0x0900, 0.75),  # the scripts of India
    (0x0E00, 0.62),  # Thai, Lao
    (0x0F00, 1.5),
    (0x1100, 0.96),  # Korean letters
    (0x1200, 1.5),
    (0x1E00, 0.9),  # letters with accents
    (0x2000, 1.1),  # dashes, quotes, arrows, boxes
    (0x2C00, 1.5),
    (0x3000, 0.8),  # wide marks
    (0x3040, 0.74),  # kana
    (0x3100, 0.8),  # Chinese characters
    (0xA000, 1.5),
    (0xAC00, 0.96),  # Korean
    (0xD7B0, 1.5),
    (0xFE00, 1.1),  # what makes a sign an emoji
    (0xFE10, 1.5),
    (0xFF00, 0.8),  # wide letters
    (0x10000, 1.6),  # emoji, rare characters
)
"""Tokens of each character from this one on."""
_STARTS = [start for start, _ in _BEYOND]


def tokens(text: str) -> float:
    """About how many tokens the text has; more than 0 if it is not empty. Of a long text a sample counts."""
    if len(text) <= SAMPLE:
        return _of(text)
    size = SAMPLE // _PLACES
    step = (len(text) - size) / (_PLACES - 1)
    sample = "".join(text[round(n * step) : round(n * step) + size] for n in range(_PLACES))
    return _of(sample) * len(text) / len(sample)


def tokens_of_whole(text: str) -> float:
    """The same by a look at all of it, for a text of a stranger, who may know which places are looked at."""
    return sum(_of(text[start : start + SAMPLE]) for start in range(0, len(text), SAMPLE))


def tokens_of_all(texts: Sequence[str]) -> float:
    """About how many tokens the texts have together. Of many texts a sample counts."""
    if len(texts) <= _TEXTS:
        return sum(map(tokens, texts))
    sample = [texts[n * (len(texts) - 1) // (_TEXTS - 1)] for n in range(_TEXTS)]
    return sum(map(tokens, sample)) * sum(map(len, texts)) / max(1, sum(map(len, sample)))


def _of(text: str) -> float:
    found = sum(weight * len(pattern.findall(text)) for pattern, weight in _patterns())
    if not text.isascii():
        found += sum(_weight(char) * times for char, times in Counter(text).items() if char > "\x7f")
    return max(found, len(text) / MOST_CHARS)


@cache
def _patterns() -> Sequence[tuple[re.Pattern[str], float]]:
    """Made when they are needed first: a kernel that asks no model starts without them."""
    return [(re.compile(pattern), weight) for pattern, weight in _ASCII.items()]


def _weight(char: str) -> float:
    return _BEYOND[bisect_right(_STARTS, ord(char)) - 1][1]
