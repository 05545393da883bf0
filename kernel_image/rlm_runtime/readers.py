"""Text out of files of many kinds. They are opened here, in the container, because a file can be hostile to its reader."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path, PurePath

_TEXT_LIMIT_NOTE = "It holds no text that could be read."
UNZIPPED_LIMIT = 4_000_000_000
"""Bytes that a .gz or .zip may unpack to; more is taken for a decompression bomb."""


class Unreadable(ValueError):
    """The file holds no text: binary, damaged, or of an unknown kind."""


def read_file(path: Path, name: str) -> str:
    """The text of a file; its kind is told by the ending of `name`. Raises Unreadable, OSError."""
    return to_text(path.read_bytes(), name)


def to_text(data: bytes, name: str) -> str:
    """The text of a file's bytes. Raises Unreadable."""
    ending = PurePath(name).suffix.lower()
    if not data:
        return ""
    try:
        if ending == ".gz":
            return to_text(_gunzip(data, name), PurePath(name).stem)
        if ending == ".zip":
            return _unzip(data, name)
        if ending == ".pdf":
            return _pdf(data)
        if ending == ".docx":
            return _docx(data)
        if ending == ".ipynb":
            return _notebook(data)
        if ending in (".html", ".htm"):
            return _html(data)
    except Unreadable:
        raise
    except Exception as error:  # a reader of another project may raise anything on a damaged file
        raise Unreadable(f"{name} cannot be read as {ending}: {type(error).__name__}: {error}") from error
    return decode(data, name)


def decode(data: bytes, name: str = "the file") -> str:
    """Bytes as text: by byte-order mark, as UTF-8, else by detection. Raises Unreadable for binary data."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    sample = data[:65536]
    if b"\0" in sample and sample.count(0) < len(sample) // 8:
        raise Unreadable(f"{name} is binary (it holds NUL bytes). {_TEXT_LIMIT_NOTE}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None:
        raise Unreadable(f"{name} is in no known encoding. {_TEXT_LIMIT_NOTE}")
    return data.decode(best.encoding, "replace")


def _gunzip(data: bytes, name: str) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        plain = packed.read(UNZIPPED_LIMIT + 1)
    if len(plain) > UNZIPPED_LIMIT:
        raise Unreadable(f"{name} unpacks to more than {UNZIPPED_LIMIT:,} bytes.")
    return plain


def _unzip(data: bytes, name: str) -> str:
    parts = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > UNZIPPED_LIMIT:
            raise Unreadable(f"{name} unpacks to more than {UNZIPPED_LIMIT:,} bytes.")
        for member in members:
            try:
                parts.append(f"=== {member.filename} ===\n{to_text(archive.read(member), member.filename)}")
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
    for number, cell in enumerate(json.loads(decode(data))["cells"], 1):
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
