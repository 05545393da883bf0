"""What Python programs have at hand as a context, as files beside the trace, so that it can be replayed.

Tables are written as Parquet, what is read from a file object or is bytes as it is, and all else as JSON.
"""

from __future__ import annotations

import itertools
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from rlm_kernel.errors import RLMError, TraceError, UsageError
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
_NAME = 100
"""Bytes of the name of a media type."""
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}(\.(gz|bz2|xz|zst))?$")
"""Of the name of a file object: the kernel reads formats by it."""


_STARTS = {b"%PDF-": ".pdf", b"PAR1": ".parquet", b"{\\rtf": ".rtf", b"PK\3\4": ".zip"}
"""What files begin with whose format the kernel would know by their names alone."""
_IN_ZIP = {"word/": ".docx", "xl/": ".xlsx", "ppt/": ".pptx", "META-INF/container.xml": ".epub"}
_OPEN_DOCUMENTS = {b"text": ".odt", b"spreadsheet": ".ods", b"presentation": ".odp"}


class Written(NamedTuple):
    """Files that hold a context. `as_object`: it is one value in JSON."""

    paths: tuple[Path, ...]
    as_object: bool


def written(context: Any, trace: Path) -> Written:
    """Write a context beside its trace. Blocking.

    Texts, lists, dicts and whatever JSON can hold once dataclasses, pydantic models, dates, sets and arrays
    are plain values; generators, an item after the other, so that they need not fit into memory; bytes and
    file objects; tables of pandas, polars and Arrow, and dicts of them.

    Raises UsageError for what is none of these or cannot be read, TraceError where it cannot be written.
    """
    _refuse_paths(context)
    place = trace.with_suffix(JSON)
    try:
        trace.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(context, bytes | bytearray | memoryview):
            place = trace.with_suffix(BYTES)
            place.write_bytes(context)
            place = _named_by_content(place)
        elif hasattr(context, "read"):
            ending = _ending(context)
            place = trace.with_suffix(ending or TEXT)
            if _copy(context, place) and ending is None:
                place = _named_by_content(place)
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


def _ending(source: Any) -> str | None:
    """The ending for a file object, by its name if it has one."""
    name = getattr(source, "name", None)
    found = _ENDING.search(name) if isinstance(name, str) else None
    return f".context{found[0]}" if found else None


def _copy(source: Any, place: Path) -> bool:
    """Whether it is bytes, and no text. Raises OSError, UsageError."""
    with place.open("wb") as file:
        is_text = isinstance(piece := _read(source), str)
        while piece:
            if isinstance(piece, str) is not is_text:
                raise UsageError("The context cannot be read: it gave text and bytes.", hint=HINT)
            file.write(piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece)
            piece = _read(source)
    return not is_text


def _read(source: Any) -> str | bytes:
    """A piece of a file object, which may be anybody's. Raises UsageError."""
    try:
        piece = source.read(_BLOCK)
    except Exception as error:
        raise _unreadable(error, "The context cannot be read") from error
    if not isinstance(piece, str | bytes):
        given = type(piece).__name__
        raise UsageError(
            f"The context cannot be read: it gave a {given}, and neither text nor bytes.", hint=HINT
        )
    return piece


def _unreadable(error: Exception, what: str) -> RLMError:
    """The error for one of the program that gave the context. One of ours is itself."""
    if isinstance(error, RLMError):
        return error
    said = f": {error}".rstrip(". ") if str(error) else ""
    return UsageError(
        f"{what}: {type(error).__name__}{said}.", hint="It is an error of the program that gave the context."
    )


def _named_by_content(place: Path) -> Path:
    """The file under an ending by which the kernel reads it, where its beginning tells one."""
    with place.open("rb") as file:
        head = file.read(8)
        ending = next((ending for start, ending in _STARTS.items() if head.startswith(start)), None)
        if ending == ".zip":
            ending = _zip_ending(file)
    if ending is None:
        return place
    named = place.with_suffix(ending)
    os.replace(place, named)
    return named


def _zip_ending(file: IO[bytes]) -> str:
    """The ending of a zip that may be a document."""
    try:
        with zipfile.ZipFile(file) as packed:
            names = packed.namelist()
            if names[:1] == ["mimetype"] and packed.getinfo("mimetype").file_size < _NAME:
                kind = packed.read("mimetype").rpartition(b".opendocument.")[2]
                if kind in _OPEN_DOCUMENTS:
                    return _OPEN_DOCUMENTS[kind]
    except Exception:  # a damaged one: the kernel tells what is wrong with it
        return ".zip"
    found = (ending for part, ending in _IN_ZIP.items() if any(name.startswith(part) for name in names))
    return next(found, ".zip")


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
    """A list, an item after the other. Raises UsageError for what the iterator itself raises."""
    end = object()
    file.write("[")
    for number in itertools.count():
        try:
            item = next(items, end)
        except Exception as error:
            raise _unreadable(error, f"Item {number} of the context could not be made") from error
        if item is end:
            break
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
