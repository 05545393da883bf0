"""What one program has appended to another's text in characters of another width, as PowerShell and cmd do:
both are read as they are.
"""

from __future__ import annotations

import re

_WIDE = re.compile(
    rb"(?:\xff\xfe)?(?:[\t\n\r\x20-\x7e\xa0-\xff]\0|[\x00-\xff][\x03-\x06]|[\x13\x14\x18-\x1e\xac]\x20){8,}"
)
"""UTF-16 of the usual alphabets."""
_NARROW = re.compile(rb"[\t\n\r\x20-\x7e]{32,}(?!\0)|[\t\n\r\x20-\x7e]{5,}\n\Z")
"""ASCII, where it stands between UTF-16 or after it: nothing in UTF-16 is likely to look so."""


def narrowed(data: bytes) -> bytes:
    """A text of bytes, with what is UTF-16 in it turned into UTF-8. The same object if there is nothing."""

    def narrow(found: re.Match[bytes]) -> bytes:
        return found[0].decode("utf-16-le", "replace").encode() if b"\0" in found[0] else found[0]

    return _WIDE.sub(narrow, data) if b"\0" in data else data


def decode_wide(data: bytes | memoryview, encoding: str) -> tuple[str, bool]:
    """The text of UTF-16; and whether ASCII was in it, which is read as such."""
    places = [found.span() for found in _NARROW.finditer(data)] if encoding == "utf-16-le" else []
    texts, low = [], 0
    for begin, end in places:
        texts += [str(data[low:begin], encoding, "replace"), str(data[begin:end], "ascii")]
        low = end
    return "".join([*texts, str(data[low:], encoding, "replace")]), bool(places)
