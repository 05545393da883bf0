"""The bytes of a file that is too large for memory.

They are read, and not mapped: of a mapped file that somebody else truncates, as logs are when they are
rotated, the next look at what is gone ends the process, and no check beforehand can be in time. Reading costs
about the same, and tells.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

NEAR = 1 << 18
"""Bytes that are kept of where it was last looked at: what is next is often near it."""


class FileShrank(OSError):
    """The file has become shorter since it was loaded."""


class OnDisk:
    """As many bytes as the file had when it was opened, whatever is appended later.

    Safe to use from several threads, and in forked processes. Reading raises FileShrank.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        self._near = (0, b"")  # replaced as one, so that no thread sees half of it

    def __len__(self) -> int:
        return self._size

    def byte(self, place: int) -> int:
        """The byte at a place."""
        start, near = self._near
        return near[place - start] if 0 <= place - start < len(near) else self._read(place, place + 1)[0]

    def part(self, low: int, high: int) -> bytes:
        """The bytes between two places, which are not negative."""
        high = min(high, self._size)
        start, near = self._near
        if start <= low and high <= start + len(near):
            return near[low - start : high - start]
        if high - low >= NEAR:
            return self._read(low, high)
        start, near = self._around(low, low, high)
        return near[low - start : high - start]

    def into(self, buffer: memoryview, low: int) -> int:
        """Fill a buffer with the bytes from a place on; how many there were to the end."""
        wanted = min(len(buffer), self._size - low)
        done = 0
        while done < wanted:
            got = os.preadv(self._file, [buffer[done:wanted]], low + done)
            if not got:
                raise self._shrank()
            done += got
        return wanted

    def find(self, sub: bytes, low: int, high: int | None = None) -> int:
        """As bytes.find."""
        high = self._size if high is None else min(high, self._size)
        while low + len(sub) <= high:
            start, near = self._around(low, low, min(high, low + len(sub)))
            stop = min(high, start + len(near))
            if (at := near.find(sub, low - start, stop - start)) >= 0:
                return start + at
            if stop == high:
                return -1
            low = stop - len(sub) + 1
        return -1

    def rfind(self, sub: bytes, low: int, high: int) -> int:
        """As bytes.rfind."""
        while low + len(sub) <= high:
            start, near = self._around(high, max(low, high - len(sub)), high)
            if (at := near.rfind(sub, max(0, low - start), high - start)) >= 0:
                return start + at
            if start <= low:
                return -1
            high = start + len(sub) - 1
        return -1

    def _around(self, place: int, low: int, high: int) -> tuple[int, bytes]:
        """Where the bytes begin that are kept now, and these: they have those from `low` to `high`, and
        others on both sides of `place`.
        """
        start, near = self._near
        if not start <= low <= high <= start + len(near):
            start = max(0, min(low, place - NEAR // 2))
            self._near = start, near = start, self._read(start, min(self._size, max(high, start + NEAR)))
        return start, near

    def _read(self, low: int, high: int) -> bytes:
        parts = []
        while low < high:
            part = os.pread(self._file, high - low, low)
            if not part:
                raise self._shrank()
            parts.append(part)
            low += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _shrank(self) -> FileShrank:
        now = os.fstat(self._file).st_size
        return FileShrank(
            f"{self._name} shrank from {self._size:,} to {now:,} bytes since it was loaded: somebody else "
            "truncated it. "
            "load_file(path) loads what is there now."
        )
