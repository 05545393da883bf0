"""Tables of pandas, polars and Arrow as Parquet files. None of these packages is imported for it."""

from __future__ import annotations

import importlib
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from rlm_kernel.errors import UsageError
from rlm_kernel.printable import printable

_PACKAGES = ("pandas", "polars", "pyarrow")
_ARROW = ("Table", "RecordBatch", "RecordBatchReader", "Dataset", "FileSystemDataset")
_TOLD, _TYPES = 3, 4
"""Columns that an error names, and types of their values."""
_LOOKED_AT = 10_000
"""Values whose types are told."""
_ROWS = {"pandas": "table.to_dict('records')", "polars": "table.to_dicts()", "pyarrow": "table.to_pylist()"}
"""How a package has a table as a list of rows."""
_AS_TEXT = ("period", "interval")
"""Types of pandas that Parquet has as bare numbers or structs."""
Place = Path | IO[bytes]


def is_table(value: Any) -> bool:
    """A table or a column of a package that is known."""
    return _package(value) in _PACKAGES and _writer(value) is not None


def tables_by_name(value: Any) -> dict[str, Any]:
    """A dict of tables by name; empty for anything else."""
    if isinstance(value, Mapping) and value and all(map(is_table, value.values())):
        return {str(name): table for name, table in value.items()}
    return {}


def write_parquet(table: Any, path: Path) -> None:
    """Write a table. Raises OSError; UsageError, which names the columns that Parquet cannot hold."""
    write, package = _writer(table), _package(table)
    assert write is not None
    try:
        write(path)
    except ImportError as error:
        raise UsageError(
            f"A table of {package} is passed to the kernel as Parquet, and {package} cannot write Parquet.",
            hint=f"pip install pyarrow, or give {_ROWS[package]}, or a path to the file.",
        ) from error
    except (OSError, UsageError):
        raise
    except Exception as error:  # each package has errors of its own: a column of mixed types, say
        raise _refused(table, error) from error


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """The rows of a table of pandas, with its index as columns. Raises UsageError."""
    rows: list[dict[str, Any]] = _flat(frame).to_dict("records")
    return rows


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _writer(value: Any) -> Callable[[Place], Any] | None:
    """What writes a table to a place."""
    kind = type(value).__name__
    if kind == "LazyFrame":
        return lambda place: value.sink_parquet(place)
    if hasattr(value, "write_parquet"):  # polars
        return lambda place: value.write_parquet(place)
    if hasattr(value, "to_parquet"):  # pandas
        return lambda place: _parquet_types(_flat(value)).to_parquet(place, index=False)
    if kind == "Series" and hasattr(value, "to_frame"):
        return _writer(value.to_frame())
    if kind in _ARROW:
        return lambda place: _write_arrow(value, place)
    return None


def _flat(frame: Any) -> Any:
    """A frame of pandas whose columns are named by texts, each once, with its index among them, first."""
    names = [
        ".".join(map(str, name)) if isinstance(name, tuple) else str(name)
        for name in frame.columns.to_flat_index()
    ]
    _refuse_twice(names)
    flat = frame.set_axis(names, axis=1)
    if type(frame.index).__name__ == "RangeIndex" and frame.index.name is None:
        return flat
    count = frame.index.nlevels
    levels = (
        str(name) if name is not None else "index" if count == 1 else f"level_{number}"
        for number, name in enumerate(frame.index.names)
    )
    taken, free = set(names), []
    for level in levels:
        free.append(_free(level, taken))
        taken.add(free[-1])
    return flat.reset_index(names=free)


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, or one like it that no column has."""
    names = itertools.chain([name, f"index_{name}"], (f"index_{name}_{n}" for n in itertools.count(2)))
    return next(one for one in names if one not in taken)


def _refuse_twice(names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"The table has several columns named {_listed(twice)}: in the kernel, one would hide the "
            "others.",
            hint="Give each column its own name.",
        )


def _parquet_types(frame: Any) -> Any:
    """The frame with what Parquet has no type for as what it stands for."""
    changed = {}
    for name, kind in frame.dtypes.items():
        column = frame[name]
        if kind.name.startswith("Sparse"):
            changed[name] = column.sparse.to_dense()
        elif kind.name.startswith(_AS_TEXT) or (kind.name == "object" and _is_uuid(column)):
            changed[name] = column.astype("string")
        elif kind.name == "object" and _mixes_zones(column):
            changed[name] = column.map(lambda value: value.isoformat(), na_action="ignore")
    return frame.assign(**changed) if changed else frame


def _is_uuid(column: Any) -> bool:
    """Whether its first value is one: Arrow has them as bytes."""
    return type(_first(column)).__name__ == "UUID"


def _mixes_zones(column: Any) -> bool:
    """Whether some of its times have a time zone and others have none: Arrow drops the zones."""
    if not isinstance(_first(column), datetime):
        return False
    times = column.dropna()
    return (
        all(isinstance(value, datetime) for value in times) and len({one.tzinfo is None for one in times}) > 1
    )


def _first(column: Any) -> Any:
    """Its first value that is not missing."""
    first = column.first_valid_index()
    return None if first is None else column.loc[first]


def _write_arrow(value: Any, place: Place) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")  # it is there: the value is one of its own
    parquet: Any = importlib.import_module("pyarrow.parquet")
    if hasattr(value, "to_table"):
        value = value.to_table()
    elif hasattr(value, "read_all"):
        value = value.read_all()
    table = value if isinstance(value, pyarrow.Table) else pyarrow.Table.from_batches([value])
    _refuse_twice(table.column_names)
    parquet.write_table(table, place)


def _refused(table: Any, error: Exception) -> UsageError:
    rows = _ROWS[_package(table)]
    why = _words(error)
    found = list(itertools.islice(_bad_columns(table), _TOLD))
    if not found:
        lazy = hasattr(table, "sink_parquet")
        return UsageError(
            f"The table cannot be written as Parquet: {why}.",
            hint="table.collect() shows the error." if lazy else f"Give {rows}.",
        )
    name, types = found[0]
    others = f" Nor can {_listed([other for other, _ in found[1:]])}." if found[1:] else ""
    one = f"table[{name!r}].astype(str)" if _package(table) == "pandas" else "a column of text"
    return UsageError(
        printable(
            f"The column {name!r} of the table cannot be written as Parquet: "
            f"{'it holds ' + ' and '.join(types) if len(types) > 1 else why}.{others}"
        ),
        hint=printable(f"Give {one} instead: the values of a column must have one type. Or give {rows}."),
    )


def _words(error: Exception) -> str:
    """What an error says. Arrow's have several texts."""
    texts = [one for one in error.args if isinstance(one, str)]
    said = ". ".join(texts) if len(texts) == len(error.args) else str(error)
    return printable(" ".join(said.split())[:300].rstrip(".")) or type(error).__name__


def _bad_columns(table: Any) -> Iterator[tuple[str, list[str]]]:
    """The columns that cannot be written, with the types of their values."""
    for name, column, values in _columns(table):
        write = _writer(column)
        try:
            if write is not None:
                write(io.BytesIO())
        except Exception:  # it is what is looked for
            types = {
                type(value).__name__ for value in itertools.islice(values, _LOOKED_AT) if value is not None
            }
            yield name, sorted(types)[:_TYPES]


def _columns(table: Any) -> Iterator[tuple[str, Any, Iterable[Any]]]:
    """Each column as a table of its own, and its values."""
    if hasattr(table, "to_frame") and type(table).__name__ == "Series":
        table = table.to_frame()
    if hasattr(table, "to_parquet"):
        table = _flat(table)
        for number, name in enumerate(table.columns):
            yield name, table.iloc[:, [number]], iter(table.iloc[:, number])
    elif hasattr(table, "write_parquet"):
        for name in table.columns:
            yield name, table.select(name), ()
    elif type(table).__name__ in ("Table", "RecordBatch"):
        for number, name in enumerate(table.schema.names):
            yield name, table.select([number]), ()


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name)[:80] for name in names[:_TOLD])
