"""Where Jupyter's programs on this host reach a kernel: sockets of this host, each connection carried over a
channel of the stream.

They are unix sockets in the session's folder. On a system without, they are ports of the loopback interface:
as with any kernel of Jupyter there, only the key of the connection file keeps others of the machine from
running code, and they may read what the kernel sends to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from rlm_contract import SOCKETS

from rlm_kernel import loops
from rlm_kernel.sandbox.stream import Channel, Stream

_LOOPBACK = "127.0.0.1"
_PIECE = 64 << 10


class Doors:
    """The addresses of one session's five sockets, the same for each of its kernels.

    `address`: of unix sockets, without "-1" to "-5".

    Raises OSError.
    """

    def __init__(self, address: str) -> None:
        self.transport, self.ip, self.ports = "ipc", address, SOCKETS
        self._bound: dict[str, socket.socket] = {}
        if not loops.HAS_UNIX_SOCKETS:
            # Bound at once, so that nobody else has the ports that the connection file names.
            self._bound = {name: socket.create_server((_LOOPBACK, 0)) for name in SOCKETS}
            self.transport, self.ip = "tcp", _LOOPBACK
            self.ports = {name: int(bound.getsockname()[1]) for name, bound in self._bound.items()}

    def tell(self, manager: Any) -> None:
        """Have jupyter_client's manager name them."""
        manager.transport, manager.ip = self.transport, self.ip
        for name, number in self.ports.items():
            setattr(manager, f"{name}_port", number)

    async def serve(self, name: str, carry: loops.Carry) -> asyncio.Server:
        """A server at one of them, which does not serve yet. Raises OSError."""
        if self.transport == "ipc":
            return await loops.serve_unix(carry, f"{self.ip}-{self.ports[name]}")
        bound = self._bound.pop(name, None) or socket.create_server((self.ip, self.ports[name]))
        return await asyncio.start_server(carry, sock=bound, start_serving=False)

    def close(self) -> None:
        """Let go of the addresses where nobody listens. Idempotent."""
        for bound in self._bound.values():
            bound.close()
        self._bound = {}


class Endpoints:
    """Those who listen at the doors for one kernel. Lives on the stream's event loop."""

    def __init__(self, stream: Stream, doors: Doors) -> None:
        self._stream = stream
        self._doors = doors
        self._servers: list[asyncio.Server] = []
        self._carried: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Listen. What a kernel before had there is replaced.

        Raises OSError, also if it is closed meanwhile.
        """
        for name in SOCKETS:
            if self._closed:
                raise ConnectionAbortedError("The kernel's sockets were closed while they were opened.")
            server = await self._doors.serve(name, self._carrier(name))
            self._servers.append(server)  # before anything is waited for: a cancellation must find it
            await server.start_serving()

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        for server in self._servers:
            server.close()
        for task in self._carried:
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)

    def _carrier(self, name: str) -> loops.Carry:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._carried.add(task)
            channel = self._stream.open(name)
            there = asyncio.create_task(_forth(reader, channel))
            back = asyncio.create_task(_back(channel, writer))
            try:
                # Cancelled by `close`, it just ends: asyncio would print an error of a client's task.
                with contextlib.suppress(asyncio.CancelledError):
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
