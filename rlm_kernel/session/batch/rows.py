"""The rows of a file, one after the other: JSON lines, CSV or Parquet, of any length, or standard input.

Blocking, and lazy: a file of millions of rows is never in memory as a whole, and what comes through a pipe is
given as it comes.
"""

from __future__ import annotations

import base64
import codecs
import csv
import gzip
import importlib
import io
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rlm_kernel.errors import RLMError, SetupError, UsageError
from rlm_kernel.nearest import did_you_mean, nearest_path

STDIN = Path("-")
MAX_LINE = 64 << 20
"""Bytes of a line, and of a field of a CSV file."""
MAX_ARRAY = 256 << 20
"""Characters of a file that is one JSON array: it is read as a whole."""
_AT_ONCE = 256
"""Rows of a Parquet file that are in memory at one time."""
_DELIMITERS = ",;\t|"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """`number`: of its line, or of the row in a table, from 1."""

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line or row that is none, and why: it does not stop the others."""

    number: int
    why: str


def read_rows(path: Path) -> Iterator[Row | BadLine]:
    """The rows of a file; its kind goes by the ending, JSON lines where there is no other. `-` is standard
    input.

    Raises UsageError for a file that cannot be read at all, SetupError for Parquet without pyarrow.
    """
    kind = _kind(path)
    if kind in (".parquet", ".pq"):
        yield from _parquet(path)
        return
    try:
        with _opened(path) as file:
            lines = _lines(file)
            yield from (
                _csv(lines, "\t" if kind == ".tsv" else "") if kind in (".csv", ".tsv") else _json(lines)
            )
    except (OSError, EOFError) as error:
        raise _unreadable(path, error) from error


def count_rows(path: Path) -> int | None:
    """About how many rows there are, without reading what is in them; None where that cannot be known."""
    try:
        if path == STDIN or not path.is_file() or path.suffix.lower() == ".gz":
            return None
        if _kind(path) in (".parquet", ".pq"):
            parquet: Any = importlib.import_module("pyarrow.parquet")
            return int(parquet.ParquetFile(path).metadata.num_rows)
        with path.open("rb") as file:
            count, last = 0, b"\n"
            while block := file.read(1 << 20):
                count, last = count + block.count(b"\n"), block[-1:]
        return count + (last != b"\n") - (_kind(path) in (".csv", ".tsv"))
    except Exception:  # whoever reads the file tells what is wrong with it
        return None


def _kind(path: Path) -> str:
    named = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return named.suffix.lower()


def _opened(path: Path) -> IO[bytes]:
    """Raises OSError, UsageError."""
    if path == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "Standard input is a terminal: there are no questions to read.",
                hint="Pipe them in: cat QUESTIONS.jsonl | rlm batch -",
            )
        try:  # a file of our own: a thread that waits for sys.stdin keeps Python from ending well
            return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
        except (OSError, ValueError):
            return sys.stdin.buffer
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder.", hint="To ask a question about each file in it: --each 'FOLDER/**/*'"
        )
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path))
    return path.open("rb")


def _unreadable(path: Path, error: Exception) -> RLMError:
    missing = isinstance(error, FileNotFoundError)
    why = "is not there" if missing else f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return UsageError(f"{path} {why}.", hint=did_you_mean(nearest_path(path)) if missing else "")


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | str] | BadLine]:
    """Lines with their ends, which are `\\n` alone: texts hold others. Texts of UTF-16, bytes of all else."""
    start = file.peek(2)[:2] if isinstance(file, io.BufferedReader | gzip.GzipFile) else b""
    reading: IO[Any] = io.TextIOWrapper(file, "utf-16", "replace", newline="\n") if start in _UTF16 else file
    try:
        yield from _lines_of(reading)
    finally:
        if reading is not file:
            reading.detach()  # type: ignore[attr-defined]  # whoever opened the file closes it


def _lines_of(reading: IO[Any]) -> Iterator[tuple[int, bytes | str] | BadLine]:
    for number in itertools.count(1):
        line = reading.readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) <= MAX_LINE:
            yield number, line
            continue
        while line and line[-1:] not in (b"\n", "\n"):
            line = reading.readline(MAX_LINE)
        yield BadLine(number, f"it is longer than {MAX_LINE >> 20} MB.")


def _json(lines: Iterator[tuple[int, bytes | str] | BadLine]) -> Iterator[Row | BadLine]:
    first = True
    for line in lines:
        if isinstance(line, BadLine):
            yield line
            continue
        number, raw = line
        try:
            text = (raw if isinstance(raw, str) else raw.decode("utf-8")).strip("\ufeff \t\r\n")
        except UnicodeDecodeError:
            yield BadLine(number, "it is not UTF-8.")
            continue
        if not text:
            continue
        if first and text.startswith("[") and (array := _array(text, lines)) is not None:
            yield from array
            return
        first = False
        yield _object(number, text)


def _object(number: int, text: str) -> Row | BadLine:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"it is not JSON: {_short(error)}.")
    if not isinstance(value, dict):
        return BadLine(number, 'it is not a JSON object, such as {"question": "…"}.')
    return Row(number, value)


def _array(first: str, lines: Iterator[tuple[int, bytes | str] | BadLine]) -> list[Row | BadLine] | None:
    """The members of a file that is one JSON array; None if the first line is all of an array."""
    if first.endswith("]") and not first.startswith("[{"):
        return None
    parts, size = [first], len(first)
    for line in lines:
        if isinstance(line, BadLine) or size > MAX_ARRAY:
            raise UsageError(
                "The file is one JSON array that is too large to read at once.",
                hint="Convert it to JSON Lines, with one object on each line: jq -c '.[]' FILE.json > "
                "FILE.jsonl",
            )
        raw = line[1]
        parts.append(raw if isinstance(raw, str) else raw.decode("utf-8", "replace"))
        size += len(parts[-1])
    try:
        values = json.loads("".join(parts))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"The file looks like a JSON array but is not valid JSON: {_short(error)}.",
            hint="A file of questions has one JSON object on each line.",
        ) from None
    return [
        Row(number, value) if isinstance(value, dict) else BadLine(number, "it is not a JSON object.")
        for number, value in enumerate(values, 1)
    ]


def _csv(lines: Iterator[tuple[int, bytes | str] | BadLine], delimiter: str) -> Iterator[Row | BadLine]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    skipped: list[BadLine] = []
    texts = _texts(lines, skipped)
    header = next((text for text in texts if text.strip()), "")
    delimiter = delimiter or max(_DELIMITERS, key=header.count)
    rows = csv.reader(itertools.chain([header], texts), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise UsageError(
            f"The first line of the table does not name the columns: {_short(error)}.",
            hint="If its lines end with a carriage return only: tr '\\r' '\\n' < FILE > NEW",
        ) from error
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise UsageError(f"The table has two columns named {twice[0][:100]!r}.", hint="Rename one of them.")
    for number in itertools.count(1):
        try:
            cells = next(rows)
            while not any(cells):
                cells = next(rows)
        except StopIteration:
            yield from skipped
            return
        except csv.Error as error:
            yield BadLine(number, f"it cannot be read: {_short(error)}.")
            continue
        if any(cells[len(names) :]):
            yield BadLine(number, f"it has {len(cells)} fields, and the first line names {len(names)}.")
            continue
        yield Row(number, dict(itertools.zip_longest(names, cells[: len(names)], fillvalue="")))


def _texts(
    lines: Iterable[tuple[int, bytes | str] | BadLine], skipped: list[BadLine] | None = None
) -> Iterator[str]:
    """Of a table as spreadsheets write it: in UTF-8, or as Windows has it. `skipped` gets the bad lines."""
    for line in lines:
        if isinstance(line, BadLine):
            if skipped is not None:
                skipped.append(line)
            continue
        yield _decoded(line[1]).removeprefix("\ufeff")


def _decoded(raw: bytes | str) -> str:
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _parquet(path: Path) -> Iterator[Row | BadLine]:
    if path == STDIN or not path.is_file():
        raise _unreadable(path, FileNotFoundError())
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SetupError(
            "rlm reads Parquet files with pyarrow, which is not installed.",
            hint="pip install pyarrow, or give the table as .csv or .jsonl.",
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_ONCE):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {name: _plain(value) for name, value in values.items()})
    except (OSError, ValueError) as error:  # Arrow's own are of these
        raise UsageError(f"{path} cannot be read as Parquet: {_short(error)}") from error


def _plain(value: Any) -> Any:
    """Bytes are base64 in JSON."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
