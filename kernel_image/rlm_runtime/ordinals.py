"""The numbers of lists, as documents write them: 4, iv, D."""

from __future__ import annotations

_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
    (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_MOST_ROMAN = 4_000
_LETTERS = 26


def roman(number: int) -> str:
    """In small letters; what has no such form stays in digits."""
    if not 0 < number < _MOST_ROMAN:
        return str(number)
    written = ""
    for value, letters in _ROMAN:
        count, number = divmod(number, value)
        written += letters * count
    return written


def letters(number: int, *, repeated: bool = False) -> str:
    """From a to z, then aa, ab; `repeated`: then aa, bb, as Word counts."""
    if not 0 < number < _MOST_ROMAN:
        return str(number)
    if repeated:
        times, place = divmod(number - 1, _LETTERS)
        return chr(ord("a") + place) * (times + 1)
    written = ""
    while number:
        number, place = divmod(number - 1, _LETTERS)
        written = chr(ord("a") + place) + written
    return written
