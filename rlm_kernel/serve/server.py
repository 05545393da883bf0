"""The HTTP server: uvicorn, with bounds on clients that are slow, or many."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rlm_kernel.errors import UsageError
from rlm_kernel.serve.app import app_of
from rlm_kernel.serve.service import Service

IDLE_SECONDS = 30.0
"""For the head of a request, and for what is left of one that was refused."""
MAX_CONNECTIONS = 1_000
_BACKLOG = 512
_STOP_SECONDS = 10
_HEAD = 32 << 10


class Protocol(H11Protocol):
    """A connection on which no request is being answered is waited for, but not for ever."""

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """It is closed at once where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """What came is a part of a request, or one that is answered from now on."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """The next request is waited for, or what is left of this one."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._waits is None and not self.transport.is_closing():
            self._waits = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


class _Server(uvicorn.Server):
    """Signals are those of the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen(service: Service, ready: Callable[[str], None] = lambda _url: None) -> None:
    """Answer until it is cancelled: then runs are stopped, and their clients told.

    `ready` hears the address, as clients have it. Raises UsageError where it cannot listen there.
    """
    serve = service.settings.serve
    place = _bound(serve.host, serve.port)
    config = uvicorn.Config(
        app_of(service),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    server = _Server(config)
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[place]))
    try:
        host, port = place.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        service.stop()
        await asyncio.wait({task})


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"The server cannot listen on {host}, port {port}: {error.strerror or error}.",
            hint="Another program uses this port. Choose another port: --port 8001"
            if taken
            else "Check --host.",
        ) from None
