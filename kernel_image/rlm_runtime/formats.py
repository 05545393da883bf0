"""Files of all kinds as text.

The ending of a name tells the kind, and the content where the ending says nothing or is wrong.

Files are opened here, in the container, because a file can be hostile to its reader. One bad part of a file
costs that part alone.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import IO

from rlm_runtime import archives, memory
from rlm_runtime.declared import declared_encoding
from rlm_runtime.kinds import ENDINGS, HEAD, MANY, PACKED, STARTS, kind_of, looks_like
from rlm_runtime.lines import with_line_feeds
from rlm_runtime.picturefile import Picture
from rlm_runtime.readers import Read, decode, on_disk
from rlm_runtime.unpacking import MAGIC, Budget, TooMuch, Unreadable, unpacked

_PIECE = 1 << 16
_IN_PARTS = MANY | {
    "spreadsheet",
    "SQLite",
    "Parquet",
    "mailbox",
    "presentation",
    "OpenDocument",
    "EPUB",
    "Word",
}
"""Kinds that are never in memory as a whole."""
_INSTEAD = {".ppt": ".pptx", ".pps": ".pptx", ".doc": ".docx", ".dot": ".docx"}
_INSTEAD |= {".msg": ".eml, as your mail program exports it", ".pst": ".mbox", ".ost": ".mbox"}
"""What a file is to be saved as that is not read here."""
_THE_SAME = frozenset(
    (
        ("Word", "a Word file"),
        ("presentation", "slides"),
        ("EPUB", "a book"),
        ("OpenDocument", "an OpenDocument file"),
    )
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
        kind = kind_of(name, file.read(HEAD))
        file.seek(0)
        if kind == "text":
            return _with_lines(decode(file.read(size), name) if size <= room else on_disk(path, name))
        if kind == "picture":
            return Read(Picture.read(path, name))
        if size > memory.one_text() and kind not in _IN_PARTS:
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


def _read(file: IO[bytes], name: str, kind: str, budget: Budget) -> Read:
    """The text of a file of a kind. Raises Unreadable."""
    try:
        read = _READERS[kind](file, name, budget)
    except Unreadable as error:
        raise type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    except Exception as error:  # a reader of another project may raise anything on a damaged file
        actual = looks_like(file)
        wrong = actual and kind not in ("mail", "mailbox", actual) and (kind, actual) not in _THE_SAME
        wrong = wrong and not actual.startswith(kind)
        why = f"It is {actual}." if wrong else f"{type(error).__name__}: {error}"
        raise Unreadable(f"{name} cannot be read as {kind}. {why}") from error
    if kind not in MANY:
        budget.keep(len(str(read.text).encode("utf-8", "surrogatepass")))
    return read


def _read_data(data: bytes, name: str, budget: Budget) -> Read:
    """The text of bytes that came out of another file."""
    return _read(io.BytesIO(data), name, kind_of(name, data[:HEAD]), budget) if data else Read("")


def _member(data: bytes, name: str, budget: Budget) -> archives.Told:
    read = _read_data(data, name, budget)
    (first, own), *parts = read.named(name)
    text = str(own.text) if first == name else f"=== {first} ===\n{own.text}"
    more = (f"\n\n=== {label} ===\n{str(part.text).rstrip()}" for label, part in parts)
    text = (text.rstrip("\n") if parts else text) + "".join(more)
    return archives.Told(text, [note for _, part in ((first, own), *parts) if (note := part.note())])


def _archive(file: IO[bytes], _name: str, budget: Budget, members: Callable[..., archives.Members]) -> Read:
    notes: list[str] = []
    text, notes = archives.archive_text(members(file, notes), budget, notes, partial(_member, budget=budget))
    return Read(text, lacks=tuple(notes))


def _unpack(file: IO[bytes], name: str, budget: Budget) -> Read:
    ending = PurePath(name).suffix.lower()
    inner = PurePath(name).stem if ending in PACKED else name
    inner += ".tar" if ending.startswith(".t") and ending in PACKED else ""
    kind = kind_of(name, head := file.read(HEAD))
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

    if b"%PDF-" not in file.read(HEAD) and (actual := looks_like(file)):
        raise Unreadable(f"{name} is no PDF. It is {actual}.")
    file.seek(0)
    text, notes = pdf_text(file, budget.room)
    return Read(text, lacks=tuple(notes))


def _word(file: IO[bytes], name: str, budget: Budget) -> Read:
    from rlm_runtime.wordtext import word_text

    if file.read(8) == STARTS["old Office"]:
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


def _marked(file: IO[bytes], name: str, kind: str) -> None:
    """Raises Unreadable where the file does not begin as all of its kind do."""
    head = file.read(HEAD)
    if not head.startswith((STARTS[kind], b"PARE")) and (actual := looks_like(file)):
        raise Unreadable(f"{name} is no {kind} file. It is {actual}.")
    file.seek(0)


def _tables(file: IO[bytes], name: str, budget: Budget, kind: str) -> Read:
    from rlm_runtime.apart import tables

    if kind != "spreadsheet":
        _marked(file, name, kind)
    return tables(kind, file, budget)


def _zipped(file: IO[bytes], name: str, budget: Budget, kind: str) -> Read:
    """Slides, OpenDocument, books: XML and pages in a zip."""
    if file.read(8) == STARTS["old Office"]:
        raise Unreadable(
            f"{name} is encrypted, or an old Office file. Save it as .pptx, .docx or .pdf without a "
            f"password, and name "
            "that."
        )
    file.seek(0)
    room = min(budget.room, memory.one_text() // 4)  # a tree of XML takes many times its size
    if kind == "presentation":
        from rlm_runtime.slidetext import slide_text

        text, notes = slide_text(file, room)
    elif kind == "OpenDocument":
        from rlm_runtime.odftext import odf_text

        text, notes = odf_text(file, room)
    else:
        from rlm_runtime.epubtext import epub_text

        text, notes = epub_text(file, budget.room, lambda data: _page(data, name).text)
    return Read(text, lacks=tuple(notes))


def _mail(file: IO[bytes], name: str, budget: Budget) -> Read:
    from rlm_runtime.mailtext import mail

    data = file.read()
    try:
        text, attachments, notes = mail(data)
    except Unreadable as error:
        read = decode(data, name)
        return _with_lines(read)._replace(lacks=(f"no mail, so it is read as it stands ({error})",))
    parts: dict[str, Read] = {}
    with budget:
        for attachment in attachments:
            try:
                read = _read_data(attachment.data, attachment.name, budget)
            except Unreadable as error:
                if _told_of(attachment.name):
                    notes.append(f"attachment {attachment.name} left out: {error}")
                continue
            label = next(label for label in _numbered(attachment.name or "attachment") if label not in parts)
            parts[label] = read
    return Read(text, lacks=tuple(notes), parts=tuple(parts.items()))


def _told_of(name: str) -> bool:
    """Whether a file of this name is one whose text is missed: pictures and what is binary are named, no
    more.
    """
    return ENDINGS.get(PurePath(name).suffix.lower(), "picture") != "picture"


def _numbered(name: str) -> Iterator[str]:
    """The name, and with a number in it."""
    path = PurePath(name)
    yield name
    yield from (f"{path.stem} ({number}){path.suffix}" for number in itertools.count(2))


def _mailbox(file: IO[bytes], _name: str, budget: Budget) -> Read:
    from rlm_runtime.mailtext import mailbox

    text, notes = mailbox(file, budget.room)
    return Read(text, lacks=tuple(archives.few(notes)))


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
    "Outlook": _office,
    "spreadsheet": partial(_tables, kind="spreadsheet"),
    "SQLite": partial(_tables, kind="SQLite"),
    "Parquet": partial(_tables, kind="Parquet"),
    "presentation": partial(_zipped, kind="presentation"),
    "OpenDocument": partial(_zipped, kind="OpenDocument"),
    "EPUB": partial(_zipped, kind="EPUB"),
    "mail": _mail,
    "mailbox": _mailbox,
} | dict.fromkeys(PACKED.values(), _unpack)
