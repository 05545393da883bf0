"""The host's end of the stream to a container's first process: channels on one connection to the engine, on
asyncio.

The engine's `attach` call becomes a connection to the stdin and stdout of the first process. On it go frames
(`frames`). All that arrives is hostile: a channel holds no more than its reader asked for and a window
beside, whatever its sender does, and who does not keep to that is cut off. One event loop; nothing blocks it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_contract import VERSION, frames

from rlm_kernel.errors import KernelError
from rlm_kernel.sandbox import dial
from rlm_kernel.sandbox.dial import TAIL, Attached
from rlm_kernel.sandbox.ended import Ended

if TYPE_CHECKING:
    from docker import DockerClient

LIFE_SECONDS = 5.0
"""After so many seconds the container hears that its owner lives."""
WIDE = 1 << 20
"""Bytes of the kernel's sockets that may wait here for their reader, each."""
_MOST_PENDING = 256 << 10
_MOST_UNREAD = 8 << 20
"""Bytes that wait for a first process which does not read, beyond which it is cut off."""
_FEW = 4 << 10
"""Bytes of a piece that is kept together with others of its kind: each by itself would take many times its
size.
"""
_MOST_LEAVING = 4096
"""Channels that we closed and the other end has not, beyond which it is cut off."""
MAX_OPEN = 600
"""Channels that a container may have opened at once."""


class StreamLost(ConnectionError):
    """The stream to the container has ended, or this channel of it has."""


class Channel:
    """Bytes both ways, as far as the other end has credit. One task reads at a time; any number may write.

    All that wait here get StreamLost when the channel ends.
    """

    def __init__(self, stream: Stream, number: int, window: int) -> None:
        self._stream = stream
        self.number = number
        self._window = window
        self._pieces: deque[bytes | bytearray] = deque()
        self._at = 0
        """Bytes of the first piece that are read already."""
        self._have = 0
        self._granted = frames.WINDOW
        """Bytes that the other end may still send."""
        self._credit = frames.WINDOW
        """Bytes that we may still send."""
        self._ended = False
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers = asyncio.Event()
        self._turn = asyncio.Lock()
        self._grant(0)

    async def read(self, size: int) -> bytes | bytearray:
        """Exactly so many bytes; they may take memory at once."""
        if self._have < size or self._closed:
            await self._await(size)
        if self._pieces and len(self._pieces[0]) - self._at >= size:
            taken = self._pieces[0][self._at : self._at + size]
            self._pass(size)
            return taken
        whole = bytearray()
        while len(whole) < size:
            piece = self._pieces[0][self._at : self._at + size - len(whole)]
            whole += piece
            self._pass(len(piece))
        return whole

    async def some(self) -> bytes:
        """What is there, as soon as something is."""
        await self._await(1)
        piece = self._pieces[0][self._at :]
        self._pass(len(piece))
        return bytes(piece)

    async def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        while size:
            await self._await(1)
            passed = min(size, len(self._pieces[0]) - self._at)
            self._pass(passed)
            size -= passed

    async def write(self, *parts: bytes | bytearray) -> None:
        """Send; waits for an other end that does not read. Given up half-way, it costs the channel."""
        data = memoryview(b"".join(parts))
        if len(data) <= min(self._credit, frames.MOST) and not (
            self._turn.locked() or self._stream.full or self._ended
        ):
            self._credit -= len(data)
            self._stream.send(frames.DATA, self.number, data)
            return
        async with self._turn:
            done = 0
            try:
                while done < len(data):
                    while not self._credit or self._stream.full:
                        self._check()
                        self._writers.clear()
                        await self._writers.wait()
                    self._check()
                    piece = data[done : done + min(self._credit, frames.MOST)]
                    self._credit -= len(piece)
                    self._stream.send(frames.DATA, self.number, piece)
                    done += len(piece)
            except BaseException:
                if done:
                    self.close()
                raise

    def close(self) -> None:
        """End it for both sides. Idempotent."""
        self._closed = True
        if not self._ended:
            self._stream.leave(self)
        self.end()

    # For the stream.

    def end(self) -> None:
        """Nothing more comes, nor can anything be sent."""
        self._ended = True
        self._wake()
        self._writers.set()

    def take(self, payload: bytes) -> bool:
        """What arrived. False if it is more than the other end may send."""
        self._granted -= len(payload)
        if self._granted < 0:
            return False
        if not self._closed and payload:
            last = self._pieces[-1] if self._pieces else b""
            if len(payload) > _FEW:
                self._pieces.append(payload)
            elif isinstance(last, bytearray) and len(last) < frames.MOST:
                last += payload
            else:
                self._pieces.append(bytearray(payload))
            self._have += len(payload)
            self._wake()
        return True

    def credit(self, size: int) -> None:
        self._credit += size
        self._writers.set()

    def resume(self) -> None:
        self._writers.set()

    async def _await(self, size: int) -> None:
        while self._have < size:
            if self._ended:
                raise StreamLost("closed by the other end")
            if self._have + self._granted < size:
                self._grant(size)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._closed:
            raise StreamLost("closed")

    def _pass(self, size: int) -> None:
        """The reader has so many bytes of the first piece."""
        self._at += size
        self._have -= size
        if self._at == len(self._pieces[0]):
            self._pieces.popleft()
            self._at = 0
        if self._granted + self._have < self._window // 2:
            self._grant(0)

    def _grant(self, wanted: int) -> None:
        lacking = max(self._window, wanted) - self._have - self._granted
        if lacking > 0 and not self._ended:
            self._granted += lacking
            self._stream.send(frames.CREDIT, self.number, lacking.to_bytes(4))

    def _check(self) -> None:
        if self._ended:
            raise StreamLost("closed by the other end")

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Stream(Attached):
    """One container's stream, from the request that attaches to its end.

    `on_channel` gets each channel that the container opens.

    Use: `attach`, `greet`, `open`, `close`. `lost` is done when it has ended, for whatever reason.
    """

    def __init__(self, request: bytes, on_channel: Callable[[Channel], None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        super().__init__(request)
        self._on_channel = on_channel
        self._nonce = secrets.token_bytes(frames.NONCE)
        self._before: bytearray | None = bytearray()
        """The end of what came before our nonce."""
        self._reader = frames.Reader()
        self._channels: dict[int, Channel] = {}
        self._leaving: set[int] = set()
        self._number = 0
        self._outgoing: list[bytes] = []
        self._pending = 0
        """Bytes of `_outgoing`."""
        self._paused = False
        """The connection takes no more at the moment."""
        self.welcome: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.welcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.lost: asyncio.Future[None] = loop.create_future()
        self.end: Ended | None = None
        """How the container has ended, if its first process could say so."""
        self._life: asyncio.TimerHandle | None = None

    @classmethod
    async def attach(
        cls, client: DockerClient, container: str, on_channel: Callable[[Channel], None]
    ) -> Stream:
        """To the first process of a container that is made, whether it runs or not.

        Raises DockerError, OSError.
        """
        stream = cls(dial.request(client, container), on_channel)
        await dial.connect(client, stream)
        return stream

    async def greet(self, told: Mapping[str, Any], *, again: bool = False) -> None:
        """Say who we are to the first process, and hear that it speaks the same language.

        `again`: another owner has left it.

        Raises KernelError, StreamLost.
        """
        if again:
            self._write(frames.FILLER)
        hello = {"version": VERSION, "nonce": self._nonce.hex(), **told}
        self._write(frames.pack(frames.HELLO, 0, json.dumps(hello).encode()))
        self._sign()
        if (await asyncio.shield(self.welcome)).get("version") != VERSION:
            raise KernelError(
                "The kernel was started by another version of rlm, which uses another protocol."
            )

    def open(self, name: str) -> Channel:
        """A new channel to one of the kernel's sockets."""
        self._number = self._number % (frames.THEIRS - 1) + 1
        while self._number in self._channels or self._number in self._leaving:
            self._number = self._number % (frames.THEIRS - 1) + 1
        self.send(frames.OPEN, self._number, name.encode())
        channel = self._channels[self._number] = Channel(self, self._number, WIDE)
        if self.lost.done():
            channel.end()
        return channel

    def interrupt(self) -> None:
        """Have the kernel and what it has started sent a SIGINT."""
        self.send(frames.INTERRUPT)

    def words(self) -> str:
        """The end of what the first process said on stderr, or anything that is none of ours on stdout."""
        return (self.said + bytes(self._before or b""))[-TAIL:].decode(errors="replace")

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._flush()
        self.cut()

    # For channels.

    @property
    def full(self) -> bool:
        """Data has to wait; what is sent all the same is kept."""
        return self._paused or self._pending > _MOST_PENDING

    def send(self, kind: int, channel: int = 0, payload: bytes | memoryview = b"") -> None:
        self._write(frames.pack(kind, channel, payload))

    def leave(self, channel: Channel) -> None:
        """Our end of the channel is closed."""
        self.send(frames.CLOSE, channel.number)
        if self._channels.pop(channel.number, None) is not None and not self.lost.done():
            self._leaving.add(channel.number)
            if len(self._leaving) > _MOST_LEAVING:
                self.cut()

    # For asyncio and the engine's end.

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._resume()

    def _resume(self) -> None:
        for channel in self._channels.values():
            channel.resume()

    def hear(self, piece: bytes) -> None:
        if self._before is not None:
            before, looked_at = self._before, max(0, len(self._before) - frames.NONCE)
            before += piece
            at = before.find(self._nonce, looked_at)
            if at < 0:
                del before[: -TAIL if len(before) > 2 * TAIL else 0]
                return
            piece, self._before = bytes(before[at + frames.NONCE :]), None
        for kind, number, payload in self._reader.feed(piece):
            if self.lost.done():  # by its own last word
                return
            self._take(kind, number, payload)
        if (
            self._transport is not None
            and self._transport.get_write_buffer_size() + self._pending > _MOST_UNREAD
        ):
            raise frames.Malformed("it asks, and does not read the answers")

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.WELCOME and not self.welcome.done():
            try:
                told = json.loads(payload)
            except (ValueError, RecursionError):
                told = None
            self.welcome.set_result(told if isinstance(told, dict) else {})
        elif kind == frames.OPEN:
            self._opened(number)
        elif kind == frames.END:
            self.end = Ended.told(payload)
            self.cut()
        elif (channel := self._channels.get(number)) is not None:
            if kind == frames.DATA:
                if not channel.take(payload):
                    raise frames.Malformed("more than it may send")
            elif kind == frames.CREDIT:
                channel.credit(int.from_bytes(payload[:4]))
            elif kind == frames.CLOSE:
                del self._channels[number]
                channel.end()
                self.send(frames.CLOSE, number)
        elif kind == frames.CLOSE:
            self._leaving.discard(number)

    def _opened(self, number: int) -> None:
        if (
            number < frames.THEIRS
            or number in self._channels
            or number in self._leaving
            or len(self._channels) >= MAX_OPEN
        ):
            raise frames.Malformed("no channel")
        channel = self._channels[number] = Channel(self, number, frames.WINDOW)
        self._on_channel(channel)

    def _sign(self) -> None:
        """Say that we live, from time to time."""
        self.send(frames.LIFE)
        self._life = self._loop.call_later(LIFE_SECONDS, self._sign)

    def _write(self, data: bytes) -> None:
        """All frames of a turn of the loop go out together: each write wakes four processes on its way."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)
        self._pending += len(data)

    def _flush(self) -> None:
        waited = self._pending > _MOST_PENDING
        outgoing, self._outgoing, self._pending = self._outgoing, [], 0
        if outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))
        if waited and not self._paused:
            self._resume()

    def ended(self) -> None:
        if self._life is not None:
            self._life.cancel()
        if self.lost.done():
            return
        self.lost.set_result(None)
        if not self.welcome.done():
            self.welcome.set_exception(StreamLost("the stream to the container has ended"))
        for channel in list(self._channels.values()):
            channel.end()
        self._channels.clear()
