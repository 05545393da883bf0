"""Quotations as models write them: with plain quotes, dashes and spaces, single letters for ligatures,
accents in one character, and words that are not broken at the end of a line, where the file has others.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

_KINDS = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4\u2039\u203a",
    '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
    "\u03bc": "\u00b5",
    "\u03a9": "\u2126",
    "\u00c5": "\u212b",
}
"""Plain characters, and others that stand for them."""
_WIDE = {one: chr(ord(one) + 0xFEE0) for one in "!%(),/:;<=>?[]0123456789"}
"""The same in texts of Chinese and Japanese."""
_LIGATURES = {
    "ffi": "\ufb03", "ffl": "\ufb04", "ff": "\ufb00", "fi": "\ufb01", "fl": "\ufb02", "st": "\ufb06",
    "...": "\u2026", ">=": "\u2265", "<=": "\u2264",
}  # fmt: skip
"""The longest first."""
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"
"""Where words may be broken, and marks without a width."""
_PLAIN = str.maketrans(
    {other: plain for plain, others in _KINDS.items() for other in others}
    | {one: plain for plain, one in (_LIGATURES | _WIDE).items()}
    | dict.fromkeys(_INVISIBLE, "")
)
_UNIT = re.compile("|".join(map(re.escape, _LIGATURES)) + r"|-+|.", re.DOTALL)
_SPACE = rf"[{_INVISIBLE}]{{0,3}}\s{{1,200}}[{_INVISIBLE}]{{0,3}}"
_NEXT_LINE = r"\r?\n[ \t]{0,80}"
_HIDDEN = rf"(?:[{_INVISIBLE}]|[-\u2010]{_NEXT_LINE}){{0,3}}"
"""Within a word: also a hyphen at the end of a line."""
_WRAPPED = rf"(?:[{_INVISIBLE}]|{_NEXT_LINE}){{0,3}}"
"""The same between characters that are written without spaces."""
_UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_MARKS = 3


def pattern(passage: str) -> re.Pattern[str] | None:
    """What finds the passage however its characters are written; None of a passage without any."""
    words = unicodedata.normalize("NFC", passage.translate(_PLAIN)).split()
    if not words:
        return None
    return re.compile(_SPACE.join(map(_word, words)))


def _word(word: str) -> str:
    units = _UNIT.findall(word)
    found = _unit(units[0])
    for before, unit in itertools.pairwise(units):
        unspaced = _UNSPACED.match(before) or _UNSPACED.match(unit)
        found += (_WRAPPED if unspaced else _HIDDEN) + _unit(unit)
    return found


def _unit(text: str) -> str:
    """A character, or several that may be one, in all ways in which it is written."""
    if text[0] == "-":
        return f"(?:-{{1,3}}|[{_KINDS['-']}])(?:{_NEXT_LINE})?"
    if text in _LIGATURES:
        return f"(?:{_LIGATURES[text]}|{_HIDDEN.join(map(_parts, _split(text)))})"
    others = _KINDS.get(text, "") + _WIDE.get(text, "")
    ways = {*others, *_composed(text)}
    if len(ways) == 1:
        return re.escape(text)
    return f"(?:{'|'.join(map(re.escape, sorted(ways)))})"


def _composed(text: str) -> set[str]:
    """A letter with its marks apart, in any order, as far as they are."""
    apart = unicodedata.normalize("NFD", text)
    if apart == text or len(apart) > 1 + _MARKS:
        return {text, apart}
    return {
        unicodedata.normalize("NFC", apart[0] + "".join(marks[:number])) + "".join(marks[number:])
        for marks in itertools.permutations(apart[1:])
        for number in range(len(marks) + 1)
    } | {text}


def _split(text: str) -> list[str]:
    """The letters of a long ligature as a letter and a shorter one, which may be one as well."""
    return [text[0], text[1:]] if text[1:] in _LIGATURES else list(text)


def _parts(text: str) -> str:
    if text in _LIGATURES:
        return f"(?:{_LIGATURES[text]}|{_HIDDEN.join(map(re.escape, text))})"
    return _unit(text)
