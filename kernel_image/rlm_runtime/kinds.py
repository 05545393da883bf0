"""What kind of file something is: by the ending of its name, and by its content where that says nothing or is
wrong.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import PurePath
from typing import IO

from rlm_runtime import archives
from rlm_runtime.mailtext import begins_mailbox
from rlm_runtime.picturefile import begins_picture
from rlm_runtime.readers import decode
from rlm_runtime.unpacking import MAGIC, Unreadable

HEAD = 4096
PACKED = {
    ".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".tbz": "bzip2", ".tbz2": "bzip2", ".xz": "xz",
    ".txz": "xz", ".lzma": "lzma",
    ".zst": "zstandard", ".tzst": "zstandard",
}  # fmt: skip
ENDINGS = PACKED | {
    ".zip": "zip", ".tar": "tar", ".pdf": "PDF", ".docx": "Word", ".docm": "Word", ".dotx": "Word",
    ".ipynb": "notebook", ".html": "HTML", ".htm": "HTML", ".xhtml": "HTML", ".xht": "HTML", ".mht": "MHTML",
    ".mhtml": "MHTML", ".doc": "Office", ".dot": "Office", ".ppt": "Office", ".pps": "Office", ".rtf": "RTF",
    ".xlsx": "spreadsheet", ".xlsm": "spreadsheet", ".xltx": "spreadsheet", ".xltm": "spreadsheet",
    ".xlsb": "spreadsheet", ".xls": "spreadsheet", ".xlt": "spreadsheet", ".ods": "spreadsheet",
    ".ots": "spreadsheet", ".pptx": "presentation", ".pptm": "presentation", ".ppsx": "presentation",
    ".ppsm": "presentation", ".potx": "presentation", ".odt": "OpenDocument", ".ott": "OpenDocument",
    ".odp": "OpenDocument", ".otp": "OpenDocument", ".epub": "EPUB", ".eml": "mail", ".emlx": "mail",
    ".mbox": "mailbox", ".mbx": "mailbox", ".msg": "Outlook", ".pst": "Outlook", ".ost": "Outlook",
    ".sqlite": "SQLite", ".sqlite3": "SQLite", ".db": "SQLite", ".db3": "SQLite", ".gpkg": "SQLite",
    ".parquet": "Parquet", ".parq": "Parquet", ".pq": "Parquet",
    ".png": "picture", ".jpg": "picture", ".jpeg": "picture", ".jpe": "picture", ".gif": "picture",
    ".webp": "picture", ".bmp": "picture", ".tif": "picture", ".tiff": "picture", ".avif": "picture",
    ".heic": "picture", ".heif": "picture",
}  # fmt: skip
_NEW_OFFICE = {".doc": "Word", ".dot": "Word", ".ppt": "presentation", ".pps": "presentation"}
"""What a file with such an ending is if it is a zip."""
STARTS = {
    "zip": b"PK\x03\x04",
    "PDF": b"%PDF-",
    "RTF": b"{\\rtf",
    "old Office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "SQLite": b"SQLite format 3\0",
    "Parquet": b"PAR1",
} | MAGIC
_BZIP2_BLOCK = b"1AY&SY"
_OFFICE = frozenset(("Office", "spreadsheet", "presentation", "OpenDocument"))
_BY_CONTENT = _OFFICE | {"text", "HTML", "notebook", "RTF"}
"""Kinds whose files have no mark of their own: what another one begins with is that other kind."""
MANY = frozenset(("zip", "tar", *PACKED.values()))
"""Kinds that hold other files."""
_IS_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body|table|meta)\b",
    re.I | re.S,
)


def kind_of(name: str, head: bytes) -> str:
    """The kind of a file by its name and its beginning; "text" is what is read as it stands."""
    ending = PurePath(name).suffix.lower()
    kind = ENDINGS.get(ending, "text")
    if kind not in _BY_CONTENT:
        return kind
    if begins_picture(head):
        return "picture"
    starts = next((found for found, magic in STARTS.items() if head.startswith(magic)), "")
    if kind in _OFFICE:
        if starts in ("zip", "old Office"):
            return _NEW_OFFICE.get(ending, kind) if starts == "zip" else kind
        return starts or ("HTML" if _IS_HTML.match(head) else "text")
    if starts == "SQLite":
        return starts
    if not ending and begins_mailbox(head):
        return "mailbox"
    if starts in ("zip", "PDF", "Parquet"):  # a text may begin so, too
        return "Word" if kind == "RTF" and starts == "zip" else starts if not ending else kind
    if starts == "RTF":
        return starts if kind in ("RTF", "HTML") else kind
    if starts in MAGIC and (starts != "bzip2" or head[4:10] == _BZIP2_BLOCK) and starts != "lzma":
        return starts
    if archives.is_tar(head):
        return "tar"
    return "text" if kind == "RTF" else kind


def is_format(name: str) -> bool:
    """Whether a file's name says that its text is inside something else."""
    return PurePath(name).suffix.lower() in ENDINGS


def looks_like(file: IO[bytes]) -> str:
    """What a file seems to be that is not what its name says; "" where nothing tells."""
    file.seek(0)
    head = file.read(HEAD)
    starts = next((found for found, magic in STARTS.items() if head.startswith(magic)), "")
    if starts == "zip":
        return _zip_kind(file)
    if starts or _IS_HTML.match(head):
        return starts or f"HTML, which begins {head[:60].decode('ascii', 'replace')!r}"
    if b"\0" in head:
        return ""
    try:
        return f"plain text, which begins {str(decode(head, '').text)[:60]!r}"
    except Unreadable:
        return ""


def _zip_kind(file: IO[bytes]) -> str:
    """What a zip is that may be a document."""
    try:
        names = zipfile.ZipFile(file).namelist()
    except Exception:
        return "a zip that is damaged or cut off: copy or download it again"
    kinds = {
        "word/": "a Word file",
        "xl/": "a workbook",
        "ppt/": "slides",
        "META-INF/container.xml": "a book",
    }
    kinds["content.xml"] = "an OpenDocument file"
    return next(
        (kind for part, kind in kinds.items() if any(name.startswith(part) for name in names)), "a zip"
    )
