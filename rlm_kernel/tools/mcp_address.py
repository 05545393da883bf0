"""An MCP server at an address: streamable HTTP, with bounds on what is read.

Redirects are followed within the server's origin alone, by the library: headers go to no other host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from rlm_kernel.bounded import TooMuch, parse
from rlm_kernel.tools.mcp_gate import MAX_MESSAGE, MAX_NOISE, TOO_MUCH, Gate, Heard

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

_CONNECT = 15.0
"""Seconds."""


@asynccontextmanager
async def reached(
    url: str, headers: Mapping[str, str], gate: Gate, seconds: float
) -> AsyncIterator[TransportStreams]:
    """The messages of the server at that address, and where to send some. `seconds`: without any byte."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def bound(response: httpx2.Response) -> None:
        _bound(response, gate)

    limits = httpx2.Timeout(_CONNECT, read=seconds)
    # Compressed, a small answer may be a large one.
    sent = {"accept-encoding": "identity", **headers}
    async with (
        httpx2.AsyncClient(headers=sent, timeout=limits, event_hooks={"response": [bound]}) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE) as (read, write),
    ):
        yield Heard(read, gate), _Counted(write, gate)


class _Counted:
    """A `WriteStream` whose requests a gate counts."""

    def __init__(self, stream: Any, gate: Gate) -> None:
        self._stream = stream
        self._gate = gate

    async def send(self, message: Any) -> None:
        self._gate.sent(message)
        await self._stream.send(message)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> _Counted:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()


def _bound(response: Any, gate: Gate) -> None:
    """Have reading the response fail where it is too large. Raises httpx2.StreamError."""
    import httpx2

    if response.status_code in (401, 403):
        gate.end(f"it refused the request (HTTP {response.status_code}): are its headers right?")
    elif response.status_code == 429 or response.status_code >= 500:
        gate.why = f"it answered with HTTP {response.status_code}"
    if response.headers.get("content-encoding", "identity") not in ("", "identity"):
        gate.end("its answer was compressed, though it was asked not to do that")
    events = response.headers.get("content-type", "").startswith("text/event-stream")
    inner = response.stream

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            most, size, kept = MAX_NOISE if events else MAX_MESSAGE, 0, bytearray()
            async for chunk in inner:
                size += len(chunk)
                if size > most:
                    gate.end(f"it sent more than {most >> 20} MiB at once")
                if gate.over.is_set():
                    return
                if events:
                    yield chunk
                else:
                    kept += chunk
            yield _parsed(bytes(kept), gate)

        async def aclose(self) -> None:
            await inner.aclose()

    response.stream = Bounded()


def _parsed(body: bytes, gate: Gate) -> bytes:
    """The same, if parsing it takes no more memory than it may."""
    try:
        parse(body)
    except TooMuch:
        gate.end(TOO_MUCH)
        return b""
    except ValueError:
        pass  # the library tells it
    return body
