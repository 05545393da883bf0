"""Whether a quotation stands where it is said to: the host reads the file's bytes and compares them."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from rlm_contract import ENCODINGS, MAX_QUOTE

from rlm_kernel import system
from rlm_kernel.engine.protocols import Evidence
from rlm_kernel.errors import UsageError

LONGEST = 4 * MAX_QUOTE
"""Bytes of a quotation."""
COUNTED = 4 << 30
"""Bytes of a file's beginning in which its lines are counted."""
_BLOCK = 1 << 20
_SHOWN = 120
_WHOLE = 32 << 20
"""Bytes of a file in which a passage without a place is looked for."""
_READ_OTHERWISE = frozenset((
    ".ipynb", ".html", ".htm", ".xhtml", ".xht", ".mht", ".mhtml", ".rtf", ".eml", ".emlx", ".mbox", ".mbx",
    ".pdf",
))  # fmt: skip
_BEGINS_OTHERWISE = (b"<", b"%PDF-", b"{\rtf", b"From ")
"""Files of characters of which readers make another text, by their endings, or how they begin."""
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


class QuoteDiffers(UsageError):
    """A quotation does not stand where it is said to. The message begins with its mark."""


def check(evidence: Evidence, place: Path) -> Evidence:
    """The evidence with the verdict `verbatim`, if `place` has exactly the quotation at its bytes; in
    characters of a reader's text it stays `unread`: only a kernel can make that text. Blocking.

    Raises QuoteDiffers, also where there is nothing that can be read.
    """
    if evidence.unit != "bytes":
        return replace(evidence, verdict="unread")
    size = evidence.end - evidence.start
    if evidence.encoding not in ENCODINGS or evidence.start < 0 or not 0 < size <= LONGEST:
        raise _differs(evidence, "its span or its encoding cannot be")
    try:
        with _opened(place) as file:
            there = evidence.end <= os.fstat(file).st_size
            raw = _at(file, evidence.start, size) if there else b""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _differs(evidence, f"the file cannot be read: {why}") from None
    try:
        found = raw.decode(evidence.encoding)
    except UnicodeDecodeError:
        raise _differs(evidence, f"these bytes are no {evidence.encoding}") from None
    if found != evidence.quote:
        raise _differs(evidence, f"there stands {found[:_SHOWN]!r}" if found else "the file ends before")
    return replace(evidence, verdict="verbatim")


def lacks(passage: str, place: Path) -> bool:
    """Whether a file is UTF-8 that any reader takes as it is, and has the passage nowhere, however that is
    spaced. False where this is not sure. Blocking.
    """
    if place.suffix.lower() in _READ_OTHERWISE:
        return False
    try:
        with _opened(place) as file:
            size = os.fstat(file).st_size
            raw = _at(file, 0, size) if size <= _WHOLE else b"\0"
        text = raw.decode("utf-8")
    except (OSError, ValueError):
        return False
    # ASCII may be an encoding of seven bits, in which other characters are written.
    known = passage.isascii() or not text.isascii()
    if not known or "\0" in text or raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(_BEGINS_OTHERWISE):
        return False
    return _squeezed(passage) not in _squeezed(text)


def _squeezed(text: str) -> str:
    return "".join(text.replace(_MARK, "").split())


def check_all(evidence: Sequence[Evidence], place_of: Callable[[str], Path]) -> tuple[Evidence, ...]:
    """Check all, with the numbers of the lines where they begin. `place_of`: where the file of a path is; it
    may raise RLMError. Blocking. Raises QuoteDiffers.
    """
    found: dict[int, Evidence] = {}
    for path, same in groupby(sorted(evidence, key=lambda one: (one.path, one.start)), lambda one: one.path):
        place = place_of(path)
        checked = [check(one, place) for one in same]
        numbers = lines(place, [one for one in checked if one.verdict == "verbatim"])
        found |= {one.mark: replace(one, line=numbers.get(one.mark, 0)) for one in checked}
    return tuple(found[one.mark] for one in evidence)


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int]:
    """A file that is one: no pipe or device that somebody put there is waited for."""
    # What its folder's links lead to was resolved when it was granted.
    file = system.open_plain(os.path.realpath(place))
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError("it is no file")
        yield file
    finally:
        os.close(file)


def _at(file: int, start: int, size: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    parts: list[bytes] = []
    while size > 0 and (part := os.read(file, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def lines(place: Path, evidence: Sequence[Evidence]) -> dict[int, int]:
    """The line of each, by its mark; none where that is too far in. They are in the order of the file."""
    found: dict[int, int] = {}
    if not evidence:
        return found
    try:
        with _opened(place) as file:
            at, feeds, returns = 0, 0, 0
            for one in evidence:
                if one.start > COUNTED:
                    break
                for part in _blocks(file, at, one.start):
                    feeds += _count(part, "\n", one.encoding)
                    returns += 0 if feeds else _count(part, "\r", one.encoding)
                at = one.start
                found[one.mark] = 1 + (feeds or returns)
    except OSError:  # it was there a moment ago
        pass
    return found


def _blocks(file: int, low: int, high: int) -> Iterator[bytes]:
    os.lseek(file, low, os.SEEK_SET)
    while low < high and (part := os.read(file, min(_BLOCK, high - low))):
        yield part
        low += len(part)


def _count(part: bytes, end: str, encoding: str) -> int:
    if encoding.startswith(("utf-16", "utf-32")):  # the byte may be half of another character
        return part.decode(encoding, "replace").count(end)
    return part.count(end.encode(encoding))


def _differs(evidence: Evidence, why: str) -> QuoteDiffers:
    quote = evidence.quote if len(evidence.quote) <= _SHOWN else f"{evidence.quote[:_SHOWN]}…"
    return QuoteDiffers(
        f"[{evidence.mark}] {quote!r} does not stand at bytes {evidence.start:,} to {evidence.end:,} of "
        f"{evidence.path}: {why}.",
        hint="The file may have changed since it was loaded. Cite the passage again, and give the answer its "
        "new mark.",
    )
