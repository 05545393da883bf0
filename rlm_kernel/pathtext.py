"""Paths in JSON, which another system may read than wrote them.

A file's name may be any bytes, and JSON is UTF-8: another name stands as `bytes:` and the percent-encoded
path.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import unicodedata
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import quote_from_bytes, unquote_to_bytes

from rlm_kernel import system

_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
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


def seen_from(path: Path, folder: Path = Path()) -> str:
    """The path as it is seen from a folder; the whole one where it is on another drive of Windows."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return os.path.abspath(path)


def spelled(path: Path) -> Path:
    """The path as it is on this disk: a copy made on macOS may have accents as characters of their own."""
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    folder = spelled(path.parent)
    if path.name.isascii():  # it has one form, so it is not there: no folder is listed for each such file
        return folder / path.name
    wanted = unicodedata.normalize("NFC", path.name)
    try:
        names = os.listdir(folder)
    except OSError:
        return path
    return folder / next((name for name in names if unicodedata.normalize("NFC", name) == wanted), path.name)


def recorded(text: str) -> PurePath:
    """An absolute path as the system has it that it is of, without `.` and `..`."""
    if _OF_WINDOWS.match(text):
        return PureWindowsPath(ntpath.normpath(text))
    return PurePosixPath(posixpath.normpath(text))


def is_foreign(text: str) -> bool:
    """Whether an absolute path is of another system than this one."""
    return (
        (text.startswith("/") and not text.startswith("//"))
        if system.WINDOWS_PATHS
        else _OF_WINDOWS.match(text) is not None
    )
