"""The one HTTP client of both roads: where a request went, by which proxy, and what came back, byte for byte.

litellm sends its requests by it as well, through a transport of httpx. So a reply that litellm cannot read can still be read here, and
proxies, certificates and lost connections are the same on both roads.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlm_kernel.models._proxies import Proxy, proxy_for

if TYPE_CHECKING:
    import aiohttp
    import httpx

_MOST = 256 * 2**20
"""Bytes of a reply that was packed and does not say so."""
_OURS = frozenset({"accept-encoding", "connection", "content-length", "transfer-encoding", "host"})
"""Headers that the client sets by itself."""
_UNPACKED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that hold no more once a body is read and unpacked."""


_QUERY_AMID = re.compile(r"(\?[^/]*)(/chat/completions)$")
"""The query of an address to which a path was added."""


@dataclass
class Exchange:
    """One request and its reply, or the `error` in place of one. Names of headers are in lower case."""

    url: str
    proxy: Proxy | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: Exception | None = None


class Http:
    """The connections of one event loop, on which it is closed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes, *, follow: bool = True) -> Exchange:
        """A request's reply in full, or why there is none: it raises nothing but what cancels it. `follow`: go where a redirect says."""
        import aiohttp

        url = _QUERY_AMID.sub(r"\2\1", url)
        exchange = Exchange(url)
        try:
            exchange.proxy = proxy = proxy_for(url)
            if proxy is not None:
                proxy.check()
            through = proxy.url if proxy is not None else None
            session = self._open()
            async with session.request(method, url, headers=headers, data=content, proxy=through, allow_redirects=follow) as response:
                exchange.body = _plain(await response.read())
                exchange.status = response.status
                exchange.headers = {name.lower(): value for name, value in response.headers.items()}
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a time-out is an OSError
            exchange.error = error
        return exchange

    async def aclose(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # the transports are closed in the loop's next round

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            tls = importlib.import_module("litellm.llms.custom_httpx.http_handler").get_ssl_configuration(None)
            # As many connections as there are slots; no time-out but the caller's own.
            connector = aiohttp.TCPConnector(limit=0, ssl=tls)
            # Gateways send long headers, of cookies and policies.
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=None), max_line_size=2**16, max_field_size=2**16
            )
        return self._session


def _plain(body: bytes) -> bytes:
    """A body that a gateway packed without saying so is unpacked; the client does the others."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, _MOST)
    except zlib.error:
        return body


# litellm's requests


@dataclass
class Call:
    """A call of litellm's in progress: what sends its requests, and the last of them."""

    http: Http
    last: Exchange | None = None


def in_progress() -> bool:
    """Whether litellm works for us, in this task."""
    return _call.get() is not None


_call: ContextVar[Call | None] = ContextVar("rlm_litellm_call", default=None)


async def by_litellm(http: Http, litellm: Any, request: Mapping[str, Any]) -> tuple[Any, Exchange | None]:
    """litellm's response, or its exception, and the last request that it sent, None for none."""
    call = Call(http)
    token = _call.set(call)
    try:
        response: Any = await litellm.acompletion(**request)
    except Exception as error:
        response = error
    finally:
        _call.reset(token)
    return response, call.last


def install() -> None:
    """Have litellm's clients send by our own while a call of ours is in progress, and by litellm's otherwise. Idempotent."""
    handler: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    make = handler.create_async_transport
    if not getattr(make, "of_rlm", False):

        def create(*args: Any, **kwargs: Any) -> Any:
            return _transport(make(*args, **kwargs))

        create.of_rlm = True  # type: ignore[attr-defined]
        handler.create_async_transport = staticmethod(create)


def _transport(usual: httpx.AsyncBaseTransport | None) -> httpx.AsyncBaseTransport:
    import httpx

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            call = _call.get()
            if call is None:
                nonlocal usual
                usual = usual or httpx.AsyncHTTPTransport()
                return await usual.handle_async_request(request)
            headers = {name: value for name, value in request.headers.items() if name not in _OURS}
            call.last = Exchange(str(request.url))
            call.last = found = await call.http.send(request.method, str(request.url), headers, await request.aread(), follow=False)
            if found.error is not None:
                raise httpx.ConnectError(str(found.error)) from found.error
            kept = {name: value for name, value in found.headers.items() if name not in _UNPACKED}
            return httpx.Response(found.status, headers=kept, content=found.body, request=request)

        async def aclose(self) -> None:
            if usual is not None:
                await usual.aclose()

    return Transport()
