"""Text out of bytes: which encoding they are in, and where a text is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlm_runtime import charsets, memory
from rlm_runtime.appended import decode_wide, narrowed
from rlm_runtime.lazytext import LazyText
from rlm_runtime.ondisk import OnDisk
from rlm_runtime.source import Source
from rlm_runtime.unpacking import Unreadable

_NO_TEXT = "It holds no text that could be read."
_BAD = "\N{REPLACEMENT CHARACTER}"
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_MIXED = "parts of it are UTF-16 and others are not: both were read"


class Read(NamedTuple):
    """A file's text, its encoding ("" where the kind of file settles it), how many undecodable places were
    replaced, and what it lacks.

    `stray`: the code page by which bytes were read that are not UTF-8, in a file that is; `parts`: texts of
    their own that are in the file, by name: sheets of a workbook, tables of a database, attachments of a
    mail.
    """

    text: str | LazyText
    encoding: str = ""
    replaced: int = 0
    lacks: tuple[str, ...] = ()
    stray: str = ""
    parts: tuple[tuple[str, Read], ...] = ()

    def named(self, name: str) -> Iterator[tuple[str, Read]]:
        """The texts of a file of this name, each by the name that it gets: the file's own text, if there is
        one, and those of its parts by the file's name and theirs. What the file lacks is told of the first.
        """
        lacks = self.lacks
        if self.text or not self.parts:
            yield name, self._replace(parts=())
            lacks = ()
        for part, read in self.parts:
            for label, text in read.named(f"{name}/{part}"):
                yield label, text._replace(lacks=(*lacks, *text.lacks))
                lacks = ()

    def note(self) -> str:
        """What the user should know of how it was read; "" if it was plain UTF-8."""
        parts = (
            [f"read as {charsets.usual_name(self.encoding)}"]
            if self.encoding not in ("", "utf-8", "ascii")
            else []
        )
        parts += [f"bytes that are not UTF-8 read as {charsets.usual_name(self.stray)}"] if self.stray else []
        parts += [f"{self.replaced:,} undecodable places replaced"] if self.replaced else []
        parts += (
            ["too large for memory, so it stays on disk (LazyText)"]
            if isinstance(self.text, LazyText)
            else []
        )
        parts += self.lacks
        return "; ".join(parts)


def on_disk(path: Path, name: str) -> Read:
    """The text of a file that is text and stays on disk. Raises Unreadable, OSError."""
    charset = _charset(OnDisk(path), name)
    source = Source(path, charset.encoding, charset.start, errors=charset.errors)
    return Read(LazyText(source, memory.one_text()), charset.encoding, stray=charset.stray)


def decode(data: bytes, name: str = "the file") -> Read:
    """Bytes as text, by the encoding that they are found to be in. Raises Unreadable for binary data."""
    if (text := _utf_8(data)) is not None:
        return Read(_unmarked(text), "utf-8")
    charset = _charset(data, name)
    if charset.encoding.startswith("utf-16"):
        with memoryview(data) as view:
            text, mixed = decode_wide(view[charset.start :], charset.encoding)
    else:
        mixed = (narrow := narrowed(data)) is not data
        if mixed:
            charset = _charset(data := narrow, name)
        with memoryview(data) as view:
            text = str(view[charset.start :], charset.encoding, charset.errors)
    text = _unmarked(text)
    return Read(text, charset.encoding, text.count(_BAD), (_MIXED,) if mixed else (), charset.stray)


def _utf_8(data: bytes) -> str | None:
    """The text, where it is beyond doubt that it is UTF-8: what most texts are is decoded once, and not
    looked at before.
    """
    if data.isascii():
        return None  # it may be an encoding of seven bits
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or _BAD in text else text


def _unmarked(text: str) -> str:
    """Without byte-order marks: files that were put together have one at the beginning of each."""
    return text.lstrip(_MARK).replace(f"\n{_MARK}", "\n")


def _charset(data: charsets.Data, name: str) -> charsets.Charset:
    try:
        return charsets.find(data)
    except charsets.NoText as why:
        raise Unreadable(f"{name} is binary: {why}. {_NO_TEXT}") from None
