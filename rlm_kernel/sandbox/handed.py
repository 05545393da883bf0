"""What code in a kernel hands over to child RLMs: files that the host knows, or a file that the kernel wrote into its own folder.

That folder is the container's: what is there is opened without following a link, looked at, and must be the same whenever it is opened.
It is never written to, and never mounted elsewhere: a child gets a copy, beside its trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rlm_kernel.errors import FileRefused, TextWanted, TraceError, UsageError
from rlm_kernel.sandbox.grants import FileGrants, Grant
from rlm_kernel.sandbox.kernel_says import Named, Spooled
from rlm_kernel.sandbox.rundir import RunDir

MAX_HANDED = 2 << 30
"""Bytes of one context that is no loaded file."""
_BLOCK = 1 << 20
_CHANGED = "What was to be handed over was changed meanwhile."


@dataclass(frozen=True)
class HandedOver:
    """Implements `engine.protocols.Handed`: nothing, some `grants` of the session's files, or a file of `form` in the kernel's folder.

    That file is not held open, as there can be many: each time it is opened it must be what it was.
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
        text = "" if self.size > 4 * limit else (await asyncio.to_thread(self._read)).decode("utf-8", "replace")
        if len(text) > limit or self.size > 4 * limit:
            raise UsageError(
                f"At this depth rlm_query asks the sub model, which reads about {limit:,} characters, and the context has more: "
                f"{self.size:,} bytes. Hand over less at a time."
            )
        return text

    def copy_to(self, path: Path) -> None:
        """Write it to a new file. Blocking. Raises TraceError, UsageError."""
        with _opened(self._path) as file:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as copy:
                    digest = _written(file, self.form, copy, path)
            except OSError as error:
                raise TraceError(
                    f"What was handed over to a child cannot be written to {path}: {error.strerror or error}.",
                    hint="Free some space or check the folder's permissions, or choose another place for the trace.",
                ) from error
        if digest != self.digest:
            path.unlink()
            raise UsageError(_CHANGED)

    def _read(self) -> bytes:
        parts: list[bytes] = []
        with _opened(self._path) as file:
            if _through(file, self.form, parts.append) != self.digest:
                raise UsageError(_CHANGED)
        return b"".join(parts)


def take(given: Any, run: RunDir, grants: FileGrants) -> HandedOver:
    """What a kernel hands over, by its own word. Blocking: it is read whole. Raises UsageError, FileRefused."""
    if given is None:
        return HandedOver()
    if (named := Named.of(given)) is not None:
        found = [grants.locate(name) for name in named.files]
        if any(grant.directory for grant in found):
            raise FileRefused("A folder cannot be handed over: hand over its files.")
        return HandedOver(hashlib.sha256(json.dumps(named.files).encode("utf-8", "replace")).hexdigest(), grants=found)
    if (spooled := Spooled.of(given)) is None:
        raise UsageError("That cannot be handed over to a child.")
    path = run.sockets / spooled.spool
    size = 0

    def count(block: bytes) -> None:
        nonlocal size
        size += len(block)

    with _opened(path) as file:
        return HandedOver(_through(file, spooled.form, count), size, (), spooled.form, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError("What was to be handed over is not there.") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_HANDED:
            raise UsageError(f"A context of {status.st_size:,} bytes cannot be handed over; {MAX_HANDED:,} can, and any loaded file.")
        yield file
    finally:
        os.close(file)


def _written(file: int, form: str, copy: BinaryIO, path: Path) -> str:
    """Write all of it; its digest. Nothing is left of what cannot be written whole: the disk may be full."""
    try:
        digest = _through(file, form, copy.write)
        copy.flush()
        return digest
    except OSError:
        path.unlink()
        raise


def _through(file: int, form: str, take: Callable[[bytes], object]) -> str:
    """Have all of it taken, by blocks; its digest. It may grow meanwhile: no more is read than can be handed over."""
    digest, done = hashlib.sha256(form.encode()), 0
    while done < MAX_HANDED and (block := os.pread(file, _BLOCK, done)):
        digest.update(block)
        take(block)
        done += len(block)
    return digest.hexdigest()
