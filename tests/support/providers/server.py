"""What the servers of all providers do in the same way: answering, streaming, faults on demand, bills.

    with AnthropicServer(says=["Hello."]) as server:
        server.base                  # http://127.0.0.1:PORT, for `api_base`
        server.fail("cut", at=3)     # the next stream ends after three events
        server.bills                 # what each answered call cost

A provider's own module says how a request is checked, how a reply and its events look, and how it words its
errors.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from tests.support.model_server import Connection, ModelServer
from tests.support.openai_wire import Fault, Request, encode, response
from tests.support.providers.words import Bill, Clock, Refused, Reply

ProblemKind = Literal[
    "rate_limit",
    "quota",
    "server_error",
    "overloaded",
    "request_timeout",
    "auth",
    "forbidden",
    "unknown_model",
    "bad_request",
    "too_long",
]
"""Errors that every provider has, in its own words and with its own status."""
ProviderFaultKind = Literal[
    "rate_limit", "quota", "server_error", "overloaded", "request_timeout", "auth", "forbidden", "unknown_model", "bad_request", "too_long",
    "html",  # `status` (502) with a page of HTML
    "redirect",  # 307 to `location`
    "error_200",  # 200, an error's body in place of a reply
    "stream_error",  # an error after `at` events of a stream
    "content_list",  # the text as a list of parts, where the provider sends text
    "empty_choices",  # no choice, no candidate, no content
    "no_usage",  # a reply without usage
    "malformed",  # 200, JSON that ends in the middle
    "empty_body",  # 200, no body
    "cut",  # the connection closes after `at` events, or in the middle of a whole reply; before any byte with `at` -1
    "duplicate",  # the event at `at` comes twice
    "idle",  # nothing comes for `seconds` of the clock before the event at `at`
    "drip",  # one byte in each second of the clock
    "huge",  # a reply of `size` bytes
    "hang",  # no reply until release()
    "raw",  # what `body`, `status` and `content_type` say
]  # fmt: skip

PAGE = (
    b"<!doctype html>\n<html><head><title>Bad gateway</title></head><body><h1>Bad "
    b"gateway</h1><p>cloudflare</p></body></html>"
)
_HUGE = "@@HUGE@@"
_PART = 1 << 18
"""Bytes of a huge body that are written at a time."""


@dataclass(frozen=True)
class ProviderFault(Fault):
    """What the next call meets instead of, or within, a reply."""

    kind: ProviderFaultKind  # type: ignore[assignment]
    at: int = 0
    seconds: float = 60.0
    size: int = 500_000_000
    location: str = ""


@dataclass(frozen=True)
class Asked:
    """A request that was accepted.

    `text` is the last that the user said, `prompt` all of it as the model reads it.
    """

    model: str
    body: Mapping[str, Any]
    text: str
    prompt: str = ""
    stream: bool = False
    images: int = 0
    schema: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """What the provider's module found as it checked the request."""


@dataclass(frozen=True)
class Answer:
    """A reply as it is sent: whole, and as the events of a stream. An event in bytes is sent as it is."""

    body: dict[str, Any]
    events: Sequence[dict[str, Any] | bytes]
    bill: Bill


@dataclass(frozen=True)
class Stream:
    """A response that is written piece by piece. It is cut off at the end unless it is `whole`."""

    pieces: AsyncIterator[bytes]
    whole: bool = True


Says = Sequence[str | Reply] | Callable[[Asked], str | Reply | Awaitable[str | Reply]]


class _Connection(Connection):
    """Writes as fast as the client reads."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _answer(self, request: Request) -> None:
        answer = await self._server._answer(request)
        if not isinstance(answer, Stream):
            answer = Stream(_one(answer), whole=answer is not None)
        async for piece in answer.pieces:
            self._transport.write(piece)
            self._server.sent += len(piece)
            await self._writable.wait()
        self._task = None
        if answer.whole:
            self._next()
        else:
            self._transport.close()


async def _one(piece: bytes | None) -> AsyncIterator[bytes]:
    if piece is not None:
        yield piece


class ProviderServer(ModelServer):
    """A provider's API on loopback.

    `says` plays every model: replies in order (then an error 500), or a function.

    Requests are checked first, and what the provider refuses takes no fault away. `clock` is the time of
    caches and of slow replies.
    """

    media: ClassVar[str] = "text/event-stream; charset=utf-8"

    def __init__(self, says: Says | None = None, api_key: str | None = None, port: int = 0) -> None:
        super().__init__(api_key=api_key, port=port)
        self.connection = _Connection
        self.says: Says = says if says is not None else lambda asked: f"echo: {asked.text}"
        self.clock = Clock()
        self.bills: list[Bill] = []
        self.sent = 0
        """Bytes that were handed to the network."""

    # A provider's own

    def accept(self, request: Request) -> Asked | bytes:
        """Check a request; bytes are the whole response, of a listing for example. Raises Refused."""
        raise NotImplementedError

    def answer(self, asked: Asked, reply: Reply) -> Answer:
        raise NotImplementedError

    def problem(self, kind: ProblemKind, message: str | None = None) -> Refused:
        """One of the errors that all providers have, in this one's form."""
        raise NotImplementedError

    def frame(self, event: Mapping[str, Any]) -> bytes:
        """An event of a stream as bytes."""
        return b"data: " + encode(event) + b"\n\n"

    def stream_problem(self, refused: Refused) -> list[dict[str, Any] | bytes]:
        """An error in a stream that has begun."""
        return [dict(refused.body)]

    def spoil(self, kind: ProviderFaultKind, body: dict[str, Any]) -> dict[str, Any]:
        """A reply's body, or an event, with a fault of its form. An event that becomes empty is left out."""
        raise NotImplementedError

    # What tests turn and read

    @property
    def base(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cost(self) -> float:
        """US dollars of all the calls that were answered."""
        return sum(bill.cost for bill in self.bills)

    def fail(self, kind: ProviderFaultKind, *, times: int = 1, **details: Any) -> None:  # type: ignore[override]
        """The next `times` calls (of `model=`, if given) meet this fault."""
        assert kind in get_args(ProviderFaultKind)
        self._faults.extend(ProviderFault(kind, **details) for _ in range(times))

    # Answering

    async def _answer(self, request: Request) -> bytes | Stream | None:  # type: ignore[override]
        self.requests.append(request)
        with self._meters[""], self._meters[request.model]:
            try:
                return await self._served(request)
            except Refused as refused:
                return response(refused.status, encode(refused.body), refused.headers)

    async def _served(self, request: Request) -> bytes | Stream | None:
        asked = self.accept(request)
        if isinstance(asked, bytes):
            return asked
        fault = self._take_fault(request)
        assert fault is None or isinstance(fault, ProviderFault)
        if fault is not None:
            if fault.kind == "hang":
                await self._released.wait()
                fault = None
            elif (instead := self._instead(fault)) is not None:
                return instead
        if self.delay:
            await asyncio.sleep(self.delay)
        reply = await self._said(asked)
        if fault is not None and fault.kind == "huge":
            reply = Reply(_HUGE)
        answer = self.answer(asked, reply)
        self.bills.append(answer.bill)
        if fault is not None and fault.kind == "cut" and fault.at < 0:
            return None
        return self._streamed(answer, fault) if asked.stream else self._whole(answer, fault)

    async def _said(self, asked: Asked) -> Reply:
        turn, self._turns[""] = self._turns[""], self._turns[""] + 1
        try:
            said: Any = self.says(asked) if callable(self.says) else self.says[turn]
            said = await said if inspect.isawaitable(said) else said
        except Exception as error:
            raise self.problem("server_error", f"{type(error).__name__}: {error}") from error
        return said if isinstance(said, Reply) else Reply(said)

    def _instead(self, fault: ProviderFault) -> bytes | None:
        """The response of a fault that leaves nothing of a reply."""
        if fault.kind in get_args(ProblemKind):
            refused = self.problem(fault.kind, fault.message)  # type: ignore[arg-type]
            after = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            raise Refused(refused.status, refused.body, {**refused.headers, **after})
        if fault.kind == "html":
            return response(
                fault.status if fault.status != 200 else 502, PAGE, content_type="text/html; charset=UTF-8"
            )
        if fault.kind == "redirect":
            return response(307, b"", {"Location": fault.location})
        if fault.kind == "error_200":
            return response(200, encode(self.problem("server_error", fault.message).body))
        if fault.kind == "empty_body":
            return response(200, b"")
        if fault.kind == "raw":
            body = fault.body if isinstance(fault.body, bytes) else encode(fault.body)
            return response(fault.status, body, content_type=fault.content_type)
        return None

    def _whole(self, answer: Answer, fault: ProviderFault | None) -> bytes | Stream:
        kind = fault.kind if fault is not None else None
        body = (
            self.spoil(kind, answer.body)
            if kind in ("content_list", "empty_choices", "no_usage")
            else answer.body
        )
        whole = response(200, encode(body))
        if fault is None:
            return whole
        if kind == "malformed":
            raw = encode(body)
            return response(200, raw[: len(raw) // 2])
        if kind == "cut":
            return Stream(_one(whole[: -len(encode(body)) // 2]), whole=False)
        if kind == "idle":
            return Stream(self._late(whole, fault.seconds))
        if kind == "drip":
            return Stream(self._dripping(whole))
        if kind == "huge":
            before, after = encode(body).split(_HUGE.encode())
            return Stream(_huge(before, after, fault.size))
        return whole

    def _streamed(self, answer: Answer, fault: ProviderFault | None) -> Stream:
        kind = fault.kind if fault is not None else None
        events = list(answer.events)
        if fault is not None:
            if kind in ("content_list", "empty_choices", "no_usage"):
                spoilt = (
                    event if isinstance(event, bytes) else self.spoil(fault.kind, event) for event in events
                )
                events = [event for event in spoilt if event]
            if kind == "duplicate":
                events.insert(fault.at, events[fault.at])
            if kind == "stream_error":
                events[fault.at :] = self.stream_problem(self.problem("overloaded", fault.message))
            if kind == "cut":
                del events[fault.at :]
        framed = [event if isinstance(event, bytes) else self.frame(event) for event in events]
        return Stream(self._written(framed, fault), whole=kind != "cut")

    async def _written(self, framed: Sequence[bytes], fault: ProviderFault | None) -> AsyncIterator[bytes]:
        kind = fault.kind if fault is not None else None
        yield f"HTTP/1.1 200 OK\r\nContent-Type: {self.media}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for number, event in enumerate(framed):
            if fault is not None and kind == "idle" and number == fault.at:
                await self.clock.sleep(fault.seconds)
            if kind == "malformed" and number == len(framed) // 2:
                event = event[: len(event) // 2] + b"\n\n"
            if fault is not None and kind == "huge" and _HUGE.encode() in event:
                event = event.replace(_HUGE.encode(), b"a" * min(fault.size, 1 << 24))
            if kind == "drip":
                for at in range(len(event)):
                    await self.clock.sleep(1.0)
                    yield _chunk(event[at : at + 1])
            else:
                yield _chunk(event)
        if kind != "cut":
            yield b"0\r\n\r\n"

    async def _late(self, whole: bytes, seconds: float) -> AsyncIterator[bytes]:
        await self.clock.sleep(seconds)
        yield whole

    async def _dripping(self, whole: bytes) -> AsyncIterator[bytes]:
        head = whole.index(b"\r\n\r\n") + 4
        yield whole[:head]
        for at in range(head, len(whole)):
            await self.clock.sleep(1.0)
            yield whole[at : at + 1]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _huge(before: bytes, after: bytes, size: int) -> AsyncIterator[bytes]:
    """A response of `size` bytes that is never whole in memory."""
    yield (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode()
        + before
    )
    left = size - len(before) - len(after)
    while left > 0:
        yield b"a" * min(left, _PART)
        left -= _PART
    yield after


def listing(names: Sequence[str]) -> bytes:
    """OpenAI's list of models, which others have as well."""
    return response(
        200, encode({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
    )


def said_as_json(value: object) -> str:
    """A value as it counts for tokens: the same text for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
