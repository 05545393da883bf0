"""Pictures as code in a kernel sends them: what they are by their first bytes, whatever is said of them.

Only PNG and JPEG are taken, which every model reads: `rlm_runtime.pictures` makes one of them of whatever
code has. Nothing is decoded here: the size in pixels is read from the header.
"""

from __future__ import annotations

from typing import Literal

from rlm_contract import MAX_PICTURE, MAX_SIDE

from rlm_kernel.engine.values import Picture

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SEGMENTS = 1_000
"""Segments of a JPEG file before the one that has its size."""
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG segments that have the size."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a segment."""


def read(data: bytes, *, most: int = MAX_PICTURE, side: int = MAX_SIDE) -> Picture:
    """The picture that these bytes are.

    Raises ValueError for what is none, or has more than `most` bytes or `side` pixels.
    """
    if len(data) > most:
        raise ValueError(f"a picture has at most {most:,} bytes, and this one has {len(data):,}")
    kind: Literal["image/png", "image/jpeg"] = "image/png"
    if data.startswith(_PNG):
        size = _png_size(data)
    elif data.startswith(_JPEG):
        kind, size = "image/jpeg", _jpeg_size(data)
    else:
        raise ValueError("a picture is a PNG or JPEG file")
    if size is None:
        raise ValueError("the picture is damaged: its size cannot be read")
    if not (0 < size[0] <= side and 0 < size[1] <= side):
        raise ValueError(
            f"a picture has at most {side:,} pixels a side, and this one {size[0]:,} x {size[1]:,}"
        )
    return Picture(data, kind, *size)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if length < 2 or marker in (0xD8, 0xD9, 0xDA):  # the picture itself, or its end
                return None
            at += 2 + length
    return None
