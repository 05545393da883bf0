"""What a run stands on: the session's folder, its files, the image, the models, a kernel with its broker. All is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.config import Settings, parse_size
from rlm_kernel.engine.events import Listener
from rlm_kernel.engine.hostcalls import HostCalls
from rlm_kernel.engine.ledger import Limits
from rlm_kernel.engine.protocols import HostCallHandler, Models
from rlm_kernel.engine.records import Keep
from rlm_kernel.errors import ImageError
from rlm_kernel.session.digests import sha256_of
from rlm_kernel.session.players import open_models

if TYPE_CHECKING:
    from rlm_kernel.sandbox.grants import Consent, FileGrants
    from rlm_kernel.sandbox.image import ImageInfo
    from rlm_kernel.sandbox.kernel import DockerKernel
    from rlm_kernel.sandbox.provisioner import SandboxSpec
    from rlm_kernel.sandbox.rundir import RunDir

WINDOW = 128
"""Host calls of one batch under way at once, where the models' own concurrency is lower."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """The session's folder, the files in it, and the image. `consent` is asked for files that the user did not name."""

    run: RunDir
    grants: FileGrants
    image: ImageInfo
    consent: Consent | None = None
    say: Say = lambda _text: None

    async def locate(self, asked: str) -> Mapping[str, Any]:
        """Where the kernel finds a host path. Raises FileRefused."""
        from rlm_kernel.sandbox.grants import rules_above

        found = await self.grants.obtain(asked, self.consent, self.say)
        place = {"inside": str(found.inside), "path": str(found.path), "directory": found.directory}
        return place | {"ignore": await asyncio.to_thread(rules_above, found.path)} if found.directory else place


@contextlib.contextmanager
def folder(*, replayed: bool = False, window: int = WINDOW) -> Iterator[RunDir]:
    """A session's folder. `replayed`: host calls are answered from a recording; `window`: how many of a batch are under way at once.

    Raises SetupError.
    """
    from rlm_kernel.sandbox.broker import MAX_REQUEST
    from rlm_kernel.sandbox.rundir import RunDir

    run = RunDir.create(max_request=MAX_REQUEST, window=window, replayed=replayed)
    try:
        yield run
    finally:
        run.remove()


@contextlib.asynccontextmanager
async def stage(
    paths: Sequence[Path],
    settings: Settings,
    say: Say,
    *,
    known_as: Sequence[Path | None] = (),
    named: Sequence[Path] = (),
    replayed: bool = False,
    consent: Consent | None = None,
    models: Awaitable[Models] | None = None,
) -> AsyncIterator[Stage]:
    """A session's folder with its files (`known_as`, `named`: see FileGrants), and an image (`models`: see image_for).

    `consent`: asked for files that the user did not name. Raises SetupError, DockerError, FileRefused.
    """
    from rlm_kernel.sandbox.containers import remove_containers
    from rlm_kernel.sandbox.grants import FileGrants
    from rlm_kernel.sandbox.rundir import sweep

    swept = await asyncio.to_thread(sweep)
    with folder(replayed=replayed, window=window_of(settings)) as run:
        depot = run.path / "depot" if named or consent is not None else None
        grants = await asyncio.to_thread(FileGrants, paths, run, known_as, depot, named)
        image = await image_for(settings, say, models)
        for session in swept:  # a container that was made and never started does not end by itself
            await asyncio.to_thread(remove_containers, session)
        yield Stage(run, grants, image, consent, say)


def window_of(settings: Settings) -> int:
    """How many calls of a batch are under way at once: enough to keep the sub model busy."""
    from rlm_kernel.sandbox.broker import MAX_IN_FLIGHT

    return min(MAX_IN_FLIGHT, max(WINDOW, 2 * settings.sub_llm.concurrency))


@contextlib.asynccontextmanager
async def models_ready(settings: Settings, given: Models | None, say: Say) -> AsyncIterator[asyncio.Task[Models]]:
    """The models, which get ready while other things are done: the task gives them. Closed afterwards, unless they were given."""
    async with contextlib.AsyncExitStack() as stack:

        async def enter() -> Models:
            return given if given is not None else await stack.enter_async_context(open_models(settings, say))

        players = asyncio.create_task(enter())
        try:
            yield players
        finally:
            await_nothing(players)
            await asyncio.wait([players])


def await_nothing(task: asyncio.Task[Any]) -> None:
    """Give a task up: whatever becomes of it, nobody is told."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def image_for(settings: Settings, say: Say, models: Awaitable[Models] | None = None) -> ImageInfo:
    """The image of the settings, or ours. Building that takes minutes, so `models` get ready before: a missing key is told at once.

    Raises DockerError, ImageError, and what the models raise.
    """
    try:
        return await asyncio.to_thread(find_or_build_image, settings, say, build=False)
    except ImageError:
        if settings.sandbox.image is not None:
            raise
    if models is not None:
        await models
    return await asyncio.to_thread(find_or_build_image, settings, say)


def find_or_build_image(settings: Settings, say: Say, *, build: bool = True) -> ImageInfo:
    """The image of the settings, or ours; `build` that if it is not there. Blocking. Raises DockerError, ImageError."""
    from rlm_kernel.sandbox.docker_host import connect
    from rlm_kernel.sandbox.image import ensure_image, find_image, image_tag, inspect_image

    client = connect()
    try:
        if settings.sandbox.image is None and not build:
            ours = find_image(client, settings.sandbox.base)
            if ours is None:
                raise ImageError(f"The kernel image {image_tag(settings.sandbox.base)} is not built.", hint="Type `rlm image build`.")
            return ours
        if settings.sandbox.image is None:
            return ensure_image(client, base=settings.sandbox.base, progress=say)
        found = inspect_image(client, settings.sandbox.image)
        if found is None:
            raise ImageError(
                f"The image {settings.sandbox.image} (sandbox.image) is not there.",
                hint="Unset sandbox.image to use rlm_kernel's own, or build or pull that one.",
            )
        return found
    finally:
        client.close()


@contextlib.asynccontextmanager
async def kernel_of(
    on: Stage, settings: Settings, calls: HostCalls, listeners: Listener, *, cell_timeout: float | None
) -> AsyncIterator[DockerKernel]:
    """A kernel that is up, with its broker; both gone afterwards."""
    from rlm_kernel.sandbox.kernel import DockerKernel

    broker, spec = broker_and_spec(on, settings, calls.handlers())
    spec = replace(spec, admit=functools.partial(_not_counted, spec.admit, calls))
    kernel = DockerKernel(spec, broker, cell_timeout=cell_timeout, tell=listeners)
    try:
        await kernel.start()
        yield kernel
    finally:
        # Shielded: a second cancellation must not leave a container behind.
        await asyncio.shield(_close(kernel, broker))


@contextlib.asynccontextmanager
async def _not_counted(admit: Callable[[], contextlib.AbstractAsyncContextManager[None]], calls: HostCalls) -> AsyncIterator[None]:
    """Waiting for room is not of the run's time."""
    begun = time.monotonic()
    async with admit():
        calls.ledger.waited(time.monotonic() - begun)
        yield


async def _close(kernel: Any, broker: Any) -> None:
    try:
        await kernel.stop()
    finally:
        await broker.stop()


def broker_and_spec(
    on: Stage, settings: Settings, handlers: Mapping[str, HostCallHandler], *, wait: float | None = None
) -> tuple[Any, SandboxSpec]:
    """A broker, and what the container is made of. It waits for room for so many seconds, None for as long as it takes;
    with 0 it does not ask for any.
    """
    from rlm_kernel.sandbox.broker import Broker
    from rlm_kernel.sandbox.provisioner import SandboxSpec
    from rlm_kernel.sandbox.room import admitted
    from rlm_kernel.sandbox.volumes import Sender

    sandbox = settings.sandbox
    broker = Broker(on.run, handlers)
    memory = parse_size(sandbox.memory)
    spec = SandboxSpec(
        image=on.image.id,
        run=on.run,
        ready=broker.ready,
        accept=broker.accept,
        memory=memory,
        cpus=min(sandbox.cpus, float(os.cpu_count() or 1)),
        pids=sandbox.pids,
        tmp=parse_size(sandbox.tmp),
        network=sandbox.network,
        runtime=sandbox.runtime,
        tight=sandbox.seccomp == "tight",
        shares=on.grants.shares,
        sender=Sender(sha256_of, on.say, parse_size(sandbox.volumes)),
        admit=contextlib.nullcontext if wait == 0 else functools.partial(admitted, memory, on.say, wait),
    )
    return broker, spec


def keep_of(settings: Settings) -> Keep:
    """How much of the host calls is recorded."""
    return Keep(parse_size(settings.trace.answers), parse_size(settings.trace.records))


def limits_of(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(limits.turns, limits.calls, limits.cost, limits.tokens, limits.seconds, limits.depth)
