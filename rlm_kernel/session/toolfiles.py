"""What a tool gives, as the kernel can have it: a value of JSON, and files that it may read."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import bounded
from rlm_kernel.checked import plain
from rlm_kernel.errors import FileRefused, ToolError
from rlm_kernel.session import contexts
from rlm_kernel.session.plainvalues import as_json
from rlm_kernel.tools.tool import ToolResult

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import FileGrants

MAX_FILES = 100
"""Of one result."""
FOLDER = ".tools"
_SYSTEM = tuple(map(Path, ("/etc", "/proc", "/sys", "/dev", "/boot", "/run", "/var/run", "/private/etc")))
"""What lies below these is of the machine, whoever gives it."""


class ToolFiles:
    """The files that tools of one run give: those that fit are kept in a folder beside the trace, so that it
    can be replayed; others are read where they lie.
    """

    def __init__(self, grants: FileGrants, trace: Path, room: int) -> None:
        """`room`: bytes that are kept in all."""
        self._grants = grants
        self._folder = trace.with_suffix(FOLDER)
        self._room = room
        self._names = itertools.count(1)
        self._keeping = asyncio.Lock()

    async def of(self, name: str, result: Any, most: int) -> tuple[Any, Sequence[Path]]:
        """The value as JSON data of at most so many bytes, and the files, which are granted to the kernel.

        `name`: of the tool. Raises RLMError, and what the methods of a value raise.
        """
        found = result if isinstance(result, ToolResult) else ToolResult(result)
        async with self._keeping:
            value, files = await asyncio.to_thread(self._taken, name, found, most)
        await asyncio.to_thread(self._grants.allow, files)
        return value, files

    def _taken(self, name: str, result: ToolResult, most: int) -> tuple[Any, Sequence[Path]]:
        """Blocking."""
        value, given = result.value, list(itertools.islice(result.files, MAX_FILES + 1))
        if len(given) > MAX_FILES:
            raise ToolError(f"it has more than {MAX_FILES} files.")
        if contexts.is_file_like(value):
            place = self._new(f"{name}.ipynb")
            return None, [*contexts.written(value, place).paths, *self._kept(given)]
        return _plain(value, most), list(self._kept(given))

    def _new(self, name: str) -> Path:
        """A place of its own in the folder. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            place = self._folder / f"{next(self._names)}-{name}"
            if not any(self._folder.glob(f"{place.stem}.*")):
                return place

    def _kept(self, files: Iterable[Any]) -> Iterable[Path]:
        for file in files:
            if not isinstance(file, Path):
                raise ToolError(f"a {type(file).__name__} is among its files, where paths were expected.")
            yield self._keep(_readable(file))

    def _keep(self, path: Path) -> Path:
        """The copy of a file beside the trace, or the path itself where it does not fit or is a folder."""
        size = path.stat().st_size
        if path.is_dir() or size > self._room or path.is_relative_to(self._folder.absolute()):
            return path
        self._room -= size
        place = self._new(path.name)
        shutil.copyfile(path, place)
        return place.absolute()


def _readable(path: Path) -> Path:
    """Its real path. Raises ToolError for what no tool is to hand out."""
    place = path.expanduser().absolute()
    try:
        status = place.lstat()
    except (OSError, ValueError) as error:
        raise FileRefused(f"{_shown(path)} cannot be read: {_why(error)}.") from error
    if stat.S_ISLNK(status.st_mode):
        raise ToolError(f"{_shown(path)} is a link; give the file itself.")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ToolError(f"{_shown(path)} is neither a file nor a folder.")
    real = Path(os.path.realpath(place))
    home = Path.home()
    hidden = real.is_relative_to(home) and real.relative_to(home).parts[:1]
    if any(map(real.is_relative_to, _SYSTEM)) or real == Path(real.anchor):
        raise ToolError(f"{_shown(path)} is a file of the machine, which no tool may hand out.")
    if home.is_relative_to(real) or (hidden and hidden[0].startswith(".") and hidden[0] != ".cache"):
        raise ToolError(f"{_shown(path)} is private to the user, so no tool may hand it out.")
    return real


def _shown(path: Path) -> str:
    """Its name alone: code in the kernel learns nothing of the host's folders."""
    return repr(path.name[:100])


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _plain(value: Any, most: int) -> Any:
    """A value as JSON data. Raises ToolError, UsageError."""
    if isinstance(value, str) and len(value) > most:
        raise _too_large(len(value), most)
    written = as_json(value)
    if len(written) > most:
        raise _too_large(len(written), most)
    try:
        return plain(_finite(bounded.parse(written), bounded.MAX_DEPTH))
    except ValueError as error:
        raise ToolError(f"{error}.") from error


def _too_large(size: int, most: int) -> ToolError:
    return ToolError(
        f"it has {size:,} characters as JSON; {most:,} at most (tools.size). Give a file instead."
    )


def _finite(value: Any, depth: int) -> Any:
    """JSON has no NaN, which stands for what is missing, and no infinity. Raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if not depth and isinstance(value, list | dict):
        raise ValueError(f"it is nested deeper than {bounded.MAX_DEPTH}")
    if isinstance(value, list):
        return [_finite(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item, depth - 1) for name, item in value.items()}
    return value
