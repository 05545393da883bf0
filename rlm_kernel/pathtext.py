"""Paths in JSON. A file's name may be any bytes, and JSON is UTF-8: another name stands as `bytes:` and the percent-encoded path."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

_MARK = "bytes:"
"""No absolute path begins so."""


def to_text(path: str) -> str:
    """A path as text that can be encoded."""
    try:
        path.encode()
    except UnicodeEncodeError:
        try:
            return _MARK + quote_from_bytes(os.fsencode(path))
        except UnicodeEncodeError:  # no file can be called so
            return path.encode("utf-8", "backslashreplace").decode()
    return path


def from_text(text: str) -> str:
    """The path that such a text stands for."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_MARK))) if text.startswith(_MARK) else text
