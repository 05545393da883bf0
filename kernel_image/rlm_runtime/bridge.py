"""What the first process does: it carries the kernel's sockets and host calls over the one stream to the
host, and watches who lives.

Every connection of the container is a channel of the stream. A side sends on a channel as far as it has
credit, so what one connection floods with fills no memory and holds up no other. Bytes to the host leave in
this order: what was begun, control frames, one piece of each connection that has something.

One thread, which waits in `epoll` alone. What code in the container sends is passed on unread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlm_contract import SOCKETS, VERSION, End, Hello, Welcome, frames, glance
from rlm_contract.frames import CLOSE, CREDIT, DATA, END, HELLO, INTERRUPT, LIFE, OPEN, WELCOME

if TYPE_CHECKING:
    from pathlib import Path

MAX_CALLERS = 512
"""Connections for host calls at once. Others wait to be accepted."""
BUFFER = 256 << 10
"""Bytes from the host that wait for one connection of the container."""
TICK = 0.25
"""Seconds after which it looks around, even if nothing happens."""
SIGN_SECONDS = 300.0
"""After so many seconds the host hears that we live: on the way a machine whose host was cut off notices by
that, if by nothing else.
"""
_AT_ONCE = 8
"""Connections of which a piece is read before what was read is sent."""
_LAST_SECONDS = 2.0
"""For what the kernel said before it ended."""
_TAIL = 8_000
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class _Link:
    """One connection in the container, and the channel that carries it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.number = number
        self.credit = frames.WINDOW
        self.waiting = bytearray()
        """What the host sent and the connection has not taken yet."""
        self.owed = 0
        """Bytes that it has taken, and for which the host has no new credit yet."""
        self.closed = False
        """The host sends nothing more on it."""


class Bridge:
    """Between the descriptors `source` and `sink`, which lead to the host, and the sockets in `folder`."""

    def __init__(
        self, source: int, sink: int, listener: socket.socket, folder: str | Path, errors: int
    ) -> None:
        self._source, self._sink, self._folder, self._errors = source, sink, folder, errors
        self._listener = listener
        self._reader = frames.Reader()
        self._control: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self._begun = memoryview(b"")
        self._stuck = False
        self._links: dict[int, _Link] = {}
        self._by_descriptor: dict[int, _Link] = {}
        self._gone: set[int] = set()
        """Channels that are closed on this side, and not yet on the host's."""
        self._fed: set[int] = set()
        """Channels on which something came from the host."""
        self._callers = 0
        self._accepting = False
        self._next = frames.THEIRS
        self._said = b""
        self._signed = time.monotonic()
        self.heard = time.monotonic()
        """When the host was last heard."""
        self.hello: Hello | None = None
        self.over = False
        """The stream has ended."""
        self.interrupt: Callable[[], None] = lambda: None
        self._main, self._readers = select.epoll(), select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        for number in (source, sink, errors):
            os.set_blocking(number, False)
        with contextlib.suppress(OSError):  # it is as large as it may be
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, BUFFER)
        listener.setblocking(False)
        self._watch(source, self._from_host)
        self._watch(errors, self._from_errors)
        self._watch(self._readers.fileno(), self._from_links)

    def _watch(self, number: int, handler: Callable[[int], None], events: int = _IN) -> None:
        self._handlers[number] = handler
        self._main.register(number, events)

    def _unwatch(self, number: int) -> None:
        if self._handlers.pop(number, None) is not None:
            self._main.unregister(number)

    def wake_by(self, number: int) -> None:
        """Have a descriptor end the wait of a turn."""
        self._watch(number, lambda _events: _drained(number))

    def turn(self, seconds: float = TICK) -> None:
        """Wait for something to do, so long, and do it."""
        for number, events in self._main.poll(seconds, 64):
            handler = self._handlers.get(number)
            if handler is not None:  # it went meanwhile
                handler(events)
        if self.hello and time.monotonic() - self._signed > SIGN_SECONDS:
            self._signed = time.monotonic()
            self._send(LIFE)
        self._flush()

    def listen(self) -> None:
        """Take connections for host calls from now on."""
        if not self._accepting and self._callers < MAX_CALLERS and not self._stuck and self.hello:
            self._accepting = True
            self._watch(self._listener.fileno(), self._accept)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            self._unwatch(self._listener.fileno())

    def finish(self) -> None:
        """Send what the kernel, which has ended, said before; as far as the host takes it in time."""
        deadline = time.monotonic() + _LAST_SECONDS
        idle = 0
        while idle < 3 and not self.over and time.monotonic() < deadline:
            self.turn(0.01)
            idle = 0 if self._data or self._control or self._begun else idle + 1

    def end(self, status: int) -> None:
        """Send how the container ends, with the last that was written to its stderr, past IPython; if the
        host takes it in time.
        """
        deadline = time.monotonic() + _LAST_SECONDS
        end: End = {"status": status, "words": self._said.decode(errors="replace")}
        self._send(END, 0, json.dumps(end).encode())
        while (self._control or self._begun) and not self.over and time.monotonic() < deadline:
            self.turn(0.01)

    # From the host.

    def _from_host(self, _events: int) -> None:
        try:
            piece = os.read(self._source, frames.MOST)
        except BlockingIOError:
            return
        if not piece:
            self.over = True
            return
        self.heard = time.monotonic()
        for kind, channel, payload in self._reader.feed(piece):
            self._take(kind, channel, payload)
        for channel in self._fed:  # at once what came together: each piece wakes its reader
            if (link := self._links.get(channel)) is not None:
                self._to_link(link)
        self._fed.clear()

    def _take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == HELLO:
            self._greet(payload)
        elif kind == OPEN:
            self._open(channel, payload.decode())
        elif kind == INTERRUPT:
            self.interrupt()
        elif kind == CLOSE and channel in self._gone:
            self._gone.discard(channel)
        elif (link := self._links.get(channel)) is not None:
            if kind == DATA:
                link.waiting += payload
                self._fed.add(channel)
            elif kind == CREDIT:
                if not link.credit:
                    self._readers.register(link.sock.fileno(), _IN)
                link.credit += int.from_bytes(payload)
            elif kind == CLOSE:
                link.closed = True
                self._fed.add(channel)
        # All else is for a connection that has just gone, or a LIFE.

    def _greet(self, payload: bytes) -> None:
        """An owner is there, the first one or another: nothing of what went before is theirs."""
        for link in list(self._links.values()):
            self._drop(link)
        self._gone.clear()
        self._control.clear()
        self._data.clear()
        self._begun = memoryview(b"")
        hello: Hello = json.loads(payload)
        self.hello = hello
        # The host looks for this, past what may have been begun.
        self._control.append(bytes.fromhex(hello["nonce"]))
        welcome: Welcome = {"version": VERSION, "seen": _seen(hello), "mapped": glance.is_mapped()}
        self._send(WELCOME, 0, json.dumps(welcome).encode())

    def _open(self, channel: int, name: str) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(f"{self._folder}/k-{SOCKETS[name]}")
        except (OSError, KeyError):
            sock.close()
            self._gone.add(channel)
            self._send(CLOSE, channel)
            return
        self._link(sock, channel)

    def _to_link(self, link: _Link) -> None:
        """Give the connection what it takes."""
        number = link.sock.fileno()
        try:
            while link.waiting:
                sent = link.sock.send(memoryview(link.waiting)[: frames.MOST])
                del link.waiting[:sent]
                link.owed += sent
        except BlockingIOError:
            if number not in self._handlers:
                self._watch(number, lambda _events: self._to_link(link), _OUT)
        except OSError:
            self._drop(link)
            return
        if not link.waiting:
            self._unwatch(number)
            if link.closed:
                self._drop(link)
                return
        if link.owed >= frames.WINDOW:
            self._send(CREDIT, link.number, link.owed.to_bytes(4))
            link.owed = 0

    # To the host.

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone, or there are no descriptors left
            return
        while self._next in self._links or self._next in self._gone:
            self._next = max(frames.THEIRS, (self._next + 1) & 0xFFFF)
        number, self._next = self._next, max(frames.THEIRS, (self._next + 1) & 0xFFFF)
        self._callers += 1
        self._send(OPEN, number)
        self._link(sock, number)
        if self._callers >= MAX_CALLERS:
            self._pause()

    def _link(self, sock: socket.socket, number: int) -> None:
        link = self._links[number] = _Link(sock, number)
        self._by_descriptor[sock.fileno()] = link
        self._readers.register(sock.fileno(), _IN)
        self._send(CREDIT, number, (BUFFER - frames.WINDOW).to_bytes(4))

    def _from_links(self, _events: int) -> None:
        for number, _ in self._readers.poll(0, _AT_ONCE):
            link = self._by_descriptor[number]
            try:
                piece = link.sock.recv(min(link.credit, frames.MOST))
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            if not piece:
                self._drop(link)
                continue
            link.credit -= len(piece)
            if not link.credit:
                self._readers.unregister(number)
            self._data.append(frames.pack(DATA, link.number, piece))

    def _drop(self, link: _Link) -> None:
        """The connection has ended, from one side or the other."""
        number = link.sock.fileno()
        self._unwatch(number)
        if link.credit:
            self._readers.unregister(number)
        link.sock.close()
        del self._links[link.number], self._by_descriptor[number]
        if link.number >= frames.THEIRS:
            self._callers -= 1
        if not link.closed:
            self._gone.add(link.number)
        self._data.append(frames.pack(CLOSE, link.number))  # behind what it said
        self.listen()

    def _send(self, kind: int, channel: int = 0, payload: bytes = b"") -> None:
        self._control.append(frames.pack(kind, channel, payload))

    def _flush(self) -> None:
        try:
            while self._begun or self._control or self._data:
                if not self._begun:
                    pieces: list[bytes] = []
                    for waiting in (self._control, self._data):
                        while waiting and len(pieces) < _AT_ONCE:
                            pieces.append(waiting.popleft())
                    self._begun = memoryview(b"".join(pieces))
                self._begun = self._begun[os.write(self._sink, self._begun) :]
        except BlockingIOError:
            if not self._stuck:
                self._stuck = True
                self._watch(self._sink, lambda _events: None, _OUT)
                self._unwatch(self._readers.fileno())
                self._pause()
            return
        except OSError:  # nobody reads any more
            self.over = True
            return
        if self._stuck:
            self._stuck = False
            self._unwatch(self._sink)
            self._watch(self._readers.fileno(), self._from_links)
            self.listen()

    def _from_errors(self, _events: int) -> None:
        try:
            piece = os.read(self._errors, frames.MOST)
        except BlockingIOError:
            return
        if not piece:  # nobody can write there any more
            self._unwatch(self._errors)
        self._said = (self._said + piece)[-_TAIL:]


def _seen(hello: Hello) -> dict[str, tuple[int | None, list[int] | None]]:
    """What the files look like here that the host has mounted, each with its time of change and, where that
    does not prove enough, an outline. The host knows the times by `files`, and is the same system if it was
    started as this one was.
    """
    same_system = bool(hello.get("boot")) and hello["boot"] == glance.boot()
    seen: dict[str, tuple[int | None, list[int] | None]] = {}
    for place, expected in hello.get("files", {}).items():
        changed = glance.changed(place)
        proven = changed == expected and (same_system or not os.path.isdir(place))
        seen[place] = (changed, None if proven or changed is None else glance.outline(place))
    return seen


def _drained(number: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(number, 4096)
