"""A Parquet file as a table, by Arrow's Rust library: a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from rlm_runtime.tablewriter import Table
from rlm_runtime.unpacking import Unreadable

_MARK, _ENCRYPTED = b"PAR1", b"PARE"


def tables(path: str, _name: str) -> list[Table]:
    """The one table. Raises Unreadable."""
    with open(path, "rb") as file:
        begins = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        footer, ends = int.from_bytes(file.read(4), "little"), file.read(4)
    if _ENCRYPTED in (begins, ends):
        raise Unreadable("it is encrypted. Save a copy that is not, and name that.")
    if begins != _MARK:
        raise Unreadable("it is no Parquet file")
    if ends != _MARK:
        raise Unreadable(
            "it is cut off: the end, which says where the columns are, is missing. Copy it again, "
            "or write it anew."
        )
    if footer > size - 12:
        raise Unreadable(
            "it is damaged or cut off: what its end says of the columns is longer than the file. Copy it "
            "again, or write it anew."
        )
    return [Table("rows", partial(_rows, path))]


def _rows(path: str) -> Iterator[Any]:
    from arro3.io import read_parquet

    batches = read_parquet(path)
    yield [field.name for field in batches.schema]
    for batch in batches:
        yield from zip(*map(_values, map(batch.column, range(batch.num_columns))), strict=True)


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # a date that Python cannot hold costs itself
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return f"[{error}]"
