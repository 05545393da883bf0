"""Host calls of asyncio code: one socket for each event loop, on which any number of calls wait at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from weakref import WeakKeyDictionary

import zmq
import zmq.asyncio

from rlm_runtime import wire

_TOLD_AT_ONCE = 3000
"""Calls of which one message says that they were given up: about 100 KB."""


class _Line:
    """The socket of one event loop. It is read as long as calls wait for replies."""

    def __init__(self) -> None:
        context: zmq.asyncio.Context = zmq.asyncio.Context.shadow(wire.context())
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(wire.ADDRESS)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._given_up: list[str] = []
        self._begun = 0

    async def call(self, kind: str, body: dict[str, Any], same: object) -> Any:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._plan)
        self._begun += 1
        call, frames = wire.request(kind, body, same)
        future = self._waiting[call] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_multipart(frames)
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            return wire.value_of(await future)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self._waiting.pop(call, None) is not None:
                if not self._given_up:
                    asyncio.get_running_loop().call_soon(self._tell)
                self._given_up.append(call)
            raise

    def _plan(self) -> None:
        """Of calls that were gathered the host is told how many there are; one alone costs no message."""
        begun, self._begun = self._begun, 0
        wire.plan(begun, tell=begun > 1)

    def _tell(self) -> None:
        """Have the host drop what was given up, and that together: of many gathered calls the end of each would let others be sent."""
        given_up, self._given_up = self._given_up, []
        for first in range(0, len(given_up), _TOLD_AT_ONCE):
            wire.cancel(given_up[first : first + _TOLD_AT_ONCE])

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
