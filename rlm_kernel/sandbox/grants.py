"""Which host files the kernel may read, and where it finds them.

The user names files and folders; each is resolved once, links and all, and mounted read-only where it lies, without a copy. A request
from the kernel is resolved in the same way and must be one of them or lie in one of the folders.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.rundir import RunDir, container_ids, own

_INSIDE = PurePosixPath("/rlm/files")


@dataclass(frozen=True)
class Grant:
    """A file or folder that the user named: `source` is what is mounted at `inside`."""

    path: Path
    source: Path
    inside: PurePosixPath
    directory: bool


class FileGrants:
    """The files of a session. Made before its container; answers the kernel's `file` calls."""

    def __init__(self, paths: Sequence[Path], run: RunDir) -> None:
        """Raises FileRefused for a path that is missing, unreadable or neither file nor folder."""
        self._grants = [self._grant(index, resolve(path), run) for index, path in enumerate(paths)]

    @property
    def paths(self) -> list[Path]:
        """The resolved paths, in the user's order."""
        return [grant.path for grant in self._grants]

    def mounts(self) -> list[tuple[str, str]]:
        """(host path, path in the container), all read-only."""
        return [(str(grant.source), str(grant.inside)) for grant in self._grants]

    def locate(self, asked: str) -> Grant:
        """Where the kernel finds a host path. Raises FileRefused if the user did not name it."""
        if "\0" in asked or len(asked) > 4096:
            raise FileRefused("That is not a path.")
        path = Path(os.path.realpath(asked))
        for grant in self._grants:
            if path == grant.path:
                return grant
            if grant.directory and path.is_relative_to(grant.path):
                inside = grant.inside / path.relative_to(grant.path).as_posix()
                return Grant(path, grant.source / path.relative_to(grant.path), inside, path.is_dir())
        named = ", ".join(str(grant.path) for grant in self._grants[:20]) or "none"
        raise FileRefused(f"{asked} was not named by the user, so it cannot be loaded. Files that can: {named}.")

    @staticmethod
    def _grant(index: int, path: Path, run: RunDir) -> Grant:
        directory = path.is_dir()
        inside = _INSIDE / str(index)
        if directory or _readable_inside(path):
            return Grant(path, path, inside, directory)
        # Readable for a root user alone: the container's user gets a copy.
        copy = run.host / f"file-{index}"
        shutil.copyfile(path, copy)
        own(copy)
        copy.chmod(0o400)
        return Grant(path, copy, inside, False)


def resolve(path: Path) -> Path:
    """The real path of something the user named. Raises FileRefused."""
    real = Path(os.path.realpath(path.expanduser()))
    try:
        mode = real.stat().st_mode
    except OSError as error:
        raise FileRefused(f"{path} cannot be read: {error.strerror or error}.", hint="Check the path.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileRefused(f"{path} is neither a file nor a folder.", hint="Pipe it into a file first.")
    if not os.access(real, os.R_OK):
        raise FileRefused(f"{path} cannot be read: permission denied.", hint="Check the file's permissions.")
    return real


def _readable_inside(path: Path) -> bool:
    uid, gid = container_ids()
    if uid == os.getuid():
        return True
    status = path.stat()
    wanted = stat.S_IRUSR if status.st_uid == uid else stat.S_IRGRP if status.st_gid == gid else stat.S_IROTH
    return bool(status.st_mode & wanted)
