"""Places of a text that only what stands around them chooses: the same passage has the same ones anywhere.

A byte of a hash over the last few bytes chooses them, one place in so many ("0 mod p" fingerprints: Manber
1994; Schleimer, Wilkerson and Aiken 2003 compare such choices).
"""

from __future__ import annotations

import random
import re

KEY = 16
"""Bytes of a normal form by which a passage is looked up, from an anchor on."""
_BYTES = list(range(256))
random.Random(1).shuffle(_BYTES)
_MIXED = bytes(_BYTES)
_ONE = re.compile(b"\1")
_SHIFTS = (11, 21, 30)
"""Bits: each byte of the hash has parts of the five bytes up to it."""


class Anchors:
    """The anchors of texts, one in `every` places (2 to 256)."""

    def __init__(self, every: int) -> None:
        self._chosen = bytes(byte % every == 0 for byte in range(256))

    def of(self, text: bytes) -> list[int]:
        """The places, in order; of those at which fewer than KEY bytes are left, none."""
        end = max(0, len(text) - KEY + 1)
        return [found.start() for found in _ONE.finditer(_hashed(text).translate(self._chosen), 0, end)]


def _hashed(text: bytes) -> bytes:
    """A byte for each place.

    A whole text is hashed at once as one long number, since Python has no other vectors.
    """
    number = mixed = int.from_bytes(text.translate(_MIXED), "little")
    for shift in _SHIFTS:
        mixed ^= number << shift
    return mixed.to_bytes(len(text) + 5, "little")
