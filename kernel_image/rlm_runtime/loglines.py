"""Lines that are built alike, such as a log's: a pattern with a named group for each part that varies from
line to line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DATE = (
    r"\d{4}[-/.]\d\d[-/.]\d\d|\d\d[-/.](?:\d\d|[A-Z][a-z]{2})[-/.]\d{4}|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ "  # noqa: E501
    r"]{1,2}\d{1,2}|\d\d/\d\d/\d\d(?!\d)|\d\d[-.]\d\d(?=[ T]\d\d:\d\d)"
)
_TIME = r"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
"""Nothing in it is tried twice: of each try the engine keeps a note, which of a long line would take more
memory than there is.
"""
_UNIT = (
    r"(?:[numµ]?s|secs?|mins?|hrs?|[hmd]|(?:[KMGTP]i?|k)?B(?:/s)?|[KMGT]|%|px|pt|[µmck]?m|[mk]?g|[mk]?V|[mk]?A|[mkM]?W|"
    r"[kMG]?Hz|[hk]?Pa|m?bar|psi|°?[CF]|rpm|[kMG]?bps|x)"
)
_SIGNS = {
    "date": re.compile(rf"(?<!\d)(?:{_DATE})(?!\d)"),
    "time": re.compile(rf"(?<![\d:])(?:{_TIME})(?![\d:])"),
}
_SIGN_WITHIN = 120
"""Characters of a line in which its sign is."""
_GROUPED = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
_AMOUNT = rf"(?:{_GROUPED}|-?\d+(?:\.\d+)?)"
_TOKEN = re.compile(
    rf"""(?P<date>{_DATE})(?!\d)
      |(?P<time>{_TIME})(?![\d:])
      |(?P<joint>T(?=\d\d:\d\d))
      |(?P<key>[^\W\d][\w.-]*=)
      |(?P<quoted>{_QUOTED})
      |(?P<measure>{_AMOUNT}{_UNIT})(?![\w./@%+-])
      |(?P<number>-?\d+(?:\.\d+)?)(?![\w./@%+-]|,\d)
      |(?P<figures>-?\d[\d.]*(?:,\d[\d.]*)+)(?![\w/@%+-])
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
    "measure": _AMOUNT,
    "figures": r"-?\d[\d.,]*",
    "word": r"\w[\w./@%+-]*",
    "value": rf'"[^"\\]*"|{_GROUPED}(?=[\s;)\]}}]|,\s|$)|[^\s",;)\]}}]*',
}
_VALUE = re.compile(_PATTERNS["value"])
_FIXED = ("mark", "key", "joint")
"""Kinds of parts that are the same text in all lines."""
_LEVELS = _words(
    """TRACE DEBUG FINE CONFIG INFO NOTICE WARN WARNING ERR ERROR SEVERE CRIT CRITICAL FATAL ALERT EMERG
    EMERGENCY PANIC"""
)
_LETTERS = frozenset("VDIWEFTN")
_UNITS = _words(
    """bytes byte bits percent degrees seconds second sec secs minutes minute hours hour days day weeks times
    milliseconds microseconds nanoseconds millis rows row lines line items item files file records record
    requests request messages message events event errors error warnings users packets tokens pages objects
    entries keys values tasks jobs threads connections retries attempts points tons tonnes kilograms grams
    meters metres km miles dollars euros atm ppm dbm db mmhg"""
)
"""Words that say what is counted, in lower case, besides those of _UNIT."""
_MEASURE = re.compile(rf"{_AMOUNT}{_UNIT}")
_IS_UNIT = re.compile(rf"{_UNIT}|[a-z]{{1,2}}[A-Z][a-z]?")
_JOINING = _words("""a an the in of for to on at by with after from and or is was are were than about""")
"""What stands before a number and is no name of it."""
_BEFORE = frozenset(":=#([/$€£¥₹~≈@+")
"""Marks between a number and the word that names it."""
_TAKING = _words("took takes take taken has had got")
"""What is one for lack of a better one."""
_NAMED_UNITS = {"%": "percent", "°C": "celsius", "°F": "fahrenheit"}
_IN_QUOTES = r'(?:[^"\\]++|\\.)*+'
_WELL_KNOWN = (
    # Web servers' access logs, common and combined.
    re.compile(
        r"(?P<ip>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<date>\d\d/[A-Z][a-z]{2}/\d{4}):"
        rf'(?P<time>\d\d:\d\d:\d\d)(?: (?P<zone>[+-]\d{{4}}))?\] "(?P<request>{_IN_QUOTES})" '
        rf'(?P<status>\d{{3}}) (?P<bytes>\d+|-)(?: "(?P<referer>{_IN_QUOTES})" "(?P<agent>{_IN_QUOTES})")?'
        r"(?:[ \t]+(?P<message>\S.*))?"
    ),
)
CONTINUED = re.compile(
    r"\s|Caused by:|Traceback \(most recent|Suppressed:|\.{3} \d+ (?:more|common)|[}\])]|"
    r"[\w.$]+(?:Error|Exception|Interrupt|Exit)\b"
)
"""How lines begin that belong to the entry before them."""
_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""What a program writes to a terminal to change colours, or to clear a line."""
_LEAST = 8
"""Lines, to tell what varies."""
_LONGEST = 2_000
"""Characters of a line that is still one of a log."""
_PARTS = 60
_BEGIN, _MOST = 3, 0.9
"""Parts that tell which lines are of one kind, and the share of lines that must be."""


_IN_TEXT = ("word", "number", "measure", "figures")
"""Kinds of parts that free text has."""
_SURE = ("date", "time", "value")
"""Kinds of parts that show what lines are."""


class _Token(NamedTuple):
    kind: str
    text: str


class Layout(NamedTuple):
    """How entries are built. `patterns` are tried one after the other: each has fewer parts than the one
    before it. `names` are those of all parts, `figures` of those that may be numbers. `sign` is in all
    entries, whatever else they have: a date, a time, or a key.
    """

    patterns: Sequence[re.Pattern[str]]
    names: Sequence[str]
    figures: Sequence[str]
    sign: re.Pattern[str]

    def parts(self, line: str) -> tuple[dict[str, str], bool] | None:
        """The parts of an entry's first line, without quotes around them, and whether they are all.

        None for a line that is none.
        """
        line = _plain(line)
        for number, pattern in enumerate(self.patterns):
            if match := pattern.fullmatch(line):
                parts = {
                    name: part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part
                    for name, part in match.groupdict().items()
                    if part is not None
                }
                return parts, not number
        if CONTINUED.match(line):
            return None
        begins = any(sign.match(line) for sign in _SIGNS.values())
        return ({}, False) if begins or self.sign.search(line, 0, _SIGN_WITHIN) else None


def layout(lines: Sequence[str]) -> Layout | None:
    """How lines are built, or None where they are not alike.

    Alike are lines that begin, nine of ten, with the same kinds of parts, a date, a time or a `key=value`
    among them. What varies is a part: `date`, `time`, `level`, the key of a `key=value`, the unit of a number
    or the word before it, `pid` and `tag` in brackets, else `word`, `number` or `quoted`. Where the lines
    begin to differ in kind, the rest is `message`.
    """
    lines = [line for line in map(_plain, lines) if not CONTINUED.match(line)]
    if len(lines) < _LEAST or any(len(line) > _LONGEST for line in lines):
        return None
    for known in _WELL_KNOWN:
        found = [match for match in map(known.fullmatch, lines) if match]
        if len(found) >= _MOST * len(lines):
            names = [name for name in known.groupindex if any(match[name] is not None for match in found)]
            return Layout((known,), names, ("status", "bytes"), _SIGNS["date"])
    rows = _most([_tokens(line) for line in lines])
    columns = [_merged(column) for column in zip(*(row[:_PARTS] for row in rows), strict=False)]
    same = next((place for place, column in enumerate(columns) if not _alike(column)), len(columns))
    whole = same == len(columns) and len({len(row) for row in rows}) == 1
    used = columns[:same] if whole else columns[: _end_of_parts(columns, same)]
    names_by_place = _names(used)
    if not any(column[0].kind in _SURE for column in used) or len(names_by_place) < 2:
        return None
    return _layout(used, names_by_place, whole=whole)


def _layout(used: Sequence[Sequence[_Token]], names: dict[int, str], *, whole: bool) -> Layout:
    """The patterns: of all parts, and then of fewer and fewer, down to the first date, time or key."""
    parts = [_part(column, names.get(place)) for place, column in enumerate(used)]
    surely = min(place for place, column in enumerate(used) if column[0].kind in _SURE)
    message = "message" if "message" not in names.values() else "message_"
    patterns = ["".join(parts) + (r"[ \t]*" if whole else rf"[ \t]*(?P<{message}>.*)")]
    cuts = [place for place in sorted(names, reverse=True) if surely <= place < len(used) - whole]
    patterns += ["".join(parts[: place + 1]) + rf"(?:(?=\W)[ \t]*(?P<{message}>.*))?" for place in cuts]
    named = [*names.values(), *([] if whole else [message])]
    figures = [name for place, name in names.items() if used[place][0].kind not in ("date", "time")]
    sign = _SIGNS.get(used[surely][0].kind) or re.compile(rf"\b{re.escape(used[surely - 1][0].text)}")
    return Layout([re.compile(pattern) for pattern in patterns], named, figures, sign)


def _plain(line: str) -> str:
    """The line without colours: they stand between its parts, and look like parts."""
    return _COLOURS.sub("", line).rstrip() if "\x1b" in line else line


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


def _merged(column: Sequence[_Token]) -> Sequence[_Token]:
    """A column whose parts are of kinds that are alike enough, as one of one kind."""
    kinds = {token.kind for token in column}
    if kinds == {"number", "figures"}:
        return [token._replace(kind="figures") for token in column]
    units = {_unit(token.text) for token in column if token.kind == "measure"}
    if kinds == {"measure", "word"} or (kinds == {"measure"} and len(units) > 1):
        return [token._replace(kind="word") for token in column]
    return column


def _unit(text: str) -> str:
    """What follows the digits of a measure."""
    return text.lstrip("-0123456789.,")


def _varies(column: Sequence[_Token]) -> bool:
    return column[0].kind in _SURE or len({token.text for token in column}) > 1 or _is_level(column)


def _is_level(column: Sequence[_Token]) -> bool:
    """Whether it is how bad what a line tells is; one that is the same in all lines of a sample, too, as
    others will be rare.
    """
    if column[0].kind != "word":
        return False
    words = {token.text for token in column}
    if len(words) > 1 and words <= _LETTERS:
        return True
    return {word.upper() for word in words} <= _LEVELS and (len(words) > 1 or words <= _LEVELS)


def _end_of_parts(columns: Sequence[Sequence[_Token]], same: int) -> int:
    """Where free text begins: before the words that lead up to where the lines differ in kind, and before
    those that are the same in all lines and lead up to these.
    """

    def leads(column: Sequence[_Token], *, varies: bool) -> bool:
        kind, text = column[0]
        if kind == "space" or text in ("[", "(", "<", "{", "'"):
            return True
        return kind in _IN_TEXT and _varies(column) == varies and not _is_level(column)

    end = same
    for varies in (True, False):
        while end and leads(columns[end - 1], varies=varies):
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
    if _is_level(columns[place]):
        return "level"
    if kind == "word" and place and columns[place - 1][0].text == "[":
        return "tag"
    if kind == "word" and columns[place + 1 : place + 2] and columns[place + 1][0].text == ":":
        return "name"
    if kind == "word" and place > 1 and all(_IS_UNIT.fullmatch(token.text) for token in columns[place]):
        return "unit" if columns[place - 2][0].kind in ("number", "figures") else kind
    if kind in ("number", "measure", "figures"):
        return _name_of_number(columns, place)
    if kind == "word" and all(_MEASURE.fullmatch(token.text) for token in columns[place]):
        return _word_before(columns, place) or kind
    return kind


def _name_of_number(columns: Sequence[Sequence[_Token]], place: int) -> str:
    """Its unit, else the word before it, else the word after it. If another number of the line has the same
    unit, the word before it and the unit.
    """
    if _is_pid(columns, place):
        return "pid"
    units = [_unit_at(columns, other) for other in range(len(columns))]
    before = _word_before(columns, place)
    if unit := units[place]:
        unit = _NAMED_UNITS.get(unit, unit)
        return f"{before}_{unit}" if units.count(units[place]) > 1 and before else unit
    if before:
        return before
    after = _word_after(columns, place)
    return after if after and after not in _JOINING | _TAKING else columns[place][0].kind


def _is_pid(columns: Sequence[Sequence[_Token]], place: int) -> bool:
    """Whether it is a process, as in `sshd[4711]:`."""
    around = [column[0].text for column in columns[max(0, place - 1) : place + 3]]
    return len(around) == 4 and around[0] == "[" and around[2:] == ["]", ":"]


def _unit_at(columns: Sequence[Sequence[_Token]], place: int) -> str:
    """The unit of a number; "" if there is none."""
    kind = columns[place][0].kind
    if kind == "measure":
        return _unit(columns[place][0].text) if _varies(columns[place]) else ""
    word = _word_after(columns, place) if kind in ("number", "figures") else ""
    return word if word.lower() in _UNITS or _IS_UNIT.fullmatch(word) else ""


def _word_after(columns: Sequence[Sequence[_Token]], place: int) -> str:
    """The word after it, if it is the same in all lines."""
    after = columns[place + 1 : place + 3]
    if len(after) == 2 and after[0][0].kind == "space" and after[1][0].kind == "word":
        return "" if _varies(after[1]) else after[1][0].text
    return ""


def _word_before(columns: Sequence[Sequence[_Token]], place: int) -> str:
    """The word before it that is the same in all lines: better a noun than one that only joins."""
    taking = ""
    for column in reversed(columns[:place]):
        kind, text = column[0]
        if kind == "space" or text in _BEFORE or text.lower() in _JOINING:
            continue
        if kind != "word" or _varies(column):
            break
        if text.lower() not in _TAKING:
            return text
        taking = taking or text
    return taking


def _part(column: Sequence[_Token], name: str | None) -> str:
    kind = column[0].kind
    if name is not None:
        unit = re.escape(_unit(column[0].text)) if kind == "measure" else ""
        return f"(?P<{name}>{_PATTERNS[kind]}){unit}"
    return r"[ \t]+" if kind == "space" else re.escape(column[0].text)
