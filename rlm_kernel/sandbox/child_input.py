"""What code in a kernel hands over to child RLMs: files that the host knows, or what the kernel sent, which
the host keeps in a file until the child has a copy of it, beside its trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rlm_kernel.errors import FileRefused, TextWanted, TraceError, UsageError
from rlm_kernel.sandbox.grants import FileGrants, Grant
from rlm_kernel.sandbox.kernel_says import Named, Spooled
from rlm_kernel.sandbox.rundir import RunDir

MAX_HANDED = 2 << 30
"""Bytes of one context that is no loaded file."""
MAX_SPOOLED = 4 * MAX_HANDED
"""Bytes of all that a kernel has handed over and nobody has taken yet."""
MAX_SPOOLS = 1_000
MAX_PIECE = 4 << 20
"""Bytes of a piece of it."""
MIN_FREE = 1 << 30
"""Bytes that stay free on the file system, or a tenth of what was free at first if that is less."""
_BLOCK = 1 << 20
_GONE = "What was to be handed over is not there."


class Spool:
    """What the kernel sends, in files of the host's in `folder`. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}
        self._least = 0

    @property
    def holds(self) -> bool:
        """Whether there is anything in it. Does not block."""
        return bool(self._sizes)

    def add(self, name: str, piece: bytes | bytearray) -> bool:
        """Keep a piece; an empty one begins.

        False if it is too much, or there is no room: then nothing of it is kept.
        """
        size = self._sizes.get(name, 0) + len(piece)
        if not piece:
            self._begin(name)
        elif name not in self._sizes:
            return False
        try:
            if (
                size > MAX_HANDED
                or sum(self._sizes.values()) + len(piece) > MAX_SPOOLED
                or len(self._sizes) > MAX_SPOOLS
            ):
                raise OSError("too much")
            if shutil.disk_usage(self._folder).free < self._least:
                raise OSError("the disk is nearly full")
            with (self._folder / name).open("ab") as file:
                file.write(piece)
        except OSError:
            self.drop(name)
            return False
        self._sizes[name] = size
        return True

    def drop(self, name: str) -> None:
        if self._sizes.pop(name, None) is not None:
            with contextlib.suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        for name in list(self._sizes):
            self.drop(name)

    def _begin(self, name: str) -> None:
        self.drop(name)
        self._sizes[name] = 0
        with contextlib.suppress(OSError):
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700)
                self._least = min(MIN_FREE, shutil.disk_usage(self._folder).free // 10)


@dataclass(frozen=True)
class ChildInput:
    """Implements `engine.protocols.Handed`: nothing, some `grants` of the session's files, or a spooled file
    of `form`.
    """

    digest: str = ""
    size: int = 0
    grants: Sequence[Grant] = ()
    form: Literal["", "text", "json"] = ""
    _path: Path = Path()

    async def text(self, limit: int) -> str:
        """As of the protocol. Raises TextWanted for files: their text is in the kernel."""
        if self.grants:
            raise TextWanted(str(limit))
        if not self.form:
            return ""
        # In the worst case a character is four bytes.
        text = (
            "" if self.size > 4 * limit else (await asyncio.to_thread(self._read)).decode("utf-8", "replace")
        )
        if len(text) > limit or self.size > 4 * limit:
            raise UsageError(
                f"At this depth rlm_query asks the sub model, which reads at most {limit:,} characters, and "
                "the context has more: "
                f"{self.size:,} bytes. Hand over less at a time."
            )
        return text

    def copy_to(self, path: Path) -> None:
        """Write it to a new file. Blocking. Raises TraceError, UsageError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as failing:
                with _opened(self._path) as spooled, path.open("xb") as copy:
                    failing.callback(path.unlink)
                    shutil.copyfileobj(spooled, copy, _BLOCK)
                failing.pop_all()
        except OSError as error:
            raise TraceError(
                f"What was handed over to a child cannot be written to {path}: {error.strerror or error}.",
                hint="Free some space or check the folder's permissions, or choose another place for the "
                "trace.",
            ) from error

    def _read(self) -> bytes:
        with _opened(self._path) as file:
            return file.read()


def take(given: Any, run: RunDir, grants: FileGrants) -> ChildInput:
    """What a kernel hands over. Blocking: it is read whole. Raises UsageError, FileRefused."""
    if given is None:
        return ChildInput()
    if (named := Named.of(given)) is not None:
        found = [grants.locate(name) for name in named.files]
        if any(grant.directory for grant in found):
            raise FileRefused("A folder cannot be handed over: hand over its files.")
        return ChildInput(
            hashlib.sha256(json.dumps(named.files).encode("utf-8", "replace")).hexdigest(), grants=found
        )
    if (spooled := Spooled.of(given)) is None:
        raise UsageError("That cannot be handed over to a child.")
    path = run.spool / spooled.handed
    with _opened(path) as file:
        digest, size = hashlib.sha256(spooled.form.encode()), 0
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return ChildInput(digest.hexdigest(), size, (), spooled.form, path)


def _opened(path: Path) -> BinaryIO:
    """Raises UsageError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(_GONE) from error
