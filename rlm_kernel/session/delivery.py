"""The answer first: whoever asked has it as soon as it is there, whatever is still to be done and whatever
becomes of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from rlm_kernel.errors import RLMError
from rlm_kernel.session.environment import Say
from rlm_kernel.session.result import Result

CLOSING_SECONDS = 5.0
"""How long the containers, models and files of a run that has its answer are waited for.

What is left of them ends by itself.
"""
_HURRY, _STEP = 5, 0.5
"""How often, and how many seconds apart, closing is told to come to its end."""
Give = Callable[[Result], None]
_left: set[asyncio.Task[Any]] = set()
"""What goes on with nobody waiting for it: referred to here, or it would be collected."""


async def answer_first(work: Callable[[Give], Awaitable[Result]], answered: Give, say: Say) -> Result:
    """The result of `work`, which calls what it is given with the answer; from then on nothing can take that
    away.

    `answered` hears the answer at once. Then the rest of the work has CLOSING_SECONDS; a cancellation ends
    that, too, and is no error any more. What goes wrong there is told by `say`. Without an answer all is as
    if `work` was awaited.
    """
    given: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def give(result: Result) -> None:
        if result.answer is not None and not given.done():
            given.set_result(result)
            answered(result)

    async def run() -> Result:
        return await work(give)

    task = asyncio.create_task(run())
    cancelled: asyncio.CancelledError | None = None
    while not (task.done() or given.done()):
        try:
            await asyncio.wait({task, given}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            task.cancel()
            cancelled = cancelled or error
    if not given.done():
        if cancelled is not None and task.cancelled():
            raise cancelled  # the very one, as anyio knows those of its own by what they say
        return task.result()
    await _closed(task, say)
    return given.result()


async def _closed(task: asyncio.Task[Any], say: Say) -> None:
    """Wait for the end, but not for long; a cancellation is passed on, and shortens that."""
    wait = CLOSING_SECONDS
    for _ in range(1 + _HURRY):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=wait)
        if task.done():
            break
        task.cancel()  # each one unwinds what is waited for at the moment
        wait = _STEP
    if not task.done():
        _left.add(task)
        task.add_done_callback(_forget)
    elif not task.cancelled() and (error := task.exception()) is not None:
        why = error.message if isinstance(error, RLMError) else error
        say(f"The answer is complete, but a later step failed: {why}")


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()
