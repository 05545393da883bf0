"""What Python programs have at hand as a context, as files beside the trace, so that it can be replayed.

Tables are written as Parquet, what is read from a file object or is bytes as it is, and all else as JSON.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from rlm_kernel.errors import TraceError, UsageError
from rlm_kernel.session.contexttables import is_table, tables_by_name, write_parquet
from rlm_kernel.session.plainvalues import HINT, as_json

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
        elif is_table(context):
            place = trace.with_suffix(TABLE)
            write_parquet(context, place)
        elif tables := tables_by_name(context):
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
            "The context mixes paths with other values.",
            hint="Give only paths: Path or [Path, …]; for a dict, list(….values()). Or read the files "
            "yourself and give their texts.",
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
            raise TypeError(f"reading it gave a {type(first).__name__}, not text or bytes")
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UsageError(f"The context cannot be read: {error}.", hint=HINT) from error


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
        write_parquet(table, path)
        paths.append(path)
    return tuple(paths)


def _as_json(context: Any, place: Path) -> None:
    """Raises OSError, UsageError."""
    with place.open("w", encoding="utf-8", errors="backslashreplace") as file:
        # Half of a character, as JSON writes it: \ud83d
        if isinstance(context, Iterator):
            _items(context, file)
        else:
            file.write(as_json(context))


def _items(items: Iterator[Any], file: IO[str]) -> None:
    """A list, an item after the other. What the iterator itself raises is its own."""
    file.write("[")
    for number, item in enumerate(items):
        file.write(f"{',' if number else ''}{as_json(item)}")
    file.write("]")


def is_file_like(value: Any) -> bool:
    """Whether `written` makes files of it rather than JSON: bytes, file objects, tables."""
    return (
        isinstance(value, bytes | bytearray | memoryview)
        or hasattr(value, "read")
        or is_table(value)
        or bool(tables_by_name(value))
    )
