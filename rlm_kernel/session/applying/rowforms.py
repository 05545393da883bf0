"""The form of an input's first row as far as code may count on it: how its dates are written, and in which
order a line of a log has what it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DATE = re.compile(r"(?P<first>\d{1,4})(?P<by>[-/.])\d{1,2}(?P=by)(?P<last>\d{1,4})(?!\d)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_TIME = re.compile(r"\[?\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?\]?,?")
_BOTH = re.compile(r"\[?\d{2,4}[-/.]?(?:\d{2}|[A-Za-z]{3})[-/.]?\d{2,4}[T:_]\d{2}:?\d{2}\S*")
_LEVEL = re.compile(
    r"[\[(<]?(?:trace|debug|info|notice|warn|warning|error|err|crit|critical|fatal|alert|emerg)[\])>:]?",
    re.IGNORECASE,
)
_LINE_BY_PLACE = re.compile(r"\.r?split\(|\.r?partition\(|\bre\.\w+\(|\[-?\d*:-?\d*\]")


def date_form(value: object) -> str:
    """How a text that begins with a date has it: `year-month-day`; "" if it does not."""
    found = _DATE.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        return ""
    by = found["by"]
    if len(found["first"]) == 4:
        return f"year{by}month{by}day"
    return f"day or month{by}…{by}year"


def other_date(name: str, then: Mapping[str, str], now: Mapping[str, str], code: str) -> str:
    """How the dates of a column are written otherwise, where code names it; "" if they are not."""
    if name not in then or name not in now or then[name] == now[name]:
        return ""
    if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", code):
        return ""
    return f"the dates in {name!r} are written {now[name] or 'otherwise'}, and were {then[name]}"


def layout(line: str) -> tuple[str, ...]:
    """What the words of a log's line are, up to the last that is a date, a time or a level."""
    kinds = [_kind(word) for word in _COLOUR.sub("", line).split()[:20]]
    telling = [place for place, kind in enumerate(kinds) if kind]
    return tuple(kinds[: telling[-1] + 1]) if telling else ()


def _kind(word: str) -> str:
    if _DATE.fullmatch(word.strip("[],")):
        return "a date"
    if _TIME.fullmatch(word):
        return "a time"
    if _BOTH.fullmatch(word):
        return "date and time"
    return "a level" if _LEVEL.fullmatch(word) else ""


def other_layout(then: str, now: str, code: str) -> str:
    """How the first line of a log has its words at other places, where code takes them by these."""
    before, after = layout(then), layout(now)
    if not before or not now or not _LINE_BY_PLACE.search(code):
        return ""
    for place, kind in enumerate(before):
        other = after[place] if place < len(after) else ""
        if kind != other:
            known, told = (one or "no date, time or level" for one in (kind, other))
            return f"word {place + 1} of a line is {told}, and was {known}, and the code may count words"
    return ""
