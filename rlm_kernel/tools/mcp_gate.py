"""What an MCP server may send: bounds on its messages, and what of them is heard."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream
    from mcp.shared.message import SessionMessage

MAX_MESSAGE = 16 << 20
"""Bytes of one message."""
MAX_NOISE = 64 << 20
"""Bytes of what nobody asked for, of a connection in all: logs, notifications, second answers."""
MAX_UNASKED = 50_000
"""Messages that nobody asked for, of a connection in all."""
TOO_MUCH = "its answer has too many values in it, or they are nested too deep"
_CHANGED = ("notifications/tools/list_changed", "notifications/resources/list_changed")


class Gate:
    """Counts what one connection sends, and ends it where that is too much.

    Belongs to the event loop of its connection.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """Set when the connection is at its end, or is to end."""
        self.why = ""
        """Why it ended, if the server was at fault; a part of a sentence."""
        self.changed = False
        """Whether the server said that its tools or resources are others now."""
        self._waiting: set[str] = set()
        """Ids of our requests that have no answer yet."""
        self._noise = 0
        self._unasked = 0

    def end(self, why: str = "") -> None:
        """End the connection. The first reason counts."""
        self.why = self.why or why
        self.over.set()

    def sent(self, message: SessionMessage) -> None:
        """Count a request of ours: it may have one answer."""
        from mcp.types import JSONRPCRequest

        if isinstance(message.message, JSONRPCRequest):
            self._waiting.add(str(message.message.id))

    def noise(self, size: int) -> bool:
        """Count bytes that are no answer; whether the connection may go on."""
        self._noise += size
        self._unasked += 1
        if self._noise > MAX_NOISE or self._unasked > MAX_UNASKED:
            self.end("it sent too much that nobody had asked for")
        return not self.over.is_set()

    def hears(self, message: SessionMessage, size: int = 0) -> bool:
        """Whether the client is to see a message. Notifications end here: none of them is needed but one."""
        from mcp.types import JSONRPCNotification, JSONRPCRequest

        inner = message.message
        if isinstance(inner, JSONRPCNotification):
            self.changed = self.changed or inner.method in _CHANGED
        elif not isinstance(inner, JSONRPCRequest) and str(inner.id) in self._waiting:
            self._waiting.discard(str(inner.id))
            return True
        return self.noise(size) and isinstance(inner, JSONRPCRequest)


class Heard:
    """The messages of a transport that a gate lets through: a `ReadStream`."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], gate: Gate) -> None:
        self._stream = stream
        self._gate = gate

    async def receive(self) -> SessionMessage | Exception:
        """The next message. Raises anyio.EndOfStream."""
        import anyio

        while True:
            message = await self._stream.receive()
            if self._gate.over.is_set():
                raise anyio.EndOfStream
            if isinstance(message, Exception):
                self._gate.noise(0)
            elif self._gate.hears(message):
                return message

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def __aiter__(self) -> Heard:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        import anyio

        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Heard:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()
