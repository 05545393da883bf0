"""Which host files the kernel may read, and where it finds them.

The user names files and folders; each is resolved once, links and all, and mounted read-only where it lies,
without a copy. A request from the kernel is resolved in the same way and must be one of them or lie in one of
the folders.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from rlm_contract import FILES

from rlm_kernel import system
from rlm_kernel.errors import FileRefused
from rlm_kernel.nearest import did_you_mean, is_same_name, nearest_path
from rlm_kernel.pathtext import from_text, is_foreign, recorded, to_text
from rlm_kernel.sandbox.late_mounts import LateMounts, Say, readable_inside
from rlm_kernel.sandbox.rundir import RunDir, container_ids, has_utf8_name
from rlm_kernel.sandbox.shares import LATE, Share, Shares
from rlm_kernel.sandbox.tarstream import VERSION_CONTROL

Consent = Callable[[Path], Awaitable[bool]]
"""Asks the user whether the kernel may read a path that they did not name."""
MAX_QUESTIONS = 20
"""Paths that a user is asked for in one run: a flood of them is refused."""
MAX_COVERS = 500
"""Files and folders in a folder that are copied because a root user alone may read them."""
MAX_RULES = 1 << 16
"""Characters of each .gitignore file above a folder."""
_INSIDE = PurePosixPath(FILES)


@dataclass(frozen=True)
class Grant:
    """A file or folder that the user named: `source` is what is mounted at `inside`.

    `renamed`: `path` is only what the kernel calls it. `used`: it is one of the session's inputs, or was
    asked for since.
    """

    path: Path
    source: Path
    inside: PurePosixPath
    directory: bool
    renamed: bool = False
    used: bool = True


class FileGrants:
    """The files of a session. Made before its container; answers the kernel's `file` calls."""

    def __init__(
        self,
        paths: Sequence[Path],
        run: RunDir,
        known_as: Sequence[Path | None] = (),
        depot: Path | None = None,
        named: Sequence[Path] = (),
    ) -> None:
        """`paths` are the session's inputs; `named` what a question names besides, which may be asked for.

        `known_as`: for each path, or for none, the path that the kernel knows it by where that is another.
        `depot`: where files go that are asked for once the container runs; without one they are refused.
        Raises FileRefused for one of `paths` that is missing, unreadable or neither file nor folder.
        """
        names = [*known_as, *[None] * (len(paths) - len(known_as))]
        with run.errors():
            copies = LateMounts(run.path / "copies")
        grants = [_grant(index, resolve(path), copies) for index, path in enumerate(paths)]
        self._grants = [
            replace(grant, path=name, renamed=True) if name else grant
            for grant, name in zip(grants, names, strict=True)
        ]
        self._grants += [cover for grant in grants for cover in _covers(grant, copies)]
        self._allowed: dict[Path, None] = {}
        for path in self.allow(named):
            # Mounted from the start it costs nothing, whatever its size.
            if readable_inside(path.stat()):
                self._grants.append(replace(_grant(len(self._grants), path, copies), used=False))
        self._depot = LateMounts(depot) if depot is not None else None
        self.shares = self._shares()
        self._answers: dict[Path, bool] = {}
        self._giving = asyncio.Lock()
        self._asking = asyncio.Lock()

    @classmethod
    def restored(cls, dump: Sequence[Mapping[str, Any]], run: RunDir, depot: Path) -> FileGrants:
        """Those of a container that runs already, as `dump` told them."""
        grants = cls((), run, depot=depot)
        grants._grants = [
            Grant(
                Path(from_text(one["path"])),
                Path(from_text(one["source"])),
                PurePosixPath(one["inside"]),
                one["directory"],
                one["renamed"],
                one["used"],
            )
            for one in dump
        ]
        grants.shares = grants._shares()
        return grants

    def _shares(self) -> Shares:
        """How the containers of the session get the files."""
        mounted = [grant for grant in self._grants if not grant.inside.is_relative_to(LATE)]
        shares = [Share(grant.source, grant.inside, grant.directory) for grant in mounted]
        if self._depot:
            shares.append(Share(self._depot.folder, LATE, True))
        return Shares(shares, lambda: [(grant.inside.name, grant.source) for grant in self._late()])

    def _late(self) -> list[Grant]:
        """What was given to a container that ran."""
        return [grant for grant in self._grants if grant.inside.is_relative_to(LATE)]

    def allow(self, named: Sequence[Path]) -> list[Path]:
        """Have what the user has named since allowed, for when it is asked for; the real paths that can be
        had. Blocking.
        """
        found: dict[Path, None] = {}
        for path in named:
            with contextlib.suppress(FileRefused):  # it is there, but nobody can read it
                found[resolve(path)] = None
        self._allowed |= found
        return list(found)

    def dump(self) -> list[dict[str, Any]]:
        """The grants as JSON data."""
        return [
            {
                "path": to_text(str(grant.path)),
                "source": to_text(str(grant.source)),
                "inside": str(self.shares.inside(grant.inside)),
                "directory": grant.directory,
                "renamed": grant.renamed,
                "used": grant.used,
            }
            for grant in self._grants
        ]

    @property
    def paths(self) -> list[Path]:
        """The paths of the inputs as the kernel knows them, in the user's order, and of what was asked for
        since.
        """
        return [grant.path for grant in self._grants if grant.used]

    def places(self) -> dict[Path, Path]:
        """Where each of the paths is."""
        return {
            grant.path: grant.source if grant.renamed else grant.path for grant in self._grants if grant.used
        }

    async def add(self, path: Path, say: Say = lambda _text: None, known_as: Path | None = None) -> Grant:
        """Grant a path that was named later; the container need not start again. Cancelling it ends a copy.

        `known_as`: the path that the kernel knows it by, where that is another.

        Raises FileRefused, also where there is no depot.
        """
        async with self._giving:
            real = await asyncio.to_thread(resolve, path)
            for grant in self._grants:
                if not grant.renamed and _below_real(real, grant.path) is not None:
                    return self._take(str(real))
            if self._depot is None:
                raise FileRefused(
                    f"{path} cannot be given to a kernel that is already running.",
                    hint="Name it when you start the kernel: -f",
                )
            stop = threading.Event()
            giving = asyncio.create_task(asyncio.to_thread(self._give, self._depot, real, say, stop))
            try:
                grant = await asyncio.shield(giving)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([giving])
                raise
            if known_as is not None:
                grant = replace(grant, path=known_as, renamed=True)
            self._grants.append(grant)
            return grant

    def _give(self, depot: LateMounts, real: Path, say: Say, stop: threading.Event) -> Grant:
        """Have it in the container that runs: by its depot, or sent where the engine does not see that.

        Blocking.
        """
        if not self.shares.sent:
            source = LateMounts(depot.folder, say).give(real, stop.is_set)
            return Grant(real, source, LATE / source.name, source.is_dir())
        name = str(1 + max((int(grant.inside.name) for grant in self._late()), default=0))
        self.shares.give(name, real, say, stop)
        return Grant(real, real, LATE / name, real.is_dir())

    async def obtain(
        self, asked: str, consent: Consent | None = None, say: Say = lambda _text: None
    ) -> Grant:
        """Where the kernel finds a host path.

        One that the user did not name is refused, or they are asked, once: FileRefused.
        """
        try:
            return await asyncio.to_thread(self._take, asked)
        except FileRefused:
            path = await asyncio.to_thread(_real, asked)
            if path is None or not (self._is_allowed(path) or await self._consented(path, consent)):
                raise
        return await self.add(path, say)

    def _is_allowed(self, path: Path) -> bool:
        return any(_below_real(path, allowed) is not None for allowed in self._allowed)

    async def _consented(self, path: Path, consent: Consent | None) -> bool:
        if consent is None:
            return False
        async with self._asking:  # one question at a time, and none twice
            if path not in self._answers:
                if len(self._answers) >= MAX_QUESTIONS:
                    return False
                self._answers[path] = await consent(path)
            return self._answers[path]

    def locate(self, asked: str) -> Grant:
        """Where the kernel finds a host path. Raises FileRefused if the user did not name it."""
        return self._find(asked)[1]

    def place_of(self, asked: str) -> Path:
        """Where the file of an input is, or of what was asked for since, by the path that the kernel knows it
        by. Blocking. Raises FileRefused.
        """
        granted, found = self._find(asked)
        if not granted.used or found.directory:
            raise FileRefused(f"{asked} is no file that was loaded.")
        return found.source

    def _take(self, asked: str) -> Grant:
        """The same for a path that is used from now on."""
        granted, found = self._find(asked)
        with contextlib.suppress(ValueError):  # another thread has marked it meanwhile
            self._grants[self._grants.index(granted)] = replace(granted, used=True)
        return found

    def _find(self, asked: str) -> tuple[Grant, Grant]:
        """What was granted, and of that what was asked for."""
        if "\0" in asked or len(asked) > 4096:
            raise FileRefused("That is not a path.")
        literal = recorded(asked if is_foreign(asked) else os.path.abspath(asked))
        try:
            real = (
                Path(os.path.realpath(asked))
                if not system.is_remote(asked) or self._has_below(literal)
                else Path(asked)
            )
        except (OSError, ValueError) as error:  # a name that the file system cannot have
            raise FileRefused("That is not a path.") from error
        for grant in self._grants:
            # A path of the machine where it was recorded: here it may be a link, or nothing.
            part = (
                _below(literal, recorded(str(grant.path))) if grant.renamed else _below_real(real, grant.path)
            )
            if part is None:
                continue
            if not part.parts:
                return grant, replace(grant, used=True, inside=self.shares.inside(grant.inside))
            if grant.directory:
                source = grant.source.joinpath(*part.parts)
                if not Path(os.path.realpath(source)).is_relative_to(os.path.realpath(grant.source)):
                    continue  # a link that leads out of the folder: what is there was not named
                known = recorded(str(grant.path)) if grant.renamed else grant.path
                inside = self.shares.inside(grant.inside / PurePosixPath(*part.parts))
                return grant, Grant(Path(str(known.joinpath(*part.parts))), source, inside, source.is_dir())
        named = ", ".join(str(path) for path in [*self.paths, *self._allowed][:20]) or "none"
        raise FileRefused(
            f"{asked} was not named by the user, so it cannot be loaded. Files that can: {named}."
        )

    def _has_below(self, path: PurePath) -> bool:
        return any(_below(path, recorded(str(grant.path))) is not None for grant in self._grants)


def _below(path: PurePath, top: PurePath) -> PurePath | None:
    return path.relative_to(top) if path.is_relative_to(top) else None


def _below_real(path: Path, top: Path) -> PurePath | None:
    """Where a real path is below another one; None if it is not. Blocking.

    Two that differ in case alone, or in how an accent is encoded, are the same where the file system has it
    so (macOS, Windows).
    """
    if path.is_relative_to(top):
        return path.relative_to(top)
    for parent in (path, *path.parents):
        if len(parent.parts) == len(top.parts) and is_same_name(str(parent), str(top)):
            with contextlib.suppress(OSError):
                if os.path.samefile(parent, top):
                    return path.relative_to(parent)
    return None


def _grant(index: int, path: Path, copies: LateMounts) -> Grant:
    """A grant of what is mounted where it lies, or of a copy where the container could not have it so."""
    if _mountable(path):
        return Grant(path, path, _INSIDE / str(index), path.is_dir())
    hint = (
        "Check free space in the folder of sessions ($XDG_RUNTIME_DIR or /tmp), or make the path readable "
        "for all."
    )
    try:
        copy = copies.give(path)
    except FileRefused as error:
        raise FileRefused(error.message, hint=hint if "free space" in error.hint else error.hint) from error
    return Grant(path, copy, _INSIDE / str(index), path.is_dir())


def _mountable(path: Path) -> bool:
    """Whether a container can have a file or folder where it lies: its user may read it, the engine can be
    told its name, and its size is what there is to be read.
    """
    status = path.stat()
    return (
        has_utf8_name(path)
        and readable_inside(status)
        and not (stat.S_ISREG(status.st_mode) and _made_when_read(path, status))
    )


def _made_when_read(path: Path, status: os.stat_result) -> bool:
    """A file of /proc, /sys or of the like: what is in it is made when it is read, whatever its size is said
    to be.
    """
    if path.is_relative_to("/sys"):
        return True
    if status.st_size:
        return False
    try:
        file = system.open_plain(path, follow=True)
    except OSError:
        return False
    try:
        return bool(os.read(file, 1))
    except OSError:
        return False
    finally:
        os.close(file)


def _covers(grant: Grant, copies: LateMounts) -> list[Grant]:
    """Copies of what a root user may read in a mounted folder and the container's user may not, each to be
    mounted over its original.

    MAX_COVERS at most, and none that cannot be made: the kernel counts what it cannot read.
    """
    covers: list[Grant] = []
    if not grant.directory or grant.source != grant.path or system.ids()[0] == container_ids()[0]:
        return covers
    for path in itertools.islice(_unreadable(grant.path), MAX_COVERS):
        with contextlib.suppress(FileRefused, OSError):
            inside = grant.inside / path.relative_to(grant.path).as_posix()
            str(inside).encode()  # else the engine cannot be told of it
            covers.append(Grant(path, copies.give(path), inside, path.is_dir(), used=False))
    return covers


def _unreadable(folder: Path) -> Iterator[Path]:
    """The files and folders below a folder that the container's user may not read, outermost alone; none of
    /proc and /sys.
    """
    made_up = {os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.isdir(place)}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in VERSION_CONTROL)
        for name in [*folders, *sorted(names)]:
            path = Path(parent, name)
            try:
                status = path.lstat()
            except OSError:
                continue  # gone meanwhile
            if status.st_dev in made_up:
                continue  # it may have no end, or wait for what somebody writes
            if (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) and not readable_inside(status):
                if name in folders:
                    folders.remove(name)
                yield path


def resolve(path: Path) -> Path:
    """The real path of something the user named. Raises FileRefused."""
    real = Path(os.path.realpath(path.expanduser()))
    try:
        mode = real.stat().st_mode
    except OSError as error:
        near = did_you_mean(nearest_path(path)) if isinstance(error, FileNotFoundError) else ""
        raise FileRefused(
            f"{path} cannot be read: {error.strerror or error}.", hint=near or "Check the path."
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileRefused(
            f"{path} is neither a file nor a folder.", hint="Pipe it in instead: cat … | rlm ask … -f -"
        )
    if not os.access(real, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise FileRefused(f"{path} cannot be read: permission denied.", hint="Check the file's permissions.")
    return real


def _real(asked: str) -> Path | None:
    """The path that was asked for, links and all; None where nothing is that could be given. Blocking."""
    if not os.path.isabs(asked) or len(asked) > 4096 or system.is_remote(asked):
        return None
    try:
        return resolve(Path(asked))
    except (FileRefused, OSError, ValueError):
        return None


def rules_above(folder: Path) -> list[tuple[str, str]]:
    """The .gitignore files above a folder, up to the root of its repository, outermost first: (the folder's
    place below it, rules).

    None outside a repository. Blocking.
    """
    parents = list(folder.parents)
    root = next((parent for parent in [folder, *parents] if (parent / ".git").exists()), None)
    if root is None or root == folder:
        return []
    rules = []
    for parent in reversed(parents[: parents.index(root) + 1]):
        try:
            # Nobody named it: a link would lead to any file there is, and opening a pipe may never end.
            file = system.open_plain(parent / ".gitignore")
            with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    rules.append((folder.relative_to(parent).as_posix(), opened.read(MAX_RULES)))
        except OSError:
            continue
    return rules
