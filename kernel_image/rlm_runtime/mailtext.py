"""Mail as text: a message (.eml), or a mailbox of many (.mbox).

A message is its headers that matter, a line each, its attachments, a line each, an empty line, and what a
reader of mail shows. In a mailbox each stands after `=== message N ===`, and `records` takes them apart
again. A broken message costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from rlm_runtime.readers import decode
from rlm_runtime.unpacking import Unreadable

if TYPE_CHECKING:  # few kernels read mail, and all start
    from email.message import Message

_HEADERS = (
    "From",
    "To",
    "Cc",
    "Bcc",
    "Reply-To",
    "Date",
    "Subject",
    "Message-ID",
    "In-Reply-To",
    "References",
)
_DEEP = 20
_LONGEST = 64 << 20
"""Bytes of one message in a mailbox that are read."""
_LINE = 1 << 16
_STAMP = re.compile(rb"From .*\b\d\d?:\d\d(?::\d\d)?\b.*\b(?:19|20)\d\d\b")
_WHOLE_STAMP = re.compile(
    rb"From (?:\S+ +)?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) +[A-Z][a-z][a-z] +\d\d? +\d\d?:\d\d(?::\d\d)? .*\d{4}"
)
_BARE_STAMP = re.compile(rb"From(?: -| \S+@\S+)?\s*")
_IS_HEADER = re.compile(rb"(?:[!-9;-~]+[ \t]*:|>?From )")
_QUOTED = re.compile(rb">+From ")
_SEPARATOR = re.compile(r"=== message (\d+) ===")
_LIKE_SEPARATOR = re.compile(r"^(?= *=== message \d+ ===$)", re.MULTILINE)
_ESCAPED = re.compile(r"^ (?= *=== message \d+ ===$)", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ATTACHMENT = "Attachment"
_SEALED = (
    "its text is encrypted or signed as one ({}), and is not read here. Save it from your mail program as it "
    "is shown there"
)
_SEVEN_BITS = ("iso-2022", "utf-7", "hz")
_RICHER = 4
"""Times the length of a message's plain text from which on its HTML is taken: the other only says that there
is some.
"""
_ALIASES = {"gb2312": "gb18030", "ks_c_5601-1987": "cp949", "iso-8859-1": "cp1252", "us-ascii": "cp1252"}


class Attachment(NamedTuple):
    """A file in a message."""

    name: str
    kind: str
    data: bytes


class Mail(NamedTuple):
    """A message as text, the files in it, and what its text lacks."""

    text: str
    attachments: list[Attachment]
    notes: list[str]


def mail(data: bytes) -> Mail:
    """A message. Raises Unreadable for what is none."""
    count = re.match(rb"\s*(\d{1,12})[ \t]*\r?\n", data)
    if count:  # Apple's .emlx: its length, the message, and what the program knows of it
        data = data[count.end() : count.end() + int(count[1])]
    data = data.lstrip(b"\r\n\xef\xbb\xbf")
    if not _IS_HEADER.match(data):
        raise Unreadable("it does not begin with headers")
    return _mail(data)


def _mail(data: bytes) -> Mail:
    import email

    data = data[data.find(b"\n") + 1 :] if data.startswith(b"From ") else data
    shown = _Shown()
    text = shown.message(email.message_from_bytes(data), 0)
    return Mail(text, shown.attachments, shown.notes)


def mailbox(file: IO[bytes], room: int) -> tuple[str, list[str]]:
    """The messages of a mailbox, and what is lacking. `room`: bytes that their text may have.

    Raises Unreadable where there is none.
    """
    texts: list[str] = []
    notes: list[str] = []
    broken: list[str] = []
    cut = 0
    for number, (data, is_cut) in enumerate(_messages(file), 1):
        cut += is_cut
        try:
            found = _mail(data)
        except Exception as error:  # a message can make the parser raise anything
            broken.append(f"message {number:,}: {error}")
            text = f"Subject: [left out: {str(error)[:200]}]\n"
        else:
            text = found.text
            notes += [f"message {number:,}: {note}" for note in found.notes]
        text = f"=== message {number} ===\n" + _LIKE_SEPARATOR.sub(" ", text)
        room -= len(text.encode("utf-8", "replace")) + 2
        if room < 0:
            notes.insert(0, f"only its first {number - 1:,} messages, as there is no room for more")
            break
        texts.append(text)
    if not texts or len(broken) == len(texts):
        raise Unreadable(broken[0] if broken else "there is no message in it")
    if broken:
        notes.insert(0, f"{len(broken):,} messages left out ({'; '.join(broken[:3])})")
    if cut:
        notes.append(f"{cut:,} messages have more than {_LONGEST >> 20} MiB, and were read up to there")
    return "\n\n".join(texts), notes


def begins_mailbox(head: bytes) -> bool:
    """Whether a file that begins so is a mailbox."""
    first, _, rest = head.partition(b"\n")
    return bool(_STAMP.match(first) and _IS_HEADER.match(rest))


def is_mailbox(head: str) -> bool:
    """Whether a text that begins so is a mailbox as it is shown here."""
    return head.startswith("=== message 1 ===\n")


def records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The messages of such a text: by the names of the headers in lower case, with `_` for `-`; `attachments`
    is a list, and `text` is what follows the headers. `message` counts them.
    """
    number, own = 0, []
    for line in lines:
        found = _SEPARATOR.fullmatch(line.rstrip("\n"))
        if found and int(found[1]) == number + 1:
            if number:
                yield _record(number, "".join(own))
            number, own = number + 1, []
        else:
            own.append(line)
    if number:
        yield _record(number, "".join(own))


def _record(number: int, text: str) -> dict[str, Any]:
    head, _, body = f"\n{text}".partition("\n\n")  # there may be no header
    row: dict[str, Any] = {"message": number}
    row |= {name.lower().replace("-", "_"): "" for name in _HEADERS} | {"attachments": []}
    for line in head.split("\n"):
        name, _, value = line.partition(": ")
        if name == _ATTACHMENT:
            row["attachments"].append(value)
        elif name in _HEADERS:
            row[name.lower().replace("-", "_")] = value
    row["text"] = _ESCAPED.sub("", body).strip("\n")
    return row


def _messages(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The messages of a mailbox as they were sent, and whether one was cut.

    A line that begins with `From ` begins a message where an empty line stands before it and a header after
    it. Lengths that headers tell are often wrong, and are not looked at.
    """
    own, cut = bytearray(), False
    empty, whole = True, True
    line = file.readline(_LINE)
    while line:
        after = file.readline(_LINE)
        if whole and empty and _begins(line, after):
            if own.strip():
                yield bytes(own), cut
            own, cut = bytearray(), False
        elif len(own) < _LONGEST:
            own += line[1:] if whole and _QUOTED.match(line) else line
        else:
            cut = True
        empty, whole = whole and not line.strip(), line.endswith(b"\n")
        line = after
    if own.strip():
        yield bytes(own), cut


def _begins(line: bytes, after: bytes) -> bool:
    if not line.startswith(b"From"):
        return False
    if not after.strip():
        return bool(_WHOLE_STAMP.match(line))
    return bool((_STAMP.match(line) or _BARE_STAMP.fullmatch(line)) and _IS_HEADER.match(after))


class _Shown:
    """Makes text of a message, and gathers what is in it."""

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.notes: list[str] = []

    def message(self, message: Message, depth: int) -> str:
        before = len(self.attachments)
        body = "\n\n".join(text for text in self._part(message, depth) if text.strip())
        lines = [f"{name}: {value}" for name, value in _headers(message)]
        for attachment in self.attachments[before:]:
            lines.append(
                f"{_ATTACHMENT}: {attachment.name} ({attachment.kind}, {len(attachment.data):,} bytes)"
            )
        return "\n".join([*lines, "", body.strip("\n")])

    def _part(self, part: Message, depth: int) -> Iterator[str]:
        """The texts of a part, one after the other."""
        kind = part.get_content_type()
        if depth > _DEEP:
            self.notes.append(f"what lies more than {_DEEP} parts deep was left out")
        elif kind == "multipart/alternative" and part.is_multipart():
            yield self._best(part, depth)
        elif kind == "multipart/encrypted":
            self.notes.append(_SEALED.format("PGP"))
        elif kind == "message/rfc822" and part.is_multipart():
            for inner in part.get_payload():  # type: ignore[union-attr]
                yield f"[attached message]\n{self.message(inner, depth + 1)}\n[end of the attached message]"  # type: ignore[arg-type]
        elif part.is_multipart():
            for inner in part.get_payload():  # type: ignore[union-attr]
                yield from self._part(inner, depth + 1)  # type: ignore[arg-type]
        else:
            yield self._leaf(part, kind)

    def _best(self, part: Message, depth: int) -> str:
        """Of several forms of one text the plain one, unless that only says that there is another."""
        plain, rich = "", ""
        for inner in part.get_payload():  # type: ignore[union-attr]
            text = "\n\n".join(self._part(inner, depth + 1))  # type: ignore[arg-type]
            if inner.get_content_type() == "text/plain":  # type: ignore[union-attr]
                plain = plain or text
            else:
                rich = text if text.strip() else rich
        return rich if len(rich) > _RICHER * len(plain.strip()) + 200 or not plain.strip() else plain

    def _leaf(self, part: Message, kind: str) -> str:
        name = _file_name(part)
        data = _payload(part)
        if kind in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
            self.notes.append(_SEALED.format("S/MIME"))
        said = kind in _SAID or kind.startswith("multipart/")  # one whose parts could not be told apart
        if said and not name and part.get_content_disposition() != "attachment":
            text = _text(data, part)
            if "-----BEGIN PGP MESSAGE-----" in text:
                self.notes.append(_SEALED.format("PGP"))
            return _page(text) if kind == "text/html" else text.replace("\r\n", "\n")
        if data or name:
            number = len(self.attachments) + 1
            name = name or f"part {number}{_ENDINGS.get(kind, '')}"
            self.attachments.append(Attachment(name, kind, data))
        return ""


_SAID = frozenset(
    (
        "text/plain",
        "text/html",
        "text/enriched",
        "message/delivery-status",
        "message/disposition-notification",
    )
)
"""Kinds of parts that belong to the text of a message."""
_ENDINGS = {"text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics", "text/csv": ".csv"}


def _page(page: str) -> str:
    from rlm_runtime.htmltext import html_text

    return html_text(page)


def _headers(message: Message) -> Iterator[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        found.setdefault(name.lower(), []).append(_header(str(value)))
    for name in _HEADERS:
        values = found.get(name.lower(), [])
        if name == "Date":
            values = list(map(_date, values[:1]))
        if value := ", ".join(values).strip():
            yield name, value


def _header(raw: str) -> str:
    """The value of a header on one line, with all that is encoded in it decoded, as far as it can be."""
    from email.errors import MessageError
    from email.header import decode_header

    if not raw.isascii():
        raw = _decoded(raw.encode("utf-8", "surrogateescape"), "")
    raw = re.sub(r"\r?\n", "", raw)
    try:
        parts = decode_header(raw)
        text = "".join(
            part if isinstance(part, str) else _decoded(part, charset or "") for part, charset in parts
        )
    except (ValueError, LookupError, MessageError):
        text = raw
    return " ".join(_CONTROLS.sub(" ", text).split())


def _date(value: str) -> str:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return value


def _decoded(data: bytes, charset: str) -> str:
    """Bytes by the charset that they are said to have, if that can be; UTF-8 is seldom anything else."""
    charset = charset.strip("\"' ").lower()
    if data.isascii() and not charset.startswith(_SEVEN_BITS):
        return data.decode("ascii")
    for codec in (
        charset if charset.startswith(_SEVEN_BITS) else "utf-8",
        _ALIASES.get(charset, charset),
        charset,
    ):
        try:
            return data.decode(codec) if codec else _found(data)
        except (UnicodeError, LookupError, ValueError):
            continue
    return _found(data)


def _found(data: bytes) -> str:
    try:
        return str(decode(data).text)
    except Unreadable:
        return data.decode("latin-1")


def _text(data: bytes, part: Message) -> str:
    return _decoded(data, _safe(part.get_content_charset) or "")


def _payload(part: Message) -> bytes:
    """The bytes of a part; of what is encoded wrongly, as far as they can be had."""
    if part.is_multipart():
        return "\n".join(str(inner) for inner in part.get_payload()).encode("utf-8", "surrogateescape")
    return _safe(lambda: part.get_payload(decode=True)) or b""


def _file_name(part: Message) -> str:
    for header, value in part.raw_items():
        if header.lower() in ("content-disposition", "content-type") and not str(value).isascii():
            part.replace_header(header, _decoded(str(value).encode("utf-8", "surrogateescape"), ""))
    name = _header(str(_safe(part.get_filename) or ""))
    return name.replace("\\", "/").rpartition("/")[2]


def _safe(get: Callable[[], Any]) -> Any:
    """What a look into a header gives; None where it is so odd that the library raises."""
    try:
        return get()
    except Exception:
        return None
