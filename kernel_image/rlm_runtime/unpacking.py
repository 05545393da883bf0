"""Packed data, unpacked within bounds: gzip, bzip2, xz and zstandard streams, damaged and cut-off ones as far
as they go.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

_PIECE = 1 << 16
_OUT = 1 << 20
_LITTLE = 256
"""Bytes of zstandard that are given at once: they can be as much as 8 MiB."""
_WORK = 16
_DEEPEST = 12
NAME = 1_000
"""Bytes of room that the name of an archive's member takes, with what is said of it."""


class Unreadable(ValueError):
    """The file holds no text: binary, damaged, or of an unknown kind."""


class TooMuch(Unreadable):
    """It unpacks to more than there is room for."""


class Budget:
    """What all that is in one file may unpack to, archives in archives included.

    `room`: bytes of text that may be kept. All that is unpacked on the way counts as work, which has a bound
    of its own.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._work = _WORK * room
        self._depth = 0

    def take(self, pieces: Iterable[bytes], size: int = 0) -> bytes:
        """The pieces together; `size` is what they say that they have. Raises TooMuch."""
        if size > self.room:
            raise TooMuch(f"it unpacks to {size:,} bytes, and there is room for {self.room:,}")
        taken = bytearray()
        for piece in pieces:
            self._work -= len(piece)
            if len(taken) + len(piece) > self.room:
                raise TooMuch(f"it unpacks to more than {self.room:,} bytes, which is what there is room for")
            if self._work < 0:
                raise TooMuch("too much was unpacked before it")
            taken += piece
        return bytes(taken)

    def keep(self, size: int) -> None:
        """So many bytes are kept. Raises TooMuch."""
        if size > self.room:
            raise TooMuch(f"it has {size:,} bytes of text, and there is room for {self.room:,}")
        self.room -= size

    def __enter__(self) -> Budget:
        """One archive deeper. Raises TooMuch."""
        if self._depth >= _DEEPEST:
            raise TooMuch(f"it lies {_DEEPEST} archives deep")
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def unpacked(file: IO[bytes], kind: str, notes: list[str]) -> Iterator[bytes]:
    """What is packed in a file, in pieces; `kind` is a key of MAGIC. What is wrong with it goes to the
    notes.
    """
    return _streams(file, *_CODECS[kind], notes)


MAGIC = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
    "lzma": b"\x5d\0\0",
    "zstandard": b"\x28\xb5\x2f\xfd",
}


def _gzip_step(decoder: Any, data: bytes) -> tuple[bytes, bytes]:
    out = decoder.decompress(data, _OUT)
    return out, decoder.unused_data if decoder.eof else decoder.unconsumed_tail


def _other_step(decoder: Any, data: bytes) -> tuple[bytes, bytes]:
    out = decoder.decompress(data, _OUT)
    while not decoder.eof and not decoder.needs_input and len(out) < _OUT:
        more = decoder.decompress(b"", _OUT - len(out))
        if not more:
            break
        out += more
    return out, decoder.unused_data if decoder.eof else b""


def _zstandard_step(decoder: Any, data: bytes) -> tuple[bytes, bytes]:
    out = decoder.decompress(data[:_LITTLE])
    return out, (decoder.unused_data if decoder.eof else b"") + data[_LITTLE:]


def _zstandard() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


def _xz() -> Any:
    from rlm_runtime import memory

    return lzma.LZMADecompressor(memlimit=max(memory.total() // 8, 16 << 20))


_Step = Callable[[Any, bytes], tuple[bytes, bytes]]
_CODECS: dict[str, tuple[bytes, Callable[[], Any], _Step]] = {
    "gzip": (MAGIC["gzip"], lambda: zlib.decompressobj(31), _gzip_step),
    "bzip2": (MAGIC["bzip2"], bz2.BZ2Decompressor, _other_step),
    "xz": (MAGIC["xz"], _xz, _other_step),
    "lzma": (MAGIC["lzma"], _xz, _other_step),
    "zstandard": (MAGIC["zstandard"], _zstandard, _zstandard_step),
}


def _streams(
    file: IO[bytes], magic: bytes, new: Callable[[], Any], step: _Step, notes: list[str]
) -> Iterator[bytes]:
    """One stream after the other, as the programs unpack them: bytes that are none at the end are left
    out.
    """
    decoder, data, begun = None, b"", False
    while True:
        waiting = decoder is not None and not getattr(decoder, "needs_input", True)
        if not data and not waiting:
            data = file.read(_PIECE)
            if not data:
                break
        if decoder is None:
            data = data.lstrip(b"\0") if begun else data
            if not data:
                continue
            while len(data) < len(magic) and (more := file.read(_PIECE)):
                data += more
            if begun and not data.startswith(magic):
                notes.append("what follows the packed data was left out")
                return
            decoder, begun = new(), True
        saved = decoder.copy() if hasattr(decoder, "copy") else None
        try:
            out, rest = step(decoder, data)
        except Exception as error:  # each of the libraries has one of its own
            yield from _byte_by_byte(saved, data)
            notes.append(f"damaged, and read up to there ({error})")
            return
        data = rest
        if out:
            yield out
        if decoder.eof:
            decoder = None
    if decoder is not None:
        if isinstance(tail := getattr(decoder, "flush", bytes)(), bytes) and tail:
            yield tail
        notes.append("cut off before its end, and read up to there")


def _byte_by_byte(decoder: Any, data: bytes) -> Iterator[bytes]:
    """What comes before the damage in a piece of data."""
    if decoder is None:
        return
    out = bytearray()
    try:
        for at in range(len(data)):
            out += decoder.decompress(data[at : at + 1])
    except zlib.error:
        pass
    yield bytes(out)
