"""A zstd file that grows by lines and is whole after each write.

The file is one zstd frame for each time that it was opened. A frame ends with a last block, so after each
write an empty one stands at the end, in whose place the next write begins: whoever reads the file, or kills
its writer, finds complete frames. The window of the compressor goes on from write to write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

LEVEL = 1
"""Of the compression: the fastest, which makes texts a third to a tenth as long."""
MAX_WINDOW = 1 << 23
"""Bytes that a reader keeps of what it has read: those of zstd's level 19. What wants more is not read."""
_LAST = b"\x01\x00\x00"
"""A block that is the last one of its frame, and empty."""
_MAGIC, _SKIPPED = 0xFD2FB528, 0x184D2A50
_MOST_BLOCK = 1 << 17
MAX_BLOCKS = 2_000_000
"""Blocks of a file that is gone on with: each write makes one, for each 128 KiB."""
_CHUNK = 1 << 20


class ZstdLog:
    """Writes to an open, locked file, at its end. Used by one thread. Raises OSError, ValueError."""

    def __init__(self, file: int) -> None:
        """`file` is mended first if its last frame was cut off. Raises ValueError for no zstd file."""
        import zstandard

        self._file = file
        self._end = mended(file)
        self._begun = False
        self._open = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False).compressobj()
        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def write(self, raw: bytes | bytearray) -> None:
        """Have it on disk. After a failure the file is as it was before."""
        new = self._open.compress(raw) + self._open.flush(self._flush)
        try:
            _write_at(self._file, self._end, new + _LAST)
        except OSError:
            os.ftruncate(self._file, self._end)
            if self._begun:
                _write_at(self._file, self._end, _LAST)
            raise
        self._end += len(new)
        self._begun = True


def _write_at(file: int, place: int, data: bytes) -> None:
    os.lseek(file, place, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def mended(file: int) -> int:
    """The place at which another frame may begin: the end of the file, whose last frame is ended where it was
    cut off.

    Raises OSError, and ValueError for what is no zstd file.
    """
    place, whole, cut = _frames(file, os.fstat(file).st_size)
    if cut:
        os.ftruncate(file, place)
        _write_at(file, place, _LAST)
        return place + len(_LAST)
    os.ftruncate(file, whole)
    return whole


def _frames(file: int, size: int) -> tuple[int, int, bool]:
    """Where the last whole block ends, where the last whole frame ends, and whether a frame is open."""
    whole, left = 0, MAX_BLOCKS
    while whole < size:
        left -= 1
        head = _read_at(file, whole, 18)
        if len(head) < 18 and size - whole < 18:
            head = head.ljust(18, b"\0")
        magic = int.from_bytes(head[:4], "little")
        if left < 0:
            raise ValueError("it is not a zstd file from rlm")
        if magic & 0xFFFFFFF0 == _SKIPPED:
            whole = min(size, whole + 8 + int.from_bytes(head[4:8], "little"))
            continue
        if magic != _MAGIC:
            if size - whole < 4:
                break  # the beginning of a frame was cut off
            raise ValueError("it is not a zstd file")
        place = whole + _head_length(head[4])
        if place > size:
            break
        place, ended, left = _blocks(file, place, size, left)
        if not ended:
            if head[4] & 4:
                raise ValueError("its last frame is cut off, and has a checksum")
            return place, whole, True
        place += 4 if head[4] & 4 else 0
        if place > size:
            raise ValueError("its last frame is cut off, and has a checksum")
        whole = place
    return whole, whole, False


def _blocks(file: int, place: int, size: int, left: int) -> tuple[int, bool, int]:
    """Where the whole blocks of a frame end that begin here, whether the last one is among them, and how many
    more blocks are looked at.
    """
    while True:
        head = int.from_bytes(_read_at(file, place, 3), "little")
        kind, length = head >> 1 & 3, head >> 3
        if place + 3 > size:
            return place, False, left
        left -= 1
        if kind == 3 or length > _MOST_BLOCK or left < 0:
            raise ValueError("it is not a zstd file from rlm")
        end = place + 3 + (1 if kind == 1 else length)
        if end > size:
            return place, False, left
        place = end
        if head & 1:
            return place, True, left


def _head_length(described: int) -> int:
    """Bytes of a frame's header with this descriptor."""
    single = described >> 5 & 1
    return 4 + 1 + (0 if single else 1) + (0, 1, 2, 4)[described & 3] + (single, 2, 4, 8)[described >> 6]


def _read_at(file: int, place: int, length: int) -> bytes:
    os.lseek(file, place, os.SEEK_SET)
    return os.read(file, length)


class _UpTo:
    """The first bytes of a file: what is written meanwhile would stand where a frame had ended."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        found: bytes = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(found)
        return found


def lines_of(file: Any, *, most: int, longest: int) -> Iterator[bytes]:
    """The lines of an open zstd file, without their ends, up to where it is cut off or damaged.

    Raises ValueError, which says why what comes behind is not read: after `most` bytes, at a line of more
    than `longest`, or at what is no zstd.
    """
    import zstandard

    read_to: Any = _UpTo(file, os.fstat(file.fileno()).st_size)
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
        read_to, read_across_frames=True, closefd=False
    )
    parts: list[bytes] = []
    read = held = 0
    while True:
        try:
            chunk = reader.read(_CHUNK)
        except zstandard.ZstdError as error:
            raise ValueError(f"it is damaged ({error})") from error
        if not chunk:
            return
        read += len(chunk)
        first, *others = chunk.split(b"\n")
        parts.append(first)
        held += len(first)
        for other in others:
            yield b"".join(parts)
            parts, held = [other], len(other)
        if held > longest:
            raise ValueError(f"it has a line of more than {longest:,} bytes")
        if read > most:
            raise ValueError(f"it has more than {most:,} bytes")
