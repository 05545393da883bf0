"""Attach to a container by a connection of its own to the engine: a unix socket, a named pipe of Windows, tcp
with or without TLS, or ssh.

docker's client gives the socket of an `attach` away only after it has read ahead on it, and may lose what it
read. So the connection is made as that client would make it, and the request is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from rlm_kernel import loops
from rlm_kernel.errors import DockerError

if TYPE_CHECKING:
    from docker import DockerClient

    from rlm_kernel.sandbox.engine_ssh import Connection

ATTACH_SECONDS = 30.0
SILENT_SECONDS = 60
"""After so long without an answer of the engine's machine the stream has ended."""
TAIL = 8_000
"""Bytes of stderr that are kept."""
_MAX_HEAD = 64 << 10
"""Bytes of the head of the engine's reply, and of the error in it."""
_STDOUT, _STDERR = 1, 2


class Attached(asyncio.Protocol):
    """A connection to a container's stdin and stdout, from the request that makes it to its end.

    `hear` gets what comes on stdout, `ended` is called when it is over, perhaps more than once. `said` is the
    end of stderr.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._head: bytearray | None = bytearray()
        self._engine = bytearray()
        """The engine's own head of 8 bytes in front of each piece, as far as it has come."""
        self._left = self._kind = 0
        self.said = b""
        self.malformed = False
        """It was cut off for what came."""
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.attached.add_done_callback(lambda done: done.cancelled() or done.exception())

    def hear(self, piece: bytes) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """End it at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._over()

    def eof_received(self) -> None:
        self._over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over()

    def _over(self) -> None:
        if not self.attached.done():
            self.attached.set_exception(ConnectionError("the engine closed the connection"))
        self.ended()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by their class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            if self._head is not None:
                data = self._reply(data)
            self._from_engine(data)
        except ValueError:  # frames.Malformed too
            self.malformed = True
            self.cut()

    def _reply(self, data: bytes) -> bytes:
        """Take the head of the engine's reply; what follows it."""
        assert self._head is not None
        self._head += data
        head, found, rest = bytes(self._head).partition(b"\r\n\r\n")
        status = head.partition(b" ")[2][:3]
        if found and status in (b"101", b"200"):
            self._head = None
            self.attached.set_result(None)
            return rest
        if len(self._head) > _MAX_HEAD or (found and _is_whole(head, rest)):
            self._refused(rest)
        return b""

    def _refused(self, body: bytes) -> None:
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            body = json.loads(body[body.find(b"{") : body.rfind(b"}") + 1]).get("message", "").encode()
        if not self.attached.done():
            self.attached.set_exception(
                DockerError(
                    f"The Docker engine refused: {body[:1000].decode(errors='replace')}",
                    hint="See `rlm doctor`.",
                )
            )
        self.cut()

    def _from_engine(self, data: bytes) -> None:
        """Take apart what the engine sends: pieces of stdout and stderr, each behind a head of 8 bytes."""
        at = 0
        while at < len(data):
            if not self._left:
                piece = data[at : at + 8 - len(self._engine)]
                self._engine += piece
                at += len(piece)
                if len(self._engine) == 8:
                    self._kind, self._left = self._engine[0], int.from_bytes(self._engine[4:])
                    self._engine.clear()
                continue
            piece = data[at : at + self._left] if at or len(data) > self._left else data
            at += len(piece)
            self._left -= len(piece)
            if self._kind == _STDOUT:
                self.hear(piece)
            elif self._kind == _STDERR:
                self.said = (self.said + piece)[-TAIL:]


async def connect(client: DockerClient, attached: Attached) -> None:
    """Connect it, and wait for the engine's word that it is attached. Raises DockerError, OSError."""
    through: Connection | None = None
    try:
        async with asyncio.timeout(ATTACH_SECONDS):
            through = await _connect(client, lambda: attached)
            await asyncio.shield(attached.attached)
    except BaseException as error:
        attached.cut()
        if isinstance(error, TimeoutError):
            raise DockerError(
                "The Docker engine did not connect rlm to the kernel's container.", hint="See `rlm doctor`."
            ) from None
        if through is not None and isinstance(error, ConnectionError):
            raise (await asyncio.to_thread(through.failure)).told from error
        raise
    finally:
        if through is not None:
            through.let_go()


def request(client: DockerClient, container: str) -> bytes:
    """What attaches to a container."""
    place = urlsplit(client.api._url("/containers/{0}/attach", container))
    # No keys that detach: podman looks for its usual ones in whatever is sent.
    query = "stream=1&stdin=1&stdout=1&stderr=1&detachKeys="
    lines = [
        f"POST {place.path}?{query} HTTP/1.1",
        f"Host: {place.netloc or 'docker'}",
        "Connection: Upgrade",
        "Upgrade: tcp",
    ]
    lines += [
        f"{name}: {value}"
        for name, value in client.api.headers.items()
        if name.lower() not in ("connection", "accept-encoding")
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def _connect(client: DockerClient, protocol: Callable[[], Attached]) -> Connection | None:
    """As the client's own adapter would. The connection by ssh, if it is one."""
    loop = asyncio.get_running_loop()
    adapter: Any = client.api.get_adapter(client.api.base_url)
    place = urlsplit(client.api.base_url)
    if hasattr(adapter, "ssh"):
        through: Connection = await asyncio.to_thread(adapter.ssh.dial)
        await loop.create_connection(protocol, sock=through.sock)
        return through
    if hasattr(adapter, "socket_path"):
        await loops.connect_unix(protocol, adapter.socket_path)
    elif hasattr(adapter, "npipe_path"):
        await loops.connect_pipe(protocol, adapter.npipe_path)
    elif place.scheme in ("http", "https") and place.hostname:
        transport, _ = await loop.create_connection(
            protocol, place.hostname, place.port, ssl=getattr(adapter, "context", None)
        )
        _notice_silence(transport.get_extra_info("socket"))
    else:
        raise DockerError(
            f"rlm cannot connect to containers on Docker at {client.api.base_url}.",
            hint="Use a unix socket, a named pipe, tcp or ssh (DOCKER_HOST).",
        )
    return None


def _notice_silence(sock: socket.socket) -> None:
    """Have the system end a connection whose other end does not answer any more.

    A program that is stopped answers: its system does.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    each = SILENT_SECONDS // 4
    wanted = {
        "TCP_KEEPIDLE": each,
        "TCP_KEEPALIVE": each,
        "TCP_KEEPINTVL": each,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": SILENT_SECONDS * 1000,
    }
    for name, value in wanted.items():
        if hasattr(socket, name):  # each system has some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _is_whole(head: bytes, body: bytes) -> bool:
    """Whether the body of an error, whose head this is, has come."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return b"}" in body
