"""The kernel of a kept session: made, left for the next command, joined by it, or ended."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.protocols import Models
from rlm_kernel.session.stage import Say, Stage, broker_and_spec, find_or_build_image, image_for, window_of

if TYPE_CHECKING:
    from rlm_kernel.sandbox.broker import Broker
    from rlm_kernel.sandbox.grants import Consent
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.kernel import DockerKernel
    from rlm_kernel.sandbox.rundir import RunDir

_FOLDER = re.compile(r"rlm-[0-9a-f]{8}")


@dataclass(frozen=True)
class Lost:
    """A kernel that was left and cannot be had any more, and why: a sentence without its full stop."""

    why: str


@dataclass(frozen=True)
class Live:
    """A kernel with its broker, in the session's folder. Ends with `leave` or `end`."""

    on: Stage
    broker: Broker
    kernel: DockerKernel

    async def leave(self) -> None:
        """Let go of the kernel, which stays for the idle time. Shielded: a cancellation must not leave half of it behind."""
        await asyncio.shield(self._leave())

    async def _leave(self) -> None:
        await self.kernel.leave()
        await self.broker.stop()
        self.on.run.leave()

    async def end(self) -> None:
        """Remove the container and the folder. Shielded, too."""
        await asyncio.shield(self._end())

    async def _end(self) -> None:
        try:
            await self.kernel.stop()
        finally:
            await self.broker.stop()
            self.on.run.remove()


async def make(
    paths: Sequence[Path],
    settings: Settings,
    listeners: Listener,
    say: Say,
    *,
    depot: Path | None = None,
    known_as: Sequence[Path | None] = (),
    consent: Consent | None = None,
    image: ImageInfo | None = None,
    idle: float = 0.0,
    models: Awaitable[Models] | None = None,
    queued: bool = True,
) -> Live:
    """A new container, which outlives this command by `idle` seconds. `depot`: for files that are named later; by default in its folder.
    `image`: by default as the settings say (`models`: see image_for). `queued`: it waits for room in the machine's memory.

    Raises SetupError, FileRefused, KernelError.
    """
    from rlm_kernel.sandbox.broker import MAX_REQUEST
    from rlm_kernel.sandbox.grants import FileGrants
    from rlm_kernel.sandbox.rundir import RunDir

    if depot is not None:
        await asyncio.to_thread(shutil.rmtree, depot, ignore_errors=True)  # what an earlier container had
    run = RunDir.create(max_request=MAX_REQUEST, window=window_of(settings), replayed=idle > 0, idle=idle)
    try:
        found = image if image is not None else await image_for(settings, say, models)
        grants = await asyncio.to_thread(FileGrants, paths, run, known_as, _depot(depot, run))
        live = await _live(Stage(run, grants, found, consent, say), settings, listeners, wait=None if queued else 0)
    except BaseException:
        run.remove()
        raise
    try:
        await live.kernel.start()
    except BaseException:
        await live.end()
        raise
    return live


async def join(
    folder: Path,
    granted: Sequence[dict[str, Any]],
    set_up: Sequence[tuple[str, str]],
    settings: Settings,
    listeners: Listener,
    say: Say,
    *,
    depot: Path,
    consent: Consent | None = None,
) -> Live | Lost:
    """The kernel that an earlier command left in a session's folder; if it is lost, nothing of it is left.

    `granted`: the files that it has; `set_up`: the cells that loaded them. Raises DockerError.
    """
    from rlm_kernel.sandbox.grants import FileGrants
    from rlm_kernel.sandbox.rundir import RunDir

    if other_version(folder):
        await asyncio.to_thread(discard, folder)
        return Lost("It was begun by another version of rlm_kernel")
    run = await asyncio.to_thread(RunDir.adopt, folder)
    if run is None:
        await asyncio.to_thread(discard, folder)
        return Lost("Its container was gone")
    try:
        grants = FileGrants.restored(granted, run, _depot(depot, run))
    except (KeyError, TypeError, ValueError, AttributeError):  # another version's, or damaged
        run.leave()
        await asyncio.to_thread(discard, folder)
        return Lost("What was kept of its files cannot be read")
    except BaseException:
        run.leave()
        raise
    try:
        live = await _live(
            Stage(run, grants, await asyncio.to_thread(find_or_build_image, settings, say), consent, say), settings, listeners
        )
    except BaseException:
        run.leave()
        raise
    try:
        if await live.kernel.join(set_up):
            return live
    except BaseException:
        await live.leave()
        raise
    await live.end()
    return Lost("Its container was gone or did not answer")


def other_version(folder: Path) -> bool:
    """Whether a session's folder is there, and its container was begun by another version. Blocking for a moment."""
    from rlm_contract import VERSION
    from rlm_kernel.sandbox.rundir import RunDir

    return folder.exists() and RunDir.version(folder) != VERSION


def _depot(wanted: Path | None, run: RunDir) -> Path:
    """The folder for files that are named later: in the session's own if the engine cannot be told the name of the wanted one."""
    from rlm_kernel.sandbox.rundir import has_utf8_name

    return wanted if wanted is not None and has_utf8_name(wanted) else run.path / "depot"


async def _live(on: Stage, settings: Settings, listeners: Listener, wait: float | None = None) -> Live:
    from rlm_kernel.sandbox.kernel import DockerKernel

    broker, spec = broker_and_spec(on, settings, {}, wait=wait)
    kernel = DockerKernel(spec, broker, cell_timeout=settings.limits.cell_timeout, tell=listeners)
    return Live(on, broker, kernel)


def discard(folder: Path) -> None:
    """Remove what is left of a session: its containers and its folder. Blocking. Raises DockerError."""
    from rlm_kernel.sandbox.containers import remove_containers
    from rlm_kernel.sandbox.rundir import remove_folder

    if _FOLDER.fullmatch(folder.name):  # whatever else it is, we did not make it
        remove_containers(folder.name.removeprefix("rlm-"))
        remove_folder(folder)
