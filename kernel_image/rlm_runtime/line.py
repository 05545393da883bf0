"""A connection to the host for host calls, by way of the container's first process: JSON messages on a unix
socket.

A request is the sizes of its head and its body (four bytes each), the head and the body; a reply is its size
and JSON. Nothing here waits without reading what comes: both sides may have much to say at once.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections import deque

from rlm_contract import CALLS, SIZE, SIZES, Reply

_PIECE = 64 << 10
_NOW = socket.MSG_DONTWAIT


class Lost(ConnectionError):
    """The connection to the host has ended, or what was on it was cut short."""


def packed(head: bytes, body: bytes) -> bytes:
    """A request."""
    return b"".join((SIZES.pack(len(head), len(body)), head, body))


class Line:
    """One thread's connection.

    After an exception, an interrupt too, it is closed, since half of a message may be lost.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(CALLS)
        except OSError as error:
            self._socket.close()
            raise Lost(f"the host cannot be reached: {error}") from error
        self._arrived = bytearray()
        self._replies: deque[Reply] = deque()

    def ended(self) -> bool:
        """Whether it is closed, by one end or the other: the host's owner may be another now."""
        try:
            return self._socket.fileno() < 0 or not self._socket.recv(1, socket.MSG_PEEK | _NOW)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, requests: bytes | bytearray) -> None:
        """Send requests. Raises Lost."""
        data = memoryview(bytes(requests))
        try:
            while data:
                try:
                    data = data[self._socket.send(data, _NOW) :]
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self._socket, select.POLLIN | select.POLLOUT)
                    poll.poll()
                    with contextlib.suppress(BlockingIOError):
                        self._read(_NOW)
        except BaseException as error:
            self._fail(error)

    def has_reply(self) -> bool:
        """Whether one can be had without a wait."""
        return bool(self._replies)

    def reply(self) -> Reply:
        """The next reply. Raises Lost."""
        try:
            while not self._replies:
                self._read()
        except BaseException as error:
            with contextlib.suppress(Exception):  # the end of the connection, or a message that was cut short
                while True:
                    self._read(_NOW)
            self._fail(error)
        return self._replies.popleft()

    def arrived(self) -> list[Reply]:
        """The replies that have come and were not asked for; also after an exception, for the last time."""
        found = list(self._replies)
        self._replies.clear()
        return found

    def close(self) -> None:
        self._socket.close()

    def _read(self, how: int = 0) -> None:
        piece = self._socket.recv(_PIECE, how)
        if not piece:
            raise Lost("the host has closed the connection")
        self._arrived += piece
        at = 0
        while len(self._arrived) - at >= SIZE.size:
            (size,) = SIZE.unpack_from(self._arrived, at)
            if len(self._arrived) - at - SIZE.size < size:
                break
            at += SIZE.size + size
            self._replies.append(json.loads(self._arrived[at - size : at]))
        del self._arrived[:at]

    def _fail(self, error: BaseException) -> None:
        self.close()
        if isinstance(error, OSError) and not isinstance(error, Lost):
            raise Lost(f"the connection to the host has ended: {error}") from error
        raise error
