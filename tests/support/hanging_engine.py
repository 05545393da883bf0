"""A socket before the Docker engine that passes everything on, but for what ends or removes a container: that
is never answered.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_ENDS = re.compile(rb"^(DELETE|POST) \S*/containers/\w+(/kill\S*|\S*) HTTP", re.MULTILINE)
_SIZE = 1 << 16


class HangingEngine:
    """A context manager; `address` is for DOCKER_HOST. `asked` is set once the end of a container was asked
    for.
    """

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self.asked = threading.Event()
        self._engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._open: list[socket.socket] = []

    def __enter__(self) -> HangingEngine:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                self._open += [client, engine]
                for pair in ((client, engine), (engine, client)):
                    threading.Thread(
                        target=self._pass_on, args=(*pair, pair[0] is client), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, requests: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_SIZE):
                if requests and _ends(data):
                    self.asked.set()
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def _ends(data: bytes) -> bool:
    found = _ENDS.search(data)
    return found is not None and (found[1] == b"DELETE" or found[2].startswith(b"/kill"))
