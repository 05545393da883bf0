"""Tables as text (CSV and its kin), as they come: any delimiter, line breaks in fields, titles before the
names, stray quotes, uneven rows.

One reader for all: what `form` tells is what `records` gives. A quote that is never closed costs its own row
and not those after it.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from rlm_runtime.numbers import NUMBER

Record = dict[str, Any]
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_NAMED = DELIMITERS | {" ": "spaces"}
_ENDINGS = frozenset((".csv", ".tsv", ".tab", ".psv"))
_SHEETS = re.compile(r"\.(?:xl[st][xmb]?|ods|ots)(?:/|$)", re.IGNORECASE)
"""A table of a workbook."""
_COLUMNS_KNOWN = re.compile(r"\.(?:sqlite3?|db3?|gpkg|parquet|parq|pq)(?:/|$)", re.IGNORECASE)
"""A table of a file that knows the names of its columns."""
_PACKED = frozenset((".gz", ".bz2", ".xz", ".zst", ".lzma"))
_YEAR = re.compile(r"(?:19|20)\d\d")
_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?\s*', re.IGNORECASE)
_DOUBLED = re.compile(r'[^,;|\t"\n\\]""|""[^,;|\t"\r\n]')
"""A quote in a field that is written as two."""
_FIELDS = "#Fields:"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_RETURN = "\ue00d"
"""Stands for a carriage return while a line is taken apart."""
_TOTAL = re.compile(r"(?:grand |sub)?total|sum|summe|gesamt(?:summe)?|total général|totale", re.IGNORECASE)
"""How a row begins that is the sum of the others."""
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_BEGINNING, _SHAPE = 100, 10
_NAME = 40
_LONG_NAME = 200
_ROWS = 20
_LONGEST = 16 << 20
_MOST_LINES = 100_000
LIMIT = (1 << 31) - 1
"""Characters that a field may have: as many as a text."""


def allow_long_fields() -> None:
    """Have csv read fields of any length, in code of one's own, too: its own limit is 131,072 characters."""
    csv.field_size_limit(LIMIT)


def is_named_table(name: str) -> bool:
    """Whether a file's name says that it is a table."""
    if _SHEETS.search(name) or knows_its_columns(name):
        return True
    endings = [ending.lower() for ending in PurePath(name).suffixes[-2:]]
    return bool(endings) and (endings[-1] in _ENDINGS or (endings[-1] in _PACKED and endings[0] in _ENDINGS))


def knows_its_columns(name: str) -> bool:
    """Whether a file's name says that it is a table whose first row has the names, whatever they are."""
    return bool(_COLUMNS_KNOWN.search(name))


class Dialect(NamedTuple):
    """How fields are told apart.

    `escaped`: quotes in fields by a backslash; `spaced`: spaces after delimiters are no part of a field.
    """

    delimiter: str
    escaped: bool = False
    spaced: bool = False

    def reader(self, lines: Iterable[str], *, strict: bool) -> Iterator[list[str]]:
        return csv.reader(
            map(self._kept_backslashes, lines) if self.escaped else lines,
            delimiter=self.delimiter,
            doublequote=not self.escaped,
            escapechar="\\" if self.escaped else None,
            skipinitialspace=self.spaced,
            strict=strict,
        )

    def _kept_backslashes(self, line: str) -> str:
        """A line in which a backslash stays that escapes nothing: databases write `\\N` where there is no
        value.
        """
        escapes = f'"\\\r\n{self.delimiter}'
        return _ESCAPE.sub(lambda found: found[0] if found[1] in escapes else f"\\{found[0]}", line)


class _TooLong(Exception):
    pass


class _Lines(Iterator[str]):
    """Lines that can be given back. `taken` are those of the row that is being read."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self._size = 0
        self.over = False

    def __next__(self) -> str:
        if self._size > _LONGEST or len(self.taken) > _MOST_LINES:
            raise _TooLong
        try:
            line = self._again.popleft() if self._again else next(self._lines)
        except StopIteration:
            self.over = True
            raise
        self.taken.append(line)
        self._size += len(line)
        return line

    def begin(self) -> None:
        self.taken.clear()
        self._size = 0

    def give_back(self) -> str:
        """All but the first, which is returned."""
        first, *rest = self.taken
        self._again.extendleft(reversed(rest))
        self.over = False
        return first


class Rows:
    """The rows of lines, one by one. `odd` counts those with a stray quote, of which `first` is one."""

    def __init__(self, lines: Iterable[str], dialect: Dialect, width: int = 0, *, cut: bool = False) -> None:
        """`width`: fields of a row, if that is known. `cut`: the lines are the beginning of more."""
        self._lines = _Lines(lines)
        self._dialect = dialect
        self._width = width
        self._cut = cut
        self.odd = 0
        self.first = ""

    def __iter__(self) -> Iterator[list[str]]:
        lines, reader = self._lines, self._dialect.reader(self._lines, strict=True)
        while True:
            lines.begin()
            try:
                row = next(reader, None)
                if row is None:
                    return
                stray = (
                    len(lines.taken) > 1
                    and self._width not in (0, len(row))
                    and len(self._split(lines.taken[0])) == self._width
                )
            except (csv.Error, _TooLong):
                if not lines.taken or (self._cut and lines.over and not self._rows_follow()):
                    return
                stray = True
            if stray:
                line = lines.give_back()
                row = self._alone(line)
                self.odd += 1
                self.first = self.first or line.rstrip("\r\n")[:200]
            if row:
                yield row

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self._dialect.delimiter)

    def _rows_follow(self) -> bool:
        """Whether the lines after a quote that is not closed are rows of their own: then it is a stray
        one.
        """
        rest = [line for line in self._lines.taken[1:] if line.strip()]
        return len(rest) > 2 and sum(len(self._split(line)) == self._width for line in rest) > 0.8 * len(rest)

    def _alone(self, line: str) -> list[str]:
        """A line with a stray quote, by the first way of reading that gives as many fields as there should
        be.
        """
        ways = [self._dialect._replace(escaped=True)] if '\\"' in line else []
        plain = [_unquoted(field) for field in self._split(line)]
        # csv refuses a carriage return outside of quotes, which ends no line.
        kept = line.rstrip("\r\n").replace("\r", _RETURN)
        for way in (*ways, None, self._dialect):
            try:
                row = (
                    plain
                    if way is None
                    else [
                        field.replace(_RETURN, "\r") for field in next(way.reader([kept], strict=False), [])
                    ]
                )
            except csv.Error:
                continue
            if len(row) == self._width:
                return row
        return plain


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and field[0] == field[-1] == '"' else field


class Table(NamedTuple):
    """A table's build: its columns' names, and how many rows come before those with values.

    `header`: the row with the names, if the text has them. `comments`: rows that begin with a `#` are none.
    `certain`: no other row can have the names again.
    """

    names: list[str]
    dialect: Dialect
    before: int
    titles: int
    header: list[str]
    sample: list[list[str]]
    comments: bool = False
    certain: bool = False

    def told(self) -> str:
        """How it is built, in words, but for the names."""
        delimiter = self.dialect.delimiter
        between = "" if delimiter == "," else f", between {_NAMED.get(delimiter, repr(delimiter))}"
        unnamed = "" if self.header else ", whose names are not in the text"
        return f"{between}{unnamed}" + (
            f", after {self.titles} other line{'s' if self.titles > 1 else ''}" if self.titles else ""
        )

    def short(self) -> str:
        """That the names are fewer than the fields: values may stand under the names of others."""
        count = len(self.header)
        if not 0 < count < len(self.names) or not any(any(row[count:]) for row in self.sample):
            return ""
        return (
            f"{count} names for {len(self.names)} fields: perhaps one is missing before the others, or a "
            "field with the delimiter in it has no quotes."
        )

    def records(self, lines: Iterable[str], *, say: Callable[[str], None]) -> Iterator[Record]:
        """The rows as dicts.

        What a row has too many is in `more`. The names again are no row, as in files that were put together.

        Says what was left out, and which rows are not as the others.
        """
        rest = "more" if "more" not in self.names else "more_"
        width = len(self.names)
        rows = Rows(lines, self.dialect, width)
        left_out: Counter[str] = Counter()
        uneven: dict[str, list[list[str]]] = {"fewer": [], "more": []}
        sums: list[list[str]] = []
        for number, row in enumerate(rows):
            if number < self.before:
                continue
            if self.comments and row[0].startswith("#"):
                left_out["comments"] += 1
                continue
            if self._has_names_again(row):
                left_out["the names of the columns again"] += 1
                continue
            record = dict(zip(self.names, row, strict=False))
            if len(row) < width:
                record |= dict.fromkeys(self.names[len(row) :], "")
                uneven["fewer"].append(row)
            elif any(row[width:]):
                record[rest] = row[width:]
                uneven["more"].append(row)
            if row[0][:1] in "TSGtsg" and _TOTAL.fullmatch(row[0].strip(" :")):
                sums.append(row)
            yield record
        for what, count in left_out.items():
            say(f"records() left out {count:,} rows that are {what}.")
        if short := self.short():
            say(short)
        self._tell(rows, uneven, rest, say)
        if sums:
            say(f"{len(sums):,} rows seem to be sums of others, such as {sums[0]!r:.200}.")

    def _has_names_again(self, row: list[str]) -> bool:
        return row == self.header and not self.certain

    @staticmethod
    def _tell(rows: Rows, uneven: dict[str, list[list[str]]], rest: str, say: Callable[[str], None]) -> None:
        """Say what rows are not as the others."""
        ends = {"fewer": "what is missing is ''", "more": f"the rest is in {rest!r}"}
        for what, found in uneven.items():
            if found:
                say(
                    f"{len(found):,} rows have {what} fields than columns, such as {found[0]!r:.200}: "
                    f"{ends[what]}."
                )
        if rows.odd:
            say(
                f"records() read {rows.odd:,} rows that have a stray quote or carriage return as they "
                f"stand, such as {rows.first!r}."
            )

    def rows_of(self, lines: Iterable[str], *, first: bool) -> Iterator[Record]:
        """Rows of lines of a part of the text, the first one or another: those of the right width."""
        rows = iter(Rows(lines, self.dialect, len(self.names), cut=True))
        for row in itertools.islice(rows, self.before if first else 0, None):
            if len(row) == len(self.names) and not self._has_names_again(row):
                yield dict(zip(self.names, row, strict=True))


def unique(names: Iterable[str], between: str, first: int) -> list[str]:
    """The names; one that is there already gets a number, from `first` on."""
    made: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for name in names:
        free = name
        while free in made:
            number = numbers.get(name, first)
            free, numbers[name] = f"{name}{between}{number}", number + 1
        made[free] = None
    return list(made)


def find(lines: Sequence[str], name: str = "", *, cut: bool) -> Table | None:
    """The table that lines with their ends are, or begin (`cut`).

    `name`: of the file. If it says that the file is a table, less must show it.
    """
    if knows_its_columns(name) and (found := _with_known_columns(lines, cut=cut)):
        return found
    by_name = is_named_table(name)
    if fields := next((line for line in lines[:_ROWS] if line.startswith(_FIELDS)), ""):
        return _by_fields(fields.removeprefix(_FIELDS).split(), lines)
    separator = _SEPARATOR.fullmatch(lines[0]) if lines else None
    lines = lines[bool(separator) :]
    best: tuple[float, Table] | None = None
    for dialect in _dialects(lines, (separator[1],) if separator else tuple(DELIMITERS)):
        width = 0
        for _ in range(2):  # how wide rows are tells which quotes are stray
            reading = Rows(lines, dialect, width, cut=cut)
            rows = list(itertools.islice(reading, _ROWS))
            width = _width(rows)
        found = _table(rows, dialect, by_name or separator is not None)
        if found is not None and (best is None or found[0] - 0.5 * reading.odd / len(rows) > best[0]):
            best = found[0] - 0.5 * reading.odd / len(rows), found[1]
    if best is not None and separator:
        return best[1]._replace(before=best[1].before + 1)
    return best[1] if best else None


def _with_known_columns(lines: Sequence[str], *, cut: bool) -> Table | None:
    """A table as `tablewriter` writes it: its first row has the names, even if they are numbers, and it may
    have no other row.
    """
    dialect = Dialect(",")
    rows = list(itertools.islice(Rows(lines, dialect, cut=cut), _ROWS))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return None
    return _made(rows, dialect, 0, named=True)._replace(sample=rows[1:], certain=True)


def _by_fields(names: list[str], lines: Sequence[str]) -> Table | None:
    """A table whose names stand in a comment, as web servers write it."""
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    dialect = Dialect("\t" if rows and "\t" in rows[0] else " ")
    sample = list(itertools.islice(Rows(rows, dialect, len(names)), _ROWS))
    fits = len(set(names)) == len(names) > 1 and bool(sample) and _width(sample) == len(names)
    return Table(names, dialect, 0, 0, names, sample, comments=True) if fits else None


def _dialects(lines: Sequence[str], delimiters: Sequence[str]) -> Iterator[Dialect]:
    """The dialects that the lines could be in, the likeliest first."""
    for delimiter in delimiters:
        yield Dialect(delimiter)
    escaped = any('\\"' in line for line in lines) and not any(_DOUBLED.search(line) for line in lines)
    for delimiter in delimiters:
        if any(f'{delimiter} "' in line for line in lines):
            yield Dialect(delimiter, spaced=True)
        if escaped:
            yield Dialect(delimiter, escaped=True)


def _table(rows: list[list[str]], dialect: Dialect, by_name: bool) -> tuple[float, Table] | None:
    """A table of these rows, and how well they fit together."""
    if len(rows) < (2 if by_name else 3):
        return None
    width = _width(rows)
    comments = _comments(rows) if by_name else 0
    titles = comments or (_titles(rows, width) if by_name else 0)
    rows = [row for row in rows[titles:] if not (comments and row[0].startswith("#"))]
    if len(rows) < (1 if by_name else 3):
        return None
    even = sum(len(row) == width for row in rows) / len(rows)
    if not by_name:
        strict = (
            width > 2
            and len(rows[0]) == width
            and (even == 1 or (even >= 0.9 and len(rows) >= 10))
            and _are_names(rows[0])
            and not _is_data(rows)
        )
        return (even, _made(rows, dialect, titles, named=True)) if strict else None
    named = _has_names(rows)
    if width == 1 and not named:
        return None
    doubt = 0.01 / width + 0.02 * (titles > 0) + 0.05 * (not named)
    return (even if width > 1 else 0.1) - doubt, _made(rows, dialect, titles, named=named)._replace(
        comments=comments > 0
    )


def _width(rows: Sequence[list[str]]) -> int:
    """The fields that most rows have."""
    return Counter(map(len, rows)).most_common(1)[0][0] if rows else 0


def _comments(rows: list[list[str]]) -> int:
    """Rows before the names that begin with a `#`; none where one of them may have the names itself."""
    count = next((place for place, row in enumerate(rows) if not row[0].startswith("#")), 0)
    names, rest = rows[count : count + 1], rows[count + 1 :]
    numbers = any(NUMBER.fullmatch(field.strip()) for row in rest for field in row)
    return (
        count if names and numbers and not any(NUMBER.fullmatch(field.strip()) for field in names[0]) else 0
    )


def _titles(rows: list[list[str]], width: int) -> int:
    """Lines before the names: of one field, where the rows have more."""
    count = 0
    for row in rows[: len(rows) // 2]:
        filled = sum(bool(field.strip()) for field in row)
        if width < 2 or (filled > 1 and len(row) > width // 2) or (width == 2 and len(row) == 2):
            break
        count += 1
    return count


def _are_names(row: list[str]) -> bool:
    names = [name.strip() for name in row]
    full = names[1:] if not names[0] else names  # pandas leaves its index without a name
    return len(set(names)) == len(names) and all(
        name and len(name) <= _NAME and not NUMBER.fullmatch(name) for name in full
    )


def _is_data(rows: list[list[str]]) -> bool:
    """Whether the first row has values, as it has a date, a time or a number with a unit where most of the
    rows below have one.
    """
    below = rows[1:]
    shapes = [_shape(field) for field in rows[0]]
    return any(
        "0" in shape
        and not NUMBER.fullmatch(field.strip())
        and sum(_shape(row[place]) == shape for row in below if place < len(row)) > len(below) / 2
        for place, (field, shape) in enumerate(zip(rows[0], shapes, strict=True))
    )


def _shape(field: str) -> str:
    """How a field begins, whatever the numbers in it."""
    return _DIGITS.sub("0", field.strip()[:_BEGINNING])[:_SHAPE]


def _has_names(rows: list[list[str]]) -> bool:
    """Whether the first row has names: they are no numbers where the rows below have some."""
    first, rest = rows[0], rows[1:]
    if any(len(name) > _LONG_NAME for name in first) or _is_data(rows):
        return False
    numbers = [name for name in first if NUMBER.fullmatch(name.strip())]
    if numbers and not (all(_YEAR.fullmatch(name.strip()) for name in numbers) and len(numbers) < len(first)):
        return False
    return bool(rest) or len(first) > 1


def _made(rows: list[list[str]], dialect: Dialect, titles: int, *, named: bool) -> Table:
    width = _width(rows)
    header = rows[0] if named else []
    given = [name.strip().removeprefix("\ufeff") for name in header]
    given += [""] * (width - len(given))
    names = unique((name or f"column_{place}" for place, name in enumerate(given, 1)), "_", 2)
    return Table(
        names, dialect, titles + named, titles, header, [row for row in rows[named:] if row != header]
    )
