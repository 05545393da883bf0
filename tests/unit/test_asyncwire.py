"""The kernel's end of host calls in asyncio code, against a broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
import zmq
from rlm_runtime import asyncwire, wire

from rlm_kernel.engine.protocols import HostCall
from rlm_kernel.sandbox import broker as broker_module
from rlm_kernel.sandbox.broker import Broker
from rlm_kernel.sandbox.rundir import RunDir

CELL = "turn-01-a"


async def in_a_kernel(code: Coroutine[Any, Any, Any]) -> Any:
    """Run it on an event loop in a thread of its own, as sockets belong to threads."""
    return await asyncio.to_thread(asyncio.run, asyncio.wait_for(code, 10))


async def test_of_calls_that_are_given_up_before_the_host_has_read_them_none_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "MAX_IN_FLIGHT", 4)
    run = RunDir.create(max_request=1000, window=4)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    monkeypatch.setattr(wire, "context", lambda: context)
    monkeypatch.setattr(wire, "HOST", run.host)
    monkeypatch.setattr(wire, "ADDRESS", f"ipc://{run.broker_socket}")
    monkeypatch.setattr(wire, "current_cell", CELL)
    running = 0
    busy = threading.Event()

    async def model(call: HostCall) -> str:
        nonlocal running
        if call.body["prompt"] == "last":
            return "reply"
        running += 1
        if running == 4:
            busy.set()
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1
        return ""

    broker = Broker(run, {"llm_query": model})
    await broker.start()
    broker.cell = CELL

    async def code() -> Any:
        try:
            calls = [asyncio.create_task(asyncwire.call("llm_query", {"prompt": str(number)})) for number in range(50)]
            await asyncio.to_thread(busy.wait, 10)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return await asyncwire.call("llm_query", {"prompt": "last"})
        finally:
            asyncwire._lines[asyncio.get_running_loop()]._socket.close(linger=0)
            wire._socket().close(linger=0)

    try:
        assert await in_a_kernel(code()) == "reply"
        assert running == 0
    finally:
        context.term()
        await broker.stop()
        run.remove()
