"""A way over loopback to a far engine, which may be cut or go silent, as a network does.

What crosses is not looked at, so TLS may.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_LOOPBACK = "127.0.0.1"
_PIECE = 1 << 16


class Cable:
    """`address` is for DOCKER_HOST, instead of the engine's own: of tcp, or of ssh."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self._engine = (place.hostname, place.port)
        self._listener = socket.create_server((_LOOPBACK, 0))
        self.address = address.replace(f":{place.port}", f":{self._listener.getsockname()[1]}")
        self._open = threading.Event()
        self._open.set()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def connections(self) -> int:
        """That are open now."""
        return len(self._sockets) // 2

    def silence(self) -> None:
        """From now on nothing arrives on either side, and nobody is told."""
        self._open.clear()

    def mend(self) -> None:
        """What was sent since then arrives."""
        self._open.set()

    def cut(self) -> None:
        """End all connections. New ones are made."""
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mend()
        self.cut()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry_both, args=(client,), daemon=True).start()

    def _carry_both(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._engine) as engine:
            self._sockets |= {client, engine}
            back = threading.Thread(target=self._carry, args=(engine, client), daemon=True)
            back.start()
            self._carry(client, engine)
            back.join()
            self._sockets -= {client, engine}

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        """Until its end, which is passed on."""
        with suppress(OSError):
            while data := source.recv(_PIECE):
                self._open.wait()
                target.sendall(data)
        self._open.wait()
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def cable(address: str) -> Iterator[Cable]:
    """A cable to an engine, for a while."""
    made = Cable(address)
    try:
        yield made
    finally:
        made.close()
