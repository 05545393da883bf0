"""`RLM.map`: many questions from a program, as an iterator of what came of each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

from rlm_kernel.errors import UsageError
from rlm_kernel.session.batch.item import Done
from rlm_kernel.session.batch.output import Ready
from rlm_kernel.session.batch.run import Tally
from rlm_kernel.session.kept import Background

Open = Callable[[], AbstractAsyncContextManager[Ready]]


class Mapped:
    """What comes of many questions, as it comes: `async for done in …`, or `for done in …` in a program
    without an event loop. It can be gone through once.

    Leaving the loop early ends what runs, and this counts as not asked. `tally` counts what was done so far.
    """

    def __init__(self, open_: Open) -> None:
        """`open_` makes the batch and its questions ready."""
        self._open = open_
        self._begun = False
        self.tally = Tally()

    def __aiter__(self) -> AsyncGenerator[Done, None]:
        """Raises what `Batch.run` raises, and UsageError a second time."""
        self._begin()
        return self._all()

    def __iter__(self) -> Iterator[Done]:
        """The same, from an event loop in a thread."""
        self._begin()
        background = Background()
        all_ = self._all()
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield background.run(_next(all_))
        finally:
            try:
                background.run(all_.aclose())
            finally:
                background.close()

    def _begin(self) -> None:
        if self._begun:
            raise UsageError(
                "The answers can be iterated only once.", hint="Call map() again for another pass."
            )
        self._begun = True

    async def _all(self) -> AsyncGenerator[Done, None]:
        async with self._open() as ready:
            self.tally = ready.batch.tally
            async with contextlib.aclosing(ready.batch.run(ready.entries)) as answers:
                async for done in answers:
                    yield done


async def _next(answers: AsyncIterator[Done]) -> Done:
    return await anext(answers)
