"""Which encoding bytes are in, and whether they are text at all.

UTF-8 wins where it can. Then come the wide encodings, which NUL bytes and code units tell, and the code
pages, which are tried on the parts of the text that are not ASCII: the likeliest reading is taken
(`languages`), the frequent code pages first.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from rlm_runtime import languages
from rlm_runtime.declared import declared_encoding
from rlm_runtime.ondisk import OnDisk
from rlm_runtime.strays import strays_by

Data = bytes | OnDisk
_BLOCK = 1 << 20
_WHOLE = 256 << 20
"""Bytes of a file up to which every byte is looked at; of a larger one so many at its beginning, and PARTS
blocks of the rest.
"""
PARTS = 256
_WINDOWS, _WINDOW = 60, 240
"""Places of a text that are looked at, and bytes of each."""
_SAMPLE = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_MAGIC = {
    b"\x7fELF": "it is a program",
    b"\xca\xfe\xba\xbe": "it is a program",
    b"\xcf\xfa\xed\xfe": "it is a program",
    b"\0asm": "it is a program",
    b"\x89PNG\r\n": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"II*\0": "it is a picture",
    b"MM\0*": "it is a picture",
    b"SQLite format 3\0": "it is a database",
    b"\xfd7zXZ\0": "it is packed by xz",
    b"(\xb5/\xfd": "it is packed by zstd",
    b"\x04\x22\x4d\x18": "it is packed by lz4",
    b"7z\xbc\xaf\x27\x1c": "it is packed by 7-Zip",
    b"Rar!\x1a\x07": "it is packed by RAR",
    b"PK\x03\x04": "it is a zip archive, which is unpacked if its name ends in .zip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "it is an old Office file",
    b"\x93NUMPY": "it is an array of numpy",
    b"ARROW1\0": "it is a table (Arrow)",
    b"LPKSHHRH": "it is a journal of systemd: read it with journalctl",
    b"\x89HDF\r\n": "it is a table (HDF5)",
    b"\xde\x12\x04\x95": "it is a catalogue of translations",
}
"""What files that are no text begin with."""
_SHORT_MAGIC = {
    b"MZ": "it is a program",
    b"!<arch>\n": "it is a library",
    b"GIF8": "it is a picture",
    b"BM": "it is a picture",
    b"\0\0\1\0": "it is a picture",
    b"RIFF": "it is sound or pictures",
    b"OggS": "it is sound or pictures",
    b"fLaC": "it is sound",
    b"ID3": "it is sound",
    b"\x1f\x8b": "it is packed by gzip",
    b"BZh": "it is packed by bzip2",
    b"PAR1": "it is a table (Parquet)",
}
"""Those that a text may begin with, too: they count where it has bytes of no text."""
_CONTROL = bytes([*range(1, 7), *range(14, 27), *range(28, 32)])
"""Bytes that texts do not have, or seldom.

NUL is none of them: a crash or a truncation leaves it in any log.
"""
_PAGES = {
    # How much less likely than cp1252 a code page is before anything is looked at.
    "cp1252": 0.0,
    "cp1251": 2.0,
    "cp1250": 3.0,
    "gb18030": 3.0,
    "cp932": 3.0,
    "big5": 3.0,
    "cp949": 3.0,
    "koi8_r": 3.5,
    "koi8_u": 4.5,
    "cp866": 4.0,
    "cp1253": 3.5,
    "cp1254": 3.5,
    "cp1255": 3.5,
    "cp1256": 3.5,
    "cp1257": 4.0,
    "cp1258": 6.0,
    "cp874": 4.0,
    "euc_jp": 3.5,
    "iso8859_2": 4.5,
    "iso8859_5": 6.0,
    "iso8859_7": 5.0,
    "iso8859_15": 3.5,
    "mac_roman": 5.0,
    "mac_cyrillic": 7.0,
    "cp850": 4.5,
    "cp437": 5.0,
    "cp852": 5.5,
    "cp855": 8.0,
    "cp737": 7.0,
    "cp862": 7.0,
}
_MIXED, _SOME, _MUCH = 4.0, 4, 8
"""How much less likely than cp1252 UTF-8 with other lines in it is; the bytes of UTF-8 that there must be;
and how many times as many as others settle it.
"""
_FIRST, _LIKELY = 600, 6
"""Bytes that all code pages are tried on, and how many of them are tried on the rest."""
_STRAY = ("cp1252", "cp1251", "cp1250", "cp1254", "cp1253", "koi8_r", "mac_roman", "cp850")
"""Code pages of lines that were written into a file of UTF-8."""
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_GAP = re.compile(rb"[\x00-\x2f]")
"""What is no second half of a character in any encoding."""
_HIGH_BYTES = bytes(range(0x80, 0x100))
_ESCAPES = {b"\x1b$B": "iso2022_jp", b"\x1b$@": "iso2022_jp", b"\x1b$)C": "iso2022_kr"}


class NoText(ValueError):
    """The bytes are no text; the message says what they are."""


class Charset(NamedTuple):
    """An encoding; where the text begins after a byte-order mark; and what becomes of bytes that it does not
    have.

    `errors`: a codec error handler. `stray`: the code page that such bytes are read by, "" if they are
    replaced.
    """

    encoding: str
    start: int = 0
    errors: str = "replace"
    stray: str = ""


def usual_name(encoding: str) -> str:
    """The name that people know an encoding by."""
    known = {"cp932": "Shift-JIS (cp932)", "cp949": "EUC-KR (cp949)", "mac_roman": "Mac Roman"}
    return known.get(encoding) or (
        encoding if encoding.startswith("cp") else encoding.replace("_", "-").upper()
    )


def decode_name(name: bytes) -> str:
    """The bytes of a file's name as text: UTF-8, with other bytes by the likeliest code page."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("utf-8", _fallback([name])[0])


def find(data: Data) -> Charset:
    """The encoding of bytes.

    Raises NoText. The same bytes always give the same; of huge ones a bounded part is looked at.
    """
    head = _part(data, 0, 4096)
    mark = next((Charset(encoding, len(mark)) for mark, encoding in _MARKS if head.startswith(mark)), None)
    if mark is not None and mark.encoding != "utf-8":
        return mark
    start = mark.start if mark else 0
    look = _look(data, start)
    if not look.valid or (look.nul and not mark):
        _check_kind(head)
        if not mark and (wide := _wide(data)):
            return Charset(wide)
        _check_text(data, head, look)
    if look.valid:
        return Charset("utf-8" if look.windows or mark else _seven_bits(_part(data, 0, _SAMPLE)), start)
    if mark or look.good > _MUCH * look.bad:
        return Charset("utf-8", start, *_fallback(look.windows))
    return _declared(head, look.windows) or _page(look)


def _declared(head: bytes, windows: list[bytes]) -> Charset | None:
    """What the text says itself, if that can be true."""
    encoding = declared_encoding(head)
    try:
        return Charset(encoding) if encoding and [window.decode(encoding) for window in windows] else None
    except UnicodeDecodeError:
        return None


def _blocks(data: Data, start: int) -> Iterator[tuple[int, bytes]]:
    """The blocks that are looked at: place, bytes."""
    size = len(data)
    head = min(size, start + _WHOLE)
    for place in range(start, head, _BLOCK):
        yield place, _part(data, place, min(place + _BLOCK, head))
    rest = size - head
    parts = min(PARTS, -(-rest // _BLOCK))
    for number in range(parts):
        place = head + (rest * number) // parts if rest > parts * _BLOCK else head + number * _BLOCK
        yield place, _part(data, place, place + _BLOCK)


class _Look(NamedTuple):
    """What was seen: whether there are NULs, and whether all is UTF-8; bytes beyond ASCII that are UTF-8 and
    that are not; places with such bytes, first those that are not UTF-8.
    """

    nul: bool
    valid: bool
    good: int
    bad: int
    windows: list[bytes]


def _look(data: Data, start: int) -> _Look:
    nul, good, bad, end = False, 0, 0, -1
    fine: list[bytes] = []
    faulty: list[bytes] = []
    decoder = codecs.getincrementaldecoder("utf-8")()
    for place, block in _blocks(data, start):
        nul = nul or b"\0" in block
        if place != end:
            decoder.reset()
            block = block[_continued(block) :]  # a sampled block may begin within a character
        end = place + _BLOCK
        if block.isascii() and not decoder.getstate()[0]:
            continue
        try:
            good += 2 * (
                len(block) - len(decoder.decode(block))
            )  # about: of most alphabets a character has two bytes
        except UnicodeDecodeError:
            decoder.reset()
            high = len(block) - len(block.translate(None, _HIGH_BYTES))
            wrong = max(1, len(block) - len(block.decode("utf-8", "ignore").encode()))
            good, bad = good + high - wrong, bad + wrong
            if len(faulty) < _WINDOWS:
                faulty += _windows(
                    block,
                    _SEQUENCE.sub(lambda found: b"?" * len(found.group()), block),
                    _WINDOWS - len(faulty),
                )
        fine += _windows(block, block, _WINDOWS - len(fine))
    if (left := decoder.getstate()[0]) and len(data) <= start + _WHOLE:  # the last character is cut off
        bad += len(left)
        faulty.append(_part(data, max(start, len(data) - _WINDOW), len(data)))
    return _Look(
        nul, not bad, good, bad, faulty[: _WINDOWS * 2 // 3] + fine[: _WINDOWS // 3] if bad else fine
    )


def _continued(block: bytes) -> int:
    """Bytes at the beginning that go on with a character."""
    return next((at for at in range(min(4, len(block))) if block[at] & 0xC0 != 0x80), 0)


def _windows(block: bytes, searched: bytes, most: int) -> list[bytes]:
    """Parts of a block around bytes beyond ASCII, from the beginning of a line or of a word on.

    `searched`: the block, or as much as may be looked at.
    """
    found: list[bytes] = []
    at = 0
    while len(found) < most and (hit := _HIGH.search(searched, at)):
        low = _begin(block, hit.start(), at)
        at = min(len(block), hit.start() + _WINDOW)
        found.append(block[low : _end(block, at)])
        at += (len(block) - at) // (4 * _WINDOWS)  # not all from the beginning
        at = gap.end() if (gap := _GAP.search(block, at, at + _WINDOW)) else at
    return found


def _begin(block: bytes, place: int, low: int) -> int:
    """Where the word, or a few before it, begins: after a byte that is no second half of a character in any
    encoding.
    """
    low = max(low, place - 120)
    line = block.rfind(b"\n", low, place) + 1
    if line:
        return line
    return next((at + 1 for at in range(low, place) if block[at] <= 0x2F), low)


def _end(block: bytes, place: int) -> int:
    """The place, or one just before it, where no character is cut in the middle, if it can be seen."""
    return next((at for at in range(place, place - 4, -1) if at == len(block) or block[at - 1] < 0x80), place)


def _wide(data: Data) -> str:
    """UTF-16 or UTF-32 without a mark; "" if it is neither."""
    size = len(data)
    if (begin := _part(data, 0, 64)).isascii() and b"\0" not in begin:
        return ""  # more of it may be, which was appended
    places = sorted({0, (size // 2) & ~3, max(0, size - 16384) & ~3})
    parts = [
        _part(data, place, min(place + 16384, size - size % 4 if size >= 4 else size)) for place in places
    ]
    best = ("", 0.0)
    for encoding, unit in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        if size < 2 * unit:
            continue
        texts = [part[: len(part) - len(part) % unit].decode(encoding, "replace") for part in parts]
        text = "".join(texts)
        if not text:
            continue
        kinds: Counter[int] = Counter()
        for char, times in Counter(text).items():
            kinds[_texty(char)] += times
        share = kinds[1] / len(text)
        if kinds[-1] <= len(text) // 50 and share > 0.4 and share > best[1]:
            best = (encoding, share)
    return best[0]


def _texty(char: str) -> int:
    """1: a text is likely to have it; -1: it has not; 0: neither."""
    if "\x20" <= char <= "\x7e" or char in "\t\n\r":
        return 1
    if char == "\0":
        return 0
    if char < "\xa0" or "\ue000" <= char <= "\uf8ff" or char == "\N{REPLACEMENT CHARACTER}":
        return -1
    if char < "\u0e80":
        return 1 if char.isalpha() or char in "\xa0«»°·€" else 0
    if "\u3040" <= char <= "\u30ff" or "\u2010" <= char <= "\u2030" or char in languages.common():
        return 1
    return 0 if languages.script(char) else -1


def _check_kind(head: bytes) -> None:
    """Raise NoText by first bytes that no text has."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise NoText(kind)
    if head[257:262] == b"ustar":
        raise NoText("it is a tar archive")
    if head[4:8] == b"ftyp":
        raise NoText("it is sound or pictures")


def _check_text(data: Data, head: bytes, look: _Look) -> None:
    """Raise NoText for what is none, by its first bytes, or by bytes that texts do not have."""
    sample = b"".join(_spread(data))
    plain = sample.replace(b"\0", b"")
    controls = len(plain) - len(plain.translate(None, _CONTROL))
    kinds = sum(byte in plain for byte in _CONTROL)
    dense = kinds >= 4 and controls > len(plain) // 50
    magic = next((magic for magic in _SHORT_MAGIC if head.startswith(magic)), b"")
    if magic and (dense or (look.nul and kinds)):
        raise NoText(_SHORT_MAGIC[magic])
    if not plain and look.nul:
        raise NoText("it holds nothing but NUL bytes")
    if _ebcdic(sample):
        return
    if dense or (look.nul and not look.valid and controls > len(plain) // 200 and kinds >= 3):
        raise NoText(f"one of {len(plain) // max(1, controls):,} bytes is a control character")


def _spread(data: Data) -> Iterator[bytes]:
    """Parts of the data, NULs at the beginning left out: a file that was truncated under its writer begins
    with a hole.
    """
    size = len(data)
    first = 0
    while first < min(size, _WHOLE) and not (block := _part(data, first, first + _BLOCK)).strip(b"\0"):
        first += len(block)
    for number in range(8):
        place = first + (size - first) * number // 8
        yield _part(data, place, min(place + 8192, first + (size - first) * (number + 1) // 8 + 1))


def _part(data: Data, low: int, high: int) -> bytes:
    return data[low:high] if isinstance(data, bytes) else data.part(low, high)


def _seven_bits(sample: bytes) -> str:
    """Encodings that have nothing but ASCII bytes."""
    found = next((encoding for escape, encoding in _ESCAPES.items() if escape in sample), "")
    if found:
        try:
            codecs.getincrementaldecoder(found)().decode(sample)
        except UnicodeDecodeError:
            return "utf-8"  # the escape codes of a terminal
        return found
    return "utf-8"


def _ebcdic(sample: bytes) -> bool:
    """Most of it are letters, digits and spaces of a mainframe, which are not where ASCII has them."""
    text = sample.decode("cp037").translate({0x85: "\n"})
    usual = sum(char.isascii() and (char.isalnum() or char in " \n.,;:-/()'") for char in text)
    return (
        sample.count(0x40) > len(sample) // 30
        and usual > 0.9 * len(text)
        and len(_HIGH.findall(sample)) > len(sample) // 3
    )


def _page(look: _Look) -> Charset:
    """The likeliest code page, or UTF-8 with lines in another one."""
    sample = b"\n".join(look.windows)
    if _ebcdic(sample):
        return Charset("cp037")
    readings = {
        encoding: _score(sample[:_FIRST], encoding, "replace") - less for encoding, less in _PAGES.items()
    }
    if len(sample) > _FIRST:
        likely = sorted(readings, key=readings.__getitem__)[-_LIKELY:]
        readings = {encoding: _score(sample, encoding, "replace") - _PAGES[encoding] for encoding in likely}
    best = max(readings, key=readings.__getitem__)
    if look.good >= _SOME:
        mixed = Charset("utf-8", 0, *_fallback(look.windows))
        if _score(sample, "utf-8", mixed.errors) - _MIXED > readings[best]:
            return mixed
    return Charset(best)


def _score(sample: bytes, encoding: str, errors: str) -> float:
    return languages.score(sample.decode(encoding, errors), encoding)[0]


def _fallback(windows: list[bytes]) -> tuple[str, str]:
    """What bytes that are not UTF-8 are read by, in a file that is: an error handler, and the code page."""
    sample = _SEQUENCE.sub(b"?", b"\n".join(windows))
    page = max(_STRAY, key=lambda encoding: _score(sample, encoding, "replace") - _PAGES[encoding])
    return strays_by(page), page
