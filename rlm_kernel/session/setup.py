"""Set-up: what a run needs before its kernel, all at the same time; the first thing that fails is told, and
the others are stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rlm_kernel.session.environment import Host, image_for
from rlm_kernel.session.models import ModelSet
from rlm_kernel.session.tracefiles import TraceFiles

if TYPE_CHECKING:
    from rlm_kernel.sandbox.image import ImageInfo

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ready:
    """What was set up: the image, and where they are wanted the models and the files of a trace."""

    image: ImageInfo
    models: ModelSet | None = None
    files: TraceFiles | None = None

    @property
    def chosen(self) -> ModelSet:
        """The models of a run that has some."""
        assert self.models is not None
        return self.models

    @property
    def found(self) -> TraceFiles:
        """The files of a trace, for what runs it again."""
        assert self.files is not None
        return self.files


@contextlib.asynccontextmanager
async def set_up(
    host: Host,
    models: AbstractAsyncContextManager[ModelSet] | None = None,
    files: Coroutine[Any, Any, TraceFiles] | None = None,
) -> AsyncIterator[Ready]:
    """Open the models, look for the files and find the image at the same time; an image is built only once
    the others are there.

    The models are closed in the end. What runs that were killed have left is removed. Raises the first
    failure of these.
    """

    def start(
        group: asyncio.TaskGroup,
    ) -> tuple[asyncio.Task[ModelSet] | None, asyncio.Task[TraceFiles] | None, asyncio.Task[ImageInfo]]:
        opening = group.create_task(stack.enter_async_context(models)) if models is not None else None
        looking = group.create_task(files) if files is not None else None
        return opening, looking, group.create_task(swept_image(host, *filter(None, (opening, looking))))

    async with contextlib.AsyncExitStack() as stack:
        opening, looking, finding = await at_once(start)
        yield Ready(
            finding.result(), opening.result() if opening else None, looking.result() if looking else None
        )


async def swept_image(host: Host, *first: Awaitable[Any]) -> ImageInfo:
    """The image (see `image_for`). What runs that were killed have left is removed, too."""
    from rlm_kernel.sandbox.containers import remove_containers
    from rlm_kernel.sandbox.rundir import sweep

    swept = await asyncio.to_thread(sweep)
    image = await image_for(host, *first)
    for session in swept:  # a container that was made and never started does not end by itself
        await asyncio.to_thread(remove_containers, session)
    return image


async def at_once(start: Callable[[asyncio.TaskGroup], _T]) -> _T:
    """Run the tasks that `start` makes in a TaskGroup; what `start` gave, when all have ended well.

    The first failure is raised as it is, in no group of exceptions, when the others have been stopped. An
    interrupt comes before failures.
    """

    async def run() -> _T:
        async with asyncio.TaskGroup() as group:
            return start(group)

    # A task of its own: Python 3.11 leaves the one that waits for a group that failed counted as cancelled.
    task = asyncio.create_task(run())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            task.cancel()
            cancelled = cancelled or error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # the cancellation comes before it
        raise cancelled
    try:
        return task.result()
    except BaseExceptionGroup as failures:
        failure = _first(failures)
    raise failure  # here, where no exception is handled: it keeps its own cause


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
