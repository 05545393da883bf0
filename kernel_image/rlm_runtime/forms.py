"""The form of a text that is one record after the other: a table, JSON lines, sections of settings, log lines
that are alike.

`form` tells it, judged by a sample of the text; `records` reads it. What is a number wherever it is in the
sample, is one. Of a text that is none of these, the records are its lines.
"""

from __future__ import annotations

import configparser
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlm_runtime import jsonlists, logentries, loglines, mailtext, memory, numbers, rows, tables
from rlm_runtime.lazytext import LazyText
from rlm_runtime.lines import with_ends, with_line_feeds, without_end
from rlm_runtime.numbers import Column
from rlm_runtime.tables import Record
from rlm_runtime.unpacking import Unreadable

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
_REMARKS = 600
_OTHER = 0.1
"""Of the lines: if more than this share have another form, the form is not the text's."""


class _Form(NamedTuple):
    """`told` in words; `read` makes the records, one by one, of a text's lines with their ends; `sample` are
    the first of them.

    `names`: the columns, if their values are text that may be numbers, which `columns` are by what was looked
    at. `delimiter` is a table's; `plain` numbers have no separators and marks.
    `remarks`: what else is to be told of the records.
    `of_text`: `read` takes the text itself.
    """

    told: str
    read: Callable[[Any], Iterator[Record]]
    sample: Sequence[Record]
    names: Sequence[str] = ()
    columns: Mapping[str, Column] = {}
    delimiter: str = ""
    plain: bool = False
    remarks: Sequence[str] = ()
    of_text: bool = False


def form(text: Any, name: str = "", *, several: bool = False) -> str:
    """What the text is, with code for its rows and the first of them; "" for what is just text.

    `name`: its file's, if it has one. `several`: it is one of several files, which code has by this name.
    """
    text = with_line_feeds(text) if isinstance(text, str) else text
    found = _form(text, name, whole=True)
    if found is None:
        return _json_document(text, f"files[{name!r}]" if several else "context")
    call = f"records({name!r})" if several else "records()"
    how = f"rows = {call}; rows[0]" if _fits(text) else f"for row in {call}: ...; the first"
    remarks = [*(column.remark for column in found.columns.values() if column.remark), *found.remarks]
    if not found.sample:
        return found.told
    told = _cut("".join(f"; {remark}" for remark in remarks), _REMARKS)
    return f"{found.told}{told}; {how} is {_shown(found.sample[0])}"


def records(text: str | LazyText, name: str = "") -> list[Record] | Iterator[Record]:
    """The text's records; an iterator where they would take too much memory.

    `name`: the text's file's, if it has one. Says in a note what is not as it seems.

    Raises ValueError where too few lines have its form.
    """
    text = with_line_feeds(text) if isinstance(text, str) else text
    found = _form(text, name) or _Form("", lambda _: _plain_lines(text), ())
    read = found.read(text if found.of_text else _bounded(_lines(text)))
    if not _fits(text):
        return _one_by_one(read, found)
    made = rows.made(read)
    columns = _columns(made, found.names, found.delimiter, plain=found.plain)
    numbers.convert(made, columns)
    for column in columns.values():
        if column.note:
            _say(column.remark)
    if found.told and not found.names:
        for mixed in rows.text_among_numbers(made):
            _say(mixed)
    return made  # type: ignore[return-value]


def _one_by_one(made: Iterator[Record], found: _Form) -> Iterator[Record]:
    """The records with numbers in the columns that are numbers by what was looked at.

    Says at the end which of these have text elsewhere.
    """
    kinds = {name: column.kind for name, column in found.columns.items() if column.kind}
    others: dict[str, tuple[int, str]] = {}
    kind = rows.kind(*found.names, *{name for row in found.sample for name in row})
    count = 0
    for row in made:
        count += 1
        for name, written in kinds.items():
            if not (value := row.get(name)):
                continue
            if (number := written.number(value)) is not None:
                row[name] = number
            elif value.strip() not in numbers.MISSING:
                others[name] = others.get(name, (0, value))[0] + 1, others.get(name, (0, value))[1]
        kind.known.update(row)
        yield kind(row)
    for name, (number, first) in others.items():
        _say(rows.mixed(name, number, count, first))


def _columns(
    made: Sequence[Record], names: Sequence[str], delimiter: str, *, plain: bool = False
) -> dict[str, Column]:
    """What the columns of these records are."""
    has = dict.__contains__  # a record's own takes more time
    return numbers.columns(
        names,
        lambda name: [row[name] for row in made if has(row, name)],
        delimiter,
        plain=plain,
    )


def _say(what: str) -> None:
    """A note, in the cell's output."""
    print(f"Note: {what}")


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


def _form(text: Any, name: str = "", *, whole: bool = False) -> _Form | None:
    """The form. `whole`: what its columns are is told by all of a text that is not too large."""
    for size in _HEADS:
        head = str(text[: size + 1])
        cut = len(head) > size  # not by len(text): that counts the characters of all of a large text
        lines = list(with_ends(head[:size]))
        if cut and lines:
            lines.pop()
        full = [without_end(line) for line in lines if line.strip()]
        found = (
            _json_lines(full[:_LINES], cut=cut)
            or _mail_or_json(text)
            or _table(text, lines, cut, name, whole=whole)
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


def _mail_or_json(text: Any) -> _Form | None:
    """Mail as it is shown here, and JSON that is not one object a line."""
    if mailtext.is_mailbox(str(text[:100])):
        sample = list(itertools.islice(mailtext.records(with_ends(str(text[:_WHOLE]))), 1))
        return _Form(f"mail with {_listed(list(sample[0]))}", mailtext.records, sample)
    found = jsonlists.find(text)
    if found is None:
        return None
    first = found.sample[0]
    names = f" with {_listed(list(first))}" if isinstance(first, dict) else ""
    shown = [first if names else {"item": 1, "value": first}]
    return _Form(f"{found.told}{names}", found.records, shown, of_text=True)


def _json_object(_number: int, line: str) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _table(text: Any, lines: list[str], cut: bool, name: str, *, whole: bool) -> _Form | None:
    table = tables.find(lines, name, cut=cut)
    if table is None:
        return None
    remarks: list[str] = []
    whole = whole and isinstance(text, str) and len(text) <= _WHOLE
    if whole:
        seen = list(table.records(_lines(text), say=remarks.append))
    else:
        remarks += [table.short()] if table.short() else []
        seen = [dict(zip(table.names, row, strict=False)) for row in table.sample]
        places = enumerate(_places(text))
        seen += [row for number, place in places for row in table.rows_of(place, first=not number)]
    delimiter = table.dialect.delimiter
    columns = _columns(seen, table.names, delimiter)
    sample = [dict(row) for row in seen[:1]]
    numbers.convert(sample, columns)
    named = f"the column{'s' if len(table.names) > 1 else ''} {_listed(table.names)}"
    told = f"a table with {named}{table.told()}"
    columns = columns if whole else _sampled(columns)
    return _Form(
        told,
        lambda lines: table.records(lines, say=_say),
        sample,
        table.names,
        columns,
        delimiter,
        remarks=remarks,
    )


def _sampled(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns of which not all was looked at: their remarks say so."""
    return {
        name: column._replace(remark=column.remark and f"{column.remark} (in a sample)")
        for name, column in columns.items()
    }


def _sections(lines: list[str]) -> _Form | None:
    try:
        sample = _read_sections("\n".join(lines))
    except configparser.Error:
        return None
    del sample[-1:]  # perhaps cut off
    if len(sample) < 3 or len(sample[0]) < 2 or any(list(section) != list(sample[0]) for section in sample):
        return None
    told = f'sections of settings with {_listed(list(sample[0])[1:])}; "section" is the name of each'
    names = list(sample[0])[1:]
    columns = _columns(sample, names, "", plain=True)
    numbers.convert(sample, columns)
    return _Form(told, lambda lines: iter(_read_sections("".join(lines))), sample, names, columns, plain=True)


def _read_sections(text: str) -> list[Record]:
    # As they stand: names keep their case, %(name)s is not filled in, no section gives values to others.
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, default_section="", allow_no_value=True
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except AttributeError as error:  # its own mistake, where lines go on below a key without a value
        raise configparser.Error("lines go on below a key without a value") from error
    found = [(name, parser[name].items()) for name in parser.sections()]
    return [{"section": name} | {key: value or "" for key, value in items} for name, items in found]


def _alike(text: Any) -> _Form | None:
    """Lines of one build, by a look at several places of the text."""
    places = list(_places(text))
    seen = [line.rstrip() for place in places for line in place if line.strip()]
    found = loglines.layout(seen)
    if found is None:
        return None
    remarks: list[str] = []
    try:
        entries = [entry for place in places for entry in logentries.entries(place, found, remarks.append)]
    except ValueError:
        return None
    whole = len(places) == 1
    columns = _columns(entries, found.figures, ",")
    numbers.convert(entries[:1], columns)
    return _Form(
        f'lines with {_listed(list(found.names))}, and "text", the whole line',
        lambda lines: logentries.entries(lines, found, _say),
        entries[:1],
        found.figures,
        columns if whole else _sampled(columns),
        delimiter=",",
        remarks=remarks if whole else (),
    )


def _places(text: Any) -> Iterator[list[str]]:
    """Whole lines of the beginning of a text, and of other places in it."""
    if isinstance(text, str) and len(text) <= _PLACES * _HEAD:
        yield list(with_ends(text))
        return
    if isinstance(text, str):
        step = max(1, len(text) // _PLACES)
        parts = (text[start : start + _HEAD] for start in range(0, len(text), step))
    elif text.whole:
        parts = _parts_of_source(text.source)
    else:
        parts = iter([str(text[:_HEAD])])
    for number, part in enumerate(parts):
        yield list(with_ends(part))[1 if number else 0 : None if part.endswith("\n") else -1]


def _parts_of_source(source: Any) -> Iterator[str]:
    step = max(_HEAD, (source.end - source.start) // _PLACES)
    for place in range(source.start, source.end, step):
        try:
            yield source.decode(source.cut(place), source.cut(place + _HEAD))
        except Unreadable:
            return


def _each(lines: Iterable[str], record: Callable[[int, str], Record | None]) -> Iterator[Record]:
    """What `record` makes of each line.

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
        _say(f"records() left out {others:,} lines that have another form, such as {first!r}.")


def _json_document(text: Any, source: str) -> str:
    """What is told of a text that is one JSON document, or seems to be one.

    `source`: the code that has it.
    """
    head = str(text[:_HEAD]).lstrip()
    if head[:1] not in ("{", "[") or head[1:].lstrip()[:1] not in ('"', "{", "["):
        return ""
    if isinstance(text, str) and len(text) <= _WHOLE:
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"like JSON, but json.loads({source}) fails: {error}"
    return f"JSON; data = json.loads({source})"


def _listed(names: list[str]) -> str:
    shown = [json.dumps(name[:_NAME], ensure_ascii=False) for name in names[:_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _shown(row: Record) -> str:
    """A record, with as many of its values, and as much of each, as is good to see."""
    cut = {
        name[:_NAME]: _cut(value, _VALUE) if isinstance(value, str) else value
        for name, value in list(row.items())[:_NAMES]
    }
    return _cut(repr(cut), _NAMES * _VALUE)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}…"
