"""Text out of files of many kinds. They are opened here, in the container, because a file can be hostile to its reader."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import json
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import IO, NamedTuple

from rlm_runtime import memory
from rlm_runtime.lazytext import LazyText
from rlm_runtime.source import Source

_SAMPLE = 1 << 16
_NO_TEXT = "It holds no text that could be read."
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BAD = "\N{REPLACEMENT CHARACTER}"
_PACKED: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]


class Unreadable(ValueError):
    """The file holds no text: binary, damaged, or of an unknown kind."""


class Read(NamedTuple):
    """A file's text, its encoding ("" where the kind of file settles it), and how many undecodable bytes were replaced."""

    text: str | LazyText
    encoding: str = ""
    replaced: int = 0

    def note(self) -> str:
        """What the user should know of how it was read; "" if it was plain UTF-8."""
        parts = [f"read as {self.encoding}"] if self.encoding not in ("", "utf-8", "ascii") else []
        parts += [f"{self.replaced:,} undecodable places replaced"] if self.replaced else []
        parts += ["too large for memory, so it stays on disk (LazyText)"] if isinstance(self.text, LazyText) else []
        return ", ".join(parts)


def read_file(path: Path, name: str, *, room: int | None = None) -> Read:
    """The text of a file; its kind is told by the ending of `name`. Raises Unreadable, OSError.

    `room`: bytes that a plain text may have to be read into memory; default: this container's share for one.
    """
    room = memory.one_text() if room is None else room
    size = path.stat().st_size
    if not size:
        return Read("")
    kind = _KINDS.get(PurePath(name).suffix.lower())
    if kind is None:
        return _plain(path, name, size, room)
    if size > memory.one_text():
        raise Unreadable(
            f"{name} is too large for memory ({size:,} bytes), and {kind} files cannot be read in parts. Give its text as a file."
        )
    return to_text(path.read_bytes(), name)


def _plain(path: Path, name: str, size: int, room: int) -> Read:
    with path.open("rb") as file:
        if size <= room:
            return decode(file.read(size), name)
        sample = file.read(_SAMPLE)
    start, encoding = _mark(sample)
    if not encoding:
        _no_binary(sample, name)
        encoding = "utf-8" if _is_utf8(sample) else _detected(sample, name)
    return Read(LazyText(Source(path, encoding, start), memory.one_text()), encoding)


def to_text(data: bytes, name: str) -> Read:
    """The text of a file's bytes. Raises Unreadable."""
    ending = PurePath(name).suffix.lower()
    if not data:
        return Read("")
    try:
        if ending in _PACKED:
            return to_text(_unpack(data, ending, name), PurePath(name).stem)
        if ending == ".zip":
            return Read(_unzip(data, name))
        if ending == ".pdf":
            return Read(_pdf(data))
        if ending == ".docx":
            return Read(_docx(data))
        if ending == ".ipynb":
            return Read(_notebook(data))
        if ending in (".html", ".htm"):
            return Read(_html(data))
    except Unreadable:
        raise
    except Exception as error:  # a reader of another project may raise anything on a damaged file
        raise Unreadable(f"{name} cannot be read as {ending}: {type(error).__name__}: {error}") from error
    return decode(data, name)


def decode(data: bytes, name: str = "the file") -> Read:
    """Bytes as text: by byte-order mark, as UTF-8, else by detection. Raises Unreadable for binary data."""
    start, encoding = _mark(data[:4])
    view = memoryview(data)
    try:
        if encoding:
            text = str(view[start:], encoding, "replace")
            return Read(text, encoding, text.count(_BAD))
        _no_binary(data[:_SAMPLE], name)
        return Read(str(view, "utf-8"), "utf-8")
    except UnicodeDecodeError as error:
        text = str(view, "utf-8", "replace")
        bad = text.count(_BAD)
        if _mostly_utf8(text, bad):
            return Read(text, "utf-8", bad)
        around = max(0, error.start - _SAMPLE // 2)
        encoding = _detected(bytes(view[around : around + _SAMPLE]), name)
        text = str(view, encoding, "replace")
        return Read(text, encoding, text.count(_BAD))
    finally:
        view.release()


def _mostly_utf8(text: str, bad: int) -> bool:
    """There are more characters of several bytes than places that are none: a damaged UTF-8, and no other encoding."""
    good = itertools.islice(re.finditer(f"[^\\x00-\\x7f{_BAD}]", text), bad + 1)
    return sum(1 for _ in good) > bad


def _mark(head: bytes) -> tuple[int, str]:
    """Bytes and encoding of the byte-order mark; 0 and "" without one."""
    return next(((len(mark), encoding) for mark, encoding in _MARKS if head.startswith(mark)), (0, ""))


def _is_utf8(sample: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(sample)  # its end may be in the middle of a character
    except UnicodeDecodeError:
        text = sample.decode("utf-8", "replace")
        return _mostly_utf8(text, text.count(_BAD))
    return True


def _no_binary(sample: bytes, name: str) -> None:
    if b"\0" in sample and sample.count(0) < len(sample) // 8:
        raise Unreadable(f"{name} is binary (it holds NUL bytes). {_NO_TEXT}")


def _detected(sample: bytes, name: str) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None:
        raise Unreadable(f"{name} is in no known encoding. {_NO_TEXT}")
    # Its guess of a plain western text is one of many that do not differ there: the usual one is said.
    return str(best.encoding) if best.encoding != "ascii" else "utf-8"


def _unpack(data: bytes, ending: str, name: str) -> bytes:
    limit = memory.one_text()
    with _PACKED[ending](io.BytesIO(data)) as packed:
        plain = packed.read(limit + 1)
    if len(plain) > limit:
        raise _too_large(name, limit)
    return plain


def _too_large(name: str, limit: int) -> Unreadable:
    return Unreadable(
        f"{name} unpacks to more than {limit:,} bytes. Unpack it on disk, and name the unpacked file, which may have any size."
    )


def _unzip(data: bytes, name: str) -> str:
    parts = []
    limit = memory.one_text()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > limit:
            raise _too_large(name, limit)
        for member in members:
            try:
                parts.append(f"=== {member.filename} ===\n{to_text(archive.read(member), member.filename).text}")
            except Unreadable as error:
                parts.append(f"=== {member.filename} ===\n[left out: {error}]")
    return "\n\n".join(parts)


def _pdf(data: bytes) -> str:
    from pypdf import PdfReader

    pages = PdfReader(io.BytesIO(data)).pages
    return "\n\n".join(f"[page {number}]\n{page.extract_text()}" for number, page in enumerate(pages, 1))


def _docx(data: bytes) -> str:
    from docx import Document
    from docx.table import Table

    lines = []
    for block in Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def _notebook(data: bytes) -> str:
    parts = []
    for number, cell in enumerate(json.loads(str(decode(data).text))["cells"], 1):
        source = cell["source"]
        parts.append(f"[cell {number}: {cell['cell_type']}]\n{source if isinstance(source, str) else ''.join(source)}")
    return "\n\n".join(parts)


def _html(data: bytes) -> str:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(data, "lxml")
    for hidden in page(["script", "style", "template", "noscript"]):
        hidden.decompose()
    lines = (line.strip() for line in page.get_text("\n").splitlines())
    return "\n".join(line for line in lines if line)


_KINDS = {".zip": "zip", ".pdf": "PDF", ".docx": "Word", ".ipynb": "notebook", ".html": "HTML", ".htm": "HTML"} | dict.fromkeys(
    _PACKED, "packed"
)
"""Endings of files whose text is inside something else."""
