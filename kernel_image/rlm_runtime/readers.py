"""Text out of bytes: which encoding they are in, and where a text is kept."""

from __future__ import annotations

import codecs
import itertools
import re
from pathlib import Path
from typing import NamedTuple

from rlm_runtime import memory
from rlm_runtime.lazytext import LazyText
from rlm_runtime.source import Source
from rlm_runtime.unpacking import Unreadable

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


class Read(NamedTuple):
    """A file's text, its encoding ("" where the kind of file settles it), how many undecodable bytes were replaced, and what it lacks."""

    text: str | LazyText
    encoding: str = ""
    replaced: int = 0
    lacks: tuple[str, ...] = ()

    def note(self) -> str:
        """What the user should know of how it was read; "" if it was plain UTF-8."""
        parts = [f"read as {self.encoding}"] if self.encoding not in ("", "utf-8", "ascii") else []
        parts += [f"{self.replaced:,} undecodable places replaced"] if self.replaced else []
        parts += ["too large for memory, so it stays on disk (LazyText)"] if isinstance(self.text, LazyText) else []
        parts += self.lacks
        return "; ".join(parts)


def plain(path: Path, name: str, size: int, room: int) -> Read:
    """The text of a file that is text: in memory, or above `room` bytes on disk. Raises Unreadable, OSError."""
    with path.open("rb") as file:
        if size <= room:
            return decode(file.read(size), name)
        sample = file.read(_SAMPLE)
    start, encoding = _mark(sample)
    if not encoding:
        _no_binary(sample, name)
        encoding = "utf-8" if _is_utf8(sample) else _detected(sample, name)
    return Read(LazyText(Source(path, encoding, start), memory.one_text()), encoding)


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
