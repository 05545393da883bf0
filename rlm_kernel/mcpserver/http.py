"""MCP over streamable HTTP, for many clients of one server.

Each request needs the server's token. On loopback, Host and Origin are checked too, since a page in a browser
can have a name of its own lead there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import SetupError, UsageError

if TYPE_CHECKING:
    from rlm_kernel.mcpserver.doing import Rules
    from rlm_kernel.session.environment import Say

PATH = "/mcp"
MAX_BODY = 40 << 20
"""Bytes of a request."""
BODY_SECONDS = 60.0
"""Seconds that a request's body may take."""
CLIENT_IDLE = 1800.0
"""Seconds without a request after which a client's sessions end."""
MAX_CLIENTS = 100
_MAX_CONNECTIONS = 500
_END_SECONDS = 3
MIN_TOKEN = 16
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_VERSION = b"mcp-protocol-version"


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 is any."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address_of(text: str) -> Address:
    """`PORT`, `HOST:PORT` or `[IPV6]:PORT`. Raises UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not port.isascii() or not port.isdigit() or int(port) > 65_535 or (not host and ":" in text):
        raise UsageError(
            f"{text!r} is not an address to listen on.", hint="--http 8123, or --http 127.0.0.1:8123"
        )
    return Address(host or "127.0.0.1", int(port))


def check_token(token: str) -> str:
    """The token without what is around it. Raises UsageError for one that can be guessed."""
    token = token.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"A token must have at least {MIN_TOKEN} characters: letters and digits, no spaces.",
            hint='python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    return token


async def serve(rules: Rules, address: Address, token: str, say: Say) -> None:
    """Serve until cancelled; `say` hears where. Raises ConfigError, SetupError."""
    import uvicorn

    from rlm_kernel.mcpserver.server import McpServer

    server = McpServer(rules, with_roots=False)
    with _listening(address) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            _Guard(_app(server, address), token, lone=not address.is_loopback),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        async with server.running():
            shown = f"[{address.host}]" if ":" in address.host else address.host
            say(f"listening on http://{shown}:{port}{PATH}")
            await _run(uvicorn.Server(config), listening)


async def _run(serving: Any, listening: socket.socket) -> None:
    """Signals are the command's, not uvicorn's: whoever cancels this has it end."""
    serving.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(serving.serve(sockets=[listening]))
    try:
        await asyncio.shield(task)
    finally:
        serving.should_exit = True
        await asyncio.wait([task])
    if not serving.started:
        raise SetupError("The HTTP server could not be started.")


def _app(server: Any, address: Address) -> Any:
    from mcp.server.transport_security import TransportSecuritySettings

    safe = TransportSecuritySettings(
        enable_dns_rebinding_protection=address.is_loopback,
        allowed_hosts=[*_LOOPBACK, *(f"{host}:*" for host in _LOOPBACK)],
        allowed_origins=[f"http://{host}:*" for host in _LOOPBACK],
    )
    return server.protocol.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=MAX_BODY,
        session_idle_timeout=CLIENT_IDLE,
        max_sessions=MAX_CLIENTS,
        transport_security=safe,
        host=address.host,
    )


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise SetupError(
            f"rlm cannot listen on {address.host}, port {address.port}: {error.strerror or error}.",
            hint="Choose another port; --http 0 chooses a free one.",
        ) from error
    with listening:
        yield listening


class _Guard:
    """What comes before the protocol: the token, the time that a body takes, and the protocol's version."""

    def __init__(self, app: Any, token: str, *, lone: bool) -> None:
        """`lone`: no page of any browser may ask, whatever its Host."""
        self._app = app
        self._token = hashlib.sha256(token.encode()).digest()
        self._lone = lone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not self._is_known(headers.get(b"authorization", b"")):
            await _refuse(send, 401, "This server needs a token: Authorization: Bearer TOKEN")
        elif self._lone and b"origin" in headers:
            await _refuse(send, 403, "This server does not answer web pages.")
        elif not _is_served(headers.get(_VERSION)):
            await _refuse(send, 400, "This server uses MCP sessions: send initialize first.")
        else:
            await self._app(scope, _Bounded(receive), send)

    def _is_known(self, given: bytes) -> bool:
        kind, _, token = given.partition(b" ")
        right = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), self._token)
        return right and kind.lower() == b"bearer"


def _is_served(version: bytes | None) -> bool:
    """Whether a request is of the protocol with sessions: with them kernels end."""
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

    return version is None or version.decode("latin-1") in HANDSHAKE_PROTOCOL_VERSIONS


class _Bounded:
    """A request's messages; a body that takes too long is as if the client had left."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._deadline: float | None = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Any:
        if self._deadline is None:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            self._deadline = None
        return message


async def _refuse(send: Any, status: int, why: str) -> None:
    body = why.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
