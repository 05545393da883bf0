"""A record: a dict that does not keep silent where code takes it for a line of text."""

from __future__ import annotations

import difflib
import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

_SHOWN = 30
_COLUMNS = 100


class NoColumn(KeyError):
    """Records have no such column."""

    def __str__(self) -> str:
        return str(self.args[0])


class Record(dict[str, Any]):
    """A dict, in all that is asked of it, but for what a str would answer in another way.

    `x in record` looks at names of columns, as in any dict. Where x is no column of any of the records, it
    raises NoColumn: nearly always the line was meant. `record.name` is `record["name"]`.
    """

    __slots__ = ()
    known: ClassVar[set[str]] = set()
    """The columns of all records that were read together; each reading has a class of its own."""

    def __contains__(self, key: object) -> bool:
        if dict.__contains__(self, key):
            return True
        if not isinstance(key, str) or key in self.known:
            return False
        raise NoColumn(
            f"{key!r:.80} is no column of these records, and `in` looks at columns: {self._columns()}. "
            f"To look for it in {self._where(key)}. To ask for a column all the same: {key!r:.80} in "
            "row.keys()"
        )

    def __missing__(self, key: object) -> Any:
        if isinstance(key, str) and key in self.known:
            line = f"Line {self['line']:,}" if isinstance(dict.get(self, "line"), int) else "This record"
            raise NoColumn(
                f"{line} has no {key!r:.80}, as not all have it: {dict.__repr__(self):.200}. "
                f"row.get({key!r:.80}) gives None there"
            )
        close = difflib.get_close_matches(key, self.known, 1) if isinstance(key, str) else []
        meant = f" Did you mean {close[0]!r}?" if close else ""
        line = ". row['text'] is the line" if not isinstance(key, str) and "text" in self.known else ""
        raise NoColumn(f"no column {key!r:.80}; there are {self._columns()}{line}.{meant}")

    def __getattr__(self, name: str) -> Any:
        if dict.__contains__(self, name):
            return self[name]
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        what = f"row['text'].{name}" if "text" in self.known else f"a column: row[{self._first()!r}]"
        also = f". To use .{name} take {what}" if hasattr(str, name) else ""
        raise AttributeError(
            f"a record is a dict with the columns {self._columns()}, and has no {name!r}{also}"
        )

    def __setitem__(self, key: str, value: Any) -> None:
        self.known.add(key)
        dict.__setitem__(self, key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As dict.setdefault."""
        self.known.add(key)
        return dict.setdefault(self, key, default)

    def update(self, *others: Any, **named: Any) -> None:  # type: ignore[override]
        """As dict.update."""
        made = dict(*others, **named)
        self.known.update(made)
        dict.update(self, made)

    def __ior__(self, other: Any) -> Record:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return dict, (), None, None, iter(self.items())

    def _columns(self) -> str:
        names = list(dict.fromkeys([*self, *sorted(self.known)]))
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        return ", ".join(f"{name!r:.40}" for name in names[:_SHOWN]) + more

    def _first(self) -> str:
        return next((name for name, value in self.items() if isinstance(value, str)), next(iter(self), ""))

    def _where(self, key: str) -> str:
        if "text" in self.known:
            return f"the line: {key!r:.80} in row['text']"
        if isinstance(dict.get(self, first := self._first()), str):
            return f"a value: {key!r:.80} in row[{first!r}]; in all: {key!r:.80} in str(row)"
        return f"all values: {key!r:.80} in str(row)"


def kind(*columns: str) -> type[Record]:
    """A class for records that are read together, with the columns that are known so far."""
    return type("Record", (Record,), {"__slots__": (), "known": set(columns), "__module__": __name__})


def made(read: Iterable[dict[str, Any]]) -> list[Record]:
    """What was read, as records that know each other's columns."""
    of_all = kind()
    known = of_all.known
    collects = gc.isenabled()
    gc.disable()  # there is nothing to collect while these are made, and looking for it takes long
    try:
        records = []
        for row in read:
            if not known.issuperset(row):
                known.update(row)
            records.append(of_all(row))
    finally:
        if collects:
            gc.enable()
    return records


def text_among_numbers(records: Sequence[Record]) -> Iterator[str]:
    """In which columns, of the first hundred, there is text among numbers."""
    for name in itertools.islice(records[0].known if records else (), _COLUMNS):
        values = [row.get(name) for row in records]
        kinds = set(map(type, values))
        if str in kinds and kinds & {int, float}:
            texts = [value for value in values if isinstance(value, str)]
            yield mixed(name, len(texts), len(records), texts[0])


def mixed(name: str, texts: int, total: int, first: str) -> str:
    """That a column has text among numbers."""
    return f"{name}: {texts:,} of {total:,} are text, such as {first[:60]!r}, and others are numbers"
