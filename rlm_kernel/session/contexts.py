"""What Python programs have at hand as a context, as files beside the trace, so that it can be replayed.

Tables are written as Parquet, what is read from a file object or is bytes as it is, and all else as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from rlm_kernel.errors import TraceError, UsageError

JSON, TABLE, TABLES, BYTES, TEXT = (
    ".context.json",
    ".context.parquet",
    ".context",
    ".context.bin",
    ".context.txt",
)
"""Endings, after the trace's stem. TABLES is a folder."""
_BLOCK = 1 << 20
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}(\.(gz|bz2|xz|zst))?$")
"""Of the name of a file object: the kernel reads formats by it."""
_TABLES = ("pandas", "polars", "pyarrow")
_HINT = "Give a text, bytes, a Path or several, a table, a file object, or what JSON can hold."


class Written(NamedTuple):
    """Files that hold a context. `as_object`: it is one value in JSON."""

    paths: tuple[Path, ...]
    as_object: bool


def written(context: Any, trace: Path) -> Written:
    """Write a context beside its trace. Blocking.

    Texts, lists, dicts and whatever JSON can hold once dataclasses, pydantic models, dates, sets and arrays
    are plain values; generators, an item after the other, so that they need not fit into memory; bytes and
    file objects; tables of pandas, polars and Arrow, and dicts of them.

    Raises UsageError for what is none of these, TraceError where it cannot be written.
    """
    _refuse_paths(context)
    place = trace.with_suffix(JSON)
    try:
        trace.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(context, bytes | bytearray | memoryview):
            place = trace.with_suffix(BYTES)
            place.write_bytes(context)
        elif hasattr(context, "read"):
            place = trace.with_suffix(_ending(context))
            _copy(context, place)
        elif _is_table(context):
            place = trace.with_suffix(TABLE)
            _as_parquet(context, place)
        elif tables := _tables(context):
            return Written(_folder(tables, trace.with_suffix(TABLES)), as_object=False)
        else:
            _as_json(context, place)
            return Written((place,), as_object=True)
    except OSError as error:
        raise TraceError(
            f"The context cannot be written to {place}: {error.strerror or error}.",
            hint="Free some space or check the folder's permissions, or choose another place for the trace.",
        ) from error
    return Written((place,), as_object=False)


def _refuse_paths(context: Any) -> None:
    """Paths among other values would become texts, and their files be missing. Raises UsageError."""
    values: Iterable[Any] = (
        context.values()
        if isinstance(context, Mapping)
        else context
        if isinstance(context, list | tuple | set | frozenset)
        else ()
    )
    if any(isinstance(value, Path) for value in values):
        raise UsageError(
            "The context has paths among other values.",
            hint="Give paths alone, Path or [Path, …], or read the files yourself and give their texts.",
        )


def _ending(source: Any) -> str:
    """The ending for a file object, by its name if it has one."""
    name = getattr(source, "name", None)
    found = _ENDING.search(name) if isinstance(name, str) else None
    return f".context{found[0]}" if found else TEXT


def _copy(source: Any, place: Path) -> None:
    """Raises OSError, UsageError."""
    try:
        first = source.read(_BLOCK)
        if isinstance(first, str):
            with place.open("w", encoding="utf-8", errors="surrogatepass", newline="") as texts:
                texts.write(first)
                shutil.copyfileobj(source, texts, _BLOCK)
        elif isinstance(first, bytes):
            with place.open("wb") as file:
                file.write(first)
                shutil.copyfileobj(source, file, _BLOCK)
        else:
            raise TypeError(f"it gave a {type(first).__name__}, and neither text nor bytes")
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UsageError(f"The context cannot be read: {error}.", hint=_HINT) from error


def _is_table(value: Any) -> bool:
    """A table or a column of a package that is known; such a package is not imported for it."""
    package = type(value).__module__.partition(".")[0]
    return package in _TABLES and _writer_of(value) is not None


def _writer_of(value: Any) -> Callable[[Path], Any] | None:
    """What writes a table to a path."""
    kind = type(value).__name__
    if kind == "LazyFrame":
        return lambda path: value.sink_parquet(path)
    if hasattr(value, "write_parquet"):  # polars
        return lambda path: value.write_parquet(path)
    if hasattr(value, "to_parquet"):  # pandas; by names, as Parquet wants them
        return lambda path: _named(value).to_parquet(path, index=_has_index(value))
    if kind == "Series" and hasattr(value, "to_frame"):
        return lambda path: _as_parquet(value.to_frame(), path)
    if kind in ("Table", "RecordBatch", "RecordBatchReader", "Dataset", "FileSystemDataset"):
        return lambda path: _of_arrow(value, path)
    return None


def _named(frame: Any) -> Any:
    """A frame of pandas whose columns have texts as names."""
    if all(isinstance(name, str) for name in frame.columns):
        return frame
    return frame.set_axis(
        [
            ".".join(map(str, name)) if isinstance(name, tuple) else str(name)
            for name in frame.columns.to_flat_index()
        ],
        axis=1,
    )


def _has_index(frame: Any) -> bool:
    """Its rows are not only numbered."""
    return type(frame.index).__name__ != "RangeIndex" or frame.index.name is not None


def _of_arrow(value: Any, path: Path) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")  # it is there: the value is one of its own
    parquet: Any = importlib.import_module("pyarrow.parquet")
    if hasattr(value, "to_table"):
        value = value.to_table()
    elif hasattr(value, "read_all"):
        value = value.read_all()
    table = value if isinstance(value, pyarrow.Table) else pyarrow.Table.from_batches([value])
    parquet.write_table(table, path)


def _as_parquet(table: Any, path: Path) -> None:
    """Raises OSError, UsageError."""
    write = _writer_of(table)
    assert write is not None
    package = type(table).__module__.partition(".")[0]
    try:
        write(path)
    except ImportError as error:
        raise UsageError(
            f"A table of {package} is handed over as Parquet, and {package} lacks what writes that.",
            hint="pip install pyarrow, or give table.to_dict('records'), or a path to the file.",
        ) from error
    except OSError:
        raise
    except Exception as error:  # each package has errors of its own: a column of mixed types, say
        raise UsageError(
            f"The table cannot be written as Parquet: {' '.join(str(error).split())[:300]}",
            hint="Make columns of one type each, or give table.to_dict('records').",
        ) from error


def _tables(context: Any) -> dict[str, Any]:
    """A dict of tables by name; empty for anything else."""
    if isinstance(context, Mapping) and context and all(map(_is_table, context.values())):
        return {str(name): table for name, table in context.items()}
    return {}


def _folder(tables: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """A file for each table, in a folder that holds nothing else."""
    if folder.is_dir() and not folder.is_symlink():
        for old in folder.glob("*.parquet"):
            old.unlink()
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []
    for name, table in tables.items():
        plain = re.sub(r"[^\w. -]", "_", name).strip(". ")[:100] or "table"
        names = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        taken = {path.name.lower() for path in paths}
        path = next(folder / f"{one}.parquet" for one in names if f"{one}.parquet".lower() not in taken)
        _as_parquet(table, path)
        paths.append(path)
    return tuple(paths)


def _as_json(context: Any, place: Path) -> None:
    """Raises OSError, UsageError."""
    with place.open("w", encoding="utf-8", errors="replace") as file:
        if isinstance(context, Iterator):
            _items(context, file)
        else:
            file.write(_json(context))


def _items(items: Iterator[Any], file: IO[str]) -> None:
    """A list, an item after the other. What the iterator itself raises is its own."""
    file.write("[")
    for number, item in enumerate(items):
        file.write(f"{',' if number else ''}{_json(item)}")
    file.write("]")


def _json(value: Any) -> str:
    """Raises UsageError."""
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=False)
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain = to_jsonable_python(value, fallback=_plain, inf_nan_mode="constants")
        return json.dumps(plain, ensure_ascii=False)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The context cannot be handed to the kernel: {' '.join(str(error).split())[:300]}.", hint=_HINT
        ) from error


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and its like, tables within other values."""
    for method in ("tolist", "to_dicts", "to_pylist"):
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "to_dict"):
        return value.to_dict("records") if hasattr(value, "columns") else value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is nothing that JSON can hold")


def is_file_like(value: Any) -> bool:
    """Whether `written` makes files of it rather than JSON: bytes, file objects, tables."""
    return (
        isinstance(value, bytes | bytearray | memoryview)
        or hasattr(value, "read")
        or _is_table(value)
        or bool(_tables(value))
    )


def as_json(value: Any) -> str:
    """A value as `written` has it in JSON. Raises UsageError."""
    return _json(value)
