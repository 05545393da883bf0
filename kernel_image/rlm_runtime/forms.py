"""The form of a text that is one record after the other: a table, JSON lines, sections of settings, log lines
that are alike.

`form` tells it, judged by a sample of the text; `records` reads it. What is a number wherever it is in the
sample, is one. Of a text that is none of these, the records are its lines.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rlm_runtime import loglines, memory, tables
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import with_ends, with_line_feeds, without_end
from rlm_runtime.tables import NUMBER, Record

_HEAD = 20_000
"""Characters that are looked at, of the beginning, and of other places where lines are compared."""
_HEADS = (_HEAD, 16 * _HEAD, 128 * _HEAD)
"""Characters of the beginning that are looked at where so few lines are in it that nothing can be told."""
_FEW = 8
_WHOLE = 8_000_000
"""Characters of a text up to which the whole is looked at, where that tells more; and of a line that is read
as a record.
"""
_PLACES = 8
_LINES = 20
_NAMES = 30
_NAME = 40
_VALUE = 60
_OTHER = 0.1
"""Of the lines: if more than this share have another form, the form is not the text's."""


class _Form(NamedTuple):
    """`told` in words; `read` makes the records, one by one, of a text's lines with their ends; `sample` are
    the first of them.
    """

    told: str
    read: Callable[[Iterable[str]], Iterator[Record]]
    sample: Sequence[Record]


def form(text: Any, name: str = "") -> str:
    """What the text is, with code for its rows and the first of them; "" for what is just text.

    `name`: its file's, if it has one.
    """
    text = with_line_feeds(text) if isinstance(text, str) else text
    found = _form(text, name)
    if found is None:
        return _json_document(text)
    how = "rows = records(); rows[0]" if _fits(text) else "for row in records(): ...; the first"
    return f"{found.told}; {how} is {_shown(found.sample[0])}" if found.sample else found.told


def records(text: str | LazyText, name: str = "") -> list[Record] | Iterator[Record]:
    """The text's records; an iterator where they would take too much memory.

    `name`: the text's file's, if it has one.

    Raises ValueError where too few lines have its form.
    """
    text = with_line_feeds(text) if isinstance(text, str) else text
    found = _form(text, name)
    rows = found.read(_bounded(_lines(text))) if found else _plain_lines(text)
    return list(rows) if _fits(text) else rows


def _lines(text: Any) -> Iterable[str]:
    """The lines with their ends."""
    return text.splitlines(keepends=True) if isinstance(text, LazyText) else with_ends(text)


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """The lines, as long as none is so long that what is made of it could take all memory.

    Raises ValueError.
    """
    for number, line in enumerate(lines, 1):
        if len(line) > _WHOLE:
            raise ValueError(
                f"line {number:,} has {len(line):,} characters, and records() reads none of more than "
                f"{_WHOLE:,}."
                " Take it in pieces: chunks(size), slices, or grep."
            )
        yield line


def _plain_lines(text: Any) -> Iterator[Record]:
    return ({"line": number, "text": without_end(line)} for number, line in enumerate(_lines(text), 1))


def _fits(text: Any) -> bool:
    """Records take some twenty times the memory of their text."""
    return isinstance(text, str) and len(text) <= memory.one_text() // 4


def _form(text: Any, name: str = "") -> _Form | None:
    for size in _HEADS:
        head = str(text[: size + 1])
        cut = len(head) > size  # not by len(text): that counts the characters of all of a large text
        lines = list(with_ends(head[:size]))
        if cut and lines:
            lines.pop()
        full = [without_end(line) for line in lines if line.strip()]
        found = (
            _json_lines(full[:_LINES], cut=cut)
            or _json_array(text)
            or _table(text, lines, cut, tables.is_named_table(name))
        )
        if found is None and isinstance(text, str):
            found = _sections(full)
        if found or not cut or len(full) > _FEW:
            break
    return found or _alike(text)


def _json_lines(lines: list[str], *, cut: bool) -> _Form | None:
    rows = [row for row in (_json_object(0, line) for line in lines) if row is not None]
    # A few may be others: the last one of a file that was being written, or what was said before a log began.
    if len(rows) < 2 or len(lines) - len(rows) > max(1, _OTHER * len(lines)) or not rows[0]:
        return None
    return _Form(f"JSON lines with {_listed(list(rows[0]))}", lambda lines: _each(lines, _json_object), rows)


def _json_array(text: Any) -> _Form | None:
    """A JSON document that is a list of objects; of a text that is too large to be taken apart nothing is
    told.
    """
    if not (isinstance(text, str) and len(text) <= _WHOLE and re.match(r"\s*\[\s*\{", text)):
        return None
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(row, dict) for row in rows) or not rows[0]:
        return None
    return _Form(
        f"a JSON list of objects with {_listed(list(rows[0]))}",
        lambda lines: iter(json.loads("".join(lines))),
        rows[:1],
    )


def _json_object(_number: int, line: str) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _table(text: Any, lines: list[str], cut: bool, by_name: bool) -> _Form | None:
    table = tables.find(lines, cut=cut, by_name=by_name)
    if table is None:
        return None
    sample = [dict(zip(table.names, row, strict=False)) for row in table.sample]
    signs = tables.numeric(table.names, sample, table.dialect.delimiter)
    if signs and isinstance(text, str) and len(text) <= _WHOLE:
        for name in tables.codes(signs, table.records(_lines(text), quiet=True)):
            del signs[name]

    def read(lines: Iterable[str]) -> Iterator[Record]:
        return _with_numbers(table.records(lines), signs)

    columns = f"the column{'s' if len(table.names) > 1 else ''} {_listed(table.names)}"
    return _Form(f"a table with {columns}{table.told()}", read, list(_with_numbers(iter(sample), signs)))


def _with_numbers(rows: Iterator[Record], signs: dict[str, str]) -> Iterator[Record]:
    for row in rows:
        for name, sign in signs.items():
            if value := row.get(name):
                row[name] = tables.number(value, sign)
        yield row


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
    return _Form(
        told,
        lambda lines: _converted(_read_sections("".join(lines)), numeric),
        list(_converted(sample, numeric)),
    )


def _read_sections(text: str) -> list[Record]:
    # As they stand: no names in lower case, no %(name)s filled in, no section that gives its values to
    # others.
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, default_section="", allow_no_value=True
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return [{"section": name, **parser[name]} for name in parser.sections()]


def _alike(text: Any) -> _Form | None:
    """Lines of one build, by a look at several places of the text; of a LazyText at its beginning, as finding
    others takes time.
    """
    step = max(1, len(text) // _PLACES) if isinstance(text, str) else _HEAD
    starts = range(0, len(text), step) if isinstance(text, str) else (0,)
    found = [
        line
        for start in starts
        for line in str(text[start : start + _HEAD]).split("\n")[1 if start else 0 : -1]
    ]
    sample = [line.rstrip() for line in found if line.strip()]
    pattern = loglines.layout(sample)
    if pattern is None:
        return None
    sampled = [_parts(match) for match in map(pattern.fullmatch, sample) if match]
    numeric = _numeric(sampled)
    first = next(place for place, line in enumerate(found, 1) if pattern.fullmatch(line.rstrip()))
    told = f"lines with {_listed(list(pattern.groupindex))}"
    shown = [{"line": first, **row} for row in sampled[:1]]

    def record(number: int, line: str) -> Record | None:
        match = pattern.fullmatch(line)
        return {"line": number, **_parts(match)} if match else None

    return _Form(
        told, lambda lines: _converted(_each(lines, record), numeric), list(_converted(shown, numeric))
    )


def _each(lines: Iterable[str], record: Callable[[int, str], Record | None]) -> Iterator[Record]:
    """What `record` makes of each line, by its number.

    Says which lines it leaves out. Raises ValueError if these are many.
    """
    count = others = 0
    first = ""
    for number, line in enumerate((line.rstrip() for line in lines), 1):
        count += bool(line)
        if (found := record(number, line)) is not None:
            yield found
        elif line:
            others, first = others + 1, first or line[:200]
    if others > max(1, _OTHER * count):
        raise ValueError(
            f"{others:,} of {count:,} lines have another form, such as {first!r}. Read them by code of your "
            "own."
        )
    if others:
        print(f"Note: records() left out {others:,} lines that have another form, such as {first!r}.")


def _parts(match: re.Match[str]) -> Record:
    """What was found, without quotes around it."""
    return {
        name: part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part
        for name, part in match.groupdict().items()
    }


def _numeric(sample: Sequence[Record]) -> list[str]:
    """Names of the values that are numbers wherever there is one in the sample."""
    found = {name: [row[name] for row in sample if row.get(name)] for name in sample[0]} if sample else {}
    return [
        name for name, values in found.items() if values and all(NUMBER.fullmatch(value) for value in values)
    ]


def _converted(rows: Iterable[Record], numeric: Sequence[str]) -> Iterator[Record]:
    for row in rows:
        for name in numeric:
            value = row.get(name)
            if isinstance(value, str) and NUMBER.fullmatch(value):
                row[name] = tables.number(value, ".")
        yield row


def _json_document(text: Any) -> str:
    """What is told of a text that is one JSON document, or seems to be one."""
    head = str(text[:_HEAD]).lstrip()
    if head[:1] not in ("{", "[") or head[1:].lstrip()[:1] not in ('"', "{", "["):
        return ""
    if isinstance(text, str) and len(text) <= _WHOLE:
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"like JSON, but json.loads(context) fails: {error}"
    return "JSON; data = json.loads(context)"


def _listed(names: list[str]) -> str:
    shown = [json.dumps(name[:_NAME], ensure_ascii=False) for name in names[:_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _shown(row: Record) -> str:
    """A record, with as many of its values, and as much of each, as is good to see."""
    cut = {
        name[:_NAME]: value[:_VALUE] if isinstance(value, str) else value
        for name, value in list(row.items())[:_NAMES]
    }
    told = repr(cut)
    return told if len(told) <= _NAMES * _VALUE else f"{told[: _NAMES * _VALUE]}…"
