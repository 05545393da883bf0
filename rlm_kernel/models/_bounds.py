"""How much of what a model's server sends is read: bytes, packed or not, and the depth of its JSON.

All of it is read through here. What is more ends as an error that names the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

from rlm_kernel.bounded import MAX_DEPTH, TooMuch, parse, shallow

REPLY_BYTES = 16 << 20
"""Of a reply, as it is sent and once it is unpacked: thirty times what models write at most."""
ERROR_BYTES = 64 << 10
"""Of what comes with a status that is no success. The rest is left unread."""
HEADER_CHARS = 1000
"""Of one header's value. The rest is left out."""

_LAYERS = 3
"""Times that a reply may be packed: some gateways pack again what comes packed."""
_MEMBERS = 16
"""Of a gzip body, one after the other."""
_GZIP = b"\x1f\x8b"
_OTHER_PACKING = frozenset({"br", "zstd", "compress", "x-compress"})


class Unreadable(Exception):
    """A reply that is over a limit, or packed in a way that was not asked for.

    To ask again would bring the same.
    """


# Bytes


async def received(pieces: AsyncIterator[bytes], packing: str, *, success: bool) -> bytes:
    """A reply's body, unpacked.

    `packing`: its Content-Encoding. Of an error no more than the begin is read. Raises Unreadable.
    """
    most = REPLY_BYTES if success else ERROR_BYTES
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > most:
            break
    whole = unpacked(_within(bytes(body), most, success), packing, success=success)
    others = _OTHER_PACKING.intersection(packing.lower().replace(" ", "").split(","))
    if others and not whole.lstrip().startswith((b"{", b"[", b"<", b"data:")):
        raise Unreadable(f"the reply is packed by {min(others)}, and only gzip and deflate were asked for")
    return whole


def unpacked(body: bytes, packing: str = "", *, success: bool = True) -> bytes:
    """A body without gzip, which its first bytes tell, and without the deflate of its Content-Encoding.

    Raises Unreadable.
    """
    most = REPLY_BYTES if success else ERROR_BYTES
    deflated = packing.lower().count("deflate")
    for _ in range(_LAYERS):
        if body.startswith(_GZIP):
            kind = zlib.MAX_WBITS | 16
        elif deflated > 0:
            deflated -= 1
            kind = zlib.MAX_WBITS if body[:1] and body[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
        else:
            return body
        try:
            body = _within(_inflated(body, kind, most), most, success)
        except zlib.error:
            return body
    if body.startswith(_GZIP):
        raise Unreadable(f"the reply is packed more than {_LAYERS} times")
    return body


def _inflated(body: bytes, kind: int, most: int) -> bytes:
    """No more than one byte over the limit. What is damaged or cut behind the first member is left."""
    out = b""
    for number in range(_MEMBERS):
        unpacker = zlib.decompressobj(kind)
        try:
            out += unpacker.decompress(body, most + 1 - len(out))
        except zlib.error:
            if not number:
                raise
            return out
        body = unpacker.unused_data
        if len(out) > most or not body.startswith(_GZIP):
            return out
    raise Unreadable(f"the reply is gzip of more than {_MEMBERS} members")


def _within(body: bytes, most: int, success: bool) -> bytes:
    if success and len(body) > most:
        raise Unreadable(f"the reply has more than {most >> 20} MiB, and no more is read")
    return body[:most]


# JSON


def load(text: str, *, first: bool = False) -> Any:
    """The value of a JSON text, as `bounded.parse` reads it, of MAX_DEPTH levels at most.

    Raises ValueError; TooMuch for a limit.
    """
    value = parse(text, first=first)
    # Every level begins with such a character, and most texts have few.
    if text.count("[") + text.count("{") > MAX_DEPTH and not shallow(value):
        raise TooMuch(f"it is nested deeper than {MAX_DEPTH} levels")
    return value
