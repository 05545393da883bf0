"""Files that clients sent: a folder for each chat, beside its trace; bounded by age and in sum."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FILES = ".files"
"""What a folder's name ends with, where its trace's has `.ipynb`."""
_OURS = re.compile(rf"\d{{8}}-\d{{6}}-serve-[A-Za-z0-9_-]{{1,32}}-[0-9a-f]{{8}}{re.escape(FILES)}")
_DAY = 86_400.0


@dataclass(frozen=True)
class _Folder:
    path: Path
    size: int
    changed: float


@dataclass(frozen=True)
class ClientFiles:
    """What clients of this and of earlier servers sent, in the folder of the traces.

    `most`: bytes in all; `days`: after which a chat's files go, None for never.
    """

    folder: Path
    most: int
    days: float | None = None

    def make_room(self, size: int, in_use: Collection[Path]) -> bool:
        """Remove what is too old, and the oldest until there is room for so many bytes more.

        Files of chats that are `in_use`, by their folders, stay; False if there is no room for that reason.
        Blocking.
        """
        there = sorted(self._folders(), key=lambda one: one.changed)
        used = {path.absolute() for path in in_use}
        total, oldest = sum(one.size for one in there), time.time() - (self.days or 0.0) * _DAY
        for one in there:
            old = self.days is not None and one.changed <= oldest
            if one.path.absolute() not in used and (old or total + size > self.most):
                shutil.rmtree(one.path, ignore_errors=True)
                total -= one.size
        return total + size <= self.most

    def _folders(self) -> list[_Folder]:
        """Those that a server made, by their names; a link is none."""
        found: list[_Folder] = []
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                # One that is being removed by somebody else is not there any more.
                with contextlib.suppress(OSError):
                    if _OURS.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                        with os.scandir(entry.path) as files:
                            size = sum(file.stat(follow_symlinks=False).st_size for file in files)
                        changed = entry.stat(follow_symlinks=False).st_mtime
                        found.append(_Folder(Path(entry.path), size, changed))
        return found
