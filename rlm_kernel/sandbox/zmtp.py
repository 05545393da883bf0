"""ZMTP 3.0, what ZeroMQ's sockets speak, on a channel of the stream: as much of it as reading the kernel's
sockets takes.

libzmq itself reads ahead, whatever the other end sends, and its limits are for single frames: a message that
never ends, or many at once, fill the host's memory. Here nothing is read but what is asked for; the rest
stays with its sender, who has to wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_kernel.sandbox.stream import Channel

_FRAMES_AT_ONCE = 16
"""After so many others have their turn."""
_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MAX_READY = 16 << 10
_SHAKE_SECONDS = 10.0


class Unreadable(ConnectionError):
    """The other end speaks no ZMTP."""


class Connection:
    """One end of a connection. One task reads at a time; any number may send.

    All methods raise ConnectionError when the other end is gone, and Unreadable for what is no ZMTP.
    """

    def __init__(self, pipe: Channel) -> None:
        self._pipe = pipe
        self._frames = 0

    async def shake_hands(self, socket_type: bytes) -> None:
        """Say who we are and hear that the other end speaks the same language, within seconds.

        Do so before anything else.
        """
        ready = b"\x05READY" + b"\x0bSocket-Type" + len(socket_type).to_bytes(4) + socket_type
        try:
            async with asyncio.timeout(_SHAKE_SECONDS):
                await self._pipe.write(_GREETING, bytes((_COMMAND, len(ready))), ready)
                theirs = await self._pipe.read(len(_GREETING))
                if (
                    theirs[0] != 0xFF
                    or theirs[9] != 0x7F
                    or theirs[10] < 3
                    or theirs[12:32] != _GREETING[12:32]
                ):
                    raise Unreadable("no greeting")
                flags, size = await self._flags_and_size()
                if (
                    not flags & _COMMAND
                    or size > _MAX_READY
                    or not (await self._pipe.read(size)).startswith(b"\x05READY")
                ):
                    raise Unreadable("no handshake")
        except TimeoutError:
            raise Unreadable("no handshake in time") from None

    async def message(self, limit: int, frames: int) -> list[bytes | bytearray] | None:
        """A message's frames; None for one of more than `limit` bytes or so many `frames`: it is passed over,
        if it takes for ever.
        """
        taken: list[bytes | bytearray] | None = []
        total, more = 0, True
        while more:
            flags, size = await self._flags_and_size()
            if flags & _COMMAND:
                await self._pipe.skip(size)
                continue
            more, total = bool(flags & _MORE), total + size
            if taken is None or total > limit or len(taken) == frames:
                taken = None
                await self._pipe.skip(size)
            else:
                taken.append(await self._pipe.read(size))
        return taken

    async def send(self, *frames: bytes) -> None:
        """Send a message; waits for an other end that does not read.

        Given up half-way, it costs the connection.
        """
        parts: list[bytes] = []
        for number, frame in enumerate(frames, 1):
            flags = (_MORE if number < len(frames) else 0) | (_LONG if len(frame) > 255 else 0)
            parts += [bytes((flags,)), len(frame).to_bytes(8 if flags & _LONG else 1), frame]
        await self._pipe.write(*parts)

    def close(self) -> None:
        """End it for both ends. Idempotent."""
        self._pipe.close()

    async def _flags_and_size(self) -> tuple[int, int]:
        self._frames += 1
        if not self._frames % _FRAMES_AT_ONCE:
            await asyncio.sleep(0)  # thousands of them may be there
        flags = (await self._pipe.read(1))[0]
        size = int.from_bytes(await self._pipe.read(8 if flags & _LONG else 1))
        if flags > _MORE | _LONG | _COMMAND or size >> 63:
            raise Unreadable("no frame")
        return flags, size
