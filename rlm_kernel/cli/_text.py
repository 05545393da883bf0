"""Text from models and files, made safe for a terminal."""

from __future__ import annotations

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Co")


def printable(text: str) -> str:
    """Without what moves the cursor, changes the terminal or reorders what is read: control and format characters but tab and newline."""
    return "".join(char if char in "\n\t" or unicodedata.category(char) not in _UNSAFE else "\N{REPLACEMENT CHARACTER}" for char in text)
