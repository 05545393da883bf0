"""How many kernels a server has."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.errors import UsageError
from rlm_kernel.mcpserver.kernels import MAX_WAITING, Kernels


async def test_kernels_are_waited_for_and_sessions_are_refused() -> None:
    kernels = Kernels(1)
    kernels.take()
    with pytest.raises(UsageError, match="in use"):
        kernels.take()
    had = asyncio.Event()

    async def wait() -> None:
        async with kernels.one():
            had.set()

    waiting = [asyncio.create_task(wait()) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="waiting for a kernel"):
        await wait()
    waiting[0].cancel()
    kernels.give()
    await asyncio.wait(waiting)
    assert had.is_set()
    kernels.take()
