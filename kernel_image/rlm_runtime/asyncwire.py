"""Host calls of asyncio code: one connection for each event loop, on which any number of calls wait at
once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from rlm_contract import CALLS, SIZE, Batch, Kind, Reply
from rlm_contract.tokens import tokens_of_all

from rlm_runtime import line, wire

TOGETHER = 1 << 20
"""Bytes of requests that are sent together, about."""
_TOLD_AT_ONCE = 3000
"""Calls of which one message says that they were given up: about 100 KB."""


class _Line:
    """The connection of one event loop."""

    def __init__(self) -> None:
        self._streams: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] | None = None
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._given_up: list[str] = []
        self._made: list[bytes] = []
        """Requests of this turn of the loop, which are sent together."""
        self._about: dict[str | None, list[str]] = {}
        """Their prompts, by model."""

    async def call(self, kind: Kind, body: Mapping[str, Any], same: object) -> Any:
        call, request = wire.request(kind, body, same)
        future = self._waiting[call] = asyncio.get_running_loop().create_future()
        try:
            writer = await self._writer()
            if not self._made:
                asyncio.get_running_loop().call_soon(self._send, writer)
            self._made.append(request)
            if kind == "llm_query":
                self._about.setdefault(body.get("model"), []).append(body.get("prompt") or "")
            return wire.value_of(await future)
        except OSError as error:
            self._waiting.pop(call, None)
            raise wire.lost(error) from error
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self._waiting.pop(call, None) is not None:
                if not self._given_up:
                    asyncio.get_running_loop().call_soon(self._tell)
                self._given_up.append(call)
            raise

    async def _writer(self) -> asyncio.StreamWriter:
        """The connection, made by the first call that needs it."""
        if self._reading is not None and self._reading.done():
            self._streams = self._reading = None
        if self._streams is None:
            self._streams = asyncio.ensure_future(asyncio.open_unix_connection(CALLS))
            self._streams.add_done_callback(lambda done: done.cancelled() or done.exception())
        reader, writer = await asyncio.shield(self._streams)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(reader, writer))
        return writer

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _send(self, writer: asyncio.StreamWriter) -> None:
        """Send what was made, in pieces of bounded size.

        Of several calls the host is told how many there are; one needs no message.
        """
        made, self._made = self._made, []
        about, self._about = self._about, {}
        batches: list[Batch] = [
            ("llm_query", len(prompts), round(tokens_of_all(prompts)), model)
            for model, prompts in about.items()
        ]
        planned = sum(map(len, about.values()))
        wire.plan(planned)
        piece = bytearray(wire.plans(batches) if planned > 1 else b"")
        for request in made:
            piece += request
            if len(piece) > TOGETHER:
                writer.write(piece)
                piece = bytearray()
        writer.write(piece)

    def _tell(self) -> None:
        """Have the host drop what was given up, and that together: of many gathered calls the end of each
        would let others be sent.
        """
        given_up, self._given_up = self._given_up, []
        for first in range(0, len(given_up), _TOLD_AT_ONCE):
            wire.cancel(given_up[first : first + _TOLD_AT_ONCE])

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = SIZE.unpack(await reader.readexactly(SIZE.size))
                reply: Reply = json.loads(await reader.readexactly(size))
                future = self._waiting.pop(reply["call"], None)
                if future is not None and not future.done():
                    wire.received(reply["call"])
                    future.set_result(reply)
        except (EOFError, OSError):
            waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                if not future.done():
                    future.set_exception(line.Lost("the host has closed the connection"))
        finally:
            writer.close()


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()


async def call(kind: Kind, body: Mapping[str, Any], same: object = None) -> Any:
    """`wire.call` without blocking the event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _lines:
        _lines[loop] = _Line()
    return await _lines[loop].call(kind, body, same)
