"""ZMTP 3.0, what ZeroMQ's sockets speak, over unix sockets: as much of it as talking to code in a container takes.

libzmq itself reads ahead, whatever the other end sends, and its limits are for single frames: a message that never ends, or many at
once, fill the host's memory. Here nothing is read but what is asked for; the rest stays with its sender, who has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

_BUFFER = 16 << 10
"""Bytes read ahead of one connection."""
_FRAMES_AT_ONCE = 16
"""After so many others have their turn."""
_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_BACKLOG = 128
_SHAKE_SECONDS = 10.0


class Unreadable(ConnectionError):
    """The other end speaks no ZMTP."""


class Connection:
    """One end of a connection. One task reads at a time; any number may send. Close it when nobody reads any more.

    All methods raise ConnectionError when the other end is gone, and Unreadable for what is no ZMTP.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_BUFFER))
        self._at = self._end = self._frames = 0
        self._sending = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str, socket_type: bytes) -> Connection:
        """Connect to a unix socket, as a ZeroMQ socket of that type. Raises OSError."""
        connection = cls(socket.socket(socket.AF_UNIX))
        try:
            await connection._loop.sock_connect(connection._sock, path)
            await connection.shake_hands(socket_type)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def shake_hands(self, socket_type: bytes) -> None:
        """Say who we are and hear that the other end speaks the same language, within seconds. Do so before anything else."""
        ready = b"\x05READY" + b"\x0bSocket-Type" + len(socket_type).to_bytes(4) + socket_type
        try:
            async with asyncio.timeout(_SHAKE_SECONDS):
                await self._write(_GREETING)
                theirs = await self._take(len(_GREETING))
                if theirs[0] != 0xFF or theirs[9] != 0x7F or theirs[10] < 3 or theirs[12:32] != _GREETING[12:32]:
                    raise Unreadable("no greeting")
                await self._write(bytes((_COMMAND, len(ready))) + ready)
                flags, size = await self._flags_and_size()
                if not flags & _COMMAND or size > _BUFFER or not (await self._take(size)).startswith(b"\x05READY"):
                    raise Unreadable("no handshake")
        except TimeoutError:
            raise Unreadable("no handshake in time") from None

    async def header(self) -> tuple[int, bool]:
        """The next frame's size in bytes, and whether it has a successor in its message. `read` or `skip` it then."""
        while True:
            flags, size = await self._flags_and_size()
            if not flags & _COMMAND:
                return size, bool(flags & _MORE)
            await self.skip(size)

    async def read(self, size: int) -> bytes | bytearray:
        """So many bytes; they take memory at once."""
        if size <= _BUFFER:
            return await self._take(size)
        data = bytearray(size)
        view = memoryview(data)
        done = min(size, self._end - self._at)
        view[:done] = self._buffer[self._at : self._at + done]
        self._at += done
        while done < size:
            done += await self._receive(view[done:])
        return data

    async def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        while size:
            if self._at == self._end:
                await self._fill()
            passed = min(size, self._end - self._at)
            self._at += passed
            size -= passed

    async def skip_message(self) -> None:
        """Pass over all frames that are left of a message, if it takes for ever."""
        more = True
        while more:
            size, more = await self.header()
            await self.skip(size)

    async def message(self, limit: int, frames: int) -> list[bytes | bytearray] | None:
        """A message's frames; None for one of more than `limit` bytes or so many `frames`: it is passed over."""
        taken: list[bytes | bytearray] = []
        total, more = 0, True
        while more:
            size, more = await self.header()
            total += size
            if total > limit or len(taken) == frames:
                await self.skip(size)
                if more:
                    await self.skip_message()
                return None
            taken.append(await self.read(size))
        return taken

    async def send(self, *frames: bytes) -> None:
        """Send a message; waits for an other end that does not read. Given up half-way, it costs the connection."""
        async with self._sending:
            if self._sock.fileno() < 0:
                raise ConnectionError("closed")
            try:
                for number, frame in enumerate(frames, 1):
                    flags = (_MORE if number < len(frames) else 0) | (_LONG if len(frame) > 255 else 0)
                    head = bytes((flags,)) + len(frame).to_bytes(8 if flags & _LONG else 1)
                    if len(frame) <= _BUFFER:
                        await self._write(head + frame)
                    else:
                        await self._write(head)
                        await self._write(frame)
            except BaseException:
                self.cut()
                raise

    def cut(self) -> None:
        """End it for both ends: who reads or sends here has an error. Idempotent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Free what it holds, while nobody reads or sends. Idempotent."""
        self._sock.close()

    async def close(self) -> None:
        """Cut it and free what it holds. Idempotent."""
        self.cut()
        async with self._sending:
            self._sock.close()

    async def _flags_and_size(self) -> tuple[int, int]:
        self._frames += 1
        if not self._frames % _FRAMES_AT_ONCE:
            await asyncio.sleep(0)  # the buffer holds thousands of them
        flags = (await self._take(1))[0]
        size = int.from_bytes(await self._take(8 if flags & _LONG else 1))
        if flags > _MORE | _LONG | _COMMAND or size >> 63:
            raise Unreadable("no frame")
        return flags, size

    async def _take(self, size: int) -> bytes:
        """So many bytes, which fit the buffer."""
        while self._end - self._at < size:
            await self._fill()
        taken = bytes(self._buffer[self._at : self._at + size])
        self._at += size
        return taken

    async def _fill(self) -> None:
        left = bytes(self._buffer[self._at : self._end])
        self._buffer[: len(left)] = left
        self._at, self._end = 0, len(left)
        self._end += await self._receive(self._buffer[len(left) :])

    async def _receive(self, into: memoryview) -> int:
        await asyncio.sleep(0)  # what is there already is had without a wait: a flood would never let the loop go
        received = await self._loop.sock_recv_into(self._sock, into)
        if not received:
            raise ConnectionError("closed by the other end")
        return received

    async def _write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)


async def readable(listener: socket.socket) -> None:
    """Wait until somebody wants to connect."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(listener, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(listener)


def listen(path: Path) -> socket.socket:
    """A unix socket that listens at `path`, for its owner alone; what is there already is replaced. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
