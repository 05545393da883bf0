"""Texts in the columns of a terminal: a character of Chinese, Japanese or Korean, or an emoji, takes two."""

from __future__ import annotations


def width(text: str) -> int:
    """How many columns a text of one line takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # its tables, which few texts need

    return cell_len(text)


def short(text: str, columns: int) -> str:
    """A line that takes so many columns at most; cut where it takes more, with an ellipsis."""
    if width(text) <= columns:
        return text
    if text.isascii():
        return f"{text[: columns - 1]}…"
    from rich.cells import chop_cells

    return f"{next(iter(chop_cells(text, max(1, columns - 1))), '')}…"


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """A line filled up with spaces to so many columns; `right`: the text stands at the end of them."""
    spaces = " " * (columns - width(text))
    return f"{spaces}{text}" if right else f"{text}{spaces}"
