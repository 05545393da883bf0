"""The form of an input's first row as far as code may count on it: how its dates are written, and in which
order a line of a log has what it has.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping

_DATE = re.compile(r"(?P<first>\d{1,4})(?P<by>[-/.])\d{1,2}(?P=by)(?P<last>\d{1,4})(?!\d)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_TIME = re.compile(r"\[?\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?\]?,?")
_BOTH = re.compile(r"\[?\d{2,4}[-/.]?(?:\d{2}|[A-Za-z]{3})[-/.]?\d{2,4}[T:_]\d{2}:?\d{2}\S*")
_LEVEL = re.compile(
    r"[\[(<]?(?:trace|debug|info|notice|warn|warning|error|err|crit|critical|fatal|alert|emerg)[\])>:]?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+:?")
"""A level in small letters is one where a line begins, or after its time: else a message speaks of it."""
_WORDS = 20
"""Words of a line that are looked at."""
_MARKED = re.compile(r"(?<![\w.,:/-])(?:\d{1,3}(?:,\d{3})+|\d+\.\d+)(?![\d.,:/-])")
_NAME = re.compile(r"[^\W\d_]+[\s=:]{1,3}$")
"""What a number is called, before it."""
_SHOWN = 40
_SLICE = re.compile(r"\[[1-9]\d*:(\d{1,4})\]")
_UNITS = {
    "ns", "us", "µs", "ms", "s", "sec", "secs", "seconds", "min", "minutes", "h", "hours",
    "b", "bytes", "kb", "mb", "gb", "tb", "kib", "mib", "gib",
}  # fmt: skip
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


def layout(line: str) -> dict[int, tuple[str, int]]:
    """Which words of a log's line are a date, a time or a level, and at which character each begins; the
    first of each: a message may have more.
    """
    found: dict[int, tuple[str, int]] = {}
    words = itertools.islice(re.finditer(r"\S+", _COLOUR.sub("", line)), _WORDS)
    for place, word in enumerate(words):
        kind = _kind(word.group())
        if kind == "a level" and _WORD.fullmatch(word.group()) and place and place - 1 not in found:
            continue
        if kind and kind not in [known for known, _ in found.values()]:
            found[place] = kind, word.start()
    return found


def _kind(word: str) -> str:
    if _DATE.fullmatch(word.strip("[],")):
        return "a date"
    if _TIME.fullmatch(word):
        return "a time"
    if _BOTH.fullmatch(word):
        return "date and time"
    return "a level" if _LEVEL.fullmatch(word) else ""


def other_line(then: str, now: str, code: str) -> str:
    """How the first line of a log is another one for code that takes parts of it; "" if it is not."""
    if not then or not now or not _LINE_BY_PLACE.search(code):
        return ""
    moves = _first_moved(then, now) < max(map(int, _SLICE.findall(code)), default=0)
    return _other_layout(layout(then), layout(now), sliced=moves) or _other_numbers(then, now, code)


def _first_moved(then: str, now: str) -> int:
    """At which character the first word ends that ends elsewhere in the other line."""
    ends = ([word.end() for word in re.finditer(r"\S+", _COLOUR.sub("", line))] for line in (then, now))
    return next((min(pair) for pair in zip(*ends, strict=False) if pair[0] != pair[1]), len(then))


def _other_layout(then: dict[int, tuple[str, int]], now: dict[int, tuple[str, int]], *, sliced: bool) -> str:
    for place in sorted(then.keys() | now.keys()):
        if place > max(then, default=-1):
            break
        (kind, start), (other, begin) = then.get(place, ("", 0)), now.get(place, ("", 0))
        if kind != other:
            known, told = (one or "no date, time or level" for one in (kind, other))
            return f"word {place + 1} of a line is {told}, and was {known}, and the code may count words"
        if start != begin and sliced:
            return (
                f"{kind} begins at character {begin} of a line, and did at {start}, and the code counts these"
            )
    return ""


def _other_numbers(then: str, now: str, code: str) -> str:
    """Separators in numbers that were whole, where code looks for digits alone."""
    if not re.search(r"\\d[+*{]", code) or re.search(r"\[[\\d0-9-]*[.,][\\d0-9.,-]*\]|\\\.", code):
        return ""
    known = {re.sub(r"\d+", "1", found) for found in _MARKED.findall(then)}
    for found in _MARKED.finditer(now):
        name = _NAME.search(now[max(0, found.start() - _SHOWN) : found.start()])
        was_whole = name and re.search(rf"{re.escape(name.group())}\d+(?![\d.,:/-]\d)", then)
        if was_whole and re.sub(r"\d+", "1", found.group()) not in known:
            return f"there is {found.group()} in a line, and the code may look for digits alone"
    return ""


def other_unit(gone: Collection[str], added: Collection[str], code: str) -> str:
    """Another unit, where numbers are called by it; code that uses `re` may take them without it."""
    units = [next((name for name in names if name.lower() in _UNITS), "") for names in (gone, added)]
    if all(units) and _LINE_BY_PLACE.search(code):
        return f"its numbers are {units[1]}, and were {units[0]}"
    return ""
