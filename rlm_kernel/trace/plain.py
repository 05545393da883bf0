"""Opening a file that somebody else may have put there: a plain file, of bounded size, or nothing.

A trace, and what lies beside it, may be a stranger's. A link leads to any file there is, a pipe waits for
ever, a device never ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rlm_kernel.system import open_plain

MAX_TRACE = 1 << 30
"""Bytes of one notebook."""


def read_plain(path: Path, *, follow: bool, most: int = MAX_TRACE) -> bytes:
    """The bytes of a plain file.

    `follow`: a path that the user named may be a link. Raises OSError, whose `strerror` says why not.
    """
    try:
        file = open_plain(path, follow=follow)
    except ValueError as error:
        raise OSError(22, "no file can have this name", str(path)) from error
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(22, "it is not a regular file", str(path))
        if found.st_size > most:
            raise OSError(27, f"it has {found.st_size:,} bytes, and {most:,} are read at most", str(path))
        raw = stream.read(found.st_size + 1)
        if raw is None or len(raw) > found.st_size:
            raise OSError(11, "it grows while it is read", str(path))
        return raw
