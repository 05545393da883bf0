"""A kernel in its container, with the host's end of it: started or joined, put to work, left for the next
command or closed.

Every kernel of ours is one of these: of a question, of a kept session, of a child RLM, of a replay. Jupyter
starts its kernels by itself, and has the host's end alone (`broker_and_spec`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rlm_kernel import loops
from rlm_kernel.config import parse_size
from rlm_kernel.engine.events import Event, Listener
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.protocols import HostCallHandler
from rlm_kernel.session.digests import sha256_of
from rlm_kernel.session.environment import Environment, Host, new_folder

if TYPE_CHECKING:
    from rlm_kernel.sandbox.broker import Broker
    from rlm_kernel.sandbox.container_spec import Made, SandboxSpec
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.rundir import RunDir

_FOLDER = re.compile(r"rlm-[0-9a-f]{8}")


@dataclass(frozen=True)
class GivenFiles:
    """The files of a new kernel; `paths`, `known_as` and `named` as for FileGrants.

    `late`: files can be named once it runs, too. `depot`: the folder where these go; by default in the
    session's own.
    """

    paths: Sequence[Path] = ()
    known_as: Sequence[Path | None] = ()
    named: Sequence[Path] = ()
    late: bool = True
    depot: Path | None = None


@dataclass(frozen=True)
class Left:
    """A kernel that an earlier command left: its folder, the files that its container has
    (`FileGrants.dump`), the folder for files that are named later, and the cells (id, code) that loaded its
    input.
    """

    folder: Path
    granted: Sequence[dict[str, Any]]
    depot: Path
    set_up: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Lost:
    """A kernel that was left and cannot be had any more, and why: a sentence without its full stop."""

    why: str


class RunningKernel:
    """A kernel in its container, with the broker that serves its host calls.

    Made by `new_kernel` and `join_kernel`.

    Life: `start` (or joined), `attach` for each work that it does, and `leave` or `close`. As a context
    manager it is closed in the end. Owned by one event loop.
    """

    def __init__(self, environment: Environment, *, queued: bool = True) -> None:
        """`queued`: its container waits until the machine's memory has room for it."""
        from rlm_kernel.sandbox.kernel import DockerKernel

        self.environment = environment
        self._calls: HostCalls | None = None
        self._listener: Listener | None = None
        self._started = False
        self._broker, spec = broker_and_spec(environment, {}, wait=None if queued else 0)
        timeout = environment.host.settings.limits.cell_timeout
        spec = replace(spec, admit=functools.partial(self._admitted, spec.admit))
        self.kernel = DockerKernel(spec, self._broker, cell_timeout=timeout, tell=self._tell)

    async def start(self) -> None:
        """Start the container; where that fails, nothing of it is left. Raises SetupError, KernelError."""
        try:
            await self.kernel.start()
        except BaseException:
            await self.close()
            raise
        self._started = True

    async def join(self, set_up: Sequence[tuple[str, str]]) -> bool:
        """Take over the kernel that an earlier command left in the folder.

        False where it is lost: then nothing of it is left.

        `set_up`: the cells that loaded its input. Raises DockerError.
        """
        try:
            self._started = await self.kernel.join(set_up)
        except BaseException:
            await self.leave()
            raise
        if not self._started:
            await self.close()
        return self._started

    def attach(self, calls: HostCalls, listener: Listener) -> None:
        """From now on its host calls are done by `calls`, and `listener` hears of its outputs, and of cells
        that people run in it.
        """
        self._calls, self._listener = calls, listener
        self._broker.handlers = calls.handlers()
        self._broker.asking_seconds = calls.ledger.approval.asking.seconds

    @contextlib.asynccontextmanager
    async def attached(self, calls: HostCalls, listener: Listener) -> AsyncIterator[None]:
        """`attach` for what is done inside.

        A kernel that does not run is started for it, and closed afterwards.
        """
        self.attach(calls, listener)
        if self._started:
            yield
            return
        await self.start()
        try:
            yield
        finally:
            await self.close()

    async def leave(self) -> None:
        """Let go of the kernel, which stays for its idle time.

        Shielded: a cancellation must not leave half of it behind.
        """
        await loops.to_its_end(self._leave())

    async def _leave(self) -> None:
        await self.kernel.leave()
        await self._broker.stop()
        self.environment.run.leave()

    async def close(self) -> None:
        """Remove the container and the folder.

        Idempotent; shielded: a second cancellation must not leave a container behind.
        """
        await loops.to_its_end(self._close())

    async def _close(self) -> None:
        try:
            await self.kernel.stop()
        finally:
            await self._broker.stop()
            await asyncio.to_thread(self.environment.run.remove)

    async def __aenter__(self) -> RunningKernel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)

    @contextlib.asynccontextmanager
    async def _admitted(self, admit: Any) -> AsyncIterator[Made]:
        """Waiting for room is not of the run's time."""
        begun = time.monotonic()
        async with admit() as made:
            if self._calls is not None:
                self._calls.ledger.waited(time.monotonic() - begun)
            yield made


async def new_kernel(
    host: Host,
    image: ImageInfo,
    files: GivenFiles,
    *,
    replayed: bool = False,
    idle: float = 0.0,
    queued: bool = True,
) -> RunningKernel:
    """A kernel that can be started, with its files; it has a folder, which `close` removes.

    `replayed`: host calls may be answered from a recording; `idle`: seconds that it outlives this command;
    `queued`: it waits for room in the machine's memory. Raises SetupError, FileRefused.
    """
    run = new_folder(host.settings, replayed=replayed, idle=idle)
    try:
        grants = await asyncio.to_thread(_granted, files, run)
        return RunningKernel(Environment(host, run, grants, image), queued=queued)
    except BaseException:
        run.remove()
        raise


def _granted(files: GivenFiles, run: RunDir) -> Any:
    from rlm_kernel.sandbox.grants import FileGrants

    if files.depot is not None:
        shutil.rmtree(files.depot, ignore_errors=True)  # what an earlier container had
    depot = depot_of(files.depot, run) if files.late else None
    return FileGrants(files.paths, run, files.known_as, depot, files.named)


async def join_kernel(left: Left, host: Host, image: ImageInfo) -> RunningKernel | Lost:
    """The kernel that an earlier command left; if it is lost, nothing of it is left.

    `image`: for a new container in its place.

    Raises DockerError.
    """
    from rlm_kernel.sandbox.rundir import RunDir

    if await asyncio.to_thread(other_version, left.folder):
        await asyncio.to_thread(discard, left.folder)
        return Lost("It was started by another version of rlm_kernel")
    run = await asyncio.to_thread(RunDir.adopt, left.folder)
    if run is None:
        await asyncio.to_thread(discard, left.folder)
        return Lost("Its container was gone")
    try:
        kernel = await asyncio.to_thread(_restored, left, host, image, run)
    except (KeyError, TypeError, ValueError, AttributeError):  # another version's, or damaged
        run.leave()
        await asyncio.to_thread(discard, left.folder)
        return Lost("What was kept of its files cannot be read")
    except BaseException:
        run.leave()
        raise
    return kernel if await kernel.join(left.set_up) else Lost("Its container was gone or did not answer")


def _restored(left: Left, host: Host, image: ImageInfo, run: RunDir) -> RunningKernel:
    from rlm_kernel.sandbox.grants import FileGrants

    grants = FileGrants.restored(left.granted, run, depot_of(left.depot, run))
    return RunningKernel(Environment(host, run, grants, image))


def other_version(folder: Path) -> bool:
    """Whether a session's folder is there, and its container was begun by another version. Blocking."""
    from rlm_contract import VERSION

    from rlm_kernel.sandbox.rundir import RunDir

    return folder.exists() and RunDir.version(folder) != VERSION


def depot_of(wanted: Path | None, run: RunDir) -> Path:
    """The folder for files that are named later: in the session's own if the engine cannot be told the name
    of the wanted one.
    """
    from rlm_kernel.sandbox.rundir import has_utf8_name

    return wanted if wanted is not None and has_utf8_name(wanted) else run.path / "depot"


def discard(folder: Path) -> None:
    """Remove what is left of a session: its containers and its folder. Blocking. Raises DockerError."""
    from rlm_kernel.sandbox.containers import remove_containers
    from rlm_kernel.sandbox.rundir import remove_folder

    if _FOLDER.fullmatch(folder.name):  # whatever else it is, we did not make it
        remove_containers(folder.name.removeprefix("rlm-"))
        remove_folder(folder)


def broker_and_spec(
    environment: Environment, handlers: Mapping[str, HostCallHandler], *, wait: float | None = None
) -> tuple[Broker, SandboxSpec]:
    """A broker, and what the container is made of.

    It waits for room for so many seconds, None for as long as it takes; with 0 it does not ask for any.
    """
    from rlm_kernel.sandbox.broker import Broker
    from rlm_kernel.sandbox.container_spec import SandboxSpec, at_once
    from rlm_kernel.sandbox.room import admitted
    from rlm_kernel.sandbox.volumes import Sender

    sandbox, say = environment.host.settings.sandbox, environment.host.say
    broker = Broker(environment.run, handlers)
    spec = SandboxSpec(
        image=environment.image.id,
        run=environment.run,
        ready=broker.ready,
        accept=broker.accept,
        sandbox=sandbox,
        shares=environment.grants.shares,
        sender=Sender(sha256_of, say, parse_size(sandbox.volumes)),
        admit=at_once if wait == 0 else functools.partial(admitted, parse_size(sandbox.memory), say, wait),
    )
    return broker, spec
