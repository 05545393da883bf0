"""Host calls of asyncio code: one socket for each event loop, on which any number of calls wait at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from weakref import WeakKeyDictionary

import zmq
import zmq.asyncio

from rlm_runtime import wire


class _Line:
    """The socket of one event loop. It is read as long as calls wait for replies."""

    def __init__(self) -> None:
        context: zmq.asyncio.Context = zmq.asyncio.Context.shadow(wire.context())
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(wire.ADDRESS)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def call(self, kind: str, body: dict[str, Any], same: object) -> Any:
        call, frames = wire.request(kind, body, same)
        future = self._waiting[call] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_multipart(frames)
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            return wire.value_of(await future)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self._waiting.pop(call, None) is not None:
                wire.cancel([call])
            raise

    async def _read(self) -> None:
        while self._waiting:
            reply = json.loads(await self._socket.recv())
            future = self._waiting.pop(reply["call"], None)
            if future is not None and not future.done():
                wire.received(reply["call"])
                future.set_result(reply)


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()


async def call(kind: str, body: dict[str, Any], same: object = None) -> Any:
    """`wire.call` without blocking the event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _lines:
        _lines[loop] = _Line()
    return await _lines[loop].call(kind, body, same)
