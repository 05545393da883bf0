"""Frames on the stream between the host and a container's first process.

A frame is a head (kind, channel, size), a payload of at most `MOST` bytes, and its kind once more as the end.
Zero bytes between frames mean nothing. So a new owner, whose predecessor may have been killed within a frame,
sends `FILLER` first: it completes that frame, which is dropped because its end is wrong, and what is left
over is passed over.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

HELLO, WELCOME, OPEN, DATA, CREDIT, CLOSE, INTERRUPT, LIFE, END = range(1, 10)
"""HELLO, WELCOME and END are JSON. OPEN names a socket of the kernel; from the container it says nothing.

CREDIT is a number of bytes, CLOSE the end of a channel, which each side sends once. INTERRUPT and LIFE (the
owner lives) come from the host and say nothing more. END comes last of all from the container, and says how
it ends.
"""
MOST = 64 << 10
"""Bytes of a payload."""
WINDOW = 64 << 10
"""Bytes that each side may send on a new channel before it gets credit for more."""
THEIRS = 1 << 15
"""Channels from this number on are opened by the container, others by the host."""
_HEAD = struct.Struct("!BHI")
_SAID = re.compile(rb"[^\0]")
FILLER = bytes(MOST + _HEAD.size + 1)
NONCE = 32
"""Bytes that a HELLO names (in hex) and that come back in front of the WELCOME, whatever was on its way
before.
"""


class Malformed(ValueError):
    """The other end sent no frame."""


def pack(kind: int, channel: int = 0, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """One frame."""
    return b"".join((_HEAD.pack(kind, channel, len(payload)), payload, bytes((kind,))))


class Reader:
    """Puts frames together from pieces of any size. It keeps no more than one frame that is not whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes | bytearray | memoryview) -> Iterator[tuple[int, int, bytes]]:
        """The frames that are whole now: kind, channel, payload. Raises Malformed."""
        buffer = self._buffer
        buffer += piece
        at = 0
        try:
            while len(buffer) - at > _HEAD.size:
                if not buffer[at]:
                    said = _SAID.search(buffer, at)
                    at = said.start() if said else len(buffer)
                    continue
                kind, channel, size = _HEAD.unpack_from(buffer, at)
                if kind > END or size > MOST:
                    raise Malformed("no frame")
                start = at + _HEAD.size
                end = start + size
                if end >= len(buffer):
                    break
                at = end + 1
                if buffer[end] == kind:
                    with memoryview(buffer) as view:
                        payload = bytes(view[start:end])
                    yield kind, channel, payload
                elif buffer[end]:
                    raise Malformed("no end of a frame")
        finally:
            del buffer[:at]
