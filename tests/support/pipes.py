"""A socket in place of a channel of the stream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

_AHEAD = 16 << 10


class Pipe:
    """Implements `stream.Channel`, as far as its readers and writers use it.

    It reads ahead so much as `_AHEAD`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()

    @classmethod
    async def over(cls, sock: socket.socket) -> Pipe:
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_AHEAD))

    async def read(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except EOFError:
            raise ConnectionError("closed by the other end") from None

    async def skip(self, size: int) -> None:
        while size:
            passed = len(await self._reader.read(min(size, 1 << 16)))
            if not passed:
                raise ConnectionError("closed by the other end")
            size -= passed

    async def write(self, *parts: bytes | bytearray) -> None:
        async with self._turn:
            try:
                if self._writer.is_closing():
                    raise ConnectionError("closed")
                self._writer.write(b"".join(parts))
                await self._writer.drain()
            except BaseException:
                self._writer.transport.abort()
                raise

    def close(self) -> None:
        self._writer.close()

    async def gone(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def listen(path: Path, on_pipe: Callable[[Pipe], None]) -> asyncio.AbstractServer:
    """Have `on_pipe` called with each connection."""
    return await asyncio.start_unix_server(
        lambda reader, writer: on_pipe(Pipe(reader, writer)), path, limit=_AHEAD
    )
