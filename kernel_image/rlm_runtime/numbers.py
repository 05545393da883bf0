"""Numbers as people write them: which columns of text are numbers, and what they are.

A column is one of numbers if all of its values are, written in one way: `1,266.70`, `1.266,70`, `1 266`,
`12,34,567`, `$1,200.50`, `12.5 %`, `(1,200)`, `120-`. If a value can be read in two ways, or would lose
digits, the column stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-][0-9]+)?")
MISSING = frozenset(
    ("", r"\N", "NULL", "null", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "None", "<NA>", "-")
)
"""What stands where there is no value, in numbers, too."""
_SPACES = " \u00a0\u2009\u202f"
_CURRENCIES = (
    r"(?:US|CA|AU|NZ|HK|R)?\$|[€£¥₹₽₩₺₴₫₪฿]|USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|BRL|"
    r"MXN|ZAR|KRW|Rs\.?|kr\.?|zł|Kč"
)
_WRITTEN = re.compile(
    rf"(?P<open>\()?(?P<minus>[-\u2212])?(?P<front>{_CURRENCIES})?[{_SPACES}]?(?P<minus2>[-\u2212])?"
    rf"(?P<digits>(?=[0-9.])[0-9.,'\u2019{_SPACES}]*[0-9](?:[eE][+-][0-9]+)?)"
    rf"[{_SPACES}]?(?P<back>%|{_CURRENCIES})?(?P<minus3>[-\u2212])?(?P<close>\))?"
)
_POINT_MARKS = frozenset("$£₹¥₩") | {
    "US$",
    "CA$",
    "AU$",
    "NZ$",
    "HK$",
    "USD",
    "GBP",
    "INR",
    "AUD",
    "CAD",
    "JPY",
}
"""Of these currencies the comma is between thousands."""
_DIGITS = 17
"""Digits that a float can have."""
_SAFE = 16
"""Characters of a number with a point up to which a float loses no digit."""
_CODE = re.compile(r"[+-]?0[0-9]+")
"""Digits that are no number: a ZIP code, a key."""
_VERSION = re.compile(r"version|release|\bver\b", re.IGNORECASE)
"""Names of columns in which 1.10 is not 1.1."""
_STEPS = (-3, -2, -1, 1, 2, 3)
"""Between versions that are used together."""
_LIKE_VERSION = re.compile(r"([0-9]{1,2})(?:\.([0-9]{1,3}))?")
_KEPT = 10_000
"""Numbers of a column that are made once for all rows."""
_LOOKED_AT = 200
_MOSTLY = 0.5
"""The share of numbers in a column of text from which on it is said that it is text."""


_GROUP = 3
"""Digits between the signs for thousands."""


class Style(NamedTuple):
    """What is between thousands, and before decimals."""

    thousands: str
    decimal: str

    def pattern(self) -> re.Pattern[str]:
        """What numbers in this style look like, without signs and marks."""
        point = re.escape(self.decimal)
        between = {" ": f"[{_SPACES}]", "'": "['\u2019]"}.get(self.thousands, re.escape(self.thousands))
        whole = "0|[1-9][0-9]*"
        if self.thousands:
            whole += rf"|[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+"
        if self.thousands == ",":  # lakhs and crores
            whole += "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
        exponent = "(?:[eE][+-][0-9]+)?" if self == _PLAIN else ""
        return re.compile(rf"(?:(?:{whole})(?:{point}[0-9]+)?|{point}[0-9]+){exponent}")


_PLAIN = Style("", ".")
_STYLES = tuple(
    Style(between, point) for point in ".," for between in ("", ",", ".", " ", "'") if between != point
)
_PATTERNS = {style: style.pattern() for style in _STYLES}
_REMOVED = str.maketrans("", "", f"'\u2019{_SPACES}")


class Kind(NamedTuple):
    """How the numbers of a column are written: in which style, and with which mark (`%`, `$`)."""

    style: Style
    mark: str = ""

    def number(self, value: str) -> int | float | None:
        """The number that a value is; None if it is none of this kind."""
        digits = value.strip()
        if self is _SIMPLE:
            return _value(digits) if NUMBER.fullmatch(digits) else None
        found = _WRITTEN.fullmatch(digits)
        if found is None or not _signed(found) or not _PATTERNS[self.style].fullmatch(found["digits"]):
            return None
        if (found["front"] or found["back"] or "") != self.mark and found["digits"].strip("0.,"):
            return None
        plain = found["digits"].translate(_REMOVED)
        if self.style.thousands in (",", "."):
            plain = plain.replace(self.style.thousands, "")
        made = _value(plain.replace(",", "."))
        negative = found["open"] or found["minus"] or found["minus2"] or found["minus3"]
        return made if made is None or not negative else -made


_SIMPLE = Kind(_PLAIN)


def _signed(found: re.Match[str]) -> bool:
    """Whether it has at most one sign and one mark."""
    signs = [found["minus"], found["minus2"], found["minus3"], found["open"]]
    return (
        sum(map(bool, signs)) <= 1
        and bool(found["open"]) == bool(found["close"])
        and not (found["front"] and found["back"])
    )


def _value(digits: str) -> int | float | None:
    """None where a float would lose digits."""
    if digits.removeprefix("-").isdecimal():
        return int(digits) if len(digits) < 1000 else None
    made = float(digits)
    if len(digits) <= _SAFE and "e" not in digits and "E" not in digits:
        return made
    written = Decimal(digits)
    count = len(written.as_tuple().digits)
    if count > _DIGITS or not math.isfinite(made):
        return None
    return made if Decimal(f"{made:.{count - 1}e}") == written else None


class Column(NamedTuple):
    """What a column is. `kind` is None for text; `remark` is what is to be told of it, "" for nothing.

    `note`: `records` says the remark, too: some values are not like most of them, so that it is text; or its
    numbers can be read in two ways.
    """

    kind: Kind | None
    remark: str = ""
    note: bool = False


def columns(
    names: Iterable[str], values: Callable[[str], Sequence[str]], delimiter: str, *, plain: bool = False
) -> dict[str, Column]:
    """What the columns are, but for those that are plainly text. `values` gives those of a column.

    `plain`: numbers have no separators and marks. A comma that could be either sign is told by other columns:
    where these have decimals.
    """
    found: dict[str, Column] = {}
    doubtful: dict[str, _Looks] = {}
    points: set[str] = set()
    for name in names:
        looks = _Looks.of(values(name), plain=plain)
        if looks is None or (_VERSION.search(name) and any("." in value for value in looks.distinct)):
            continue
        if _PLAIN in looks.styles and (pair := _versions(looks.distinct)):
            told = f"{name}: all of it is text, as {pair[0]!r} and {pair[1]!r} may be versions"
            found[name] = Column(None, told, note=True)
            continue
        if looks.in_doubt():
            doubtful[name] = looks
            continue
        found[name] = looks.column(looks.styles[0] if looks.styles else None, name)
        points |= looks.decimals()
    for name, looks in doubtful.items():
        found[name] = looks.column(looks.decided(points, delimiter), name)
    return {name: column for name, column in found.items() if column.kind or column.remark}


class _Looks(NamedTuple):
    """What a column's values look like: the styles in which all can be read, the likeliest first. `gone` are
    those that say that there is no value.
    """

    values: Sequence[str]
    distinct: set[str]
    gone: set[str]
    numbers: list[re.Match[str]]
    others: set[str]
    styles: list[Style]
    mark: str

    @classmethod
    def of(cls, values: Sequence[str], *, plain: bool) -> _Looks | None:
        """None for a column that is plainly text."""
        some = [value.strip() for value in values[:: max(1, len(values) // _LOOKED_AT)]]
        some = [value for value in some if value not in MISSING]
        if sum(_WRITTEN.fullmatch(value) is not None for value in some) < _MOSTLY * len(some):
            return None
        distinct = set(values)
        gone = {value for value in distinct if value.strip() in MISSING}
        distinct -= gone
        if not distinct:
            return None
        if all(map(NUMBER.fullmatch, distinct)) and (
            max(map(len, distinct)) <= _SAFE or all(_value(value) is not None for value in distinct)
        ):
            return cls(values, distinct, gone, [], set(), _plain_styles(distinct, plain), "")
        distinct = {value.strip() for value in distinct}
        numbers: list[re.Match[str]] = []
        others: set[str] = set()
        for value in distinct:
            found = _WRITTEN.fullmatch(value)
            if found and _signed(found) and not (plain and not NUMBER.fullmatch(value)):
                numbers.append(found)
            else:
                others.add(value)
        return cls(values, distinct, gone, numbers, others, *_styles(numbers, others, plain=plain))

    def in_doubt(self) -> bool:
        """Whether they can be read in two ways that give other numbers."""
        return len({style.decimal for style in self.styles}) > 1

    def decimals(self) -> set[str]:
        """The sign before decimals, if there are some that can be nothing else."""
        if len({style.decimal for style in self.styles}) != 1:
            return set()
        point = self.styles[0].decimal
        return {point} if point in " ".join(self.distinct) else set()

    def decided(self, points: set[str], delimiter: str) -> Style | None:
        """The style, by the sign before decimals in other columns; None where that does not tell."""
        by_point = {style.decimal: style for style in reversed(self.styles)}
        if len(points) == 1 and (point := next(iter(points))) in by_point:
            return by_point[point]
        if _PLAIN in self.styles:
            return _PLAIN
        small = not any(value.isdecimal() and len(value) > 3 for value in self.distinct)
        return by_point["."] if small and (delimiter == "," or self.mark in _POINT_MARKS) else None

    def column(self, style: Style | None, name: str) -> Column:
        """What the column is in this style."""
        total = len(self.values)
        missing = sum(map(self.gone.__contains__, self.values)) if self.gone else 0
        if style is None:
            return Column(None, *self._told(name, total))
        kind = _SIMPLE if style == _PLAIN and not self.mark and not self.numbers else Kind(style, self.mark)
        told = []
        if kind is not _SIMPLE or self.in_doubt():
            example = max(sorted(self.distinct), key=lambda value: (not NUMBER.fullmatch(value), len(value)))
            if self.in_doubt() or not NUMBER.fullmatch(example):
                told.append(f"{example!r} is {kind.number(example)}")
        if missing:
            signs = sorted({value.strip() for value in self.gone})
            shown = " or ".join(repr(sign) for sign in signs)
            told.append(f"{missing:,} of {total:,} have no number but {shown}")
        return Column(kind, f"{name}: {', and '.join(told)}" if told else "", self.in_doubt())

    def _told(self, name: str, total: int) -> tuple[str, bool]:
        """Why it is text, and whether some values are not like most of them."""
        if self.styles:
            shown = min((value for value in self.distinct if not value.isdecimal()), key=len)
            return f"{name}: all of it is text, as {shown!r} can be read in two ways", True
        if codes := [value for value in self.distinct if _CODE.fullmatch(value)]:
            return f"{name}: all of it is text, as some begin with a zero, such as {min(codes)!r:.60}", False
        others = self.others or _minority(self.numbers)
        if not others:
            lost = min((found[0] for found in self.numbers if _loses(found)), default="")[:60]
            return (
                (f"{name}: all of it is text, as {lost!r} has more digits than a float", True)
                if lost
                else ("", False)
            )
        count = sum(value.strip() in others for value in self.values)
        if count > (1 - _MOSTLY) * total:
            return "", False
        shown = min(sorted(others), key=len)[:60]
        return f"{name}: {count:,} of {total:,} are text, such as {shown!r}, so all of it is text", True


def _versions(values: set[str]) -> tuple[str, str] | None:
    """Two of the values that show that they may be versions, or numbers of chapters, such as 3.9 and 3.10: no
    program writes numbers with a zero at the end beside others with fewer decimals. People do, as in 1.5 and
    1.50; but they count versions, so that others are near. None where nothing shows it.
    """
    shortest: dict[str, str] = {}
    zeros: list[tuple[str, str]] = []
    counted: set[tuple[str, int]] = set()
    for value in values:
        found = _LIKE_VERSION.fullmatch(value)
        if found is None:
            return None
        whole, decimals = found[1], found[2] or ""
        counted |= {(whole, int(decimals))} if decimals else set()
        if decimals and (whole not in shortest or len(value) < len(shortest[whole])):
            shortest[whole] = value
        if len(decimals) > 1 and decimals[-1] == "0" and decimals.strip("0"):
            zeros.append((whole, value))
    for whole, value in sorted(zeros):
        number = int(value.partition(".")[2])
        if not any((whole, number + step) in counted for step in _STEPS):
            continue
        if len(other := shortest[whole]) < len(value) and (whole != "0" or value.rstrip("0") in values):
            return other, value
    return None


def _loses(number: re.Match[str]) -> bool:
    """Whether a float would lose digits of what is a number as Python writes it."""
    return NUMBER.fullmatch(number[0]) is not None and _value(number[0]) is None


def _plain_styles(distinct: set[str], plain: bool) -> list[Style]:
    """The styles of numbers that are all written as Python writes them: a point may also be between
    thousands.
    """
    pattern = _PATTERNS[Style(".", ",")]
    dotted = not plain and "." in " ".join(distinct)
    both = dotted and all(pattern.fullmatch(value.removeprefix("-")) for value in distinct)
    return [_PLAIN, Style(".", ",")] if both else [_PLAIN]


def _styles(numbers: Sequence[re.Match[str]], others: set[str], *, plain: bool) -> tuple[list[Style], str]:
    """The styles in which all can be read, and their mark."""
    marks = {found["front"] or found["back"] or "" for found in numbers if found["digits"].strip("0.,")}
    if others or len(marks) > 1 or all(found["open"] for found in numbers):
        return [], ""
    mark = next(iter(marks), "")
    digits = {found["digits"] for found in numbers}
    found: dict[tuple[int | float, ...], Style] = {}
    for style in (_PLAIN,) if plain else _STYLES:
        if not all(map(_PATTERNS[style].fullmatch, digits)):
            continue
        made = [Kind(style, mark).number(written[0]) for written in numbers]
        read = [number for number in made if number is not None]
        if len(read) == len(made):
            found.setdefault(tuple(read), style)  # of styles with the same numbers the first
    styles = list(found.values())
    if styles and styles[0].thousands == " " and not mark and not _are_amounts(digits):
        return [], mark
    return styles, mark


def _are_amounts(digits: set[str]) -> bool:
    """Whether groups of three digits are amounts, and no telephone numbers: some have decimals, or are less
    than a thousand.
    """
    return any(len(value) <= _GROUP or "," in value or "." in value for value in digits)


def _minority(numbers: Sequence[re.Match[str]]) -> set[str]:
    """Of numbers that are not all written in one way, those that are not written as most are."""
    plain = {found[0] for found in numbers if NUMBER.fullmatch(found[0])}
    rest = {found[0] for found in numbers} - plain
    return rest if len(plain) >= len(rest) else plain


def convert(rows: Sequence[dict[str, Any]], found: Mapping[str, Column]) -> None:
    """Make numbers of the columns that are some. What is missing stays as it is."""
    put = dict.__setitem__  # a record's own takes more time
    for name, (kind, *_) in found.items():
        if kind is None:
            continue
        number = _simple if kind is _SIMPLE else kind.number
        made: dict[str, Any] = {}
        for row in rows:
            value = row.get(name)
            if not value:
                continue
            if (found_number := made.get(value)) is None:
                found_number = number(value)
                found_number = value if found_number is None else found_number
                if len(made) < _KEPT:
                    made[value] = found_number
            put(row, name, found_number)


def _simple(value: str) -> int | float | None:
    """The number of a column in which all are written as Python writes them."""
    if value in MISSING or value.strip() in MISSING:
        return None
    return float(value) if "." in value or "e" in value or "E" in value else int(value)
