"""Quotations as models write them: with plain quotes, dashes and spaces, single letters for ligatures, and
accents in one character, where the file has others.
"""

from __future__ import annotations

import re
import unicodedata

_QUOTES = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4",
    '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
}
"""Plain characters, and others that stand for them."""
_LIGATURES = {
    "ffi": "\ufb03", "ffl": "\ufb04", "ff": "\ufb00", "fi": "\ufb01", "fl": "\ufb02", "...": "\u2026",
}  # fmt: skip
"""The longest first."""
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Where words may be broken, and marks without a width."""
_PLAIN = str.maketrans(
    {other: plain for plain, others in _QUOTES.items() for other in others}
    | {one: plain for plain, one in _LIGATURES.items()}
    | dict.fromkeys(_INVISIBLE, "")
)
_UNIT = re.compile("|".join(map(re.escape, _LIGATURES)) + r"|.", re.DOTALL)
_SPACE = r"\s{1,200}"
_HIDDEN = f"[{_INVISIBLE}]{{0,3}}"


def pattern(passage: str) -> re.Pattern[str] | None:
    """What finds the passage however its characters are written; None of a passage without any."""
    words = unicodedata.normalize("NFC", passage.translate(_PLAIN)).split()
    if not words:
        return None
    return re.compile(_SPACE.join(_HIDDEN.join(map(_unit, _UNIT.findall(word))) for word in words))


def _unit(text: str) -> str:
    """A character, or several that may be one, in all ways in which it is written."""
    if text in _QUOTES:
        return f"[{re.escape(text)}{_QUOTES[text]}]"
    if text in _LIGATURES:
        return f"(?:{_LIGATURES[text]}|{_HIDDEN.join(map(_parts, _split(text)))})"
    apart = unicodedata.normalize("NFD", text)
    return re.escape(text) if apart == text else f"(?:{re.escape(text)}|{re.escape(apart)})"


def _split(text: str) -> list[str]:
    """The letters of a long ligature as a letter and a shorter one, which may be one as well."""
    return [text[0], text[1:]] if text[1:] in _LIGATURES else list(text)


def _parts(text: str) -> str:
    return (
        f"(?:{_LIGATURES[text]}|{_HIDDEN.join(map(re.escape, text))})"
        if text in _LIGATURES
        else re.escape(text)
    )
