"""The events of a run, gone through as they come: `async for event in rlm.stream(question)`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import Any

from rlm_kernel.engine.events import Event, Listener, TurnPiece
from rlm_kernel.errors import UsageError
from rlm_kernel.session.listeners import everyone
from rlm_kernel.session.result import Result


class Stream:
    """A run that begins when its events are gone through, and whose `result` is there after the last one.

    Leaving the loop early, by `break`, an error or a cancellation, ends the run as cancelling `aask` does:
    the cell is stopped, the trace is closed and the container is removed. A caller that takes its time holds
    up nothing: pieces of one reply that wait are put together.
    """

    def __init__(self, run: Callable[[Listener], Coroutine[Any, Any, Result]], view: Listener | None) -> None:
        """`run` makes the run, with who is to hear it; `view` hears it, too."""
        self._run = run
        self._view = view
        self._result: Result | None = None
        self._begun: AsyncGenerator[Event, None] | None = None

    @property
    def result(self) -> Result:
        """What came of the run. Raises UsageError as long as the last event is not there."""
        if self._result is None:
            raise UsageError(
                "The run has no result yet.",
                hint="Iterate over all of its events first: async for event in …",
            )
        return self._result

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        """The events. Raises what `aask` raises, and UsageError if they are gone through a second time."""
        if self._begun is not None:
            raise UsageError("The events of a run can be iterated only once.", hint="Call stream() again.")
        self._begun = self._events()
        return self._begun

    async def aclose(self) -> None:
        """End the run and wait for its end: `async with contextlib.aclosing(rlm.stream(…)) as events`."""
        if self._begun is not None:
            await self._begun.aclose()

    async def _events(self) -> AsyncGenerator[Event, None]:
        waiting: deque[Event] = deque()
        more = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, TurnPiece) and waiting and _goes_on(last := waiting[-1], event):
                assert isinstance(last, TurnPiece)
                waiting[-1] = replace(last, text=last.text + event.text)
            else:
                waiting.append(event)
            more.set()

        running = asyncio.get_running_loop().create_task(self._run(everyone(hear, self._view)))
        running.add_done_callback(lambda _: more.set())
        try:
            while not running.done() or waiting:
                while waiting:
                    yield waiting.popleft()
                more.clear()
                if not running.done():
                    await more.wait()
            self._result = running.result()
        finally:
            while not running.done():  # cancelled again, it hurries
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # it is told above, or nobody waits for it any more


def _goes_on(last: Event, event: TurnPiece) -> bool:
    return isinstance(last, TurnPiece) and (last.turn, last.thought) == (event.turn, event.thought)
