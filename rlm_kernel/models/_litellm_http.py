"""litellm's requests, which go out by our own HTTP client, and its replies, of which litellm is given what it
can read.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.models._bounds import REPLY_BYTES, Unreadable, load
from rlm_kernel.models._http import Exchange, Http, Sent, failures, take, take_head, until_over
from rlm_kernel.models._streams import STREAM_BYTES, Events, too_much
from rlm_kernel.models._usage import checked as counts

if TYPE_CHECKING:
    import aiohttp
    import httpx

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
_STREAMS = ("text/event-stream", "ndjson")
"""Streams of JSON, by what their media type has: events, and lines."""
_USAGE = ("usage", "usageMetadata")
_COUNTS = ("prompt_eval_count", "eval_count")
"""Ollama's, which stand beside the reply."""


@dataclass
class Call:
    """A call of litellm's in progress: what sends its requests, and the last of them."""

    http: Http
    sent: Sent
    last: Exchange | None = None
    streams: bool = False
    body: Any = None
    """The stream of a reply that is not read to its end."""


def in_progress() -> bool:
    """Whether litellm works for us, in this task."""
    return _call.get() is not None


_call: ContextVar[Call | None] = ContextVar("rlm_litellm_call", default=None)


async def by_litellm(
    http: Http,
    litellm: Any,
    request: Mapping[str, Any],
    chunk: Callable[[Any], bool] | None = None,
    sent: Sent = lambda: None,
) -> tuple[Any, Exchange | None]:
    """The response of litellm, or its exception, and the last request that it sent, None for none.

    `chunk`: the reply is streamed, and each chunk as litellm makes it is heard; False: enough. Then there is
    no response, but the exchange says that it was `stopped`.
    """
    call = Call(http, sent, streams=chunk is not None)
    token = _call.set(call)
    try:
        if chunk is None:
            response: Any = await litellm.acompletion(**request)
        else:
            response = None
            await _chunks(litellm, request, chunk, call)
    except Unreadable as error:
        response = error
        if call.last is not None:
            call.last.error = error
    except Exception as error:
        response = error
    except BaseException:
        if call.last is None:  # it may have sent a request by other means
            sent()
        raise
    finally:
        _call.reset(token)
    return response, call.last


async def _chunks(litellm: Any, request: Mapping[str, Any], chunk: Callable[[Any], bool], call: Call) -> None:
    stream = None
    try:
        stream = await litellm.acompletion(**request, stream=True)
        async for piece in aiter(stream):
            if not chunk(piece):
                if call.last is not None:
                    call.last.stopped = True
                break
    finally:
        if call.last is not None and call.body is not None:
            call.last.body = bytes(call.body.kept)
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
    if (clean := _clean(found)) is not None:
        return clean(found.body) + clean.rest()
    try:
        reply = load(found.body.decode())
    except ValueError:  # of a text that is not UTF-8, too
        return found.body[:_TEXT_FOR_LITELLM]
    return json.dumps(_tame(reply) if isinstance(reply, dict) else reply).encode()


def _tame(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply, or an event of one, with short names, and numbers for counts."""
    reply |= {name: reply[name][:_NAME_FOR_LITELLM] for name in _NAMES if isinstance(reply.get(name), str)}
    reply |= {name: counts(reply[name]) for name in _USAGE if reply.get(name) is not None}
    reply |= counts({name: reply.pop(name) for name in _COUNTS if name in reply})
    return reply


class _Clean:
    """An event stream as litellm is given it: an event a line, of what is JSON, and its end at the end."""

    def __init__(self, begin: bytes) -> None:
        self._events = Events()
        self._begin = begin
        """What stands before an object."""

    @property
    def ended(self) -> bool:
        return self._events.ended

    def __call__(self, data: bytes) -> bytes:
        return b"".join(self._framed(found) for found, _ in self._events.feed(data))

    def rest(self) -> bytes:
        rest = b"".join(map(self._framed, self._events.rest()))
        return rest + (b"data: [DONE]\n\n" if self.ended else b"")

    def _framed(self, found: dict[str, Any]) -> bytes:
        return self._begin + json.dumps(_tame(found)).encode() + (b"\n\n" if self._begin else b"\n")


def _clean(found: Exchange) -> _Clean | None:
    """For a stream of JSON."""
    media = found.headers.get("content-type", "")
    kind = next((kind for kind in _STREAMS if kind in media), None)
    return _Clean(b"data: " if kind == _STREAMS[0] else b"") if kind else None


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
            self.kept = bytearray()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            clean = _clean(self._found)
            pieces = self._response.content.iter_any()
            try:
                async for piece in until_over(pieces, lambda: clean is not None and clean.ended):
                    size += len(piece)
                    if size > STREAM_BYTES:
                        raise too_much()
                    if size > REPLY_BYTES:  # of a long reply litellm's own reading has to do
                        self.kept.clear()
                    else:
                        self.kept += piece
                    if given := piece if clean is None else clean(piece):
                        yield given
                if clean is not None:
                    yield clean.rest()
            except failures() as error:
                self._found.error = error
                raise httpx.ReadError(str(error)) from error

        async def aclose(self) -> None:
            await self._opened.aclose()

    async def streamed(call: Call, request: httpx.Request, headers: Mapping[str, str]) -> httpx.Response:
        found = call.last = Exchange(str(request.url))
        opened = AsyncExitStack()
        try:
            response = await opened.enter_async_context(
                call.http.response(found, request.method, headers, await request.aread(), call.sent)
            )
            take_head(response, found)
            kept = {name: found.headers[name] for name in _FOR_LITELLM if name in found.headers}
            if 200 <= found.status < 300 and found.headers.get("content-encoding", "") in ("", "identity"):
                found.streamed = True
                call.body = Body(response, found, opened)
                return httpx.Response(found.status, headers=kept, stream=call.body, request=request)
            await take(response, found, None)
            await opened.aclose()
        except failures() as error:
            await opened.aclose()
            found.error = error
            raise httpx.ReadError(str(error)) from error
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
                request.method, str(request.url), headers, await request.aread(), sent=call.sent
            )
            if found.error is not None:
                # A ConnectError litellm would ask again by itself.
                raise httpx.ReadError(str(found.error)) from found.error
            kept = {name: found.headers[name] for name in _FOR_LITELLM if name in found.headers}
            return httpx.Response(found.status, headers=kept, content=_for_litellm(found), request=request)

        async def aclose(self) -> None:
            if usual is not None:
                await usual.aclose()

    return Transport()
