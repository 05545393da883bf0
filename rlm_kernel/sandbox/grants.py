"""Which host files the kernel may read, and where it finds them.

The user names files and folders; each is resolved once, links and all, and mounted read-only where it lies, without a copy. A request
from the kernel is resolved in the same way and must be one of them or lie in one of the folders.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rlm_kernel.errors import FileRefused
from rlm_kernel.sandbox.rundir import RunDir, container_ids, own

_INSIDE = PurePosixPath("/rlm/files")


@dataclass(frozen=True)
class Grant:
    """A file or folder that the user named: `source` is what is mounted at `inside`. `renamed`: `path` is only what the kernel calls it."""

    path: Path
    source: Path
    inside: PurePosixPath
    directory: bool
    renamed: bool = False


class FileGrants:
    """The files of a session. Made before its container; answers the kernel's `file` calls."""

    def __init__(self, paths: Sequence[Path], run: RunDir, known_as: Sequence[Path | None] = ()) -> None:
        """`known_as`: for each path, or for none, the path that the kernel knows it by where that is another.

        Raises FileRefused for a path that is missing, unreadable or neither file nor folder.
        """
        names = [*known_as, *[None] * (len(paths) - len(known_as))]
        grants = [self._grant(index, resolve(path), run) for index, path in enumerate(paths)]
        self._grants = [replace(grant, path=name, renamed=True) if name else grant for grant, name in zip(grants, names, strict=True)]

    @property
    def paths(self) -> list[Path]:
        """The paths as the kernel knows them, in the user's order: resolved, or as `known_as` says."""
        return [grant.path for grant in self._grants]

    def mounts(self) -> list[tuple[str, str]]:
        """(host path, path in the container), all read-only."""
        return [(str(grant.source), str(grant.inside)) for grant in self._grants]

    def locate(self, asked: str) -> Grant:
        """Where the kernel finds a host path. Raises FileRefused if the user did not name it."""
        if "\0" in asked or len(asked) > 4096:
            raise FileRefused("That is not a path.")
        try:
            real = Path(os.path.realpath(asked))
        except (OSError, ValueError) as error:  # a name that the file system cannot have
            raise FileRefused("That is not a path.") from error
        literal = Path(os.path.abspath(asked))
        for grant in self._grants:
            # A path of the machine where it was recorded: here it may be a link, or nothing.
            path = literal if grant.renamed else real
            if path == grant.path:
                return grant
            if grant.directory and path.is_relative_to(grant.path):
                part = path.relative_to(grant.path)
                source = grant.source / part
                return Grant(path, source, grant.inside / part.as_posix(), source.is_dir())
        named = ", ".join(str(grant.path) for grant in self._grants[:20]) or "none"
        raise FileRefused(f"{asked} was not named by the user, so it cannot be loaded. Files that can: {named}.")

    @staticmethod
    def _grant(index: int, path: Path, run: RunDir) -> Grant:
        directory = path.is_dir()
        inside = _INSIDE / str(index)
        if _readable_inside(path):
            return Grant(path, path, inside, directory)
        # Readable for a root user alone: the container's user gets a copy.
        copy = run.host / f"file-{index}"
        try:
            if directory:
                shutil.copytree(path, copy, symlinks=True, ignore=_special_files, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(path, copy)
        except OSError as error:
            hint = "Check free space where sessions live ($XDG_RUNTIME_DIR or /tmp), or make the path readable for all."
            raise FileRefused(f"{path} cannot be copied for the kernel: {error.strerror or error}.", hint=hint) from error
        for parent, folders, names in os.walk(copy):
            for name in (".", *folders, *names):
                own(Path(parent, name))
        own(copy)
        copy.chmod(0o500 if directory else 0o400)
        return Grant(path, copy, inside, directory)


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


def _special_files(folder: str, names: list[str]) -> list[str]:
    """Pipes, sockets and devices: reading one may never end."""
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]


def _readable_inside(path: Path) -> bool:
    """Whether the container's user may read the file, or list and enter the folder."""
    uid, gid = container_ids()
    if uid == os.getuid():
        return True
    status = path.stat()
    who = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    wanted = (0o5 if path.is_dir() else 0o4) << who
    return status.st_mode & wanted == wanted
