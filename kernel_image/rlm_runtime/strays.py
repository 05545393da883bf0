"""Bytes that are not UTF-8 in a text that is: codec error handlers that read them by another code page."""

from __future__ import annotations

import codecs


def strays_by(page: str) -> str:
    """The codec error handler that reads bytes which are not UTF-8 by a code page."""
    name = f"rlm-{page}"
    try:
        codecs.lookup_error(name)
    except LookupError:
        codecs.register_error(name, _Strays(page))
    return name


class _Strays:
    """An error handler: a byte that is not UTF-8 by another code page.

    A character that was cut off is one replacement character.
    """

    def __init__(self, page: str) -> None:
        every = (bytes([byte]) for byte in range(256))
        self._table = [byte.decode(page, "replace") for byte in every]

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeDecodeError):
            raise error
        raw, place = error.object, error.start
        pair = raw[place : place + 6]
        if (
            len(pair) == 6
            and pair[0] == pair[3] == 0xED
            and 0xA0 <= pair[1] <= 0xAF
            and 0xB0 <= pair[4] <= 0xBF
        ):
            # A character beyond 16 bits as Java and some databases write it: each half by itself.
            return pair.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass").decode(
                "utf-16-le", "replace"
            ), place + 6
        if error.end - place > 1 or (raw[place] in (0xC2, 0xC3) and not raw[place + 1 : place + 2].isupper()):
            return "\N{REPLACEMENT CHARACTER}", error.end
        return self._table[raw[place]], place + 1
