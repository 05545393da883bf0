"""Files of all kinds as text.

The ending of a name tells the kind, and the content where the ending says nothing or is wrong.

Files are opened here, in the container, because a file can be hostile to its reader. One bad part of a file
costs that part alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import IO

from rlm_runtime import archives, memory
from rlm_runtime.declared import declared_encoding
from rlm_runtime.lines import with_line_feeds
from rlm_runtime.picturefile import Picture, begins_picture
from rlm_runtime.readers import Read, decode, on_disk
from rlm_runtime.unpacking import MAGIC, Budget, TooMuch, Unreadable, unpacked

_HEAD = 4096
_PIECE = 1 << 16
_PACKED = {
    ".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".tbz": "bzip2", ".tbz2": "bzip2", ".xz": "xz",
    ".txz": "xz", ".lzma": "lzma",
    ".zst": "zstandard", ".tzst": "zstandard",
}  # fmt: skip
_ENDINGS = _PACKED | {
    ".zip": "zip", ".tar": "tar", ".pdf": "PDF", ".docx": "Word", ".docm": "Word", ".dotx": "Word",
    ".ipynb": "notebook", ".html": "HTML", ".htm": "HTML", ".xhtml": "HTML", ".xht": "HTML", ".mht": "MHTML",
    ".mhtml": "MHTML", ".doc": "Office", ".dot": "Office", ".xls": "Office", ".rtf": "RTF", ".xlsx": "Office",
    ".xlsm": "Office", ".xlsb": "Office", ".ods": "Office", ".ppt": "Office",
    ".pptx": "Office", ".odp": "Office", ".odt": "Office", ".epub": "zip",
    ".png": "picture", ".jpg": "picture", ".jpeg": "picture", ".jpe": "picture", ".gif": "picture",
    ".webp": "picture", ".bmp": "picture", ".tif": "picture", ".tiff": "picture", ".avif": "picture",
    ".heic": "picture", ".heif": "picture",
}  # fmt: skip
_INSTEAD = dict.fromkeys((".xls", ".xlsx", ".xlsm", ".xlsb", ".ods"), ".csv, each sheet by itself")
_INSTEAD |= dict.fromkeys((".ppt", ".pptx", ".odp"), ".pdf") | {".odt": ".docx"}
"""What a file is to be saved as that is not read here."""
_STARTS = {
    "zip": b"PK\x03\x04",
    "PDF": b"%PDF-",
    "RTF": b"{\\rtf",
    "old Office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
} | MAGIC
_BZIP2_BLOCK = b"1AY&SY"
_BY_CONTENT = frozenset(("text", "HTML", "notebook", "RTF", "Office"))
"""Kinds whose files have no mark of their own: what another one begins with is that other kind."""
_MANY = frozenset(("zip", "tar", *_PACKED.values()))
"""Kinds that hold other files."""
_IS_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body|table|meta)\b",
    re.I | re.S,
)
_TAG = re.compile(r"<[a-zA-Z!/?]")


def read_file(path: Path, name: str, *, room: int | None = None) -> Read:
    """The text of a file; its kind is told by the ending of `name`, and by what it begins with.

    Raises Unreadable, OSError.

    `room`: bytes that its text may have in memory; default: this container's share for one.
    """
    room = memory.one_text() if room is None else room
    size = path.stat().st_size
    if not size:
        return Read("")
    with path.open("rb") as file:
        kind = kind_of(name, file.read(_HEAD))
        file.seek(0)
        if kind == "text":
            return _with_lines(decode(file.read(size), name) if size <= room else on_disk(path, name))
        if kind == "picture":
            return Read(Picture.read(path, name))
        if size > memory.one_text() and kind not in _MANY:
            raise Unreadable(
                f"{name} is too large for memory ({size:,} bytes), and {kind} files cannot be read in "
                "parts. Give its text as a file."
            )
        try:
            return _read(file, name, kind, Budget(room))
        except TooMuch as error:
            raise Unreadable(
                f"{error}. Unpack it on disk, and name the unpacked file, which may have any size."
            ) from None


def kind_of(name: str, head: bytes) -> str:
    """The kind of a file by its name and its beginning; "text" is what is read as it stands."""
    ending = PurePath(name).suffix.lower()
    kind = _ENDINGS.get(ending, "text")
    if kind not in _BY_CONTENT:
        return kind
    if begins_picture(head):
        return "picture"
    starts = next((found for found, magic in _STARTS.items() if head.startswith(magic)), "")
    if kind == "Office":
        return {"zip": "Office" if ending in _INSTEAD else "Word"}.get(starts, starts) or (
            "HTML" if _IS_HTML.match(head) else "text"
        )
    if starts in ("zip", "PDF"):  # a text may begin so, too
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
    return PurePath(name).suffix.lower() in _ENDINGS


def _looks_like(file: IO[bytes]) -> str:
    """What a file seems to be that is not what its name says; "" where nothing tells."""
    file.seek(0)
    head = file.read(_HEAD)
    starts = next((found for found, magic in _STARTS.items() if head.startswith(magic)), "")
    if starts or _IS_HTML.match(head):
        return starts or f"HTML, which begins {head[:60].decode('ascii', 'replace')!r}"
    if b"\0" in head:
        return ""
    try:
        return f"plain text, which begins {str(decode(head, '').text)[:60]!r}"
    except Unreadable:
        return ""


def _read(file: IO[bytes], name: str, kind: str, budget: Budget) -> Read:
    """The text of a file of a kind. Raises Unreadable."""
    try:
        read = _READERS[kind](file, name, budget)
    except Unreadable as error:
        raise type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    except Exception as error:  # a reader of another project may raise anything on a damaged file
        actual = _looks_like(file)
        wrong = actual and not actual.startswith(kind) and (kind, actual) != ("Word", "zip")
        why = f"It is {actual}." if wrong else f"{type(error).__name__}: {error}"
        raise Unreadable(f"{name} cannot be read as {kind}. {why}") from error
    if kind not in _MANY:
        budget.keep(len(str(read.text).encode("utf-8", "surrogatepass")))
    return read


def _read_data(data: bytes, name: str, budget: Budget) -> Read:
    """The text of bytes that came out of another file."""
    return _read(io.BytesIO(data), name, kind_of(name, data[:_HEAD]), budget) if data else Read("")


def _member(data: bytes, name: str, budget: Budget) -> archives.Told:
    read = _read_data(data, name, budget)
    return archives.Told(str(read.text), [note for note in (read.note(),) if note])


def _archive(file: IO[bytes], _name: str, budget: Budget, members: Callable[..., archives.Members]) -> Read:
    notes: list[str] = []
    text, notes = archives.archive_text(members(file, notes), budget, notes, partial(_member, budget=budget))
    return Read(text, lacks=tuple(notes))


def _unpack(file: IO[bytes], name: str, budget: Budget) -> Read:
    ending = PurePath(name).suffix.lower()
    inner = PurePath(name).stem if ending in _PACKED else name
    inner += ".tar" if ending.startswith(".t") and ending in _PACKED else ""
    kind = kind_of(name, head := file.read(_HEAD))
    file.seek(0)
    if not head.startswith(MAGIC[kind]):  # what fetched it has unpacked it, and left it its name
        kind_of_rest = kind_of(inner, head)
        read = _read(file, inner, kind_of_rest, budget)
        return read._replace(lacks=(f"not packed by {kind}, whatever its name says", *read.lacks))
    notes: list[str] = []
    with budget:
        data = budget.take(unpacked(file, kind, notes))
        if not data and notes:
            raise Unreadable(notes[0])
        read = _read_data(data, inner, budget)
    return read._replace(lacks=(*notes, *read.lacks))


def _text(file: IO[bytes], name: str, budget: Budget) -> Read:
    return _with_lines(decode(budget.take(iter(partial(file.read, _PIECE), b"")), name))


def _with_lines(read: Read) -> Read:
    """With line feeds where carriage returns are the only line ends. A text on disk sees to that itself."""
    return read._replace(text=with_line_feeds(read.text)) if isinstance(read.text, str) else read


def _pdf(file: IO[bytes], name: str, budget: Budget) -> Read:
    from rlm_runtime.pdftext import pdf_text

    if b"%PDF-" not in file.read(_HEAD) and (actual := _looks_like(file)):
        raise Unreadable(f"{name} is no PDF. It is {actual}.")
    file.seek(0)
    text, notes = pdf_text(file, budget.room)
    return Read(text, lacks=tuple(notes))


def _word(file: IO[bytes], name: str, budget: Budget) -> Read:
    from rlm_runtime.wordtext import word_text

    if file.read(8) == _STARTS["old Office"]:
        raise Unreadable(
            f"{name} is encrypted, or an old Word file. Save it as .docx without a password, and name that."
        )
    file.seek(0)
    text, notes = word_text(
        file, min(budget.room, memory.one_text() // 4)
    )  # a tree of XML takes many times its size
    return Read(text, lacks=tuple(notes))


def _html(file: IO[bytes], name: str, _budget: Budget) -> Read:
    return _page(file.read(), name)


def _page(data: bytes, name: str, encoding: str = "") -> Read:
    """A page: in UTF-8 if it can be, else in the encoding that it names, else in the one that is found."""
    from rlm_runtime.htmltext import html_text

    read = None
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        for codec in ("utf-8", encoding, declared_encoding(data)):
            try:
                read = Read(data.decode(codec), codec) if codec else None
            except (UnicodeDecodeError, LookupError):
                continue
            if read is not None:
                break
    read = decode(data, name) if read is None or "\0" in str(read.text) else read
    page = str(read.text).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if not _TAG.search(page):
        return _with_lines(read)
    return read._replace(text=html_text(page))


def _mhtml(file: IO[bytes], name: str, _budget: Budget) -> Read:
    import email
    import email.policy

    message = email.message_from_binary_file(file, policy=email.policy.default)
    parts = [part for part in message.walk() if not part.is_multipart()]
    for wanted in ("text/html", "text/plain"):
        for part in parts:
            if part.get_content_type() == wanted and (data := part.get_payload(decode=True)):
                return _page(data, name, part.get_content_charset() or "")
    raise Unreadable("there is no page in it")


def _notebook(file: IO[bytes], name: str, _budget: Budget) -> Read:
    from rlm_runtime.notebooktext import notebook_text

    read = decode(file.read(), name)
    try:
        if len(str(read.text)) > memory.one_text() // 4:  # taken apart it takes many times its size
            raise ValueError("it is too large for memory")
        return read._replace(text=notebook_text(str(read.text)))
    except (ValueError, RecursionError) as error:
        return _with_lines(read)._replace(lacks=(f"no whole notebook, so it is read as it stands ({error})",))


def _rtf(file: IO[bytes], _name: str, _budget: Budget) -> Read:
    from striprtf.striprtf import rtf_to_text

    return Read(rtf_to_text(file.read().decode("latin-1"), errors="replace"))


def _packed_picture(_file: IO[bytes], _name: str, _budget: Budget) -> Read:
    raise Unreadable("it is a picture, which is not read out of an archive. Unpack it, and name the folder.")


def _office(_file: IO[bytes], name: str, _budget: Budget) -> Read:
    instead = _INSTEAD.get(PurePath(name).suffix.lower(), ".docx, .csv or .txt")
    raise Unreadable(
        f"it is an Office file of a kind that is not read here. Save it as {instead}, and name that."
    )


_READERS: dict[str, Callable[[IO[bytes], str, Budget], Read]] = {
    "text": _text,
    "zip": partial(_archive, members=archives.zip_members),
    "tar": partial(_archive, members=archives.tar_members),
    "PDF": _pdf,
    "Word": _word,
    "HTML": _html,
    "MHTML": _mhtml,
    "notebook": _notebook,
    "RTF": _rtf,
    "picture": _packed_picture,
    "Office": _office,
    "old Office": _office,
} | dict.fromkeys(_PACKED.values(), _unpack)
