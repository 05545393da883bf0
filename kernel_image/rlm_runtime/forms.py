"""The form of a text that is one record after the other: a table, JSON lines, sections of settings, log lines that are alike.

`form` tells it, judged by a sample of the text; `records` reads it. What is a number wherever it is in the sample, is one. Of a text
that is none of these, the records are its lines.
"""

from __future__ import annotations

import configparser
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, NamedTuple

from rlm_runtime import loglines, memory
from rlm_runtime.lazytext import LazyText

Record = dict[str, Any]
_HEAD = 20_000
"""Characters that are looked at, of the beginning, and of other places where lines are compared."""
_PLACES = 8
_LINES = 20
_NAMES = 30
_NAME = 40
_VALUE = 60
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_OTHER = 0.1
"""Of the lines: if more than this share have another form, the form is not the text's."""


class _Form(NamedTuple):
    """`told` in words; `read` makes the records, one by one, of a text's lines with their ends; `sample` are the first of them."""

    told: str
    read: Callable[[Iterable[str]], Iterator[Record]]
    sample: Sequence[Record]


def form(text: Any) -> str:
    """What the text is, with code for its rows and the first of them; "" for what is just text."""
    found = _form(text)
    if found is None:
        return "JSON; data = json.loads(context)" if _is_json(str(text[:_HEAD])) else ""
    how = "rows = records(); rows[0]" if _fits(text) else "for row in records(): ...; the first"
    return f"{found.told}; {how} is {_shown(found.sample[0])}"


def records(text: str | LazyText) -> list[Record] | Iterator[Record]:
    """The text's records; an iterator where they would take too much memory. Raises ValueError where too few lines have its form."""
    found = _form(text)
    lines = (f"{line}\n" for line in text.split("\n")) if isinstance(text, LazyText) else StringIO(text, newline="")
    rows = found.read(lines) if found else ({"line": number, "text": line.rstrip("\r\n")} for number, line in enumerate(lines, 1))
    return list(rows) if _fits(text) else rows


def _fits(text: Any) -> bool:
    """Records take some twenty times the memory of their text."""
    return isinstance(text, str) and len(text) <= memory.one_text() // 4


def _form(text: Any) -> _Form | None:
    head = str(text[:_HEAD])
    lines = head.split("\n")
    if len(text) > len(head):
        lines.pop()  # cut off
    full = [line for line in lines if line.strip()]
    return _json_lines(full[:_LINES]) or _table(full[:_LINES]) or (_sections(full) if isinstance(text, str) else None) or _alike(text)


def _json_lines(lines: list[str]) -> _Form | None:
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    if len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return None
    return _Form(f"JSON lines with {_listed(list(rows[0]))}", lambda lines: _each(lines, _json_object), rows)


def _json_object(_number: int, line: str) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _table(lines: list[str]) -> _Form | None:
    for delimiter, worded in _DELIMITERS.items():
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        names = rows[0] if rows else []
        if len(rows) < 3 or len(names) < 3 or any(len(row) != len(names) for row in rows):
            continue
        if len(set(names)) == len(names) and all(name.strip() and len(name) <= _NAME and not _NUMBER.fullmatch(name) for name in names):
            return _table_of(names, rows[1:], delimiter, worded)
    return None


def _table_of(names: list[str], rows: list[list[str]], delimiter: str, worded: str) -> _Form:
    sample = [dict(zip(names, row, strict=True)) for row in rows]
    numeric = _numeric(sample)

    def read(lines: Iterable[str]) -> Iterator[Record]:
        # A row that is too long or too short is still a row.
        return _converted(csv.DictReader(lines, delimiter=delimiter, restkey="more", restval=""), numeric)

    told = f"a table with the columns {_listed(names)}" + (f", between {worded}" if delimiter != "," else "")
    return _Form(told, read, list(_converted(sample, numeric)))


def _sections(lines: list[str]) -> _Form | None:
    try:
        sample = _read_sections("\n".join(lines))
    except configparser.Error:
        return None
    del sample[-1:]  # perhaps cut off
    if len(sample) < 3 or len(sample[0]) < 2 or any(list(section) != list(sample[0]) for section in sample):
        return None
    numeric = _numeric(sample)
    told = f'sections of settings with {_listed(list(sample[0])[1:])}; "section" is the name of each'
    return _Form(told, lambda lines: _converted(_read_sections("".join(lines)), numeric), list(_converted(sample, numeric)))


def _read_sections(text: str) -> list[Record]:
    # As they stand: no names in lower case, no %(name)s filled in, no section that gives its values to others.
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="", allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return [{"section": name, **parser[name]} for name in parser.sections()]


def _alike(text: Any) -> _Form | None:
    """Lines of one build, by a look at several places of the text; of a LazyText at its beginning, as finding others takes time."""
    step = max(1, len(text) // _PLACES) if isinstance(text, str) else _HEAD
    starts = range(0, len(text), step) if isinstance(text, str) else (0,)
    found = [line for start in starts for line in str(text[start : start + _HEAD]).split("\n")[1 if start else 0 : -1]]
    sample = [line.rstrip() for line in found if line.strip()]
    pattern = loglines.layout(sample)
    if pattern is None:
        return None
    sampled = [_parts(match) for match in map(pattern.fullmatch, sample) if match]
    numeric = _numeric(sampled)
    first = next(place for place, line in enumerate(found, 1) if line.strip())
    told = f"lines with {_listed(list(pattern.groupindex))}"
    shown = [{"line": first, **row} for row in sampled[:1]]

    def record(number: int, line: str) -> Record | None:
        match = pattern.fullmatch(line)
        return {"line": number, **_parts(match)} if match else None

    return _Form(told, lambda lines: _converted(_each(lines, record), numeric), list(_converted(shown, numeric)))


def _each(lines: Iterable[str], record: Callable[[int, str], Record | None]) -> Iterator[Record]:
    """What `record` makes of each line, by its number. Says which lines it leaves out. Raises ValueError if these are many."""
    count = others = 0
    first = ""
    for number, line in enumerate((line.rstrip() for line in lines), 1):
        count += bool(line)
        if (found := record(number, line)) is not None:
            yield found
        elif line:
            others, first = others + 1, first or line[:200]
    if others > _OTHER * count:
        raise ValueError(f"{others:,} of {count:,} lines have another form, such as {first!r}. Read them by code of your own.")
    if others:
        print(f"Note: records() left out {others:,} lines that have another form, such as {first!r}.")


def _parts(match: re.Match[str]) -> Record:
    """What was found, without quotes around it."""
    return {name: part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part for name, part in match.groupdict().items()}


def _numeric(sample: Sequence[Record]) -> list[str]:
    """Names of the values that are numbers wherever there is one in the sample."""
    found = {name: [row[name] for row in sample if row.get(name)] for name in sample[0]} if sample else {}
    return [name for name, values in found.items() if values and all(_NUMBER.fullmatch(value) for value in values)]


def _converted(rows: Iterable[Record], numeric: Sequence[str]) -> Iterator[Record]:
    for row in rows:
        for name in numeric:
            value = row.get(name)
            if isinstance(value, str) and _NUMBER.fullmatch(value):
                row[name] = float(value) if "." in value else int(value)
        yield row


def _is_json(head: str) -> bool:
    return head.lstrip()[:1] in ("{", "[") and head.lstrip()[1:].lstrip()[:1] in ('"', "{", "[")


def _listed(names: list[str]) -> str:
    shown = [json.dumps(name[:_NAME], ensure_ascii=False) for name in names[:_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _shown(row: Record) -> str:
    """A record, with as many of its values, and as much of each, as is good to see."""
    cut = {name[:_NAME]: value[:_VALUE] if isinstance(value, str) else value for name, value in list(row.items())[:_NAMES]}
    told = repr(cut)
    return told if len(told) <= _NAMES * _VALUE else f"{told[: _NAMES * _VALUE]}…"
