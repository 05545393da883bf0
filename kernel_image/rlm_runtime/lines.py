"""What a line is, for all that tells of lines: what grep(1) takes for one.

A line feed ends a line. A carriage return right before it is no part of the line. After the last line feed
there is no further line. No other character ends one: no form feed, no U+2028. A text whose only line ends
are carriage returns, as on old Macs, is read with line feeds in their place, so that places in it stay the
same.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

_AT_ONCE = 1 << 20
"""Characters that are taken apart at once, and so copied."""


def only_returns(text: str) -> bool:
    """Whether carriage returns are the only line ends of a text."""
    return (
        "\n" not in text and "\r" in text
    )  # in this order, as nearly all texts have a line feed near their beginning


def with_line_feeds(text: str) -> str:
    """The text, with line feeds where carriage returns are its only line ends."""
    return text.replace("\r", "\n") if only_returns(text) else text


def parts(text: str) -> Iterator[str]:
    """The text in parts of whole lines, so that what takes lines apart copies a part at once and not all."""
    text = with_line_feeds(text)
    place = 0
    while place < len(text):
        end = text.find("\n", place + _AT_ONCE) + 1 or len(text)
        yield text[place:end]
        place = end


def with_ends(text: str) -> Iterator[str]:
    """The lines with the line feeds, and the carriage returns before them, that end them."""
    for part in parts(text):
        yield from StringIO(part, newline="\n")


def without_end(line: str) -> str:
    """A line as `with_ends` gives it, without its end."""
    return line[:-1].removesuffix("\r") if line.endswith("\n") else line
