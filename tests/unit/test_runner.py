"""Listening to a kernel: it is known to hear us by whatever it publishes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.session import Session

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.runner import CellRunner

pytestmark = pytest.mark.asyncio


class Kernel:
    """A kernel's sockets: what it publishes by itself, and whether requests make it publish its status."""

    def __init__(self, *published: dict[str, Any], answers: bool) -> None:
        self._published: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in published:
            self._published.put_nowait(message)
        self._answers = answers
        self.requests: list[str] = []

    async def next(self) -> dict[str, Any]:
        return await self._published.get()

    def send(self, message: dict[str, Any]) -> None:
        self.requests.append(message["msg_type"])
        if self._answers:
            self._published.put_nowait(told("status"))

    async def close(self) -> None:
        pass


def told(kind: str) -> dict[str, Any]:
    return {"msg_type": kind, "parent_header": {}, "content": {}}


async def listen(kernel: Kernel, timeout: float) -> None:
    channels: Any = SimpleNamespace(session=Session(key=b"k"), shell=kernel, iopub=kernel, control=kernel, close=kernel.close)
    runner = CellRunner(channels, asyncio.get_running_loop().create_future(), lambda _message: None)
    try:
        await runner.wait_until_listening(timeout)
    finally:
        await runner.close()


async def test_a_kernel_that_welcomes_us_is_asked_nothing() -> None:
    kernel = Kernel(told("iopub_welcome"), answers=False)
    await listen(kernel, 60)
    assert not kernel.requests


async def test_a_kernel_that_forgot_to_welcome_us_is_asked_until_it_says_something() -> None:
    kernel = Kernel(answers=True)
    await listen(kernel, 60)
    assert kernel.requests == ["kernel_info_request"]


async def test_a_kernel_that_publishes_nothing_does_not_answer() -> None:
    with pytest.raises(KernelError, match="does not answer"):
        await listen(Kernel(answers=False), 0.1)
