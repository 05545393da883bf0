"""A way to the Docker engine that loses replies, delays them, or answers in the engine's place."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from docker.utils import parse_host

from tests.support.tree import short_folder

_PIECE = 1 << 16
Send = Callable[[bytes], None]


@dataclass
class EngineProxy:
    """`address` is for DOCKER_HOST. `lose` holds patterns of "METHOD /path": such requests reach the engine,
    and their replies nobody, so often each; `fail` such that the engine is never asked, and a 500 with that
    text comes back. `on` is called before a reply is lost.
    """

    address: str = ""
    lose: dict[str, int] = field(default_factory=dict)
    fail: dict[str, str] = field(default_factory=dict)
    on: Callable[[], None] = lambda: None
    seen: list[str] = field(default_factory=list)
    passing: dict[socket.socket, str] = field(default_factory=dict)

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken, _ = listener.accept()
                threading.Thread(target=self._answer, args=(taken,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            head, body = _request(client)
            what = b" ".join(head.split(b" ", 2)[:2]).decode()
            what = re.sub(r" /v[\d.]+", " ", what)
            self.seen.append(what)
            for pattern, text in self.fail.items():
                if re.search(pattern, what):
                    said = json.dumps({"message": text}).encode()
                    client.sendall(
                        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                        b"Connection: close\r\n"
                    )
                    client.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(said), said))
                    return
            lost = next(
                (pattern for pattern, left in self.lose.items() if left and re.search(pattern, what)), None
            )
            if b"\r\nupgrade:" not in head.lower():
                head = re.sub(rb"\r\nConnection: [^\r]*", b"", head, flags=re.IGNORECASE).replace(
                    b"\r\n", b"\r\nConnection: close\r\n", 1
                )
            with _engine() as engine:
                engine.sendall(head + body)
                if lost is not None:
                    self.lose[lost] -= 1
                    engine.recv(_PIECE)
                    self.on()
                    return
                threading.Thread(target=_pass_on, args=(client, engine), daemon=True).start()
                self.passing[client] = what
                _pass_on(engine, client)
                del self.passing[client]

    def hang_up(self, pattern: str) -> None:
        """Break the connections of the requests of a pattern that wait for their reply."""
        for client, what in list(self.passing.items()):
            if re.search(pattern, what):
                client.shutdown(socket.SHUT_RDWR)


def _engine() -> socket.socket:
    engine = socket.socket(socket.AF_UNIX)
    engine.connect(urlsplit(parse_host(None)).path.removeprefix("//") or "/var/run/docker.sock")
    return engine


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    told = b""
    while b"\r\n\r\n" not in told:
        piece = client.recv(_PIECE)
        if not piece:
            raise ValueError("no request")
        told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        body += client.recv(_PIECE)
    return head + b"\r\n\r\n", body


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def engine_proxy() -> Iterator[EngineProxy]:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, "sock")
        listener.bind(str(path))
        listener.listen()
        proxy = EngineProxy(f"unix://{path}")
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
