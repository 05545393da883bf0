"""An HTTP server that answers whatever it is asked with the bytes it is given, and keeps what it was sent."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any

Answer = Callable[[bytes], bytes | Iterable[bytes]]
"""From a request's head to the whole response: bytes, or pieces of it as they are sent."""


def head(status: int, *lines: str) -> bytes:
    """The head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status} Status", *lines, "", ""]).encode("latin-1")


def response(status: int, body: bytes, *lines: str) -> bytes:
    """A response with a body. `lines`: more of its head."""
    return head(status, f"Content-Length: {len(body)}", *lines) + body


class RawServer:
    """Serves on loopback, one connection for each request, as a context manager.

    `requests` has the bytes of each.
    """

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._handle(self.request)

        self._server = socketserver.ThreadingTCPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, connection: Any) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := connection.recv(65536)):
                return
            received += piece
        start, _, rest = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in start.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        while len(rest) < length:
            if not (piece := connection.recv(65536)):
                break
            rest += piece
        self.requests.append(start + b"\r\n\r\n" + rest)
        answer = self.answer(start)
        try:
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)
        except OSError:
            return  # the client has had enough
