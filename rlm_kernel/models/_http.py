"""The one HTTP client of both roads: where a request went, by which proxy, and what came back, byte for byte.

litellm sends its requests by it as well, through a transport of httpx. So a reply that litellm cannot read
can still be read here, and proxies, certificates, lost connections, redirects and limits are the same on both
roads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlm_kernel.models._bounds import HEADER_CHARS, REPLY_BYTES, Unreadable, load, received
from rlm_kernel.models._proxies import Proxy, proxy_for
from rlm_kernel.models._usage import checked as counts

if TYPE_CHECKING:
    import aiohttp
    import httpx
    from yarl import URL

_HOPS = 5
"""Redirects within one origin that a request follows."""
_SAME_REQUEST = (307, 308)
"""Redirects after which the same request is made; after the others it would be a GET without a prompt."""
_OURS = frozenset({"accept-encoding", "connection", "content-length", "transfer-encoding", "host"})
"""Headers that the client sets by itself."""
_FOR_LITELLM = ("content-type",)
"""Headers of a reply that litellm is given.

By others it would follow redirects and keep cookies, whose dates it takes seconds to read.
"""
_ERROR_FOR_LITELLM = 1000
"""Bytes of an error's body that litellm is given: it looks for dozens of patterns in it, and the error is
read here.
"""
_TEXT_FOR_LITELLM = 64 << 10
"""Bytes of a body that is no JSON: of it litellm makes an error, too."""
_NAME_FOR_LITELLM = 200
"""Characters of a model's name in a reply: litellm looks for it in its table in many ways."""
_NAMES = ("model", "modelVersion")
_USAGE = ("usage", "usageMetadata")
_COUNTS = ("prompt_eval_count", "eval_count")
"""Ollama's, which stand beside the reply."""


_QUERY_AMID = re.compile(r"(\?[^/]*)(/chat/completions)$")
"""The query of an address to which a path was added."""


@dataclass
class Exchange:
    """One request and its reply, or the `error` in place of one. Names of headers are in lower case.

    `streamed`: litellm read the reply as it came. `stopped`: who listened had heard enough, and the rest was
    left unread.
    """

    url: str
    proxy: Proxy | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: Exception | None = None
    streamed: bool = False
    stopped: bool = False


Hear = Callable[[bytes], int]
"""Hears the bytes of a reply as they come, and says how many of them it took: fewer than all are enough."""


class Http:
    """The connections of one event loop, on which it is closed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, hear: Hear | None = None
    ) -> Exchange:
        """A request's reply, or why there is none: it raises nothing but what cancels it.

        `hear`: the reply is asked for unpacked, and heard as it comes, if it is a success. A redirect to
        another origin is not followed, so that key and prompt go nowhere else. It comes back as the reply.
        """
        exchange = Exchange(_QUERY_AMID.sub(r"\2\1", url))
        if hear is not None:
            headers = {**headers, "Accept-Encoding": "identity"}
        try:
            async with self._response(exchange, method, headers, content) as response:
                await _take(response, exchange, hear)
        except _failures() as error:
            exchange.error = error
        return exchange

    @contextlib.asynccontextmanager
    async def _response(
        self, exchange: Exchange, method: str, headers: Mapping[str, str], content: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply whose body is still to be read; raises one of `_failures`."""
        exchange.proxy = proxy = proxy_for(exchange.url)
        if proxy is not None:
            proxy.check()
        through = proxy.url if proxy is not None else None
        session = self._open()
        target: str | URL = exchange.url
        for _ in range(_HOPS + 1):
            async with session.request(
                method, target, headers=headers, data=content, proxy=through, allow_redirects=False
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
            )
        return self._session


def _failures() -> tuple[type[Exception], ...]:
    """What is raised in place of a reply."""
    import aiohttp

    return aiohttp.ClientError, OSError, ValueError, Unreadable  # a time-out is an OSError


async def _take(response: aiohttp.ClientResponse, exchange: Exchange, hear: Hear | None) -> None:
    _take_head(response, exchange)
    packing = exchange.headers.get("content-encoding", "")
    success = 200 <= response.status < 300
    pieces: AsyncIterator[bytes] = response.content.iter_any()
    if hear is not None and success and packing in ("", "identity"):
        pieces = _heard(pieces, exchange, hear)
    exchange.body = await received(pieces, packing, success=success)


def _take_head(response: aiohttp.ClientResponse, exchange: Exchange) -> None:
    exchange.status = response.status
    exchange.headers = {name.lower(): value[:HEADER_CHARS] for name, value in response.headers.items()}


async def _heard(pieces: AsyncIterator[bytes], exchange: Exchange, hear: Hear) -> AsyncIterator[bytes]:
    async for piece in pieces:
        taken = hear(piece)
        yield piece[:taken]
        if taken < len(piece):
            exchange.stopped = True
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


# litellm's requests


@dataclass
class Call:
    """A call of litellm's in progress: what sends its requests, and the last of them."""

    http: Http
    last: Exchange | None = None
    streams: bool = False
    body: Any = None
    """The stream of a reply that is not read to its end."""


def in_progress() -> bool:
    """Whether litellm works for us, in this task."""
    return _call.get() is not None


_call: ContextVar[Call | None] = ContextVar("rlm_litellm_call", default=None)


async def by_litellm(
    http: Http, litellm: Any, request: Mapping[str, Any], chunk: Callable[[Any], bool] | None = None
) -> tuple[Any, Exchange | None]:
    """The response of litellm, or its exception, and the last request that it sent, None for none.

    `chunk`: the reply is streamed, and each chunk as litellm makes it is heard; False: enough. Then there is
    no response, but the exchange says that it was `stopped`.
    """
    call = Call(http, streams=chunk is not None)
    token = _call.set(call)
    try:
        if chunk is None:
            response: Any = await litellm.acompletion(**request)
        else:
            response = None
            await _chunks(litellm, request, chunk, call)
    except Exception as error:
        response = error
    finally:
        _call.reset(token)
    return response, call.last


async def _chunks(litellm: Any, request: Mapping[str, Any], chunk: Callable[[Any], bool], call: Call) -> None:
    stream = await litellm.acompletion(**request, stream=True, stream_options={"include_usage": True})
    pieces = aiter(stream)
    async for piece in pieces:
        if not chunk(piece):
            if call.last is not None:
                call.last.stopped = True
            break
    for opened in (stream, call.body):
        if (close := getattr(opened, "aclose", None)) is not None:
            with contextlib.suppress(Exception):  # of litellm's own
                await close()


def install() -> None:
    """Have litellm's clients send by our own while a call of ours is in progress, and by litellm's otherwise.

    Idempotent.

    Those that block, by which some providers fetch tokens, stay as they are, but follow no redirect in a call
    of ours.
    """
    handler: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    make = handler.create_async_transport
    if not getattr(make, "of_rlm", False):

        def create(*args: Any, **kwargs: Any) -> Any:
            return _transport(make(*args, **kwargs))

        create.of_rlm = True  # type: ignore[attr-defined]
        handler.create_async_transport = staticmethod(create)
        _follow_none()


def _for_litellm(found: Exchange) -> bytes:
    """A reply's body as litellm is given it: an error's begin; of a completion all, but names are short, and
    counts are numbers.
    """
    if found.status >= 300:
        return found.body[:_ERROR_FOR_LITELLM]
    try:
        reply = load(found.body.decode())
    except ValueError:  # of a text that is not UTF-8, too
        return found.body[:_TEXT_FOR_LITELLM]
    if isinstance(reply, dict):
        reply |= {
            name: reply[name][:_NAME_FOR_LITELLM] for name in _NAMES if isinstance(reply.get(name), str)
        }
        reply |= {name: counts(reply[name]) for name in _USAGE if name in reply}
        reply |= counts({name: reply.pop(name) for name in _COUNTS if name in reply})
    return json.dumps(reply).encode()


def _follow_none() -> None:
    response: Any = importlib.import_module("httpx").Response
    session: Any = importlib.import_module("requests").Session
    leads_on, target_of = vars(response)["has_redirect_location"].fget, session.get_redirect_target

    def has_redirect_location(response: Any) -> bool:
        return not in_progress() and leads_on(response)

    def get_redirect_target(session: Any, resp: Any) -> str | None:
        return None if in_progress() else target_of(session, resp)

    response.has_redirect_location = property(has_redirect_location)
    session.get_redirect_target = get_redirect_target


def _transport(usual: httpx.AsyncBaseTransport | None) -> httpx.AsyncBaseTransport:
    import httpx

    class Body(httpx.AsyncByteStream):
        """The body of a reply as it comes, of which what came is kept."""

        def __init__(self, response: aiohttp.ClientResponse, found: Exchange, opened: AsyncExitStack) -> None:
            self._response, self._found, self._opened = response, found, opened

        async def __aiter__(self) -> AsyncIterator[bytes]:
            kept = bytearray()
            try:
                async for piece in self._response.content.iter_any():
                    kept += piece
                    if len(kept) > REPLY_BYTES:
                        raise Unreadable(
                            f"the reply has more than {REPLY_BYTES >> 20} MiB, and no more is read"
                        )
                    yield piece
            except _failures() as error:
                self._found.error = error
                raise httpx.ReadError(str(error)) from error
            finally:
                self._found.body = bytes(kept)

        async def aclose(self) -> None:
            await self._opened.aclose()

    async def streamed(call: Call, request: httpx.Request, headers: Mapping[str, str]) -> httpx.Response:
        found = call.last = Exchange(str(request.url))
        opened = AsyncExitStack()
        try:
            response = await opened.enter_async_context(
                call.http._response(found, request.method, headers, await request.aread())
            )
            _take_head(response, found)
            kept = {name: found.headers[name] for name in _FOR_LITELLM if name in found.headers}
            if 200 <= found.status < 300:
                found.streamed = True
                call.body = Body(response, found, opened)
                return httpx.Response(found.status, headers=kept, stream=call.body, request=request)
            await _take(response, found, None)
            await opened.aclose()
        except _failures() as error:
            await opened.aclose()
            found.error = error
            raise httpx.ConnectError(str(error)) from error
        except BaseException:
            await opened.aclose()
            raise
        return httpx.Response(found.status, headers=kept, content=_for_litellm(found), request=request)

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            call = _call.get()
            if call is None:
                nonlocal usual
                usual = usual or httpx.AsyncHTTPTransport()
                return await usual.handle_async_request(request)
            headers = {name: value for name, value in request.headers.items() if name not in _OURS}
            if call.streams:
                return await streamed(call, request, {**headers, "Accept-Encoding": "identity"})
            call.last = Exchange(str(request.url))
            call.last = found = await call.http.send(
                request.method, str(request.url), headers, await request.aread()
            )
            if found.error is not None:
                raise httpx.ConnectError(str(found.error)) from found.error
            kept = {name: found.headers[name] for name in _FOR_LITELLM if name in found.headers}
            return httpx.Response(found.status, headers=kept, content=_for_litellm(found), request=request)

        async def aclose(self) -> None:
            if usual is not None:
                await usual.aclose()

    return Transport()
