"""What a delivered value is as text for people and as JSON data: all of it, or an error that says what to
deliver instead.

A table (DataFrame, Series; those of other packages by what they can do) is CSV for people, or Markdown where
it is small, and records as data. Numbers, dates and the like of any package are plain ones. Nothing is cut,
and nothing is delivered as `<object at 0x…>`.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import datetime
import decimal
import enum
import io
import math
import types
from collections import UserString
from collections.abc import Collection, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any, NamedTuple

from rlm_runtime import tables

_SMALL_ROWS, _SMALL_COLUMNS, _SMALL_CELL = 30, 8, 60
"""What a table has at most to be shown as Markdown; characters of a cell."""
_NO_VALUES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    Iterator,
    types.CoroutineType,
)
_PICTURES = ("matplotlib.", "PIL.", "plotly.", "seaborn.")
_MAX_BITS = 4096
_PLAIN = "Deliver a text, a number, a list or a dict."


class Delivery(NamedTuple):
    """`text` for people, "" where it is the data written as JSON; `data`, if it is more than text
    (`typed`).
    """

    text: str
    data: Any
    typed: bool


class NoValue(TypeError):
    """What was delivered is no value, or has none of its own."""


def delivery(value: Any, limit: int) -> Delivery:
    """How a value is delivered, in at most `limit` characters.

    Raises NoValue for what is none, ValueError for what is too long, nested without end, or has two keys that
    are one in JSON.
    """
    if isinstance(value, str):
        text = str.__str__(value)
        _bounded(len(text), limit)
        return Delivery(text, None, False)
    if isinstance(value, float) and not math.isfinite(value):
        return Delivery(str(float(value)), None, False)
    data = plain(value, limit)
    if isinstance(data, (dict, list)):
        return Delivery(_table(value, data), data, True)
    return Delivery(str(data), data, data is None or not isinstance(data, str))


def plain(value: Any, limit: int) -> Any:
    """A value as JSON data. Raises as `delivery`."""
    try:
        return _Plain(limit).of(value)
    except RecursionError:
        raise ValueError("this answer is nested too deep to be delivered, or holds itself") from None


def _bounded(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(
            f"this answer has {size:,} characters; {limit:,} can be delivered. Deliver only what was asked "
            "for."
        )


class _Plain:
    """Makes JSON data of values, of so many characters at most."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0

    def of(self, value: Any) -> Any:
        self._count(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.of(value.value)
        if isinstance(value, UserString):
            return self.of(value.data)
        if isinstance(value, str):
            self._count(len(value))
            return str.__str__(value)
        if isinstance(value, int):
            # Beyond that JSON readers, the host's among them, take no number.
            return int(value) if value.bit_length() <= _MAX_BITS else str(int(value))
        if isinstance(value, float):
            # JSON has no NaN, which stands for what is missing, and no infinity.
            return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
        found = _as_text(value)
        if found is not None:
            return self.of(found)
        for make in (self._of_package, self._of_fields, self._of_collection):
            if (found := make(value)) is not _NONE:
                return found
        return self.of(_own_text(value))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise ValueError(
                f"this answer has more than {self._limit:,} characters, which can be delivered. Deliver "
                "only what was asked for."
            )

    def _of_package(self, value: Any) -> Any:
        """What numpy, pandas, polars, pyarrow and their like have, by their methods."""
        if _is_frame(value):
            return self._frame(value)
        if _is_series(value):
            return self._series(value)
        kind = type(value)
        if kind.__name__ == "Styler" and _is_frame(getattr(value, "data", None)):
            return self._frame(value.data)
        if kind.__name__ in ("ndarray", "datetime64", "timedelta64") and value.dtype.kind in "Mm":
            # As Python's own numbers they would be nanoseconds.
            fine = value.dtype.str.endswith(("[ns]", "[ps]", "[fs]", "[as]"))
            value = (
                value.astype(str)
                if value.dtype.kind == "m"
                else value.astype("datetime64[us]")
                if fine
                else value
            )
            kind = type(value)
        for method in ("to_pylist", "to_dicts", "as_py", "tolist", "to_list"):
            if _has(kind, method):
                made = _named(value, getattr(value, method)())
                if isinstance(made, list):
                    return self._list(made)
                return self.of(
                    float(made) if type(made) is kind else made
                )  # a number of more digits than Python's is its own
        return _NONE

    def _frame(self, frame: Any) -> list[dict[str, Any]]:
        columns = [
            (str(self._key(name)), frame.iloc[:, place].tolist()) for place, name in enumerate(frame.columns)
        ]
        columns = _index_columns(self, frame) + columns
        names = tables.unique((name for name, _ in columns), ".", 1)
        self._count(sum(len(name) + 4 for name in names) * len(frame))
        rows = zip(*(cells for _, cells in columns), strict=True)
        return [{name: self.of(cell) for name, cell in zip(names, row, strict=True)} for row in rows]

    def _series(self, series: Any) -> Any:
        values = series.tolist()
        if _is_default_index(series.index):
            return self._list(values)
        if series.index.nlevels == 1 and series.index.is_unique:
            return self._dict(zip(series.index.tolist(), values, strict=True))
        return self._frame(series.to_frame("value" if series.name is None else series.name))

    def _of_fields(self, value: Any) -> Any:
        kind = type(value)
        for method in ("model_dump", "_asdict", "to_dict", "__json__"):  # pydantic; what others call it
            if _has(kind, method) and not isinstance(value, tuple):
                return self.of(getattr(value, method)())
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dict((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        if _has(kind, "__attrs_attrs__"):
            return self._dict((field.name, getattr(value, field.name)) for field in kind.__attrs_attrs__)
        if isinstance(value, tuple) and _has(kind, "_fields"):  # a namedtuple
            return self._dict(zip(kind._fields, value, strict=True))
        return _NONE

    def _of_collection(self, value: Any) -> Any:
        if type(value).__name__ == "LazyText":
            raise ValueError(
                "this answer is all of a text that is too large for memory. Deliver only what was asked "
                "for: a part of it."
            )
        if isinstance(value, Mapping):
            return self._dict(value.items())
        if isinstance(value, Set) and not hasattr(value, "mapping"):
            return self._list(_in_order(value))
        if isinstance(value, Sequence) and _has(type(value), "keys"):  # a row of sqlite3
            return self._dict(zip(value.keys(), value, strict=True))
        # Not whatever has a length and can be gone through: elements of HTML and XML have more than their
        # children.
        if isinstance(value, (Sequence, MappingView, Set)):
            return self._list(value)
        return _NONE

    def _list(self, values: Any) -> list[Any]:
        return [self.of(value) for value in values]

    def _dict(self, items: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in items:
            name = self._key(key)
            if name in made:
                raise ValueError(
                    f"this answer has two keys that are both {name[:80]!r} in JSON. Give them different "
                    "names."
                )
            self._count(len(name))
            made[name] = self.of(value)
        return made

    def _key(self, key: Any) -> str:
        if isinstance(key, tuple):
            return ", ".join(self._key(part) for part in key)
        if key is None or isinstance(key, bool):
            return "null" if key is None else str(key).lower()
        if isinstance(key, Collection) and not isinstance(key, str):
            return (
                ", ".join(self._key(part) for part in _in_order(key))
                if isinstance(key, Set)
                else str(_as_text(key) or key)
            )
        found = self.of(key)
        return "null" if found is None else str(found).lower() if isinstance(found, bool) else str(found)


_NONE = object()


def _as_text(value: Any) -> Any:
    """What is written as a text, or as a number, in JSON; None for other values.

    `NaT` and pandas' `NA` are missing numbers.
    """
    if type(value).__name__ in ("NaTType", "NAType"):
        return math.nan
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        near = float(value) if value.is_finite() else math.nan
        return near if decimal.Decimal(repr(near)) == value else str(value)
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return None


def _own_text(value: Any) -> str:
    """What an object says of itself. Raises NoValue where that is nothing that one could read."""
    kind = type(value)
    where = f"{kind.__module__}.{kind.__qualname__}"
    if where.startswith(_PICTURES):
        raise NoValue(
            f"FINAL got a {kind.__name__}: a picture cannot be delivered. Show it in a cell, and deliver "
            "what it says in words."
        )
    if kind.__name__ == "CallFailed":
        raise NoValue(
            f"this answer holds an item that failed ({value}). Ask it again, or leave such items out: `if "
            "answer`."
        )
    if isinstance(value, _NO_VALUES):
        how = (
            "`await` it."
            if isinstance(value, types.CoroutineType)
            else "list(...) makes a list of it."
            if isinstance(value, Iterator)
            else _PLAIN
        )
        raise NoValue(f"FINAL got a {kind.__name__}, which is no answer. {how}")
    text = str(value)
    if text.startswith("<") and text.endswith(">") and (kind.__str__ is object.__str__ or " at 0x" in text):
        raise NoValue(
            f"FINAL got a {kind.__name__} ({text[:80]}), which has no text of its own. Deliver what is in "
            f"it. {_PLAIN}"
        )
    return text


def _has(kind: type, name: str) -> bool:
    return hasattr(kind, name)


def _is_frame(value: Any) -> bool:
    return _has(type(value), "iloc") and _has(type(value), "itertuples")


def _is_series(value: Any) -> bool:
    return _has(type(value), "iloc") and _has(type(value), "to_frame") and _has(type(value), "tolist")


def _is_default_index(index: Any) -> bool:
    """Its rows are only numbered."""
    return (
        type(index).__name__ == "RangeIndex" and index.name is None and index.start == 0 and index.step == 1
    )


def _index_columns(made: _Plain, frame: Any) -> list[tuple[str, list[Any]]]:
    index = frame.index
    if _is_default_index(index):
        return []
    names = [made._key(name) if name is not None else "index" for name in index.names]
    return [(name, index.get_level_values(level).tolist()) for level, name in enumerate(names)]


def _named(value: Any, made: Any) -> Any:
    """Rows of a structured array have names."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names and isinstance(made, tuple):
        return dict(zip(names, made, strict=True))
    return [_named(value, row) for row in made] if names and isinstance(made, list) else made


def _in_order(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _table(value: Any, data: Any) -> str:
    """A table's rows for people; "" for what is none."""
    if type(value).__name__ == "Styler":
        value = getattr(value, "data", None)
    if not (
        _is_frame(value)
        or _is_series(value)
        or (_has(type(value), "to_dicts") or _has(type(value), "to_pylist"))
    ):
        return ""
    if isinstance(data, dict):
        names, rows = (
            [str(value.index.name or "index"), str("value" if value.name is None else value.name)],
            [list(item) for item in data.items()],
        )
    elif all(isinstance(row, dict) for row in data):
        names = list(dict.fromkeys(name for row in data for name in row))
        rows = [[row.get(name) for name in names] for row in data]
    else:
        return ""
    if not rows and _is_frame(value):
        names = [str(name) for name in value.columns]
    if not names:
        return ""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    small = len(rows) <= _SMALL_ROWS and len(names) <= _SMALL_COLUMNS
    if small and all(
        len(cell) <= _SMALL_CELL and "\n" not in cell for row in [names, *cells] for cell in row
    ):
        lines = [names, ["---"] * len(names), *cells]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([names, *cells])
    return out.getvalue().rstrip("\n")
