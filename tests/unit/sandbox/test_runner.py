"""Listening to a kernel: it is known to hear us by whatever it publishes, and to be through with a cell by
whatever it answers.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.session import Session

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox.kernel_says import Message
from rlm_kernel.sandbox.runner import EVALUATE_SECONDS, CellRunner

pytestmark = pytest.mark.asyncio


class Kernel:
    """A kernel's sockets: what it publishes by itself, and whether requests make it publish its status."""

    def __init__(self, *published: Message, answers: bool) -> None:
        self._published: asyncio.Queue[Message] = asyncio.Queue()
        for message in published:
            self._published.put_nowait(message)
        self._answers = answers
        self.requests: list[str] = []

    async def next(self) -> Message:
        return await self._published.get()

    def send(self, message: dict[str, Any]) -> None:
        self.requests.append(message["msg_type"])
        if self._answers:
            self._published.put_nowait(told("status"))

    def close(self) -> None:
        pass


def told(kind: str, parent: Any = None, **content: Any) -> Message:
    return Message.made_of({"msg_type": kind}, parent, content)


async def no_signal() -> None:
    pass


async def listen(kernel: Kernel, timeout: float) -> None:
    channels: Any = SimpleNamespace(
        session=Session(key=b"k"), shell=kernel, iopub=kernel, control=kernel, close=kernel.close
    )
    runner = CellRunner(
        channels, asyncio.get_running_loop().create_future(), no_signal, lambda _message: None
    )
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


class Late(Kernel):
    """A kernel whose welcome comes behind what it said of itself, as a cell is about to be sent."""

    def __init__(self) -> None:
        super().__init__(told("status", execution_state="starting"), answers=False)
        self.replies: asyncio.Queue[Message] = asyncio.Queue()
        self.awaited = asyncio.Event()

    async def next(self) -> Message:
        if self._published.empty():
            self.awaited.set()
        return await super().next()

    def welcome(self) -> None:
        self._published.put_nowait(told("iopub_welcome"))

    def send(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_request":
            self.replies.put_nowait(told("execute_reply", message["header"], status="ok"))
            self._published.put_nowait(told("status", message["header"], execution_state="idle"))


async def test_what_a_kernel_says_of_itself_before_a_cell_is_sent_is_no_output_of_the_cell() -> None:
    kernel = Late()
    shell = SimpleNamespace(send=kernel.send, next=kernel.replies.get)
    channels: Any = SimpleNamespace(
        session=Session(key=b"k"), shell=shell, iopub=kernel, control=kernel, close=kernel.close
    )
    runner = CellRunner(
        channels, asyncio.get_running_loop().create_future(), no_signal, lambda _message: None
    )
    heard: list[int] = []
    try:
        await runner.wait_until_listening(60)
        await kernel.awaited.wait()
        kernel.welcome()
        state = await runner.run(
            "a", "pass", timeout=60, grace=1, on_output=lambda collector: heard.append(collector.messages)
        )
    finally:
        await runner.close()
    assert state.status == "ok"
    assert heard == []


class Lossy(Kernel):
    """A kernel that is interrupted as it is about to reply to a cell: that reply is lost, and what comes
    behind is answered.
    """

    def __init__(self) -> None:
        super().__init__(told("iopub_welcome"), answers=False)
        self.replies: asyncio.Queue[Message] = asyncio.Queue()
        self.before: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        kind = message["msg_type"]
        self.requests.append(kind)
        if kind == "execute_request":
            self._published.put_nowait(told("execute_input", message["header"]))
            self.before, late = [message], self.before
            if late:  # answers to what was asked behind the cell before come while this one runs
                self.replies.put_nowait(told("kernel_info_reply", self.nudge["header"], status="ok"))
        elif kind == "kernel_info_request":
            self.nudge = message
            self.replies.put_nowait(told("kernel_info_reply", message["header"], status="ok"))


async def test_a_cell_whose_reply_is_lost_in_an_interrupt_has_ended_once_the_kernel_answers_what_came_behind() -> (
    None
):
    kernel = Lossy()
    shell = SimpleNamespace(send=kernel.send, next=kernel.replies.get)
    channels: Any = SimpleNamespace(
        session=Session(key=b"k"), shell=shell, iopub=kernel, control=kernel, close=kernel.close
    )
    runner = CellRunner(
        channels, asyncio.get_running_loop().create_future(), no_signal, lambda _message: None
    )
    await runner.wait_until_listening(60)
    try:
        for cell_id in ("turn-01-a", "turn-02-a"):
            running = asyncio.create_task(
                runner.run(cell_id, "1", timeout=None, grace=60, on_output=lambda _: None)
            )
            done, _ = await asyncio.wait([running], timeout=0.3)
            assert not done, "what was asked behind an earlier cell says nothing of this one"
            runner.interrupt()
            state = await asyncio.wait_for(running, 30)
            assert (state.status, state.variables) == ("interrupted", None)
    finally:
        await runner.close()


class Forgetful(Kernel):
    """A kernel whose first replies to what is executed are lost, as an interrupt hits it."""

    def __init__(self, lost: int) -> None:
        super().__init__(told("iopub_welcome"), answers=False)
        self.replies: asyncio.Queue[Message] = asyncio.Queue()
        self._lost = lost

    def send(self, message: dict[str, Any]) -> None:
        kind = message["msg_type"]
        self.requests.append(kind)
        if kind == "kernel_info_request":
            self.replies.put_nowait(told("kernel_info_reply", message["header"], status="ok"))
        elif self.requests.count("execute_request") > self._lost:
            value = {"value": {"status": "ok", "data": {"text/plain": "[7]"}}}
            self.replies.put_nowait(
                told("execute_reply", message["header"], status="ok", user_expressions=value)
            )


@pytest.mark.parametrize(("lost", "asked"), [(0, 1), (1, 3), (2, 5)])
async def test_what_is_evaluated_is_asked_again_where_an_interrupt_of_the_cell_before_took_the_reply(
    lost: int, asked: int
) -> None:
    kernel = Forgetful(lost)
    shell = SimpleNamespace(send=kernel.send, next=kernel.replies.get)
    channels: Any = SimpleNamespace(
        session=Session(key=b"k"), shell=shell, iopub=kernel, control=kernel, close=kernel.close
    )
    runner = CellRunner(
        channels, asyncio.get_running_loop().create_future(), no_signal, lambda _message: None
    )
    await runner.wait_until_listening(60)
    try:
        async with asyncio.timeout(EVALUATE_SECONDS / 2):
            assert await runner.evaluate("x") == [7]
        assert len(kernel.requests) == asked
    finally:
        await runner.close()


async def test_a_cell_that_stops_when_interrupted_was_not_killed_though_what_it_published_is_still_on_its_way() -> (
    None
):
    kernel = Kernel(told("iopub_welcome"), answers=False)
    replies: asyncio.Queue[Message] = asyncio.Queue()
    asked: list[dict[str, Any]] = []

    def send(message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_request":
            kernel._published.put_nowait(told("execute_input", message["header"]))
            asked.append(message["header"])

    async def stop() -> None:
        replies.put_nowait(told("execute_reply", asked[0], status="error", ename="KeyboardInterrupt"))

    shell = SimpleNamespace(send=send, next=replies.get)
    channels: Any = SimpleNamespace(
        session=Session(key=b"k"), shell=shell, iopub=kernel, control=kernel, close=kernel.close
    )
    runner = CellRunner(channels, asyncio.get_running_loop().create_future(), stop, lambda _message: None)
    await runner.wait_until_listening(60)
    try:
        running = asyncio.create_task(
            runner.run("turn-01-a", "1", timeout=0.01, grace=0.5, on_output=lambda _: None)
        )
        done, _ = await asyncio.wait([running], timeout=1.0)
        assert not done, "the grace is over, but the kernel has answered"
        kernel._published.put_nowait(told("status", asked[0], execution_state="idle"))
        state = await asyncio.wait_for(running, 30)
        assert (state.status, state.timed_out) == ("interrupted", True)
    finally:
        await runner.close()
