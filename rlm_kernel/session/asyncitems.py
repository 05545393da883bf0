"""Async generators as contexts: what writes a context runs in a thread, and their items come from the event
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

_T = TypeVar("_T")


async def in_thread(work: Callable[..., _T], context: Any, *more: Any) -> _T:
    """What `work(context, *more)` gives, in a thread. An async generator is an iterator there, whose items
    this event loop makes one after the other.

    Cancelled, it waits for the thread, and the generator is closed.
    """
    if not isinstance(context, AsyncIterable):
        return await asyncio.to_thread(work, context, *more)
    items = _Items(context)
    working = asyncio.create_task(asyncio.to_thread(work, items, *more))
    try:
        return await asyncio.shield(working)
    finally:
        items.stop()
        if not working.done():  # it gets no further item, so it ends
            await asyncio.wait({working})
            working.exception()
        await items.close()


class _Items(Iterator[Any]):
    """The items of an async iterator. `__next__` is called in another thread, all else on the loop."""

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = aiter(items)
        self._loop = asyncio.get_running_loop()
        self._pulling: asyncio.Task[Any] | None = None
        self._stopped = False

    def __next__(self) -> Any:
        pull = self._pull()
        try:
            return asyncio.run_coroutine_threadsafe(pull, self._loop).result()
        except StopAsyncIteration:
            raise StopIteration from None
        except CancelledError:
            raise RuntimeError("the context is not wanted any more") from None

    async def _pull(self) -> Any:
        if self._stopped:
            raise asyncio.CancelledError
        self._pulling = asyncio.current_task()
        return await anext(self._items)

    def stop(self) -> None:
        """Have no further items made."""
        self._stopped = True
        if self._pulling is not None:
            self._pulling.cancel()

    async def close(self) -> None:
        """Have a generator do what it does at its end."""
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()
