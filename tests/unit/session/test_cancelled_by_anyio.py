"""A scope of anyio that ends work, as FastAPI's and the MCP library's do, must know its own cancellation again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from rlm_kernel import loops
from rlm_kernel.session.delivery import answer_first
from rlm_kernel.session.setup import at_once


async def for_ever() -> Any:
    await asyncio.Event().wait()


async def answering() -> None:
    await answer_first(lambda _give: for_ever(), lambda _result: None, lambda _text: None)


async def ending() -> None:
    await loops.to_its_end(asyncio.sleep(0.05))


async def setting_up() -> None:
    await at_once(lambda group: group.create_task(for_ever()))


@pytest.mark.parametrize("work", [answering, ending, setting_up])
async def test_a_scope_of_anyio_that_ends_work_knows_its_own_cancellation(
    work: Callable[[], Awaitable[None]],
) -> None:
    with anyio.move_on_after(0.01) as scope:
        await work()
    assert scope.cancelled_caught
