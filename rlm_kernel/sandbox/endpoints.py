"""Where Jupyter's programs on this host reach a kernel: unix sockets in the session's folder, each connection carried over a channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from rlm_kernel.sandbox.stream import Channel, Stream

PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
"""With ipc transport a port is the ending of a socket's name."""
_PIECE = 64 << 10


class Endpoints:
    """The five sockets of one kernel. Lives on the stream's event loop."""

    def __init__(self, stream: Stream, address: str) -> None:
        self._stream = stream
        self._address = address
        self._servers: list[asyncio.AbstractServer] = []
        self._carried: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. What a kernel before had there is replaced. Raises OSError."""
        for name, number in PORTS.items():
            self._servers.append(await asyncio.start_unix_server(self._carrier(name), f"{self._address}-{number}"))

    async def close(self) -> None:
        """Idempotent."""
        for server in self._servers:
            server.close()
        for task in self._carried:
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)

    def _carrier(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._carried.add(task)
            channel = self._stream.open(name)
            there = asyncio.create_task(_forth(reader, channel))
            back = asyncio.create_task(_back(channel, writer))
            try:
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in (there, back):
                    direction.cancel()
                channel.close()
                writer.close()
                self._carried.discard(task)

        return carry


async def _forth(reader: asyncio.StreamReader, channel: Channel) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            await channel.write(piece)


async def _back(channel: Channel, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while True:
            writer.write(await channel.some())
            await writer.drain()
