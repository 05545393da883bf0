"""Lines that are built alike, such as a log's: a pattern with a named group for each part that varies from
line to line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_DATE = (
    r"\d{4}[-/.]\d\d[-/.]\d\d|\d\d[-/.](?:\d\d|[A-Z][a-z]{2})[-/.]\d{4}|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ "  # noqa: E501
    r"]{1,2}\d{1,2}"
)
_TIME = r"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
"""Nothing in it is tried twice: of each try the engine keeps a note, which of a long line would take more
memory than there is.
"""
_TOKEN = re.compile(
    rf"""(?P<date>{_DATE})(?!\d)
      |(?P<time>{_TIME})(?![\d:])
      |(?P<joint>T(?=\d\d:\d\d))
      |(?P<key>[^\W\d][\w.-]*=)
      |(?P<quoted>{_QUOTED})
      |(?P<number>-?\d+(?:\.\d+)?)(?![\w./@%+-])
      |(?P<word>\w[\w./@%+-]*)
      |(?P<space>[ \t]+)
      |(?P<mark>.)""",
    re.VERBOSE,
)
_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "quoted": _QUOTED,
    "number": r"-?\d+(?:\.\d+)?",
    "word": r"\w[\w./@%+-]*",
    "value": r'"[^"\\]*"|[^\s",;)\]}]*',
}
_VALUE = re.compile(_PATTERNS["value"])
_FIXED = ("mark", "key", "joint")
"""Kinds of parts that are the same text in all lines."""
_LEVELS = frozenset(
    {
        "TRACE",
        "DEBUG",
        "INFO",
        "NOTICE",
        "WARN",
        "WARNING",
        "ERROR",
        "CRITICAL",
        "FATAL",
        "ALERT",
        "EMERGENCY",
    }
)
_LEAST = 8
"""Lines, to tell what varies."""
_LONGEST = 2_000
"""Characters of a line that is still one of a log."""
_PARTS = 60
_BEGIN, _MOST = 3, 0.9
"""Parts that tell which lines are of one kind, and the share of lines that must be."""


class _Token(NamedTuple):
    kind: str
    text: str


def layout(lines: Sequence[str]) -> re.Pattern[str] | None:
    """The pattern that whole lines match, or None where they are not alike.

    Alike are lines that begin, nine of ten, with the same kinds of parts, a date, a time or a `key=value`
    among them. What varies is a group: `date`, `time`, `level`, the key of a `key=value`, the unit of a
    number, `tag` in brackets, else `word`, `number` or `quoted`. Where the lines begin to differ in kind, the
    rest is `text`.
    """
    if len(lines) < _LEAST or any(len(line) > _LONGEST for line in lines):
        return None
    rows = _most([_tokens(line) for line in lines])
    columns = list(zip(*(row[:_PARTS] for row in rows), strict=False))
    same = next((place for place, column in enumerate(columns) if not _alike(column)), len(columns))
    whole = same == len(columns) and len({len(row) for row in rows}) == 1
    used = columns[:same] if whole else columns[: _end_of_parts(columns, same)]
    names = _names(used)
    if len(names) < 2 or not any(column[0].kind in ("date", "time", "value") for column in used):
        return None
    parts = [_part(column, names.get(place)) for place, column in enumerate(used)]
    return re.compile("".join(parts) + ("" if whole else r"[ \t]*(?P<text>.*)"))


def _most(rows: list[list[_Token]]) -> list[list[_Token]]:
    """Those rows that begin with the same kinds of parts as nearly all do: what programs say as they start
    and fail is left out.
    """

    def begin(row: list[_Token]) -> tuple[str, ...]:
        return tuple(token.kind for token in row[:_BEGIN])

    usual, count = Counter(map(begin, rows)).most_common(1)[0]
    return [row for row in rows if begin(row) == usual] if count >= _MOST * len(rows) else rows


def _tokens(line: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while place < len(line) and (match := _TOKEN.match(line, place)):
        tokens.append(_Token(match.lastgroup or "", match[0]))
        place = match.end()
        if match.lastgroup == "key" and (value := _VALUE.match(line, place)):
            tokens.append(_Token("value", value[0]))
            place = value.end()
    return tokens


def _alike(column: Sequence[_Token]) -> bool:
    """Whether all lines have the same kind of part here."""
    kind = column[0].kind
    return all(token.kind == kind for token in column) and (kind not in _FIXED or not _varies(column))


def _varies(column: Sequence[_Token]) -> bool:
    return column[0].kind in ("date", "time", "value") or len({token.text for token in column}) > 1


def _end_of_parts(columns: Sequence[Sequence[_Token]], same: int) -> int:
    """Where free text begins: before the words that lead up to where the lines differ in kind."""
    end = same
    while end and (
        columns[end - 1][0].kind == "space"
        or (columns[end - 1][0].kind in ("word", "number") and _varies(columns[end - 1]))
    ):
        end -= 1
    return end


def _names(columns: Sequence[Sequence[_Token]]) -> dict[int, str]:
    """Places of what varies, and how each is called."""
    names: dict[int, str] = {}
    for place, column in enumerate(columns):
        kind = column[0].kind
        if kind == "space" or not _varies(column):
            continue
        wanted = re.sub(r"\W", "_", _name(columns, place))
        wanted = wanted if wanted.isidentifier() else kind
        taken = set(names.values()) | {"text", "line"}
        names[place] = next(
            name
            for number in range(1, len(columns) + 2)
            if (name := f"{wanted}{number if number > 1 else ''}") not in taken
        )
    return names


def _name(columns: Sequence[Sequence[_Token]], place: int) -> str:
    kind = columns[place][0].kind
    if kind == "value":
        return columns[place - 1][0].text.rstrip("=")
    if kind == "word" and {token.text.upper() for token in columns[place]} <= _LEVELS:
        return "level"
    if kind == "word" and place and columns[place - 1][0].text == "[":
        return "tag"
    if kind == "word" and columns[place + 1 : place + 2] and columns[place + 1][0].text == ":":
        return "name"
    if kind == "number":
        after = columns[place + 1 : place + 3]
        if (
            len(after) == 2
            and after[0][0].kind == "space"
            and after[1][0].kind == "word"
            and not _varies(after[1])
        ):
            return after[1][0].text
    return kind


def _part(column: Sequence[_Token], name: str | None) -> str:
    kind = column[0].kind
    if name is not None:
        return f"(?P<{name}>{_PATTERNS[kind]})"
    return r"[ \t]+" if kind == "space" else re.escape(column[0].text)
