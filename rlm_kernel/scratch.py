"""Folders for temporary files that end with who made them.

A file in each is locked meanwhile. The lock falls with its process, so that `rlm gc` tells those that killed
processes left behind from those in use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rlm_kernel import system

KINDS = ("kept", "mcp", "notebook", "serve")
"""What makes such folders: `rlm-KIND-…`."""
_LOCK = ".in-use"
_JUST_MADE = 60.0
"""Seconds in which a folder may not be locked yet."""


class Scratch:
    """A folder of this process, at `path`. Blocking; may be used from any thread."""

    def __init__(self, kind: str, mark: str = "") -> None:
        """`mark` is a part of its name. Raises OSError."""
        assert kind in KINDS
        self.path = Path(tempfile.mkdtemp(prefix=f"rlm-{kind}-{mark}"))
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks
            system.lock(self._lock)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            os.close(lock)  # first: Windows removes no open file
            shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """One for as long as the context lasts."""
    folder = Scratch(kind)
    try:
        yield folder.path
    finally:
        folder.remove()


def left_over() -> Iterator[Path]:
    """Those of this user's that nobody uses any more."""
    for kind in KINDS:
        for folder in Path(tempfile.gettempdir()).glob(f"rlm-{kind}-*"):
            with contextlib.suppress(OSError):  # gone, or not to be read
                if _is_over(folder):
                    yield folder


def _is_over(folder: Path) -> bool:
    """Raises OSError."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or not system.is_own(status):
        return False
    lock = system.open_plain(folder / _LOCK, os.O_RDWR)
    try:
        return time.time() - os.fstat(lock).st_mtime > _JUST_MADE and not system.is_locked(lock)
    finally:
        os.close(lock)
