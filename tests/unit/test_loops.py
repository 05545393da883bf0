"""Code that waits for a question while an event loop runs in its thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from rlm_kernel import loops


def test_work_ends_with_the_task_that_waits_for_it() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def main() -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        threading.Timer(0.1, task.cancel).start()  # as asyncio.run does at Ctrl-C
        loops.waited_for(work)

    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert ended
    assert time.monotonic() - began < 20


async def test_a_task_that_was_cancelled_before_may_still_wait_for_work() -> None:
    async def work() -> int:
        return 3

    async def main() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return loops.waited_for(work)
        raise AssertionError

    task = asyncio.create_task(main())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 3
