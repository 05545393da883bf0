"""The kernel's end of host calls in asyncio code, against a broker: calls that are given up."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rlm_runtime import asyncwire, line, wire

from rlm_kernel.engine.protocols import HostCall
from rlm_kernel.models.slots import Slots
from rlm_kernel.sandbox import broker as broker_module
from rlm_kernel.sandbox import kernel_says
from rlm_kernel.sandbox.broker import Broker
from rlm_kernel.sandbox.rundir import RunDir
from tests.support.pipes import listen
from tests.support.sandbox import until

CELL = "turn-01-a"


class Host:
    """A broker before a model that answers "last" alone, and takes two calls at one time."""

    def __init__(self) -> None:
        self.sent = self.waiting = 0
        self.slots = Slots(2)
        self.wanted = 0
        self.busy = threading.Event()
        """So many as are `wanted` wait for their answer."""

    async def model(self, call: HostCall) -> str:
        if call.body["prompt"] == "last":
            return "reply"
        self.waiting += 1
        if self.waiting == self.wanted:
            self.busy.set()
        try:
            async with self.slots:
                self.sent += 1
                await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        return ""


@pytest_asyncio.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    made, run = Host(), RunDir.create(max_request=broker_module.MAX_REQUEST, window=4)
    monkeypatch.setattr(wire, "session", lambda: run.told)
    for module in (line, asyncwire):
        monkeypatch.setattr(module, "CALLS", str(run.path / "calls"))
    monkeypatch.setattr(wire, "current_cell", CELL)
    broker = Broker(run, {"llm_query": made.model})
    server = await listen(run.path / "calls", broker.accept)  # type: ignore[arg-type]
    broker.cell = CELL
    yield made
    server.close()
    await broker.stop()
    run.remove()


async def give_up(host: Host, count: int) -> Any:
    """Make so many calls in a kernel, and give them up as soon as the host is busy; then make one that is
    answered.
    """

    async def code() -> Any:
        try:
            calls = asyncio.gather(
                *(asyncwire.call("llm_query", {"prompt": str(number)}) for number in range(count))
            )
            await asyncio.to_thread(host.busy.wait, 10)
            calls.cancel()
            await asyncio.gather(calls, return_exceptions=True)
            return await asyncwire.call("llm_query", {"prompt": "last"})
        finally:
            await asyncwire._lines[asyncio.get_running_loop()].close()
            wire._line().close()

    # On an event loop in a thread of its own, as sockets belong to threads.
    return await asyncio.to_thread(asyncio.run, asyncio.wait_for(code(), 10))


async def test_of_calls_that_are_given_up_before_the_host_has_read_them_none_goes_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 4)
    host.wanted = 4
    assert await give_up(host, 50) == "reply"
    await until(
        lambda: host.waiting == 0
    )  # what gives them up comes by another connection than the last call


async def test_as_gathered_calls_are_given_up_none_of_those_that_waited_is_sent(host: Host) -> None:
    host.wanted = 200
    assert await give_up(host, 200) == "reply"
    await until(lambda: host.waiting == 0)
    assert host.sent == 2


async def test_gathered_calls_are_sent_together_and_none_waits_for_a_host_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wire, "session", lambda: {"token": "t", "max_request": 1 << 20, "window": 4})
    address = str(tmp_path / "calls")
    monkeypatch.setattr(asyncwire, "CALLS", address)
    monkeypatch.setattr(wire, "current_cell", CELL)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()

    def read_once() -> bytes:
        with listener, listener.accept()[0] as connection:
            return connection.recv(1 << 20)  # what tells how many there are comes by another one

    reading = asyncio.create_task(asyncio.to_thread(read_once))
    calls = [asyncwire.call("llm_query", {"prompt": str(number)}) for number in range(100)]
    failed = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    arrived = await reading
    assert arrived.count(b'"kind": "llm_query"') == 100
    assert {type(error) for error in failed} == {wire.Cancelled}


@pytest.mark.parametrize(
    "sent",
    ["vscode-notebook-cell:/home/someone/notebooks/first.ipynb#W0sZmlsZQ%3D%3D" * 2, "", None, 5, ["a"], {}],
)
def test_a_cell_with_an_id_that_no_notebook_could_have_can_still_call_the_host(
    sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "current_cell", "")
    seen = set()
    for _ in range(2):
        wire.begin_cell(sent, "llm_query('x')")
        head = {"token": "t", "cell": wire.current_cell, "call": "1-1-1", "nth": 0, "kind": "llm_query"}
        assert kernel_says.Head.parse(json.dumps(head).encode())
        seen.add(wire.current_cell)
    assert len(seen) == 2


def test_a_request_that_is_too_large_is_refused_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "session", lambda: {"token": "t", "max_request": 1_000})
    text = "x" * 10_000_000
    tracemalloc.start()
    try:
        with pytest.raises(
            wire.HostCallError, match=r"10,000,000 bytes or more; the limit is 1,000\. Send less"
        ):
            wire.request("llm_query", {"prompt": text}, "same")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(wire.HostCallError, match="Send less"):
        wire.request("final", {"value": ["x" * 2_000]}, "same")
