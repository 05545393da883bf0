"""`pandas.read_parquet` in a kernel without pyarrow: Arrow's Rust library reads the file."""

from __future__ import annotations

import json
from typing import Any


def install(pandas: Any) -> None:
    """Have `pandas.read_parquet` read by this module. Called once pandas is imported."""

    def read_parquet(path: Any, engine: str = "auto", columns: Any = None, **options: Any) -> Any:
        """A Parquet file as a DataFrame: `path`, or an open file; `columns` chooses some. Raises TypeError
        for other options of pandas.
        """
        if given := [name for name, value in options.items() if value]:
            raise TypeError(f"read_parquet has no option {given[0]} here: change the DataFrame that it gives")
        return _frame(pandas, path, columns)

    pandas.read_parquet = read_parquet


def _frame(pandas: Any, path: Any, columns: Any) -> Any:
    from arro3.io import read_parquet

    source = path if hasattr(path, "read") else open(path, "rb")  # noqa: SIM115 - arro3 reads on from it
    table = read_parquet(source).read_all()
    names: list[str] = list(table.schema.names)
    if columns is not None:
        absent = [name for name in columns if name not in names]
        if absent:
            raise KeyError(f"no columns {absent}; the file has {names}")
    kept = {
        name: _column(pandas, table.column(number), table.schema.field(number).type)
        for number, name in enumerate(names)
        if columns is None or name in columns
    }
    frame = pandas.DataFrame(kept, index=None if kept else range(table.num_rows))
    return _indexed(pandas, frame, table.schema)


def _indexed(pandas: Any, frame: Any, schema: Any) -> Any:
    """The frame with the index that pandas noted in the file as it wrote it."""
    try:
        told = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        if len(told) == 1 and isinstance(told[0], dict):
            index = pandas.RangeIndex(
                *(told[0][part] for part in ("start", "stop", "step")), name=told[0]["name"]
            )
            return frame.set_axis(index) if len(index) == len(frame) else frame
    except (KeyError, ValueError, TypeError):
        return frame
    names = [name for name in told if isinstance(name, str) and name in frame.columns]
    if not names:
        return frame
    return frame.set_index(names).rename_axis(
        [None if name.startswith("__index_level_") else name for name in names]
    )


def _column(pandas: Any, column: Any, kind: Any) -> Any:
    """A column with the type that pandas has for it."""
    shown = str(kind)
    series = pandas.Series(column.to_pylist())
    if "Dictionary" in shown:
        return series.astype("category")
    if not len(series) or series.isna().all():
        return series.astype("float64" if "Int" in shown or "Float" in shown else "object")
    return series
