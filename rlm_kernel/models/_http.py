"""The one HTTP client of both roads: where a request went, by which proxy, and what came back, byte for byte.

litellm sends its requests by it as well, through a transport of httpx. So a reply that litellm cannot read
can still be read here, and proxies, certificates, lost connections, redirects and limits are the same on both
roads.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rlm_kernel.models._bounds import HEADER_CHARS, Unreadable, received
from rlm_kernel.models._proxies import Proxy, proxy_for

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

_AFTER_END = 2.0
"""Seconds in which more may come of a stream that said that it is over: the count of tokens, say."""
_HOPS = 5
"""Redirects within one origin that a request follows."""
_SAME_REQUEST = (307, 308)
"""Redirects after which the same request is made; after the others it would be a GET without a prompt."""
_QUERY_AMID = re.compile(r"(\?[^/]*)(/chat/completions)$")
"""The query of an address to which a path was added."""


@dataclass
class Exchange:
    """One request and its reply, or the `error` in place of one. Names of headers are in lower case.

    `streamed`: litellm read the reply as it came. `stopped`: who listened had heard enough, and the rest was
    left unread. `made`: the completion that a stream came to, of which there is no body then.
    """

    url: str
    proxy: Proxy | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: Exception | None = None
    streamed: bool = False
    stopped: bool = False
    made: Mapping[str, Any] | None = None


class Hear(Protocol):
    """Hears the bytes of a reply as they come, and says how many of them it took: fewer than all are enough.

    `reads`: it keeps what it needs of them. `ended`: they say that no more will come.
    """

    @property
    def reads(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    def __call__(self, data: bytes) -> int: ...


Sent = Callable[[], None]
"""Called when a request goes out over a connection, from when on it may be billed."""


class Http:
    """The connections of one event loop, on which it is closed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes,
        hear: Hear | None = None,
        sent: Sent = lambda: None,
    ) -> Exchange:
        """A request's reply, or why there is none: it raises nothing but what cancels it.

        `hear`: the reply is asked for unpacked, and heard as it comes, if it is a success. A redirect to
        another origin is not followed, so that key and prompt go nowhere else. It comes back as the reply.
        """
        exchange = Exchange(_QUERY_AMID.sub(r"\2\1", url))
        if hear is not None:
            headers = {**headers, "Accept-Encoding": "identity"}
        try:
            async with self.response(exchange, method, headers, content, sent) as response:
                await take(response, exchange, hear)
        except failures() as error:
            exchange.error = error
        return exchange

    @contextlib.asynccontextmanager
    async def response(
        self,
        exchange: Exchange,
        method: str,
        headers: Mapping[str, str],
        content: bytes,
        sent: Sent = lambda: None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply whose body is still to be read; raises one of `failures`."""
        exchange.proxy = proxy = proxy_for(exchange.url)
        if proxy is not None:
            proxy.check()
        through = proxy.url if proxy is not None else None
        session = self._open()
        target: str | URL = exchange.url
        for _ in range(_HOPS + 1):
            async with session.request(
                method,
                target,
                headers=headers,
                data=content,
                proxy=through,
                allow_redirects=False,
                trace_request_ctx=sent,
            ) as response:
                if (further := _same_origin(response)) is None:
                    yield response
                    return
                target = further
        raise Unreadable(f"the server redirects to itself more than {_HOPS} times")

    async def aclose(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # the transports are closed in the loop's next round

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            from rlm_kernel.models import _tls

            # As many connections as there are slots; no time-out but the caller's own.
            connector = aiohttp.TCPConnector(limit=0, ssl=_tls.context())
            # Gateways send long headers, of cookies and policies.
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"Accept-Encoding": "gzip, deflate"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=2**16,
                max_field_size=2**16,
                trace_configs=[_telling_when_sent()],
            )
        return self._session


def _telling_when_sent() -> aiohttp.TraceConfig:
    import aiohttp

    async def tell(_session: Any, context: Any, _params: Any) -> None:
        context.trace_request_ctx()

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(tell)
    return config


def failures() -> tuple[type[Exception], ...]:
    """What is raised in place of a reply."""
    import aiohttp

    return aiohttp.ClientError, OSError, ValueError, Unreadable  # a time-out is an OSError


async def take(response: aiohttp.ClientResponse, exchange: Exchange, hear: Hear | None) -> None:
    take_head(response, exchange)
    packing = exchange.headers.get("content-encoding", "")
    success = 200 <= response.status < 300
    pieces: AsyncIterator[bytes] = response.content.iter_any()
    if hear is not None and success and packing in ("", "identity"):
        pieces = _heard(pieces, exchange, hear)
    exchange.body = await received(pieces, packing, success=success)


def take_head(response: aiohttp.ClientResponse, exchange: Exchange) -> None:
    exchange.status = response.status
    exchange.headers = {name.lower(): value[:HEADER_CHARS] for name, value in response.headers.items()}


async def _heard(pieces: AsyncIterator[bytes], exchange: Exchange, hear: Hear) -> AsyncIterator[bytes]:
    async for piece in until_over(pieces, lambda: hear.ended):
        taken = hear(piece)
        yield b"" if hear.reads else piece[:taken]
        if taken < len(piece):
            exchange.stopped = True
            return


async def until_over(pieces: AsyncIterator[bytes], over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The pieces of a stream: where it is `over`, not much longer, though the connection stays open."""
    more = aiter(pieces)
    while True:
        try:
            yield await asyncio.wait_for(anext(more), _AFTER_END if over() else None)
        except (StopAsyncIteration, TimeoutError):
            return


def _same_origin(response: aiohttp.ClientResponse) -> URL | None:
    """Where a redirect says that the same request is to go, if that is the same scheme, host and port."""
    from yarl import URL

    location = response.headers.get("location")
    if response.status not in _SAME_REQUEST or not location:
        return None
    try:
        target = response.url.join(URL(location))
    except ValueError:  # no address
        return None
    same = (target.scheme, target.host, target.port) == (
        response.url.scheme,
        response.url.host,
        response.url.port,
    )
    return target if same and target.user is None and target.password is None else None
