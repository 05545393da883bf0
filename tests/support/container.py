"""A container's first process without a container: its bridge in a thread, behind what the engine puts on an
attached connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlm_contract import SOCKETS
from rlm_runtime.bridge import Bridge

from rlm_kernel.sandbox.stream import Channel, Stream

REPLY = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
HELLO: dict[str, Any] = {"idle": 0, "session": {}, "key": ""}


class FirstProcess:
    """Its sockets lie in `folder`. `attach` gives a stream to it, as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source, self._stdin = os.pipe()
        self._stdout, sink = os.pipe()
        errors, self._errors = os.pipe()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "host"))
        listener.listen(64)
        self.bridge = Bridge(source, sink, listener, folder, errors)
        self.interrupts = 0
        self.bridge.interrupt = self._interrupt
        self._ends = [source, sink, errors, self._errors, self._stdin, self._stdout]
        self._listener = listener
        self._attached: list[socket.socket] = []
        self._over = False
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._turn, self._out)]
        for thread in self._threads:
            thread.start()

    def _interrupt(self) -> None:
        self.interrupts += 1

    def _turn(self) -> None:
        while not self._over and not self.bridge.over:
            self.bridge.turn(0.02)
            self.bridge.listen()

    def _out(self) -> None:
        """Stdout goes to who is attached, and is lost while nobody is."""
        while piece := os.read(self._stdout, 32 << 10):
            for end in list(self._attached):
                with contextlib.suppress(OSError):
                    end.sendall(struct.pack("!BxxxI", 1, len(piece)) + piece)

    def _in(self, end: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += end.recv(1)
        end.sendall(REPLY)
        self._attached.append(end)
        with end, contextlib.suppress(OSError):
            while piece := end.recv(32 << 10):
                os.write(self._stdin, piece)
        with contextlib.suppress(ValueError):
            self._attached.remove(end)

    async def attach(
        self, on_channel: Callable[[Channel], None] = lambda _channel: None, *, again: bool = False
    ) -> Stream:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._in, args=(theirs,), daemon=True).start()
        stream = Stream(b"POST / HTTP/1.1\r\n\r\n", on_channel)
        await asyncio.get_running_loop().create_connection(lambda: stream, sock=ours)
        await stream.attached
        async with asyncio.timeout(10):
            await stream.greet(HELLO, again=again)
        return stream

    def call(self) -> socket.socket:
        """A connection as code in the container makes it."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(self.folder / "host"))
        made.settimeout(10)
        return made

    def serve(self, name: str) -> socket.socket:
        """Listen as the kernel does on one of its sockets."""
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.folder / f"k-{SOCKETS[name]}"))
        made.listen(8)
        made.settimeout(10)
        return made

    def close(self) -> None:
        self._over = True
        self._threads[0].join()
        for end in [*self._attached, *(link.sock for link in self.bridge._links.values())]:
            end.close()
        self._listener.close()
        for number in self._ends[1:2]:
            os.close(number)
        self._threads[1].join()
        for number in self._ends[:1] + self._ends[2:]:
            os.close(number)
